"""Every voxel of a volume lies where its slice's header says, whatever files are called and however they are turned."""

from pathlib import Path
from random import Random

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st

from dicom_sr import geometry, pixels, source
from tests.source.series import ORIENTATIONS, Recipe, chiral, enhanced, save, write

turned = pytest.mark.parametrize("name", ORIENTATIONS)


def patient_position(dataset: pydicom.Dataset, row: int, column: int) -> np.ndarray:
    """Equation C.7.6.2.1-1, written out."""
    origin, cosines = np.array(dataset.ImagePositionPatient, float), np.array(dataset.ImageOrientationPatient, float)
    between_rows, between_columns = dataset.PixelSpacing
    return origin + cosines[:3] * between_columns * column + cosines[3:] * between_rows * row


def assert_values_lie_where_headers_say(paths: list[Path]) -> None:
    series = source.read(reversed(paths))
    volume = pixels.load(series)
    back = np.linalg.inv(volume.affine)
    for path in paths:
        dataset = pydicom.dcmread(path)
        hounsfield = dataset.pixel_array.astype(int) - 1024
        for row, column in ((0, 0), (0, 6), (5, 0), (2, 3), (5, 6)):
            index = back @ [*patient_position(dataset, row, column), 1]
            assert np.allclose(index[:3], np.rint(index[:3]), atol=1e-4)
            assert volume.array[tuple(np.rint(index[:3]).astype(int))] == hounsfield[row, column]


@turned
def test_every_voxel_lies_where_its_slice_says(name: str, tmp_path: Path) -> None:
    assert_values_lie_where_headers_say(write(tmp_path, Recipe(orientation=ORIENTATIONS[name])))


@turned
def test_every_voxel_of_a_sheared_stack_lies_where_its_slice_says(name: str, tmp_path: Path) -> None:
    recipe = Recipe(orientation=ORIENTATIONS[name], shift=(0.3, -0.2, 0.4))
    assert_values_lie_where_headers_say(write(tmp_path, recipe))


@turned
def test_slices_are_numbered_along_their_normal(name: str, tmp_path: Path) -> None:
    paths = write(tmp_path, Recipe(orientation=ORIENTATIONS[name]))
    series = source.read(sorted(paths))
    assert [plane.path for plane in series.planes] == paths
    assert np.allclose(series.affine[:3, 0], np.cross(*np.reshape(ORIENTATIONS[name], (2, 3))) * 2.5)
    assert np.array_equal(pixels.load(series).array, chiral().astype(np.int16) - 1024)


@turned
def test_simpleitk_agrees_on_values_and_places(name: str, tmp_path: Path) -> None:
    series = source.read(write(tmp_path, Recipe(orientation=ORIENTATIONS[name])))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(plane.path) for plane in series.planes])
    theirs = reader.Execute()
    assert np.array_equal(sitk.GetArrayViewFromImage(theirs), pixels.load(series).array)
    for index in ((0, 0, 0), (4, 5, 6), (2, 0, 6)):
        there = theirs.TransformIndexToPhysicalPoint(index[::-1])
        assert np.allclose(there, (series.affine @ [*index, 1])[:3], atol=1e-3)


@turned
def test_an_enhanced_object_makes_the_same_volume_as_its_slices(name: str, tmp_path: Path) -> None:
    recipe = Recipe(orientation=ORIENTATIONS[name])
    single = source.read(write(tmp_path / "single", recipe))
    multi = source.read([save(enhanced(recipe), tmp_path / "enhanced.dcm", recipe.syntax)])
    assert np.allclose(multi.affine, single.affine)
    assert np.array_equal(pixels.load(multi).array, pixels.load(single).array)
    assert {plane.number_of_frames for plane in multi.planes} == {5}
    assert sorted(plane.frame for plane in multi.planes) == [1, 2, 3, 4, 5]


