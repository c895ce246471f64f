"""A real viewer shows our SEG in the true place, in the true colours, with the true voxels: OHIF on Orthanc."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_sr.kinds import segmentation
from dicom_sr.nouns import Findings
from tests.conftest import component
from tests.objects import conftest as make

HARNESS = Path(os.environ.get("ISOCENTER_SHARED", Path(__file__).parents[3] / "shared")) / "viewer"
VIEWER = Path(os.environ.get("VIEWER_CACHE", Path.home() / ".cache" / "isocenter-viewer")) / "ohif/dist/index.html"


def ellipses(shape: tuple[int, int, int]) -> np.ndarray:
    """Two ellipsoids off the centre, unlike each other, on some of the planes."""
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]] / np.array(shape)[:, None, None, None]
    labels = np.zeros(shape, np.uint8)
    labels[((z - 0.5) / 0.4) ** 2 + ((y - 0.45) / 0.2) ** 2 + ((x - 0.7) / 0.15) ** 2 < 1] = 1
    labels[((z - 0.45) / 0.3) ** 2 + ((y - 0.6) / 0.1) ** 2 + ((x - 0.3) / 0.2) ** 2 < 1] = 2
    return labels


def write_case(folder: Path, number: int, shape: tuple[int, int, int], orientation: tuple[float, ...]) -> None:
    """A series and its SEG as one study of its own."""
    study = f"1.2.826.0.1.3680043.10.99999.7.{number}"

    def own_study(slice_: Dataset, index: int) -> None:
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, f"{study}.1"
        slice_.FrameOfReferenceUID, slice_.SOPInstanceUID = f"{study}.2", f"{study}.3.{index + 1}"
        slice_.PatientID, slice_.PixelSpacing = f"PH{number}", ["0.8", "0.8"]

    paths = make.ct_series(folder / f"ct{number}", shape=shape, orientation=orientation, change=own_study)
    both = make.findings_of(make.two_lungs((6, 16, 24)))
    findings = Findings(algorithm=both.algorithm, labels=ellipses(shape), segments=both.segments)
    order = make.order_of(paths, findings)
    uid = order.uid
    built = segmentation.build(replace(order, uid=lambda name, ordinal: uid(f"{number}.{name}", ordinal)))
    (folder / f"seg{number}.dcm").write_bytes(built.part10)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ohif_shows_the_segmentation(tmp_path: Path):
    for name in ("Chromium", "Orthanc", "Orthanc DICOMweb"):
        component(name)
    if not HARNESS.is_dir() or not VIEWER.exists() or not shutil.which("node"):
        pytest.skip(f"the viewer harness is not at {HARNESS}, or not set up (bash {HARNESS}/setup.sh)")
    objects, out = tmp_path / "objects", tmp_path / "out"
    objects.mkdir()
    write_case(objects, 1, (40, 128, 128), make.AXIAL)
    write_case(objects, 2, (40, 250, 252), make.AXIAL)
    write_case(objects, 3, (32, 96, 128), make.SAGITTAL)
    environment = os.environ | {"PY": sys.executable}
    command = ["bash", str(HARNESS / "run.sh"), str(objects), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    results = json.loads((out / "results.json").read_text()) if (out / "results.json").exists() else None
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{results}"
