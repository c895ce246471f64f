"""ct_bone and ct_body_fat against the phantom's truth and on real scans: right, or refused with the reason."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom_sr import pixels, source
from dicom_sr.nouns import Findings, Volume
from pipelines import phantom
from pipelines.spec import Refused
from tests.pipelines.examples import heights, numbers, painted, run, said_of, segment
from tests.pipelines.lungs import chest, cropped, dice

ORIENTATIONS: tuple[phantom.Orientation, ...] = ("axial", "sagittal_reversed", "oblique_double")
SKIN, WITHIN = "Subcutaneous fat", "Fat within the trunk wall (estimate)"


def read(folder: Path) -> Volume:
    return pixels.load(source.read(sorted(folder.glob("*.dcm"))))


def changed(**made: object) -> Volume:
    volume = chest().volume
    return replace(volume, acquisition=replace(volume.acquisition, **made))


def with_ball(value: int, radius: int, at: tuple[int, int, int] = (60, 60, 100)) -> Volume:
    """The chest with a ball of another value in it, in voxels."""
    volume = chest().volume
    k, j, i = np.ogrid[tuple(slice(size) for size in volume.array.shape)]
    ball = (k - at[0]) ** 2 + (j - at[1]) ** 2 + (i - at[2]) ** 2 < radius**2
    return replace(volume, array=np.where(ball, value, volume.array).astype(np.int16))


def of_reach(volume: Volume, said: Findings) -> np.ndarray:
    """The voxels of the slices that were measured, as the remark names them."""
    found = re.search(r"from (\S+) to (\S+) mm", said.remarks[0])
    assert found is not None
    z = heights(volume)
    return np.asarray((z > float(found[1])) & (z < float(found[2])))


# ---------------------------------------------------------------- bone


@pytest.mark.long
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_bone_agrees_with_the_truth_however_the_slices_lie(orientation: phantom.Orientation) -> None:
    volume = chest(orientation=orientation).volume
    said = said_of("ct_bone") if orientation == "axial" else run("ct_bone", volume)
    truth = painted(orientation) >= 200
    assert dice(segment(said, "Bone"), truth) >= 0.98
    found = numbers(said, "Bone")
    assert found["Volume"].value == pytest.approx(truth.sum() * volume.voxel_ml, rel=0.02)
    assert found["Attenuation Coefficient"].value == pytest.approx(volume.array[truth].mean(), abs=8)


def test_bone_holds_against_the_noise_of_a_sharp_kernel() -> None:
    said = run("ct_bone", chest("sharp_kernel").volume)
    assert dice(segment(said, "Bone"), painted() >= 200) >= 0.9


def test_bone_with_contrast_agent_is_refused_and_an_unknown_one_is_said() -> None:
    with pytest.raises(Refused, match="contrast agent was given"):
        run("ct_bone", changed(contrast=True))
    assert "do not say whether a contrast agent" in said_of("ct_bone").remarks[0]
    assert run("ct_bone", changed(contrast=False)).remarks == ()


@pytest.mark.long
@pytest.mark.parametrize("name", ["ct_bone", "ct_body_fat"])
def test_metal_in_the_body_is_refused_and_a_clip_is_not(name: str) -> None:
    with pytest.raises(Refused, match="ml of metal"):
        run(name, with_ball(3000, 6))
    run(name, with_ball(3000, 2))


@pytest.mark.parametrize("name", ["ct_bone", "ct_body_fat"])
@pytest.mark.parametrize(
    ("made", "reason"),
    [({"modality": "MR"}, "not CT"), ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer")],
)
def test_what_is_no_volume_of_ct_slices_is_refused(name: str, made: dict[str, object], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        run(name, changed(**made))


@pytest.mark.parametrize("name", ["ct_bone", "ct_body_fat"])
def test_slices_too_far_apart_and_values_that_are_not_hu_are_refused(name: str) -> None:
    volume = chest().volume
    affine = volume.affine.copy()
    affine[:, 0] *= 4
    with pytest.raises(Refused, match=r"10\.0 mm apart"):
        run(name, replace(volume, affine=affine))
    with pytest.raises(Refused, match="not HU"):
        run(name, replace(volume, array=(volume.array + 1024).astype(np.int16)))


def test_bone_of_the_real_chest_lies_where_bone_is(data: Path) -> None:
    volume = read(data / "chest_ct_philips_brilliance16_5mm" / "dicom")
    said = run("ct_bone", volume)
    assert 900 < float(numbers(said, "Bone")["Volume"].value or 0) < 1500
    assert volume.array[segment(said, "Bone")].min() >= 160
    assert (volume.array >= 2500).any()  # the leads beside the patient, which are not bone
    assert not segment(said, "Bone")[volume.array >= 2500].any()


def test_the_metal_hip_of_the_real_abdomen_is_refused_and_said(data: Path) -> None:
    with pytest.raises(Refused, match=r"11\.6 ml of metal"):
        run("ct_bone", read(data / "abdomen_pelvis_ct_totalseg_converted" / "dicom"))


# ---------------------------------------------------------------- fat


@pytest.mark.long
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_fat_agrees_with_the_truth_however_the_slices_lie(orientation: phantom.Orientation) -> None:
    volume = chest(orientation=orientation).volume
    said = said_of("ct_body_fat") if orientation == "axial" else run("ct_body_fat", volume)
    reach, hu = of_reach(volume, said), painted(orientation)
    skin = (hu == -100) & reach
    found = segment(said, SKIN)
    assert dice(found, skin) >= 0.87  # half a voxel at the skin is no longer as light as fat
    assert (found & skin).sum() / found.sum() >= 0.99
    within = (hu == -75) & reach
    if within.sum() * volume.voxel_ml > 300:
        assert dice(segment(said, WITHIN), within) >= 0.87
    assert numbers(said, SKIN)["Volume"].remark is None
    assert "estimate" in str(numbers(said, WITHIN)["Volume"].remark)


def test_fat_is_not_found_where_lung_meets_tissue() -> None:
    volume, said = chest().volume, said_of("ct_body_fat")
    lung = chest().truth > 0
    assert segment(said, WITHIN)[lung].sum() * volume.voxel_ml < 5


def test_a_field_of_view_that_cuts_the_trunk_is_refused() -> None:
    volume = chest().volume
    with pytest.raises(Refused, match=r"whole width over \d mm only"):
        run("ct_body_fat", replace(volume, array=volume.array[:, :, 40:], affine=volume.affine))


def test_fat_of_a_few_slices_and_of_no_trunk_is_refused() -> None:
    with pytest.raises(Refused, match="at least 50 mm are needed"):
        run("ct_body_fat", cropped(chest().volume, 40, 55))
    volume = chest().volume
    affine = volume.affine.copy()
    affine[:3, 1:3] *= 0.5
    with pytest.raises(Refused, match="no cross-section has the 250 cm2"):
        run("ct_body_fat", replace(volume, affine=affine))


def test_a_sharp_kernel_is_refused_for_fat() -> None:
    with pytest.raises(Refused, match="B70f is sharp"):
        run("ct_body_fat", chest("sharp_kernel").volume)


def test_fat_of_the_real_abdomen_leaves_its_organs_out(data: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    folder = data / "abdomen_pelvis_ct_totalseg_converted"
    volume = read(folder / "dicom")
    said = run("ct_body_fat", volume)
    skin = segment(said, SKIN)
    assert 800 < float(numbers(said, SKIN)["Volume"].value or 0) < 1700
    assert 900 < float(numbers(said, WITHIN)["Volume"].value or 0) < 1700
    organs = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(folder / "organs_multilabel.nii.gz"), "LPS")) > 0
    assert skin[organs].sum() < 0.02 * skin.sum()


def test_fat_of_the_real_chest_is_told_with_its_reach(data: Path) -> None:
    said = run("ct_body_fat", read(data / "chest_ct_philips_brilliance16_5mm" / "dicom"))
    assert 2100 < float(numbers(said, SKIN)["Volume"].value or 0) < 3100
    assert numbers(said, SKIN)["Scanned length"].value == pytest.approx(287.5)  # where the arms leave the image it ends
