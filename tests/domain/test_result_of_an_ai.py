"""A series that an algorithm made is told from images and from what people drew, by what its objects say plainly."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_sr import result_set
from router import examine, trial
from router.domain.algorithm import UNNAMED, maker, may_be_a_result
from router.domain.facts import Fact
from tests.objects.conftest import ct_series, findings_of, order_of, two_lungs

SECONDARY = {"ImageType": ["DERIVED", "SECONDARY"]}
CAPTURE = "SecondaryCaptureImageStorage"


SETS = (("segmentation", "measurement_report"), ("overlay",))


def described(path: Path) -> dict[str, Fact]:
    header = trial.header_of(path)
    assert header is not None
    return examine.series([examine.Seen(header=header, path=path)], given={})


def item(concept: str, text: str, scheme: str = "DCM") -> dict[str, Any]:
    return {"ConceptNameCodeSequence": [{"CodeValue": concept, "CodingSchemeDesignator": scheme}], "TextValue": text}


SAID: list[tuple[dict[str, Any], str, str, str]] = [
    ({"SegmentSequence": [{"SegmentAlgorithmType": "AUTOMATIC", "SegmentAlgorithmName": "TotalSegmentator"}]},
     "SegmentationStorage", "TotalSegmentator", "SegmentSequence"),
    ({"SegmentSequence": [{"SegmentAlgorithmType": "AUTOMATIC"}]}, "SegmentationStorage", UNNAMED, "SegmentSequence"),
    ({"ContentSequence": [{"ContentSequence": [item("111001", "Nodule Finder")]}]},
     "ComprehensiveSRStorage", "Nodule Finder", "ContentSequence"),
    ({"ManufacturerModelName": "iCAD"}, "MammographyCADSRStorage", "iCAD", "SOPClassUID"),
    ({**SECONDARY, "ContributingEquipmentSequence": [{"ManufacturerModelName": "AI-Rad Companion"}]},
     CAPTURE, "AI-Rad Companion", "ContributingEquipmentSequence"),
    ({**SECONDARY, "DerivationDescription": "Deep learning segmentation"}, CAPTURE, UNNAMED, "DerivationDescription"),
    ({**SECONDARY, "SoftwareVersions": ["2.1", "AI engine 4"]}, CAPTURE, UNNAMED, "SoftwareVersions"),
    ({"ImageType": ["DERIVED", "SECONDARY", "AI_OVERLAY"]}, CAPTURE, UNNAMED, "ImageType"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "sop_class", "name", "origin"), SAID)
def test_what_says_that_an_algorithm_made_it_is_believed(
    header: dict[str, Any], sop_class: str, name: str, origin: str
) -> None:
    found = maker(header, sop_class)
    assert found is not None
    assert (found.values, found.origin) == ((name,), origin)


NOT_SAID: list[tuple[dict[str, Any], str]] = [
    ({"SegmentSequence": [{"SegmentAlgorithmType": "SEMIAUTOMATIC", "SegmentAlgorithmName": "AI"}]}, "Segmentation"),
    ({"SegmentSequence": [{"SegmentAlgorithmType": kind} for kind in ("AUTOMATIC", "MANUAL")]}, "Segmentation"),
    ({"ContentSequence": [item("121005", "Device"), item("111001", "x", "99LOCAL")]}, "ComprehensiveSRStorage"),
    ({**SECONDARY, "SeriesDescription": "CTA coronary, CAD?"}, CAPTURE),
    ({**SECONDARY, "ManufacturerModelName": "Ultrasound AI 60"}, CAPTURE),
    ({**SECONDARY, "DerivationDescription": "MAINTAINED by AIR, hard copy"}, CAPTURE),
    ({"Modality": "RTSTRUCT"}, "RTStructureSetStorage"),
]


@pytest.mark.parametrize(("header", "sop_class"), NOT_SAID)
def test_nothing_is_guessed(header: dict[str, Any], sop_class: str) -> None:
    assert maker(header, sop_class) is None


def test_an_original_image_is_no_result_however_it_was_reconstructed() -> None:
    original = {"Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "SoftwareVersions": "AI recon"}
    assert not may_be_a_result(original, "CTImageStorage")
    assert may_be_a_result({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, "CTImageStorage")


@pytest.mark.parametrize(
    ("path", "kind", "by"),
    [
        ("seg_sr_highdicom/**/seg_image_ct_binary.dcm", "result of an AI", ["test"]),
        ("seg_sr_dcmqi/**/liver.dcm", "document", []),
        ("seg_sr_dcmqi/**/partial_overlaps.dcm", "document", []),
        ("seg_sr_dcmqi/**/sr.dcm", "document", []),
        ("seg_sr_highdicom/**/sr_document.dcm", "document", []),
    ],
)
def test_segments_and_reports_of_other_software_are_what_they_say(
    data: Path, path: str, kind: str, by: list[str]
) -> None:
    (file,) = data.glob(path)
    facts = described(file)
    assert facts["kind"].text == kind
    assert [*facts["algorithm"].values] == by if by else "algorithm" not in facts


def test_the_real_chest_and_abdomen_are_no_results(data: Path) -> None:
    for folder in ("chest_ct_philips_brilliance16_5mm", "abdomen_pelvis_ct_totalseg_converted"):
        file = next(path for path in sorted((data / folder).rglob("*.dcm")) if dcmread(path).Modality == "CT")
        assert "algorithm" not in described(file)


def test_our_own_results_are_results(tmp_path: Path) -> None:
    order = order_of(ct_series(tmp_path / "ct"), findings_of(two_lungs((6, 16, 24))))
    made = [one for kinds in SETS for one in result_set.build(kinds, order)]
    assert len(made) > 2
    for number, built in enumerate(made):
        file = tmp_path / f"{number}.dcm"
        file.write_bytes(built.part10)
        facts = described(file)
        assert facts["kind"].text == "result of an AI", built.kind
        assert facts["algorithm"].values == ("ct_lung",)
