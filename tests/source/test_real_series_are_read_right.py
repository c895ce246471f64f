"""Real scans: each gives the right volume, checked against another reader, or the right refusal."""

import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813

from dicom_sr import pixels, refusals, source
from dicom_sr.nouns import Volume
from dicom_sr.refusals import UnusableSeries
from dicom_sr.source import SourceSeries
from tests.conftest import component

ODD = "odd_series_dicom2nifti"


def read(folder: Path) -> tuple[SourceSeries, Volume]:
    """The one series of a folder."""
    ((_, paths),) = source.by_series(folder).items()
    series = source.read(paths)
    return series, pixels.load(series)


def assert_simpleitk_agrees(series: SourceSeries, volume: Volume) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(plane.path) for plane in series.planes])
    theirs = reader.Execute()
    assert np.array_equal(sitk.GetArrayViewFromImage(theirs), volume.array)
    last = tuple(extent - 1 for extent in series.shape)
    for index in ((0, 0, 0), last, (0, last[1], 0), (last[0], 0, last[2])):
        there = theirs.TransformIndexToPhysicalPoint(tuple(int(i) for i in index[::-1]))
        assert np.allclose(there, (volume.affine @ [*index, 1])[:3], atol=2e-3)


@pytest.mark.parametrize(
    ("folder", "shape", "spacing"),
    [
        ("chest_ct_philips_brilliance16_5mm/dicom", (64, 512, 512), (5.0, 0.841796875, 0.841796875)),
        ("abdomen_pelvis_ct_totalseg_converted/dicom", (112, 101, 122), (3.0, 3.0, 3.0)),
        (f"{ODD}/failing_slicecount_001", (2, 256, 256), (1.0, 1.0, 1.0)),
        (f"{ODD}/hitachi_anatomical_001", (4, 64, 64), (4.0, 2.34375, 2.34375)),
        (f"{ODD}/generic_compressed_jpegls_001", (4, 256, 256), (1.0, 1.0, 1.0)),
        (f"{ODD}/generic_compressed_j2k_001", (4, 256, 256), (1.0, 1.0, 1.0)),
        ("seg_sr_dcmqi/segmentations/24x38x3/image", (3, 38, 24), (2.5, 0.7, 0.7)),
    ],
)
def test_simpleitk_agrees(
    folder: str, shape: tuple[int, int, int], spacing: tuple[float, float, float], data: Path
) -> None:
    series, volume = read(data / folder)
    assert series.shape == shape
    assert volume.spacing == pytest.approx(spacing, abs=1e-4)
    assert volume.array.dtype == np.int16
    assert_simpleitk_agrees(series, volume)


def test_the_chest_ct_says_how_it_was_made(data: Path) -> None:
    series, volume = read(data / "chest_ct_philips_brilliance16_5mm/dicom")
    acquisition = volume.acquisition
    assert (acquisition.modality, acquisition.convolution_kernel, acquisition.slice_thickness) == ("CT", "B", 5.0)
    assert (acquisition.lossy, acquisition.warnings, series.tilt_deg) == (False, (), 0)
    assert -1024 <= volume.array.min() < -900


