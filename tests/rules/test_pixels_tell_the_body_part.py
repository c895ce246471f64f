"""The pixels of a CT tell what part of the body it shows, whatever its tag and its texts say."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import detect_body, phantom
from pipelines.detect_body import NothingToSee, regions, section
from router import trial
from router.domain.body_part import BodyPart, Detected, combine
from tests.domain.body_part_table import ABDOMEN, CHEST, SHOWN, TAGS, facts_of


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize(("folder", "shown"), SHOWN.items())
def test_chest_and_abdomen_are_told_apart_with_empty_wrong_and_right_tags_alike(
    data: Path, folder: str, shown: set[str], tag: str
) -> None:
    facts = facts_of(data / folder, BodyPartExamined=tag)
    assert set(facts["detected.body_part"].values) == set(facts["body_part"].values) == shown
    assert facts["detected.confidence"].lowest is not None
    assert facts["detected.confidence"].lowest >= 0.8
    assert "pixels" in facts["detected.body_part"].origin
    assert facts["body_part_conflict"].values == (bool(tag) and tag.casefold() not in shown,)


def test_a_text_that_says_otherwise_does_not_overrule_the_pixels(data: Path) -> None:
    facts = facts_of(data / CHEST, StudyDescription="CT Abdomen", SeriesDescription="Abdomen 5.0")
    assert facts["body_part"].values == ("chest",)


@pytest.mark.long
@pytest.mark.parametrize("variant", phantom.VARIANTS)
def test_every_chest_phantom_is_a_chest_also_with_one_lung_or_an_effusion(
    tmp_path: Path, variant: phantom.Variant
) -> None:
    phantom.write(phantom.chest(variant, spacing=(5.0, 2.5, 2.5)), tmp_path)
    facts = facts_of(tmp_path, BodyPartExamined="ABDOMEN")
    assert facts["body_part"].values == ("chest",)
    assert facts["body_part_conflict"].values == (True,)


def test_a_real_localizer_is_no_volume_and_its_pixels_are_not_asked(data: Path) -> None:
    facts = facts_of(data / "ct_localizer_philips_phantom")
    assert facts["kind"].values == ("localizer",)
    assert "detected.body_part" not in facts


@pytest.mark.parametrize("half", ["lower", "upper"])
def test_half_a_chest_is_still_a_chest_and_half_an_abdomen_no_chest(data: Path, half: str) -> None:
    def halved(folder: str) -> set[str]:
        paths = sorted((data / folder).rglob("*.dcm"), key=height)
        middle = len(paths) // 2
        return {one.name for one in detect_body.look(paths[:middle] if half == "lower" else paths[middle:])}

    assert halved(CHEST) == {"chest"}
    assert halved(ABDOMEN) == ({"pelvis"} if half == "lower" else {"abdomen"})


def height(path: Path) -> float:
    header = trial.header_of(path)
    assert header is not None
    return float(header["ImagePositionPatient"][2])


Draw = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any], float], np.ndarray[Any, Any]]


def drawn(draw: Draw, heights: Sequence[float]) -> tuple[set[str], float]:
    """What is seen in drawn slices of 400 mm, and the highest confidence."""
    y, x = np.mgrid[-200:200:2.0, -200:200:2.0]
    sections = [section(draw(x, y, z).astype(np.float32), (2.0, 2.0), z) for z in heights]
    found = regions([one for one in sections if one is not None])
    return {one.name for one in found}, max((one.confidence for one in found), default=0.0)


def oval(x: Any, y: Any, half_width: float, half_depth: float) -> Any:
    return (x / half_width) ** 2 + (y / half_depth) ** 2 <= 1


def test_a_drawn_skull_is_a_head() -> None:
    def skull(x: Any, y: Any, z: float) -> Any:
        image = np.full(x.shape, -1000.0)
        image[oval(x, y, 80, 100)] = 40
        image[oval(x, y, 75, 95)] = 900
        image[oval(x, y, 68, 88)] = 35
        return image

    assert drawn(skull, np.arange(0, 150, 5)) == ({"head"}, 0.8)


def test_legs_are_never_said_with_confidence_nor_called_a_trunk() -> None:
    def legs(x: Any, y: Any, z: float) -> Any:
        image = np.full(x.shape, -1000.0)
        for middle in (-100, 100):
            image[oval(x - middle, y, 70, 75)] = 45
            image[oval(x - middle, y, 15, 15)] = 900
        return image

    assert drawn(legs, np.arange(0, 400, 10)) == ({"extremity"}, 0.6)


def test_a_body_cut_off_by_the_field_of_view_is_not_said_with_confidence() -> None:
    def spine(x: Any, y: Any, z: float) -> Any:
        image = np.full(x.shape, 45.0)
        image[oval(x, y - 50, 25, 25)] = 400
        return image

    _, confidence = drawn(spine, np.arange(0, 400, 10))
    assert confidence < 0.75


@pytest.mark.parametrize("heights", [np.arange(0, 3, 1), np.arange(0, 20, 1)])
def test_over_a_few_slices_or_centimetres_nothing_is_said(heights: Any) -> None:
    with pytest.raises(NothingToSee):
        drawn(lambda x, y, z: np.where(oval(x, y, 150, 100), 40.0, -1000.0), heights)


def test_a_spine_is_no_matter_of_pixels_so_its_text_is_kept_beside_them() -> None:
    chest = Detected(part=BodyPart.CHEST, confidence=0.95, origin="pixels")
    spine = Detected(part=BodyPart.SPINE, confidence=0.9, origin="SeriesDescription")
    head = Detected(part=BodyPart.HEAD, confidence=0.9, origin="SeriesDescription")
    assert [one.part for one in combine([chest], [spine])] == ["chest", "spine"]
    assert [one.part for one in combine([chest], [head])] == ["chest"]
    doubtful = Detected(part=BodyPart.NECK, confidence=0.6, origin="pixels")
    assert combine([doubtful], [head]) == (head,)
    assert combine([doubtful], []) == (doubtful,)
