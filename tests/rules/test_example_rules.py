"""The rules of deploy/rules.example.yaml do what their comments say: each fires on its examination and on no other."""

from typing import Any

import pytest

from router import rulebook
from router.domain.classify import describe
from router.domain.facts import Fact
from router.domain.routing import judge_study
from router.domain.rules import Mode, Rule
from router.errors import WrongRulebook
from router.rulebook import Known
from tests.conftest import REPOSITORY

FILE = REPOSITORY / "deploy" / "rules.example.yaml"
KNOWN = Known(destinations=frozenset({"pacs"}))
AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
ORIGINAL = ["ORIGINAL", "PRIMARY", "AXIAL"]


@pytest.fixture(scope="module")
def rules() -> tuple[Rule, ...]:
    _, body = rulebook.read(FILE, known=KNOWN)
    return rulebook.rules(body)


def slices(modality: str, description: str, count: int = 40, **more: Any) -> dict[str, Fact]:
    """Facts of a stack of axial slices."""
    shared = {
        "Modality": modality, "StudyDescription": description, "ImageType": ORIGINAL, "SliceThickness": 1.0,
        "ImageOrientationPatient": AXIAL, **more,
    }  # fmt: skip
    return describe([{**shared, "ImagePositionPatient": [0.0, 0.0, float(place)]} for place in range(count)])


def frames(modality: str, sop_class: str, description: str) -> dict[str, Fact]:
    """Facts of one enhanced object of 40 frames, its geometry in the functional groups."""
    places = [{"PlanePositionSequence": [{"ImagePositionPatient": [0.0, 0.0, float(z)]}]} for z in range(40)]
    shared = [{
        "PlaneOrientationSequence": [{"ImageOrientationPatient": AXIAL}],
        "PixelMeasuresSequence": [{"SliceThickness": 1.0}],
    }]  # fmt: skip
    header = {
        "Modality": modality, "StudyDescription": description, "ImageType": ORIGINAL, "NumberOfFrames": 40,
        "SharedFunctionalGroupsSequence": shared, "PerFrameFunctionalGroupsSequence": places,
    }  # fmt: skip
    return describe([header], given={"sop_class": sop_class})


def image(modality: str, description: str, **more: Any) -> dict[str, Fact]:
    """Facts of one projection or sonogram."""
    return describe([{"Modality": modality, "StudyDescription": description, "ImageType": ["ORIGINAL"], **more}])


QUALITY = "Chest radiograph quality"
DEMONSTRATION = "CT chest nodule demonstration"
PRESENTED = {"PresentationIntentType": "FOR PRESENTATION"}
EXAMINATIONS: dict[str, tuple[list[dict[str, Fact]], set[str]]] = {
    "CT chest": ([slices("CT", "CT Chest")], {"CT chest", DEMONSTRATION}),
    "CT chest, thick": ([slices("CT", "CT Chest", SliceThickness=5.0)], {"CT chest"}),
    "CT chest scout": ([slices("CT", "CT Chest", 2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])], set()),
    "CT abdomen": ([slices("CT", "CT Abdomen", ConvolutionKernel="B30f")], {"CT abdomen"}),
    "CT head": ([slices("CT", "CT Head")], {"CT head"}),
    "CT head with contrast": ([slices("CT", "CT Head", ContrastBolusAgent="Iomeron")], set()),
    "Enhanced CT": ([frames("CT", "EnhancedCTImageStorage", "CT Thorax")], {"CT chest", "Enhanced CT", DEMONSTRATION}),
    "Enhanced MR": ([frames("MR", "EnhancedMRImageStorage", "MR Knie")], {"Enhanced MR"}),
    "MR brain": ([slices("MR", "MR Brain", SeriesDescription="t1 mprage")], {"MR brain"}),
    "MR brain T2": ([slices("MR", "MR Brain", SeriesDescription="t2 tse")], set()),
    "CR chest": ([image("CR", "Thorax", ViewPosition="AP", **PRESENTED)], {"CR and DX chest", QUALITY}),
    "DX chest": ([image("DX", "Chest PA", ViewPosition="PA", **PRESENTED)], {"CR and DX chest", QUALITY}),
    "DX chest lateral": ([image("DX", "Chest", ViewPosition="LL", **PRESENTED)], set()),
    "MG": ([image("MG", "Mammographie", PatientAge="052Y")], {"MG screening"}),
    "US": ([image("US", "US Abdomen")], {"US abdomen"}),
    "PT/CT": (
        [slices("PT", "PET/CT whole body", CorrectedImage=["DECY", "ATTN"]), slices("CT", "PET/CT whole body")],
        {"PT and CT"},
    ),
    "PT alone": ([slices("PT", "PET whole body", CorrectedImage=["DECY", "ATTN"])], set()),
}


@pytest.mark.parametrize("name", EXAMINATIONS)
def test_each_examination_is_met_by_its_own_rules_and_no_others(rules: tuple[Rule, ...], name: str) -> None:
    series, wanted = EXAMINATIONS[name]
    judged = judge_study(rules, {f"1.{index}": facts for index, facts in enumerate(series)})
    assert {one.rule.name for one in judged if one.verdict.holds} == wanted


def test_every_rule_is_met_by_some_examination(rules: tuple[Rule, ...]) -> None:
    assert {rule.name for rule in rules} == set.union(*(wanted for _, wanted in EXAMINATIONS.values()))


def test_of_two_abdomens_the_soft_thin_one_is_taken(rules: tuple[Rule, ...]) -> None:
    series = {
        "sharp": slices("CT", "CT Abdomen", ConvolutionKernel="B70f"),
        "thick": slices("CT", "CT Abdomen", ConvolutionKernel="B30f", SliceThickness=5.0),
        "thin": slices("CT", "CT Abdomen", ConvolutionKernel="B30f"),
    }
    judged = judge_study(rules, series)
    assert [one.series_instance_uid for one in judged if one.rule.name == "CT abdomen"] == ["thin"]


def test_every_rule_has_a_comment() -> None:
    lines = FILE.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  - name:"):
            assert lines[number - 1].startswith("  # "), line


def test_only_rules_whose_pipeline_is_installed_are_on_but_for_the_demonstration(rules: tuple[Rule, ...]) -> None:
    for rule in rules:
        if rule.name == DEMONSTRATION:
            assert rule.mode is Mode.OFF
            continue
        installed = {one.pipeline for one in rule.pipelines} <= KNOWN.pipelines.keys()
        assert (rule.mode is Mode.ON) == installed, rule.name


def test_what_is_not_installed_cannot_be_switched_on_and_a_typing_error_is_one_in_any_mode() -> None:
    text = FILE.read_text()
    with pytest.raises(WrongRulebook, match="there is no pipeline ct_abdomen"):
        rulebook.parse(
            text.replace(
                '[ct_abdomen]\n    destinations: [pacs]\n    mode: "off"',
                '[ct_abdomen]\n    destinations: [pacs]\n    mode: "shadow"',
            ),
            "r.yaml",
            known=KNOWN,
        )
    with pytest.raises(WrongRulebook, match=r"ct_lungs: did you mean ct_lung\?"):
        rulebook.parse(text.replace("[ct_abdomen]", "[ct_lungs]"), "r.yaml", known=KNOWN)
