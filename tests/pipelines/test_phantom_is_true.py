"""The phantom: known exactly, chiral, the same chest on every grid, and a CT that validators and our reader accept."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from dicom_sr import pixels, source
from pipelines import phantom
from tests.conftest import component
from tests.pipelines.lungs import chest


def test_the_same_arguments_paint_the_same_chest() -> None:
    assert np.array_equal(phantom.chest(seed=3).volume.array, phantom.chest(seed=3).volume.array)
    assert not np.array_equal(phantom.chest(seed=3).volume.array, phantom.chest(seed=4).volume.array)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_no_mirror_image_looks_like_the_chest(axis: int) -> None:
    array = chest().volume.array
    assert (np.abs(array - np.flip(array, axis)) > 300).mean() > 0.02


def test_the_heart_lies_left_and_the_liver_right() -> None:
    seen = chest()
    inverse = np.linalg.inv(seen.volume.affine)

    def at(x: float, y: float, z: float) -> float:
        index = tuple(np.rint((inverse @ (x, y, z, 1))[:3]).astype(int))
        return float(seen.volume.array[index])

    assert at(70, -26, -40) > 0 > at(-70, -26, -40)
    assert at(-66, 0, -70) > 40


@pytest.mark.parametrize("orientation", phantom.ORIENTATIONS)
def test_every_grid_holds_the_whole_lungs_and_the_same_volume(orientation: phantom.Orientation) -> None:
    seen, axial = chest(orientation=orientation), chest()
    for axis in range(3):
        assert not np.take(seen.truth, [0, -1], axis=axis).any()
    for side in ("left", "right"):
        truth, usual = getattr(seen, side), getattr(axial, side)
        assert truth.volume_ml == pytest.approx(usual.volume_ml, rel=0.005)
        assert truth.laa950_percent == pytest.approx(usual.laa950_percent, abs=0.1)


def test_emphysema_shows_in_the_truth() -> None:
    seen = chest()
    assert seen.left is not None
    assert seen.right is not None
    for lung in (seen.left, seen.right):
        assert lung.laa950_percent == pytest.approx(100 * lung.emphysema_ml / lung.volume_ml, rel=0.25)


def test_variants_differ_where_they_should() -> None:
    usual = chest().right
    fluid, mass, alone, sharp = (chest(variant) for variant in ("effusion", "mass", "one_lung", "sharp_kernel"))
    assert usual is not None
    assert fluid.right is not None
    assert mass.right is not None
    assert sharp.right is not None
    assert fluid.right.volume_ml < 0.8 * usual.volume_ml
    assert usual.volume_ml - mass.right.volume_ml == pytest.approx(65.4, rel=0.03)  # a ball of 5 cm
    assert mass.mass.sum() * mass.volume.voxel_ml == pytest.approx(65.4, rel=0.03)
    assert alone.left is None
    assert not (alone.truth == phantom.LEFT_LUNG).any()
    assert sharp.right.laa950_percent > usual.laa950_percent + 8


@pytest.mark.parametrize("orientation", ["axial", "sagittal_reversed", "oblique_double"])
def test_written_files_are_sound_ct_images(orientation: phantom.Orientation, tmp_path: Path) -> None:
    component("dicom3tools")
    paths = phantom.write(chest(orientation=orientation), tmp_path)
    for path in (paths[0], paths[len(paths) // 2]):
        done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert "CTImage" in done.stdout + done.stderr
        assert "Error" not in done.stdout + done.stderr


@pytest.mark.parametrize("orientation", ["axial", "coronal_reversed", "oblique"])
def test_written_files_are_read_back_as_the_same_volume(orientation: phantom.Orientation, tmp_path: Path) -> None:
    made = chest(orientation=orientation)
    read = pixels.load(source.read(reversed(phantom.write(made, tmp_path))))
    assert np.array_equal(read.array, made.volume.array)
    assert np.allclose(read.affine, made.volume.affine, atol=1e-4)
    assert read.acquisition.convolution_kernel == made.volume.acquisition.convolution_kernel
    assert read.acquisition.slice_thickness == made.volume.acquisition.slice_thickness


def test_writing_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = (phantom.write(chest(), tmp_path / name)[7].read_bytes() for name in ("a", "b"))
    assert first == second


def test_uids_follow_the_names_given(tmp_path: Path) -> None:
    paths = phantom.write(chest(), tmp_path, study_instance_uid="1.2.3", patient_name="SECRET^PATIENT")
    header = source.read(paths[:12]).header
    assert header.StudyInstanceUID == "1.2.3"
    assert header.PatientName == "SECRET^PATIENT"
