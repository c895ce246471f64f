"""From the last slice to the start of the work on a whole node, where the sender says how many there are.

    python -m tests.bench.started [--studies 7]

Seconds from the reception of a study's last instance until its association was closed, it was complete, its job was
made and its job was claimed; one study at a time, so that no other run is in the way. The first study of a node also
waits for its digester to start, and is left out. The promise is a median of at most 1 s on 2 cores.
"""

import argparse
import json
import os
import statistics
import tempfile
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


def once(ours: RunningNode, engine: Engine, study: Path, uid: str) -> dict[str, float]:
    """Seconds after the last instance of each step; the run is over then."""

    def row(*states: str) -> Any:
        with engine.connect() as connection:
            found = connection.execute(STARTED, {"uid": uid}).mappings().first()
        return found if found is not None and (not states or found["state"] in states) else None

    ours.send(study)
    started = until(row, deadline_s=300, what="the start of the work")
    until(lambda: row("done", "failed"), deadline_s=300, what="its end")
    return {step: (started[step] - started["last_instance_at"]) / 1e6 for step in STEPS}


def main() -> int:
    """Print the JSON; 1 where the median is over the promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        phantom.write(phantom.chest(spacing=(5.0, 2.0, 2.0)), folder / "scan")
        with node(folder / "node", "NONE@127.0.0.1:9", quiet_period_s=600.0) as ours:
            engine = create_engine(f"sqlite:///{ours.folder / 'isocenter.db'}")
            uids = [f"1.2.826.0.1.3680043.10.99999.7.{number}" for number in range(options.studies + 1)]
            seconds = [once(ours, engine, announced(folder / "scan", folder / uid, uid), uid) for uid in uids][1:]
            engine.dispose()
    median = {step: round(statistics.median(one[step] for one in seconds), 2) for step in STEPS}
    each = [round(one["started_at"], 2) for one in seconds]
    print(json.dumps({"median_s": median, "started_s": each, "most_s": MOST_S, "load": os.getloadavg()}))
    return int(median["started_at"] > MOST_S)


if __name__ == "__main__":
    raise SystemExit(main())
