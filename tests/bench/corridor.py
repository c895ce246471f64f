"""How long the whole corridor takes: Orthanc sends the real chest CT, and its Segmentation and report come back.

    python -m tests.bench.corridor [--rounds 3] [--json FILE]

Seconds from the last slice's Success until the report lies in Orthanc, less the configured quiet period; each round
with an Orthanc and a node of their own, so that the first run of a worker is in it. At most 10 s on 2 cores.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests.conftest import DATA, until
from tests.corridor.test_real_chest_ct_through_orthanc import forward
from tests.servers import node, orthanc

QUIET_S = 2.0
MOST_S = 10.0


def once(folder: Path) -> float:
    """Seconds beyond the quiet period; the Segmentation and the report are in the one study that Orthanc has."""
    with (
        orthanc(folder / "orthanc", {}) as pacs,
        node(folder / "node", f"ORTHANC@127.0.0.1:{pacs.dicom_port}", quiet_period_s=QUIET_S) as ours,
    ):
        pacs.http.put("/modalities/isocenter", json=["ISOCENTER", "127.0.0.1", ours.port]).raise_for_status()
        for file in sorted((DATA / "chest_ct_philips_brilliance16_5mm" / "dicom").rglob("*.dcm")):
            pacs.http.post("/instances", content=file.read_bytes()).raise_for_status()
        (study,) = pacs.http.get("/studies").json()
        forward(pacs, study)
        sent = time.monotonic()
        until(lambda: pacs.of_modality("SR"), deadline_s=120, what="the report in Orthanc")
        took = time.monotonic() - sent
        assert len(pacs.of_modality("SEG")) == 1
        assert pacs.http.get("/studies").json() == [study]
    return took - QUIET_S


def main() -> int:
    """Print the table and the JSON; 1 where the median is over the promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = [once(Path(folder) / str(number)) for number in range(options.rounds)]
    median = statistics.median(seconds)
    figures = {"beyond_quiet_s": [round(one, 2) for one in seconds], "median_s": round(median, 2), "most_s": MOST_S}
    print(json.dumps(figures))
    if options.json:
        options.json.write_text(json.dumps(figures))
    return int(median > MOST_S)


if __name__ == "__main__":
    raise SystemExit(main())
