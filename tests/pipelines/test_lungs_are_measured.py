"""ct_lung against the phantom's truth and on real scans: right, or not at all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom_sr import pixels, source
from dicom_sr.nouns import Volume
from pipelines import anatomy, phantom
from pipelines.spec import Cancelled, Refused
from tests.pipelines.lungs import LUNG, SIDES, chest, cropped, dice, height_and_depth, numbers, run, said_of, segment

DENSITY = ("LAA-950", "Perc15")


@pytest.mark.parametrize(
    "orientation",
    [
        pytest.param(one, marks=() if one in {"axial", "oblique_double"} else pytest.mark.long)
        for one in phantom.ORIENTATIONS
    ],
)
def test_lungs_agree_with_the_truth_however_the_slices_lie(orientation: phantom.Orientation) -> None:
    made, said = chest(orientation=orientation), said_of(orientation=orientation)
    assert said.not_found == ()
    assert said.remarks == ()
    for label, number in SIDES.items():
        truth = made.left if label == "Left lung" else made.right
        assert truth is not None
        found = numbers(said, label)
        assert dice(segment(said, label), made.truth == number) >= 0.995
        assert found["Volume"].value == pytest.approx(truth.volume_ml, rel=0.01)
        assert found["LAA-950"].value == pytest.approx(truth.laa950_percent, abs=0.5)
        assert found["Perc15"].value == pytest.approx(truth.perc15_hu, abs=2)
        assert found["Attenuation Coefficient"].value == pytest.approx(truth.mean_hu, abs=3)


@pytest.mark.long
@pytest.mark.parametrize("spacing", [(5.0, 1.7, 1.7), (1.5, 1.1, 1.1), (2.0, 2.6, 2.6), (3.0, 0.9, 1.4)])
def test_lungs_agree_with_the_truth_at_other_spacings(spacing: tuple[float, float, float]) -> None:
    made = phantom.chest(spacing=spacing, seed=1)
    said = run(made.volume)
    for label, number in SIDES.items():
        assert dice(segment(said, label), made.truth == number) >= 0.99


def test_lungs_that_touch_are_told_apart() -> None:
    made, said = chest("touching"), said_of("touching")
    for label, number in SIDES.items():
        assert dice(segment(said, label), made.truth == number) >= 0.995


@pytest.mark.long
def test_lungs_are_told_apart_by_a_line_that_shows_in_part() -> None:
    made = phantom.chest("touching", spacing=(1.25, 0.7, 0.7), junction_mm=0.7)
    said = run(made.volume)
    for label, number in SIDES.items():
        assert dice(segment(said, label), made.truth == number) >= 0.99


def test_the_airway_is_not_lung() -> None:
    made = chest()
    said = said_of()
    assert said.labels is not None
    canvas = anatomy.Canvas(anatomy.Grid(made.volume.affine, made.volume.array.shape))
    for start, end, radius, _ in anatomy.Anatomy.airways:
        window, lumen = canvas.tube(start, end, radius)
        assert said.labels[window][lumen].astype(bool).mean() < 0.02


def test_gas_in_the_stomach_is_not_lung() -> None:
    made = chest()
    window, gas = anatomy.Canvas(anatomy.Grid(made.volume.affine, made.volume.array.shape)).ball(
        (60, -36, -120), (24, 17, 10)
    )
    said = said_of()
    assert said.labels is not None
    assert (made.volume.array[window][gas] < -900).all()
    assert not said.labels[window][gas].any()


@pytest.mark.long
def test_fluid_makes_its_lung_incomplete_and_leaves_the_other() -> None:
    said = said_of("effusion")
    assert [group.label for group in said.groups] == ["Left lung"]
    (missing,) = said.not_found
    assert missing.label == "Right lung"
    assert "incomplete, not measured" in missing.reason
    assert "85 %" in missing.reason


@pytest.mark.long
@pytest.mark.parametrize(("level", "measured"), [(90, True), (20, False), (-10, False)])
def test_the_fill_of_a_side_follows_the_fluid(level: float, measured: bool) -> None:
    volume = chest().volume
    z, y = height_and_depth(volume)
    fluid = (chest().truth == phantom.LEFT_LUNG) & (y > level + 0.34 * z)
    said = run(replace(volume, array=np.where(fluid, 8, volume.array).astype(np.int16)))
    assert ("Left lung" in [group.label for group in said.groups]) is measured


def test_a_consolidated_base_is_not_taken_for_a_small_lung() -> None:
    volume = chest().volume
    z, y = height_and_depth(volume)
    solid = (chest().truth == phantom.RIGHT_LUNG) & (z - 0.6 * y < -45)
    said = run(replace(volume, array=np.where(solid, 30, volume.array).astype(np.int16)))
    assert [missing.label for missing in said.not_found] == ["Right lung"]


def test_a_missing_lung_is_reported_as_such() -> None:
    said = said_of("one_lung")
    assert [segment.label for segment in said.segments] == ["Right lung"]
    assert [segment.number for segment in said.segments] == [1]
    assert said.not_found[0].label == "Left lung"
    assert "no aerated lung" in said.not_found[0].reason


@pytest.mark.long
def test_a_mass_is_left_out_and_said() -> None:
    made, said = chest("mass"), said_of("mass")
    found = numbers(said, "Right lung")
    assert found["Volume"].remark is not None
    assert "without air in the upper third" in found["Volume"].remark
    assert any("Right lung" in remark for remark in said.remarks)
    assert (segment(said, "Right lung") & made.mass).sum() < 0.02 * made.mass.sum()
    assert numbers(said, "Left lung")["Volume"].remark is None


def test_a_sharp_kernel_withholds_densities_but_not_volume() -> None:
    said = said_of("sharp_kernel")
    for label in SIDES:
        found = numbers(said, label)
        assert found["Volume"].value is not None
        for name in DENSITY:
            assert found[name].withheld == "kernel B70f is sharp, a soft one is needed"


@pytest.mark.long
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"slice_thickness": 5.0}, "slices are 5.0 mm thick"),
        ({"convolution_kernel": None}, "the kernel is not known to be soft"),
        ({"manufacturer": "CONVERTED FROM NIFTI"}, "kernel B30f is not known to be soft"),
        ({"lossy": True}, "lossy"),
    ],
)
def test_densities_are_withheld_with_the_reason(changed: dict[str, object], reason: str) -> None:
    volume = chest().volume
    doubtful = replace(volume, acquisition=replace(volume.acquisition, **changed))
    for label in SIDES:
        found = numbers(run(doubtful), label)
        for name in DENSITY:
            assert found[name].value is None
            assert reason in str(found[name].withheld)


@pytest.mark.long
def test_allow_thick_gives_densities_marked_as_doubtful() -> None:
    volume = chest("sharp_kernel").volume
    found = numbers(run(volume, allow_thick=True), "Left lung")
    assert found["LAA-950"].value is not None
    assert found["LAA-950"].value > 10
    assert found["LAA-950"].remark == "doubtful, since kernel B70f is sharp, a soft one is needed"


def test_contrast_is_said_beside_densities() -> None:
    volume = chest().volume
    found = numbers(run(replace(volume, acquisition=replace(volume.acquisition, contrast=True))), "Left lung")
    assert all("contrast" in str(found[name].remark) for name in (*DENSITY, "Attenuation Coefficient"))
    assert found["Volume"].remark is None


def field_of_view(volume: Volume, radius_mm: float, value: int) -> Volume:
    rows, columns = volume.array.shape[1:]
    y, x = np.mgrid[:rows, :columns]
    outside = np.hypot(y - rows / 2, x - columns / 2) * 1.7 > radius_mm
    return replace(volume, array=np.where(outside, value, volume.array).astype(np.int16))


@pytest.mark.parametrize("value", [-2000, *(pytest.param(one, marks=pytest.mark.long) for one in (-1024, -3024))])
def test_padded_corners_change_nothing(value: int) -> None:
    said = run(field_of_view(chest().volume, 165, value))
    for label, number in SIDES.items():
        assert dice(segment(said, label), chest().truth == number) >= 0.995


@pytest.mark.long
@pytest.mark.parametrize(("value", "reason"), [(-2000, "leaves the volume at its side"), (-1024, "lung")])
def test_lungs_that_the_field_of_view_cuts_are_refused(value: int, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        run(field_of_view(chest().volume, 125, value))


@pytest.mark.long
def test_padding_of_the_volume_counts_as_never_measured() -> None:
    volume = chest().volume
    padding = np.zeros(volume.array.shape, dtype=bool)
    padding[:, :, 165:] = True
    said = run(replace(volume, padding=padding))
    assert [missing.label for missing in said.not_found] == ["Left lung"]
    assert "leaves the volume at its side" in said.not_found[0].reason


@pytest.mark.long
@pytest.mark.parametrize(("first", "last", "end"), [(20, None, "foot end"), (0, -25, "head end")])
def test_lungs_cut_off_at_an_end_are_refused_with_the_end_named(first: int, last: int | None, end: str) -> None:
    volume = chest().volume
    with pytest.raises(Refused, match=end):
        run(cropped(volume, first, len(volume.array) if last is None else len(volume.array) + last))


def test_lung_bases_alone_are_refused() -> None:
    with pytest.raises(Refused, match="no trachea"):
        run(cropped(chest().volume, 0, 60))


def test_a_pneumothorax_is_not_taken_for_emphysema() -> None:
    volume = chest().volume
    _, y = height_and_depth(volume)
    gas = (chest().truth == phantom.LEFT_LUNG) & (y < -25)
    said = run(replace(volume, array=np.where(gas, -1000, volume.array).astype(np.int16)))
    assert [missing.label for missing in said.not_found] == ["Left lung"]
    assert "free gas" in said.not_found[0].reason


@pytest.mark.long
@pytest.mark.parametrize("step", [4, 8])
def test_values_with_gaps_between_them_are_measured_as_they_are(step: int) -> None:
    volume = chest().volume
    said = run(replace(volume, array=(volume.array // step * step).astype(np.int16)))
    for label, number in SIDES.items():
        assert dice(segment(said, label), chest().truth == number) >= 0.995


@pytest.mark.long
def test_fractions_of_hu_are_measured_too() -> None:
    volume = chest().volume
    said = run(replace(volume, array=volume.array.astype(np.float32) + np.float32(0.25)))
    value = numbers(said, "Left lung")["Attenuation Coefficient"].value
    assert value == pytest.approx(
        float(numbers(said_of(), "Left lung")["Attenuation Coefficient"].value or 0) + 0.25, abs=0.1
    )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"modality": "MR"}, "not CT"), ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "localizer")],
)
def test_what_is_no_volume_of_ct_slices_is_refused(changed: dict[str, object], reason: str) -> None:
    volume = chest().volume
    with pytest.raises(Refused, match=reason):
        run(replace(volume, acquisition=replace(volume.acquisition, **changed)))


def test_slices_too_far_apart_are_refused() -> None:
    affine = chest().volume.affine.copy()
    affine[:, 0] *= 4
    with pytest.raises(Refused, match=r"10\.0 mm apart"):
        run(replace(chest().volume, affine=affine))


def test_values_that_are_not_hu_are_refused() -> None:
    with pytest.raises(Refused):
        run(replace(chest().volume, array=(chest().volume.array + 1024).astype(np.int16)))


@pytest.mark.long
def test_progress_runs_forward_to_the_end_and_may_cancel() -> None:
    told: list[tuple[str, float]] = []
    LUNG.runner(chest().volume, LUNG.spec.settings(), progress=lambda phase, share: told.append((phase, share)))
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert told[0][1] == 0
    assert told[-1] == ("done", 1.0)
    assert len({phase for phase, _ in told}) >= 6

    def stop(phase: str, share: float) -> None:
        if share > 0.3:
            raise Cancelled("a person cancelled the job", remedy="Revive the job to run it again")

    with pytest.raises(Cancelled):
        LUNG.runner(chest().volume, LUNG.spec.settings(), progress=stop)


def read(folder: Path) -> Volume:
    return pixels.load(source.read(sorted(folder.glob("*.dcm"))))


def test_the_real_chest_has_its_volume_and_no_emphysema_number(data: Path) -> None:
    said = run(read(data / "chest_ct_philips_brilliance16_5mm" / "dicom"))
    left, right = (numbers(said, label) for label in SIDES)
    assert float(left["Volume"].value or 0) + float(right["Volume"].value or 0) == pytest.approx(5450, rel=0.05)
    for found in (left, right):
        for name in DENSITY:
            assert found[name].withheld == "slices are 5.0 mm thick, at most 3 mm are needed"
    assert left["Volume"].remark is not None
    assert "upper third" in left["Volume"].remark
    assert right["Volume"].remark is None
    assert said.not_found == ()


def test_no_gas_of_the_real_abdomen_is_called_lung(data: Path) -> None:
    with pytest.raises(Refused, match="no trachea"):
        run(read(data / "abdomen_pelvis_ct_totalseg_converted" / "dicom"))
