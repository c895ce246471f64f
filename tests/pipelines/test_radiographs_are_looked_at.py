"""cr_quality tells an inverted, turned or cut-off chest from a proper one, and says nothing where it cannot tell."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from dicom_sr import pixels, source
from dicom_sr.nouns import Evaluation, Findings, Measurement, Volume
from pipelines.spec import Refused
from tests.pipelines.examples import run
from tests.pipelines.radiographs import Shown, shadow, volume_of

ROTATION, SATURATED = "Rotation of the displayed image", "Pixels at an end of the range of values"
INVERTED, CUT_OFF = "Displayed grey scale inverted", "Lung apices cut off by the edge of the image"
WAYS = list(product(range(4), ("MONOCHROME1", "MONOCHROME2"), (False, True)))
REAL = {
    "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm": False,
    "Fake_MONOHR1.dcm": True,
    "wg04_RG1_J2KI.dcm": False,
}
"""Whether the header of each contradicts its content."""


def measured(findings: Findings, name: str) -> Measurement:
    return next(one for one in findings.groups[0].measurements if one.name.meaning == name)


def answer(findings: Findings, name: str) -> str:
    found = [one for one in findings.groups[0].evaluations if one.name.meaning == name]
    assert isinstance(found[0], Evaluation)
    assert not isinstance(found[0].answer, str)
    return found[0].answer.meaning


def turned(shown: Shown, quarters: int) -> Shown:
    """The image turned clockwise by quarters."""
    return np.rot90(shown, -quarters)


def read(data: Path, name: str) -> Volume:
    return pixels.load(source.read([data / "cxr" / name]))


@pytest.mark.parametrize(("quarters", "photometric", "inverted"), WAYS)
def test_each_way_of_a_phantom_is_told(quarters: int, photometric: str, inverted: bool) -> None:
    said = run("cr_quality", volume_of(turned(shadow(), quarters), photometric=photometric, inverted=inverted))
    assert measured(said, ROTATION).value == 90 * quarters
    assert answer(said, INVERTED) == ("Yes" if inverted else "No")
    assert answer(said, CUT_OFF) == "No"
    assert said.remarks == ()
    assert said.segments == ()


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("quarters", range(4))
def test_each_way_of_a_real_chest_is_told(quarters: int, name: str, data: Path) -> None:
    volume = read(data, name)
    said = run("cr_quality", replace(volume, array=turned(volume.array[0], quarters)[None]))
    assert measured(said, ROTATION).value == 90 * quarters
    assert answer(said, INVERTED) == ("Yes" if REAL[name] else "No")
    assert answer(said, CUT_OFF) == "No"


@pytest.mark.parametrize("name", REAL)
def test_apices_of_a_real_chest_are_missed_when_they_are_cut_off(name: str, data: Path) -> None:
    volume = read(data, name)
    said = run("cr_quality", replace(volume, array=volume.array[:, volume.array.shape[1] // 4 :]))
    assert answer(said, CUT_OFF) == "Yes"
    assert measured(said, ROTATION).value == 0


@pytest.mark.parametrize("border", [0, 4095])
def test_a_collimator_s_border_changes_nothing(border: int) -> None:
    framed = np.pad(shadow(), 40, constant_values=border)
    said, bare = run("cr_quality", volume_of(framed)), run("cr_quality", volume_of(shadow()))
    assert (measured(said, ROTATION), said.groups[0].evaluations) == (
        measured(bare, ROTATION),
        bare.groups[0].evaluations,
    )
    assert measured(said, SATURATED).value == pytest.approx(measured(bare, SATURATED).value, abs=2.0)


def test_what_was_never_measured_counts_as_border() -> None:
    framed = volume_of(np.pad(shadow(), 40, constant_values=1234))
    padding = np.pad(np.zeros((1, *shadow().shape), bool), ((0, 0), (40, 40), (40, 40)), constant_values=True)
    assert measured(run("cr_quality", replace(framed, padding=padding)), ROTATION).value == 0


def test_saturated_pixels_are_counted() -> None:
    ramp = np.arange(200 * 200, dtype=np.int16).reshape(200, 200) % 4000
    ramp[50:150, 50:150] = 4095
    said = run("cr_quality", volume_of(ramp))
    share = 100 * np.mean((ramp == 0) | (ramp == 4095))
    assert measured(said, SATURATED).value == pytest.approx(share, abs=0.5)


def not_a_chest(kind: str) -> Shown:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:300, 0:300]
    images = {
        "noise": random.normal(2000, 300, (300, 300)),
        "ramp": rows * 5 + columns * 7,
        "disc": 3000 * ((rows - 150) ** 2 + (columns - 150) ** 2 < 9000) + random.normal(500, 10, (300, 300)),
        "from the side": shadow(2),
    }
    return np.asarray(np.clip(images[kind], 0, 4095), np.int16)


@pytest.mark.parametrize("kind", ["noise", "ramp", "disc", "from the side"])
def test_nothing_is_said_of_what_is_unlike_a_chest(kind: str) -> None:
    said = run("cr_quality", volume_of(not_a_chest(kind)))
    rotation = measured(said, ROTATION)
    assert rotation.value is None
    assert rotation.withheld
    assert answer(said, INVERTED) == answer(said, CUT_OFF) == "Indeterminate"
    assert "not stated" in said.remarks[0]


def test_a_dog_is_no_frontal_chest(data: Path) -> None:
    volume = read(data, "highdicom_dx_dog.dcm")
    with pytest.raises(Refused, match="ViewPosition is empty"):
        run("cr_quality", volume)
    assert measured(run("cr_quality", volume, assume_frontal=True), ROTATION).value is None


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"projection": False}, "lies in the patient like a slice"),
        ({"photometric_interpretation": None}, "PhotometricInterpretation is missing"),
        ({"view_position": "LL"}, "ViewPosition is LL"),
        ({"view_position": None}, "ViewPosition is empty"),
    ],
)
def test_what_is_no_frontal_radiograph_is_refused(made: dict[str, object], why: str) -> None:
    with pytest.raises(Refused, match=why):
        run("cr_quality", volume_of(shadow(), **made))


def test_a_lateral_view_is_refused_even_where_views_may_be_missing() -> None:
    with pytest.raises(Refused, match="ViewPosition is RL"):
        run("cr_quality", volume_of(shadow(), view_position="RL"), assume_frontal=True)


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (np.full((200, 200), 7, np.int16), "shows no structure"),
        (np.zeros((100, 300), np.int16), "100 x 300 pixels"),
        (np.pad(np.arange(900, dtype=np.int16).reshape(30, 30), 100), "only 30 x 30|only 3. x 3. pixels"),
    ],
)
def test_an_image_that_shows_too_little_is_refused(shown: Shown, why: str) -> None:
    with pytest.raises(Refused, match=why):
        run("cr_quality", volume_of(shown))
