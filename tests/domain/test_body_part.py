"""The region that a series covers is read from its texts; the truth beside the real headers was reviewed by hand.

`covers` is what a reader says that the series shows, `also` what may be in it and is no mistake to name.
"""

import csv
from collections import Counter
from pathlib import Path

import pytest

from router import trial
from router.domain.body_part import CONFIDENT, SERIES_TEXTS, STUDY_TEXTS, BodyPart, detect, named_in, of_tag, reconcile
from router.domain.classify import describe
from router.domain.facts import Header, aggregate

TEXTS = ("StudyDescription", "SeriesDescription", "ProtocolName")
TRUTH = Path(__file__).with_name("body_parts.csv")


@pytest.fixture(scope="module")
def headers(data: Path) -> list[Header]:
    paths = sorted((data / "routing_headers_covid19_ny_sbu" / "headers_only").glob("*.dcm"))
    found = [trial.header_of(path) for path in paths]
    kept = [header for header in found if header is not None]
    assert len(kept) == 62
    return kept


@pytest.fixture(scope="module")
def truth() -> dict[tuple[str, ...], tuple[set[str], set[str]]]:
    with TRUTH.open() as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    return {tuple(row[text] for text in TEXTS): (set(row["covers"].split()), set(row["also"].split())) for row in rows}


def test_every_real_header_has_a_reviewed_truth(
    headers: list[Header], truth: dict[tuple[str, ...], tuple[set[str], set[str]]]
) -> None:
    assert {tuple(str(header.get(text, "")) for text in TEXTS) for header in headers} == truth.keys()


def test_recall_is_at_least_90_percent_a_region_and_nothing_wrong_is_said_with_confidence(
    headers: list[Header], truth: dict[tuple[str, ...], tuple[set[str], set[str]]]
) -> None:
    there, found = Counter[str](), Counter[str]()
    for header in headers:
        covers, also = truth[tuple(str(header.get(text, "")) for text in TEXTS)]
        detected = detect(aggregate([header]))
        there.update(covers)
        found.update(covers & {one.part for one in detected})
        wrong = {one.part for one in detected if one.confidence >= CONFIDENT} - covers - also
        assert not wrong, header.get("SeriesDescription")
    print("\nregion     n  found  recall")
    for part in sorted(there):
        shown = f"{found[part] / there[part]:7.0%}" if there[part] >= 5 else "not shown (n < 5)"
        print(f"{part:8} {there[part]:3} {found[part]:6} {shown}")
    assert set(there) == {"chest", "abdomen", "pelvis"}
    assert all(found[part] >= 0.9 * n for part, n in there.items())


def test_without_descriptions_the_right_answer_is_that_it_is_unknown(headers: list[Header]) -> None:
    for header in headers:
        described_by = {keyword.partition(".")[0] for keyword in (*SERIES_TEXTS, *STUDY_TEXTS)}
        blank = {keyword: value for keyword, value in header.items() if keyword not in described_by}
        facts = describe([blank])
        assert "detected.body_part" not in facts
        assert ("body_part" in facts) == bool(header.get("BodyPartExamined"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("CT Schädel nativ", "head"),
        ("cCT", "head"),
        ("TDM crâne", "head"),
        ("MRT Knie rechts", "extremity"),
        ("MR LWS nativ", "spine"),
        ("CT thoracic spine", "spine"),
        ("IRM rachis lombaire", "spine"),
        ("T-L SPINE", "spine"),
        ("CT Thorax/Abdomen", "chest abdomen"),
        ("CT TAP mit KM", "chest abdomen pelvis"),
        ("CHEST/ABD/PEL (FEET FIRST)", "chest abdomen pelvis"),
        ("PET/CT skull base to mid-thigh", "whole body"),
        ("TC tórax", "chest"),
        ("Mammographie", "breast"),
        ("US Abdomen Leber", "abdomen"),
        ("HRCT lung", "chest"),
        ("Head and neck CTA", "head neck"),
        ("RX main", ""),
        ("Body 3.0 CE", ""),
        ("5 MM STANDARD", ""),
        ("speed 1.5", ""),
        ("1A TRAUMA/PLAIN HEAD DM /Head", "head"),
    ],
)
def test_texts_in_several_languages_name_regions(text: str, parts: str) -> None:
    assert set(named_in(text)) == set(BodyPart) & {part for part in BodyPart if part in parts}


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("CHEST", {"chest"}),
        ("CHEST_TO_PELVIS", {"chest", "abdomen", "pelvis"}),
        ("CHESTABDPELVIS", {"chest", "abdomen", "pelvis"}),
        ("ABDOMENPELVIS", {"abdomen", "pelvis"}),
        ("HEADNECK", {"head", "neck"}),
        ("CSPINE", {"spine"}),
        ("THORAX", {"chest"}),
        ("", set()),
    ],
)
def test_the_defined_terms_of_the_tag_are_understood(tag: str, parts: set[str]) -> None:
    assert set(of_tag([tag])) == parts


def test_an_empty_tag_a_right_one_and_a_wrong_one_end_in_the_same_region() -> None:
    texts = {"SeriesDescription": "Chest 1.0", "StudyDescription": "CT Chest"}
    for tag in ("", "CHEST", "ABDOMEN"):
        facts = describe([{**texts, "BodyPartExamined": tag}])
        assert facts["body_part"].values == (BodyPart.CHEST,)
        assert facts["body_part_conflict"].values == (tag == "ABDOMEN",)
        assert facts["detected.body_part"].origin == "SeriesDescription, confidence 0.9"


def test_doubtful_texts_do_not_overrule_the_tag() -> None:
    facts = aggregate([{"ProtocolName": "Knee", "StudyDescription": "Head"}])
    detected = detect(facts)
    assert all(one.confidence < CONFIDENT for one in detected)
    assert reconcile((BodyPart.CHEST,), detected).parts == (BodyPart.CHEST,)
    assert reconcile((BodyPart.CHEST,), detected).conflict
