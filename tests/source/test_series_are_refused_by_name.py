"""What is not one volume is refused with the slice named and a remedy; nobody's name is in the text."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_sr import pixels, refusals, source
from dicom_sr.refusals import UnusableSeries
from tests.source.series import Change, Recipe, chiral, enhanced, header, save, slice_of, write

THIRD = "1.2.826.0.1.3680043.8.498.1.7.3"


def refusal(paths: list[Path], kind: type[UnusableSeries], policy: source.Policy = source.Policy()) -> str:
    """The text of the refusal that these files get."""
    with pytest.raises(kind) as caught:
        source.read(paths, policy=policy)
    assert caught.value.remedy
    assert not caught.value.retryable
    assert "SECRET" not in str(caught.value)
    return str(caught.value)


def on_third(**attributes: object) -> Change:
    """Changes the third slice only."""

    def change(dataset: Dataset, index: int) -> None:
        if index == 2:
            for keyword, value in attributes.items():
                setattr(dataset, keyword, value)

    return change


def without(keyword: str) -> Change:
    """The third slice loses an attribute."""

    def change(dataset: Dataset, index: int) -> None:
        if index == 2:
            delattr(dataset, keyword)

    return change


ONE_SLICE_IS_ODD = [
    (on_third(ImageOrientationPatient=[1, 0, 0, 0, 0.995, 0.0998]), refusals.MixedOrientation),
    (on_third(PixelSpacing=[0.7, 0.95]), refusals.MixedMatrix),
    (on_third(FrameOfReferenceUID="1.2.3"), refusals.MixedFrameOfReference),
    (on_third(ImageType=["DERIVED", "PRIMARY", "LOCALIZER"]), refusals.Localizer),
    (on_third(ImagePositionPatient=[-31.5, 12.25, -98.0]), refusals.UnevenSpacing),
    (on_third(ImagePositionPatient=[-30.5, 12.25, -96.0]), refusals.UnevenSpacing),
    (on_third(ImagePositionPatient=[-31.5, 12.25, -98.5]), refusals.DuplicatePosition),
    (on_third(ImagePositionPatient=[-31.5, 12.25]), refusals.NoGeometry),
    (on_third(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), refusals.NoGeometry),
    (on_third(PixelSpacing=[0, 0]), refusals.NoGeometry),
    (on_third(RescaleSlope="0"), refusals.UnreadablePixels),
    (without("ImagePositionPatient"), refusals.NoGeometry),
    (without("ImageOrientationPatient"), refusals.NoGeometry),
    (without("PixelSpacing"), refusals.NoGeometry),
    (without("PixelData"), refusals.NoImages),
    (without("Rows"), refusals.UnreadablePixels),
    (on_third(PhotometricInterpretation="RGB"), refusals.NoImages),
    (on_third(SamplesPerPixel=3), refusals.UnreadablePixels),
    (on_third(BitsStored=17, HighBit=16), refusals.UnreadablePixels),
    (on_third(NumberOfFrames=2), refusals.NoGeometry),
    (on_third(Rows=60), refusals.UnreadablePixels),
]


@pytest.mark.parametrize(("change", "kind"), ONE_SLICE_IS_ODD)
def test_the_odd_slice_is_named(change: Change, kind: type[UnusableSeries], tmp_path: Path) -> None:
    assert THIRD in refusal(write(tmp_path, Recipe(change=change)), kind)


@pytest.mark.parametrize("value", ["nan", "inf", "", "many", "1e400"])
@pytest.mark.parametrize(
    "keyword", ["NumberOfFrames", "RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "PixelSpacing"]
)
def test_no_number_is_no_reason_to_fall_over(keyword: str, value: str, tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.pop(keyword, None)
        with disable_value_validation():
            dataset[keyword] = DataElement(keyword, "LO", value)

    paths = write(tmp_path, Recipe(change=change, syntax=uid.ImplicitVRLittleEndian))
    if keyword == "NumberOfFrames" or (keyword.startswith("Rescale") and value == ""):
        assert source.read(paths).shape == (5, 6, 7)
    else:
        assert keyword in refusal(paths, UnusableSeries)


def test_another_matrix_is_refused(tmp_path: Path) -> None:
    paths = write(tmp_path / "a", Recipe())
    wider = write(tmp_path / "b", Recipe(stored=chiral((5, 6, 8)), seed=8))
    assert "6 x 8" in refusal([*paths[:4], wider[4]], refusals.MixedMatrix)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_missing_slice_is_a_gap_between_named_neighbours(missing: int, tmp_path: Path) -> None:
    paths = write(tmp_path, Recipe())
    said = refusal([path for path in paths if path is not paths[missing]], refusals.GapInSeries)
    assert f"5.000 mm between slices {missing} and {missing + 1} of 4, 2.500 mm elsewhere" in said
    for neighbour in (missing - 1, missing + 1):
        assert f"1.7.{neighbour + 1} at" in said


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series of twelve slices, in slice order."""
    return write(tmp_path_factory.mktemp("twelve"), Recipe(stored=chiral((12, 2, 2))))


