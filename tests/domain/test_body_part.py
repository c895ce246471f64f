"""The region that a series covers is read from its texts; the truth beside the real headers was reviewed by hand.

`covers` is what a reader says that the series shows, `also` what may be in it and is no mistake to name.
"""

from pathlib import Path

import pytest
from pydicom.sr import codes
from pydicom.sr._snomed_dict import mapping

from router.domain import region_codes
from router.domain.body_part import CONFIDENT, BodyPart, detect, named_in, of_tag, reconcile
from router.domain.classify import describe
from router.domain.facts import Header, aggregate
from tests.domain import body_part_table as table


@pytest.fixture(scope="module")
def headers(data: Path) -> list[Header]:
    kept = table.headers(data)
    assert len(kept) == 62
    return kept


def test_every_real_header_has_a_reviewed_truth(headers: list[Header]) -> None:
    assert {table.texts(header) for header in headers} == table.truth().keys()


def test_recall_is_at_least_90_percent_a_region_and_nothing_wrong_is_said_with_confidence(data: Path) -> None:
    rows = {row.part: row for row in table.as_they_are(data)}
    assert {part for part, row in rows.items() if row.covering} == {"chest", "abdomen", "pelvis"}
    assert all(row.found >= 0.9 * row.covering for row in rows.values())
    assert not any(row.confidently_wrong for row in rows.values())


def test_without_descriptions_the_right_answer_is_that_it_is_unknown(data: Path, headers: list[Header]) -> None:
    rows, unknown = table.without_words(data)
    assert unknown == 62
    assert not any(row.found or row.wrong for row in rows)
    for header in headers:
        facts = describe([table.blanked(header)])
        assert "detected.body_part" not in facts
        assert ("body_part" in facts) == bool(header.get("BodyPartExamined"))


def test_the_table_says_of_every_region_how_many_headers_cover_it(data: Path) -> None:
    lines = [*table.lines(data)]
    assert any(line.split() == ["chest", "49", "49", "0", "0", "100%"] for line in lines)
    assert any(line.startswith("head") and line.endswith("not shown (n < 5)") for line in lines)
    assert any("62 of 62 are unknown" in line for line in lines)
    assert sum(line.startswith((table.CHEST, table.ABDOMEN)) for line in lines) == 8


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
        ("Thoraco-lumbar spine", "spine"),
        ("MR cervicothoracic", "spine"),
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


def test_a_coded_region_says_the_same_in_every_language() -> None:
    for value, scheme, meaning, parts in (
        ("816094009", "SCT", "胸部", {"chest"}),
        ("T-D4000", "SRT", "Abdome", {"abdomen"}),
        ("416775004", "SCT", "", {"chest", "abdomen", "pelvis"}),
        ("61685007", "SCT", "Lower limb", {"extremity"}),
        ("61685007", "99LOCAL", "下肢", set()),
        ("12345", "99LOCAL", "Thorax", {"chest"}),
    ):
        item = {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}
        facts = describe([{"Modality": "MR", "AnatomicRegionSequence": [item]}])
        found = facts["detected.body_part"].values if "detected.body_part" in facts else ()
        assert set(found) == parts, value


def test_codes_of_regions_are_those_of_the_standard() -> None:
    known = {getattr(codes.cid4031, name).value for name in codes.cid4031.dir()} | {
        getattr(codes.cid4, name).value for name in codes.cid4.dir()
    }
    retired = mapping["SCT"]
    for code, regions in region_codes.REGIONS.items():
        assert set(regions) <= set(BodyPart)
        if code[0] in "TR":
            assert region_codes.REGIONS[mapping["SRT"][code]] == regions, code
        else:
            assert code in known or code in retired, code


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