def test_the_abdomen_ct_is_the_nifti_it_was_made_from(data: Path) -> None:
    """Its labels are on the same grid: NIfTI is R, A, S and (column, row, slice)."""
    _, volume = read(data / "abdomen_pelvis_ct_totalseg_converted/dicom")
    labels = sitk.ReadImage(data / "abdomen_pelvis_ct_totalseg_converted/organs_multilabel.nii.gz")
    inside = sitk.GetArrayViewFromImage(labels)
    back = np.linalg.inv(volume.affine)
    for k, j, i in np.argwhere(inside)[:: max(1, int(inside.astype(bool).sum()) // 200)]:
        index = back @ [*labels.TransformIndexToPhysicalPoint((int(i), int(j), int(k))), 1]
        assert np.allclose(index[:3], np.rint(index[:3]), atol=1e-3)
        assert ((index[:3] > -0.5) & (index[:3] < np.array(volume.array.shape) - 0.5)).all()


def test_jpeg_ls_jpeg_2000_and_raw_twins_give_equal_bits(data: Path, tmp_path: Path) -> None:
    j2k, jpeg_ls = (read(data / ODD / f"generic_compressed_{kind}_001") for kind in ("j2k", "jpegls"))
    assert np.array_equal(j2k[1].array, jpeg_ls[1].array)
    assert np.array_equal(j2k[1].affine, jpeg_ls[1].affine)
    for index, plane in enumerate(j2k[0].planes):
        assert np.array_equal(pydicom.dcmread(plane.path).pixel_array, j2k[1].array[index])
    component("DCMTK")
    for number, plane in enumerate(jpeg_ls[0].planes):
        subprocess.run(["dcmdjpls", plane.path, tmp_path / f"{number}.dcm"], check=True)
    assert np.array_equal(read(tmp_path)[1].array, j2k[1].array)


def test_a_tilted_gantry_is_read_with_its_shear(data: Path) -> None:
    series, volume = read(data / ODD / "failing_gantrytilting_001")
    assert series.tilt_deg == pytest.approx(14.0, abs=0.01)
    assert volume.affine[:3, 0] == pytest.approx([0, 0, 5])
    assert "sheared by 14.0 degrees" in volume.acquisition.warnings[0]
    for index, plane in enumerate(series.planes):
        dataset = pydicom.dcmread(plane.path)
        assert (volume.affine @ [index, 0, 0, 1])[:3] == pytest.approx(list(dataset.ImagePositionPatient))
        assert np.array_equal(volume.array[index], dataset.pixel_array.astype(int) - 1024)


def test_enhanced_mr_of_two_makers_is_read_frame_by_frame(data: Path) -> None:
    for name, step in (("hyperfine", 5.0), ("philips_enhanced", 1.2)):
        series, volume = read(data / ODD / f"{name}_anatomical_001")
        dataset = pydicom.dcmread(series.planes[0].path)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        for index, plane in enumerate(series.planes):
            groups = dataset.PerFrameFunctionalGroupsSequence[plane.frame - 1]
            values = groups if "PixelValueTransformationSequence" in groups else shared
            rescale = values.PixelValueTransformationSequence[0]
            expected = dataset.pixel_array[plane.frame - 1] * float(rescale.RescaleSlope)
            assert np.array_equal(volume.array[index], expected.astype(volume.array.dtype))
            there = list(groups.PlanePositionSequence[0].ImagePositionPatient)
            assert (volume.affine @ [index, 0, 0, 1])[:3] == pytest.approx(there, abs=1e-4)
        assert volume.spacing[0] == pytest.approx(step, abs=1e-4)


@pytest.mark.parametrize(
    ("folder", "kind", "words"),
    [
        (f"{ODD}/failing_sliceincrement_001", refusals.GapInSeries, "10.000 mm between slices 3 and 4 of 4, 5.000 mm"),
        (f"{ODD}/failing_sliceorientation_001", refusals.MixedOrientation, "is not parallel to"),
        ("ct_localizer_philips_phantom", refusals.Localizer, "is a localizer"),
    ],
)
def test_what_is_no_volume_is_refused(folder: str, kind: type[UnusableSeries], words: str, data: Path) -> None:
    with pytest.raises(kind) as caught:
        read(data / folder)
    assert words in caught.value.what
    assert "dicom2nifti" not in str(caught.value)


def test_images_without_a_place_in_the_patient_are_refused(data: Path) -> None:
    for paths in source.by_series(data / "charsets").values():
        with pytest.raises(refusals.NoGeometry):
            source.read(paths)


def test_radiographs_are_read_alone_and_copies_that_disagree_say_nothing_of_their_greys(data: Path) -> None:
    for paths in source.by_series(data / "cxr").values():
        for path in paths:
            assert not source.read([path]).placed
        if len(paths) > 1:
            assert source.read(paths).acquisition.photometric_interpretation is None


def test_every_odd_series_has_its_test(data: Path) -> None:
    here = (
        Path(__file__)
        .read_text()
        .replace("generic_compressed_{kind}", "generic_compressed_j2k generic_compressed_jpegls")
    )
    for folder in (data / ODD).iterdir():
        if folder.is_dir():
            assert folder.name.removesuffix("_001").removesuffix("_anatomical") in here