def test_the_rotation_of_a_stack_cannot_be_taken_for_its_mirror_image(tmp_path: Path) -> None:
    for number, orientation in enumerate(ORIENTATIONS.values()):
        series = source.read(write(tmp_path / str(number), Recipe(orientation=orientation)))
        assert np.linalg.det(series.affine[:3, :3]) == pytest.approx(-2.5 * 0.7 * 0.9, rel=1e-5)


def test_a_tilted_gantry_is_shear_and_is_said(tmp_path: Path) -> None:
    series = source.read(write(tmp_path, Recipe(shift=(0, 0.5, 0))))
    assert series.tilt_deg == pytest.approx(np.degrees(np.arctan2(0.5, 2.5)))
    assert series.affine[:3, 0] == pytest.approx([0, 0.5, 2.5])
    assert any("sheared by 11.3 degrees" in warning for warning in series.acquisition.warnings)


def test_one_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    series = source.read(write(tmp_path, Recipe(stored=chiral()[:1], orientation=ORIENTATIONS["coronal"])))
    assert series.shape == (1, 6, 7)
    assert series.affine[:3, 0] == pytest.approx([0, 2.5, 0])


directions = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1)
millimetres = st.floats(-900, 900)


@st.composite
def stacks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Positions, orientation and spacing of an even stack, anyhow turned and tilted."""
    column_wise = np.array(draw(directions))
    column_wise /= np.linalg.norm(column_wise)
    other = np.array(draw(directions))
    row_wise = np.cross(column_wise, other)
    if np.linalg.norm(row_wise) < 1e-2:
        row_wise = np.cross(column_wise, np.add(np.roll(column_wise, 1), [0.3, -0.2, 0.1]))
    row_wise /= np.linalg.norm(row_wise)
    normal = np.cross(column_wise, row_wise)
    step = normal * draw(st.floats(0.2, 10)) + row_wise * draw(st.floats(-2, 2))
    count = draw(st.integers(2, 40))
    origin = np.array([draw(millimetres) for _ in range(3)])
    spacing = (draw(st.floats(0.1, 5)), draw(st.floats(0.1, 5)))
    return origin + np.outer(np.arange(count), step), np.concatenate([column_wise, row_wise]), spacing


@given(stacks(), st.integers(0, 500), st.integers(0, 500))
def test_the_affine_says_what_the_standard_says(
    stack: tuple[np.ndarray, np.ndarray, tuple[float, float]], row: int, column: int
) -> None:
    positions, orientation, spacing = stack
    matrix = geometry.affine(positions, orientation, spacing, 1.0)
    for index, origin in enumerate(positions):
        there = origin + orientation[:3] * spacing[1] * column + orientation[3:] * spacing[0] * row
        assert (matrix @ [index, row, column, 1])[:3] == pytest.approx(there, abs=1e-6)


@given(stacks(), st.randoms())
def test_projections_put_shuffled_planes_back_in_order(
    stack: tuple[np.ndarray, np.ndarray, tuple[float, float]], shuffle: Random
) -> None:
    positions, orientation, _ = stack
    order = list(range(len(positions)))
    shuffle.shuffle(order)
    along = geometry.projections(positions[order], orientation)
    assert [order[i] for i in np.argsort(along)] == list(range(len(positions)))


@given(stacks())
def test_shear_is_the_angle_off_the_normal(stack: tuple[np.ndarray, np.ndarray, tuple[float, float]]) -> None:
    positions, orientation, spacing = stack
    normal = np.cross(orientation[:3], orientation[3:])
    step = positions[1] - positions[0]
    expected = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    assert geometry.shear_deg(geometry.affine(positions, orientation, spacing, 1.0)) == pytest.approx(
        expected, abs=1e-3
    )


@given(stacks())
def test_planes_on_one_line_are_not_called_aside(stack: tuple[np.ndarray, np.ndarray, tuple[float, float]]) -> None:
    positions, orientation, _ = stack
    assert geometry.aside(positions, orientation).max() < 1e-6


@given(st.floats(0.05, 20))
def test_a_missing_slice_never_hides_in_the_tolerance(step: float) -> None:
    assert geometry.evenness(step) < 0.5 * step