@given(st.sets(st.integers(0, 11), min_size=1))
def test_what_is_left_of_a_series_is_read_only_where_it_is_even(twelve: list[Path], kept: set[int]) -> None:
    steps = set(np.diff(sorted(kept)).tolist())
    paths = [twelve[index] for index in kept]
    if len(steps) <= 1:
        assert [plane.path for plane in source.read(paths).planes] == [twelve[index] for index in sorted(kept)]
    else:
        with pytest.raises((refusals.GapInSeries, refusals.UnevenSpacing)):
            source.read(paths)


def test_every_second_slice_is_read_and_the_wide_step_is_said(tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.SpacingBetweenSlices = 2.5

    paths = write(tmp_path, Recipe(change=change))
    assert source.read(paths).warnings == ()
    assert "SpacingBetweenSlices says 2.5 mm" in source.read(paths[::2]).warnings[0]


def test_a_missing_slice_of_a_tilted_stack_is_a_gap(tmp_path: Path) -> None:
    paths = write(tmp_path, Recipe(shift=(0, 0.6, 0)))
    refusal(paths[:2] + paths[3:], refusals.GapInSeries)


def test_positions_rounded_to_one_decimal_are_still_even(tmp_path: Path) -> None:
    def rounded(dataset: Dataset, index: int) -> None:
        dataset.ImagePositionPatient = [round(float(x), 1) for x in dataset.ImagePositionPatient]

    series = source.read(write(tmp_path, Recipe(stored=chiral((40, 4, 4)), step=0.625, change=rounded)))
    assert series.affine[2, 0] == pytest.approx(0.625, abs=0.005)


def test_files_of_two_series_are_refused_with_both_uids(tmp_path: Path) -> None:
    said = refusal(write(tmp_path, Recipe(change=on_third(SeriesInstanceUID="1.2.5"))), refusals.MixedSeries)
    assert "1.2.5" in said
    assert "1.2.826.0.1.3680043.8.498.3" in said


def test_slices_of_two_patients_are_refused_without_naming_them(tmp_path: Path) -> None:
    said = refusal(write(tmp_path, Recipe(change=on_third(PatientID="SECRET-OTHER"))), refusals.MixedSeries)
    assert "PatientID" in said


def test_two_frames_of_reference_pass_with_a_warning_where_the_site_says_so(tmp_path: Path) -> None:
    paths = write(tmp_path, Recipe(change=on_third(FrameOfReferenceUID="1.2.3")))
    series = source.read(paths, policy=source.Policy(frames_of_reference="warn"))
    assert series.frame_of_reference_uid == "1.2.826.0.1.3680043.8.498.4"
    assert any(THIRD in warning for warning in series.warnings)
    assert series.acquisition.warnings == series.warnings


def test_a_second_copy_of_a_file_is_left_out(tmp_path: Path) -> None:
    paths = write(tmp_path, Recipe())
    copy = Path(shutil.copy(paths[2], tmp_path / "copy.dcm"))
    series = source.read([copy, *paths])
    assert series.shape == (5, 6, 7)
    assert series.warnings == ("1 files are second copies and were left out",)


def test_two_contents_under_one_uid_are_refused(tmp_path: Path) -> None:
    paths = write(tmp_path, Recipe())
    other = pydicom.dcmread(paths[2])
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(tmp_path / "other.dcm")
    assert THIRD in refusal([*paths, tmp_path / "other.dcm"], refusals.DuplicatePosition)


def two_volumes(folder: Path, keyword: str, values: tuple[object, object]) -> list[Path]:
    """Two acquisitions of the same slices in one series, told apart by one attribute."""
    paths = []
    for number, value in enumerate(values):

        def change(dataset: Dataset, index: int, value: object = value) -> None:
            setattr(dataset, keyword, value)

        stored = chiral() + np.uint16(number)
        paths += write(folder / str(number), Recipe(stored=stored, seed=number + 7, change=change))
    return paths


SEVERAL = [
    ("AcquisitionNumber", (2, 10)),
    ("TemporalPositionIdentifier", (1, 2)),
    ("EchoTime", (2.5, 10)),
    ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
]


@pytest.mark.parametrize(("keyword", "values"), SEVERAL)
def test_two_volumes_in_one_series_are_refused_by_what_tells_them_apart(
    keyword: str, values: tuple[object, object], tmp_path: Path
) -> None:
    said = refusal(two_volumes(tmp_path, keyword, values), refusals.SeveralAcquisitions)
    assert f"2 volumes that differ in {keyword}" in said
    assert "1.7.1 at (-31.5, 12.25, -101) mm" in said


@pytest.mark.parametrize(("keyword", "values"), SEVERAL)
def test_the_first_of_two_volumes_is_taken_and_said_where_the_site_says_so(
    keyword: str, values: tuple[object, object], tmp_path: Path
) -> None:
    paths = two_volumes(tmp_path, keyword, values)
    series = source.read(paths, policy=source.Policy(several_acquisitions="first"))
    assert [plane.path for plane in series.planes] == paths[:5]
    assert f"differ in {keyword}" in series.warnings[0]
    assert np.array_equal(pixels.load(series).array, chiral().astype(np.int16) - 1024)


def test_two_acquisitions_that_interleave_evenly_are_not_stacked_blindly(tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionNumber = index % 2 + 1

    said = refusal(write(tmp_path, Recipe(stored=chiral((8, 4, 4)), change=change)), refusals.SeveralAcquisitions)
    assert "AcquisitionNumber" in said


def test_rotations_numbered_one_after_the_other_are_one_volume(tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionNumber = index // 2 + 1

    assert source.read(write(tmp_path, Recipe(stored=chiral((8, 4, 4)), change=change))).shape == (8, 4, 4)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_time_points_inside_an_enhanced_object_are_refused(syntax: str, tmp_path: Path) -> None:
    def change(groups: Dataset, index: int) -> None:
        groups.FrameContentSequence[0].TemporalPositionIndex = index % 2 + 1
        groups.PlanePositionSequence[0].ImagePositionPatient = [0, 0, index // 2]

    recipe = Recipe(stored=chiral((6, 4, 4)), modality="MR", sop_class=uid.EnhancedMRImageStorage, syntax=syntax)
    path = save(enhanced(recipe, change), tmp_path / "e.dcm", recipe.syntax)
    assert "differ in TemporalPositionIndex (1, 2)" in refusal([path], refusals.SeveralAcquisitions)
    series = source.read([path], policy=source.Policy(several_acquisitions="first"))
    assert np.array_equal(pixels.load(series).array, chiral((6, 4, 4))[::2].astype(np.int16) - 1024)


def not_dicom(folder: Path) -> list[Path]:
    paths = write(folder, Recipe())
    (folder / "README.md").write_text("not an image")
    return [*paths, folder / "README.md"]


def cut_short(folder: Path) -> list[Path]:
    paths = write(folder, Recipe())
    paths[2].write_bytes(paths[2].read_bytes()[:-20])
    return paths


def cut_in_the_header(folder: Path) -> list[Path]:
    paths = write(folder, Recipe())
    paths[2].write_bytes(paths[2].read_bytes()[:400])
    return paths


def report(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    dataset = header("SR", uid.Comprehensive3DSRStorage, THIRD)
    return [save(dataset, folder / "report.dcm", uid.ExplicitVRLittleEndian)]


def segmentation(folder: Path) -> list[Path]:
    recipe = Recipe(sop_class=uid.SegmentationStorage)
    return [save(slice_of(recipe, 2, 1), folder / "seg.dcm", recipe.syntax)]


def without_uid(folder: Path) -> list[Path]:
    return write(folder, Recipe(change=lambda dataset, index: setattr(dataset, "SOPInstanceUID", "")))


def undescribed_frames(folder: Path) -> list[Path]:
    dataset = enhanced(Recipe(sop_class=uid.EnhancedCTImageStorage))
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    return [save(dataset, folder / "e.dcm", uid.ExplicitVRLittleEndian)]


@pytest.mark.parametrize(
    ("make", "kind", "names"),
    [
        (lambda folder: [], refusals.NoImages, "no file"),
        (not_dicom, refusals.NotDicom, "README.md"),
        (cut_short, refusals.UnreadablePixels, THIRD),
        (cut_in_the_header, UnusableSeries, ""),
        (report, refusals.NoImages, THIRD),
        (segmentation, refusals.NoImages, "Segmentation Storage"),
        (without_uid, refusals.NoImages, "SOPInstanceUID"),
        (undescribed_frames, refusals.NoGeometry, "5 frames and describes 4"),
    ],
)
def test_what_is_no_image_is_refused(
    make: Callable[[Path], list[Path]], kind: type[UnusableSeries], names: str, tmp_path: Path
) -> None:
    assert names in refusal(make(tmp_path), kind)


def test_a_folder_is_told_apart_by_series(tmp_path: Path) -> None:
    first = write(tmp_path / "deep" / "er", Recipe())
    write(tmp_path, Recipe(seed=9, change=lambda dataset, index: setattr(dataset, "SeriesInstanceUID", "1.2.77")))
    not_dicom(tmp_path / "more")
    report(tmp_path / "sr")
    found = source.by_series(tmp_path)
    assert set(found) == {"1.2.77", "1.2.826.0.1.3680043.8.498.3"}
    assert set(first) < set(found["1.2.826.0.1.3680043.8.498.3"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(refusals.NoImages, match="empty"):
        source.by_series(tmp_path / "empty")


def test_every_refusal_is_drawn_in_the_tree() -> None:
    kinds = {name for name in vars(refusals) if name[0].isupper() and name not in ("Problem", "UnusableSeries")}
    drawn = (refusals.__doc__ or "").split("UnusableSeries", 1)[1]
    assert all(name in drawn for name in kinds)
