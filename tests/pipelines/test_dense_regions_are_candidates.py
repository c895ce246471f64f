"""ct_head_hyperdense on drawn heads: each region on its side, never called blood, or refused with the reason."""

from dataclasses import replace

import numpy as np
import pytest

from dicom_sr.nouns import Findings
from pipelines import phantom, phantom_head
from pipelines.spec import Refused
from tests.pipelines.examples import head, numbers, run, said_of, segment
from tests.pipelines.lungs import chest, cropped, dice

NAME, LABEL = "ct_head_hyperdense", "Hyperdense candidates"


def told(orientation: phantom.Orientation) -> Findings:
    return said_of(NAME) if orientation == "axial" else run(NAME, head("dense", orientation).volume)


@pytest.mark.long
@pytest.mark.parametrize("orientation", ["axial", "sagittal_reversed", "oblique_double"])
def test_each_region_is_found_on_its_side_however_the_slices_lie(orientation: phantom.Orientation) -> None:
    made, said = head("dense", orientation), told(orientation)
    assert dice(segment(said, LABEL), made.truth > 0) >= 0.85
    assert numbers(said, LABEL)["Number of candidates"].value == 2
    for group, (centre, radius), side in zip(said.groups[1:], phantom_head.REGIONS, ("Left", "Right"), strict=True):
        assert group.laterality is not None
        assert group.laterality.meaning == side
        assert group.box is not None
        middle = (np.array(group.box.minimum) + np.array(group.box.maximum)) / 2
        assert np.abs(middle - centre).max() < 3
        volume = next(m for m in group.measurements if m.name.meaning == "Volume")
        assert volume.value == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.3)
        assert "candidate only" in str(volume.remark)


def test_nothing_that_is_said_names_a_diagnosis() -> None:
    said = said_of(NAME)
    words = repr((said.groups, said.segments, said.remarks)).lower()
    assert not any(word in words for word in ("haemorrhage", "hemorrhage", "bleed", "haematoma", "hematoma"))


def test_a_calcification_is_left_out_and_said() -> None:
    said = said_of(NAME)
    assert "denser than 90 HU" in " ".join(said.remarks)
    made = head().volume
    k, j, i = np.rint(np.linalg.inv(made.affine) @ (3.0, 22.0, 4.0, 1.0))[:3].astype(int)
    assert made.array[k, j, i] > 150
    assert not segment(said, LABEL)[k - 1 : k + 2, j - 3 : j + 4, i - 3 : i + 4].any()


def test_a_head_without_one_says_that_this_excludes_nothing() -> None:
    said = run(NAME, head("plain").volume)
    assert said.segments == ()
    assert "excludes nothing" in said.not_found[0].reason


@pytest.mark.parametrize(("variant", "reason"), [("open", "no whole, closed skull"), ("coil", "ml of metal")])
def test_an_open_skull_and_metal_inside_it_are_refused(variant: phantom_head.Variant, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        run(NAME, head(variant).volume)


def test_a_chest_and_half_a_head_are_refused() -> None:
    with pytest.raises(Refused, match="no whole, closed skull"):
        run(NAME, chest().volume)
    with pytest.raises(Refused, match="cut off"):
        run(NAME, cropped(head().volume, 0, 48))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"contrast": True}, "contrast agent was given"),
        ({"convolution_kernel": "H70h"}, "kernel H70h is sharp"),
        ({"modality": "MR"}, "not CT"),
    ],
)
def test_what_the_headers_rule_out_is_refused(changed: dict[str, object], reason: str) -> None:
    volume = head().volume
    with pytest.raises(Refused, match=reason):
        run(NAME, replace(volume, acquisition=replace(volume.acquisition, **changed)))


def test_noise_as_large_as_what_is_looked_for_is_refused() -> None:
    volume = head("plain").volume
    noise = np.random.default_rng(3).normal(0, 30, volume.array.shape)
    with pytest.raises(Refused, match="scatter by"):
        run(NAME, replace(volume, array=(volume.array + noise).astype(np.int16)))
