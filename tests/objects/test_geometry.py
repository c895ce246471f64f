"""In every geometry three readers see the same: highdicom, dcmqi and ours, each the label map that was written."""

import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_sr import geometry, readback, source
from dicom_sr.check import check
from dicom_sr.checks.report import voxel_ml
from dicom_sr.kinds import Order, segmentation
from tests.objects import conftest as make
from tests.objects.test_segmentation import ORIENTATIONS, read_back

SIZES = {
    "250 x 250 x 37": (37, 250, 250),
    "333 x 257": (4, 333, 257),
    "1 slice": (1, 16, 24),
    "odd": (5, 13, 11),
    "2 slices": (2, 9, 7),
}


def tilted(slice_: Dataset, index: int) -> None:
    """A gantry tilt: each slice a little further towards the back than the one before."""
    x, y, z = slice_.ImagePositionPatient
    slice_.ImagePositionPatient = [x, round(float(y) + 0.4 * index, 3), z]


def flat(slice_: Dataset, index: int) -> None:
    """Pixels three times as wide as high."""
    slice_.PixelSpacing = ["0.3", "0.9"]


def order_of(paths: list[Path]) -> Order:
    """An order for two lungs in these images."""
    series = source.read(paths)
    return make.order_of(paths, make.findings_of(make.two_lungs(series.shape), voxel_ml=voxel_ml(series)))


def by_dcmqi(part10: bytes, order: Order, folder: Path) -> NDArray[np.uint8]:
    """The label map as dcmqi reads it: each voxel where it lies in the patient; a tilted stack dcmqi puts upright."""
    reader = Path(pytest.importorskip("dcmqi").__file__).parent / "bin" / "segimage2itkimage"
    folder.mkdir()
    (folder / "seg.dcm").write_bytes(part10)
    command = [reader, "--inputDICOM", folder / "seg.dcm", "--outputDirectory", folder, "-t", "nrrd"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    labels = np.zeros(order.source.shape, np.uint8)
    inverse = np.linalg.inv(order.source.affine)
    for number in (segment.number for segment in order.findings.segments):
        image = sitk.ReadImage(str(folder / f"{number}.nrrd"))
        assert abs(image.GetSpacing()[2] - geometry.between(order.source.affine)) < 1e-4
        filled = np.argwhere(sitk.GetArrayFromImage(image))
        step = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
        places = filled[:, ::-1] @ step.T + image.GetOrigin()
        indices = places @ inverse[:3, :3].T + inverse[:3, 3]
        if geometry.shear_deg(order.source.affine) > 0.01:
            indices[:, 1:] = filled[:, 1:]
        assert np.abs(indices - np.rint(indices)).max() < 0.01
        labels[tuple(np.rint(indices).astype(int).T)] = number
    return labels


def three_readers_agree(order: Order, folder: Path) -> None:
    """Highdicom, dcmqi and our own reader all see what was found."""
    wanted, built = order.findings.labels, segmentation.build(order)
    check([built], order)
    (folder / "ours.dcm").write_bytes(built.part10)
    assert np.array_equal(read_back(built.part10, order), wanted)
    assert np.array_equal(readback.findings(pydicom.dcmread(folder / "ours.dcm"), order.source).labels, wanted)
    assert np.array_equal(by_dcmqi(built.part10, order, folder / "dcmqi"), wanted)


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_in_every_orientation(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    three_readers_agree(order_of(make.ct_series(tmp_path / "ct", orientation=orientation)), tmp_path)


@pytest.mark.parametrize("shape", SIZES.values(), ids=SIZES)
def test_in_every_size(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    three_readers_agree(order_of(make.ct_series(tmp_path / "ct", shape=shape)), tmp_path)


@pytest.mark.parametrize("change", [tilted, flat])
def test_tilted_and_anisotropic(tmp_path: Path, change: Callable[[Dataset, int], None]) -> None:
    three_readers_agree(order_of(make.ct_series(tmp_path / "ct", change=change)), tmp_path)


def test_slices_of_a_tilted_gantry_are_as_far_apart_as_along_their_normal(tmp_path: Path) -> None:
    order = order_of(make.ct_series(tmp_path / "ct", change=tilted))
    read = pydicom.dcmread(BytesIO(segmentation.build(order).part10))
    (measures,) = read.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SpacingBetweenSlices == 2.5  # and not the 2.53 mm from corner to corner: volumes would be too large
    assert order.source.affine[1, 0] == pytest.approx(0.4)


def test_a_multi_frame_source(data: Path, tmp_path: Path) -> None:
    paths = sorted((data / "odd_series_dicom2nifti" / "philips_enhanced_anatomical_001").rglob("*.dcm"))
    order = order_of(paths)
    built = segmentation.build(order)
    read = readback.findings(pydicom.dcmread(BytesIO(built.part10)), order.source)
    assert np.array_equal(read.labels, order.findings.labels)
    assert np.array_equal(by_dcmqi(built.part10, order, tmp_path / "dcmqi"), order.findings.labels)
