"""How quickly a full node answers: `python -m tests.bench.query [--studies 100000]` prints JSON.

For each query: milliseconds from the C-FIND request to the first match and matches a second after it, medians of the
rounds, measured on a socket by a client that decodes nothing. Required: first match of a study-level C-FIND by date or
patient within 50 ms, then at least 5000 matches a second.
"""

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert

from router.db.engine import connect, writing
from router.db.tables import instance, series, study
from tests.query import raw
from tests.query.holding import EMPTY_INSTANCE, EMPTY_SERIES, EMPTY_STUDY
from tests.query.node import answering

FIRST_MS, PER_SECOND = 50.0, 5000.0
MANY = 1000
SERIES, INSTANCES = 2, 3
FAMILIES = ("Müller", "Smith", "García", "Nguyen", "Kowalski", "Rossi", "Dubois", "Jensen", "Yamada", "Иванов")
RETURN = (
    "PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber",
    "StudyDescription", "ReferringPhysicianName", "ModalitiesInStudy", "NumberOfStudyRelatedInstances",
)  # fmt: skip
QUERIES = {
    "a year": {"StudyDate": "20200101-20201231"},
    "a day": {"StudyDate": "20200315"},
    "a PatientID": {"PatientID": "P0012345"},
    "a name": {"PatientName": "muller^*"},
    "a rare name": {"PatientName": "dubois^123*"},
    "an accession number": {"AccessionNumber": "A0054321"},
    "everything": {},
}


def fill(connection: Connection, studies: int) -> None:
    """Ten years of studies, two series each, three instances each."""
    chance = random.Random(1)
    root = "1.2.826.0.1.3680043.8.498.20231120123456789"
    for start in range(0, studies, 5000):
        rows: dict[Any, list[dict[str, Any]]] = {study: [], series: [], instance: []}
        for number in range(start, min(start + 5000, studies)):
            uid = f"{root}.{number * 7919 % 1000003}.{number}"
            patient = number // 2
            rows[study].append(
                EMPTY_STUDY
                | {
                    "study_instance_uid": uid,
                    "patient_id": f"P{patient:07}",
                    "issuer_of_patient_id": "HOSPITAL",
                    "patient_name": f"{FAMILIES[patient % len(FAMILIES)]}^{patient}",
                    "patient_birth_date": f"{1930 + patient % 80}0101",
                    "accession_number": f"A{number:07}",
                    "study_date": f"{2015 + number % 10}{chance.randint(1, 12):02}{chance.randint(1, 28):02}",
                    "study_time": f"{chance.randint(0, 23):02}{chance.randint(0, 59):02}00",
                    "study_description": "CT Thorax nativ",
                    "referring_physician_name": "House^Gregory",
                }
            )
            for part in range(SERIES):
                keys = {"study_instance_uid": uid, "series_instance_uid": f"{uid}.{part}"}
                rows[series].append(EMPTY_SERIES | keys | {"modality": ("CT", "SR")[part % 2]})
                for slice_number in range(INSTANCES):
                    own = {
                        "sop_instance_uid": f"{uid}.{part}.{slice_number}",
                        "path": f"{number}/{part}/{slice_number}",
                    }
                    rows[instance].append(EMPTY_INSTANCE | keys | own)
        for table, values in rows.items():
            connection.execute(insert(table), values)


def pdus(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """What arrives: type and content of each PDU."""
    file = connection.makefile("rb", buffering=1 << 20)
    while head := file.read(6):
        kind, _, length = struct.unpack(">BBI", head)
        yield kind, file.read(length)


def ask(port: int, keys: dict[str, str]) -> tuple[float, int, float]:
    """Milliseconds to the first match, number of matches, and matches a second."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(raw.association())
        arriving = pdus(connection)
        assert next(arriving)[0] == 2, "not accepted"
        began = time.perf_counter()
        connection.sendall(raw.c_find({name: keys.get(name, "") for name in RETURN}))
        first, matches = 0.0, 0
        for _, content in arriving:
            if not any(status in content for status in raw.PENDING):
                break
            matches += 1
            first = first or time.perf_counter()
        ended = time.perf_counter()
        connection.sendall(raw.RELEASE)
        for _ in arriving:
            pass
    rate = (matches - 1) / (ended - first) if matches > 1 else 0.0
    return ((first or ended) - began) * 1000, matches, rate


def serve(folder: Path) -> None:
    """Answer queries on what lies there until standard input ends."""
    with answering(folder) as made:
        print(made.port, flush=True)
        sys.stdin.read()


def main() -> int:
    """Fill, serve in a process of its own, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="Keep or find the filled node here")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    folder = options.folder or Path(tempfile.mkdtemp(prefix="isocenter-bench-"))
    if not (folder / "filled").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with answering(folder):
            pass
        engine = connect(f"sqlite:///{folder}/isocenter.db", durable=False)
        with writing(engine) as connection:
            fill(connection, options.studies)
        engine.dispose()
        (folder / "filled").touch()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tests.bench.query", "--serve", str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        figures = {name: figure(port, keys, options.rounds) for name, keys in QUERIES.items()}
    finally:
        process.communicate()
        if options.folder is None:
            shutil.rmtree(folder)
    gated = [figures[name] for name in QUERIES if name != "everything"]
    passed = all(
        one["first_ms"] <= FIRST_MS and (one["matches_per_s"] is None or one["matches_per_s"] >= PER_SECOND)
        for one in gated
    )
    print(json.dumps({"studies": options.studies, "queries": figures, "passed": passed}, indent=2))
    return 0 if passed else 1


def figure(port: int, keys: dict[str, str], rounds: int) -> dict[str, float | None]:
    """Medians of a query's rounds; no rate where there are too few matches for one."""
    asked = [ask(port, keys) for _ in range(rounds)]
    return {
        "first_ms": round(statistics.median(first for first, _, _ in asked), 2),
        "matches": asked[0][1],
        "matches_per_s": round(statistics.median(rate for _, _, rate in asked)) if asked[0][1] >= MANY else None,
    }


if __name__ == "__main__":
    raise SystemExit(main())
