"""From the last slice to the start of the work on a whole node, where the sender says how many there are.

    python -m tests.bench.started [--studies 7] [--limit-s 330]

Seconds from the reception of a study's last instance until its association was closed, it was complete, its job was
made and its job was claimed; one study at a time, so that no other run is in the way. A line a study is printed as it
goes. The first one is sent as soon as the door of the new node answers, while its other roles still start, and is not
among the rest, of which the median is taken; the promise is at most 1 s on 2 cores. No study is begun after the limit.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
from sqlalchemy import Engine, create_engine, text

from pipelines import phantom
from tests.conftest import until
from tests.servers import RunningNode, node

MOST_S = 1.0
STARTED = text(
    "SELECT s.last_instance_at, s.completed_at, j.created_at, j.started_at, j.state,"
    " (SELECT max(closed_at) FROM association) AS closed_at FROM job j JOIN study s USING (study_instance_uid)"
    " WHERE j.lane = 'infer' AND s.study_instance_uid = :uid AND j.started_at IS NOT NULL"
)
STEPS = ("closed_at", "completed_at", "created_at", "started_at")


def announced(scan: Path, folder: Path, uid: str) -> Path:
    """The scan as a study of its own that says how many instances it has."""
    folder.mkdir()
    files = sorted(scan.rglob("*.dcm"))
    for number, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid, f"{uid}.1"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{uid}.1.{number}"
        dataset.NumberOfStudyRelatedInstances = len(files)
        dataset.save_as(folder / f"{number}.dcm")
    return folder


def once(ours: RunningNode, engine: Engine, study: Path, uid: str, deadline_s: float) -> dict[str, float]:
    """Seconds after the last instance of each step; the run is over then."""

    def row(*states: str) -> Any:
        with engine.connect() as connection:
            found = connection.execute(STARTED, {"uid": uid}).mappings().first()
        return found if found is not None and (not states or found["state"] in states) else None

    ours.send(study)
    started = until(row, deadline_s=deadline_s, what="the start of the work")
    until(lambda: row("done", "failed"), deadline_s=deadline_s, what="its end")
    return {step: round((started[step] - started["last_instance_at"]) / 1e6, 2) for step in STEPS}


def rounds(folder: Path, studies: int, limit_s: float) -> Iterator[dict[str, float]]:
    """The steps of one study after the other, until there are so many or the limit is reached."""
    begun = time.monotonic()
    phantom.write(phantom.chest(spacing=(5.0, 2.0, 2.0)), folder / "scan")
    uids = [f"1.2.826.0.1.3680043.10.99999.7.{number}" for number in range(studies + 1)]
    scans = [announced(folder / "scan", folder / uid, uid) for uid in uids]
    with node(folder / "node", "NONE@127.0.0.1:9", quiet_period_s=600.0) as ours:
        engine = create_engine(f"sqlite:///{ours.folder / 'isocenter.db'}")
        try:
            for uid, scan in zip(uids, scans, strict=True):
                left = limit_s - (time.monotonic() - begun)
                if left <= 0:
                    break
                yield once(ours, engine, scan, uid, left)
        finally:
            engine.dispose()


def main() -> int:
    """Print a line a study and the JSON; 1 where the median is over the promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=7)
    parser.add_argument("--limit-s", type=float, default=330.0)
    options = parser.parse_args()
    each: list[dict[str, float]] = []
    print("study   " + "".join(f"{step.removesuffix('_at'):>12}" for step in STEPS), flush=True)
    with tempfile.TemporaryDirectory() as name:
        for one in rounds(Path(name), options.studies, options.limit_s):
            each.append(one)
            called = "first" if len(each) == 1 else str(len(each) - 1)
            print(f"{called:8}" + "".join(f"{one[step]:12.2f}" for step in STEPS), flush=True)
    rest = each[1:]
    if not rest:
        raise SystemExit("the limit was reached before a second study had been worked on")
    median = {step: round(statistics.median(one[step] for one in rest), 2) for step in STEPS}
    print("median  " + "".join(f"{median[step]:12.2f}" for step in STEPS) + f"   promised: {MOST_S:g}")
    started = [one["started_at"] for one in rest]
    found = {"median_s": median, "started_s": started, "first_s": each[0], "most_s": MOST_S, "load": os.getloadavg()}
    print(json.dumps(found))
    return int(median["started_at"] > MOST_S)


if __name__ == "__main__":
    raise SystemExit(main())
