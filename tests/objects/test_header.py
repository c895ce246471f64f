"""Results are the source's: its patient, its study, its bytes; and they say who made them and when."""

from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_sr import header
from dicom_sr.check import check
from dicom_sr.checks.report import voxel_ml
from dicom_sr.kinds import Built, Order, measurement_report, segmentation
from dicom_sr.nouns import Findings
from dicom_sr.script import ESCAPE
from tests.objects import conftest as make

CHARACTER_SETS = (
    "chrArab", "chrFren", "chrGB2312", "chrGerm", "chrGreek", "chrH31", "chrH32", "chrHbrw", "chrI2", "chrJapMulti",
    "chrJapMultiExplicitIR6", "chrKoreanMulti", "chrRuss", "chrX1", "chrX2",
)  # fmt: skip


def built(order: Order) -> list[Built]:
    """SEG and SR of the order, through the gate."""
    seg = segmentation.build(order)
    both = [seg, measurement_report.build(replace(order, companions=(seg,)))]
    check(both, order)
    return both


def read(one: Built) -> Dataset:
    """A built object, read back."""
    return pydicom.dcmread(BytesIO(one.part10))


def raw(dataset: Dataset, keyword: str) -> bytes:
    """The bytes of a value as they lie in the file, without padding."""
    value = dataset.get_item(keyword).value
    return value.rstrip(b" \0") if isinstance(value, bytes) else value


def with_remark(order: Order, remark: str) -> Order:
    """The order whose findings bear this remark."""
    findings = order.findings
    return replace(
        order,
        findings=Findings(
            algorithm=findings.algorithm,
            labels=findings.labels,
            segments=findings.segments,
            groups=findings.groups,
            remarks=(remark,),
        ),
    )


@pytest.fixture
def foreign(tmp_path: Path, data: Path, request: pytest.FixtureRequest) -> tuple[Order, Dataset]:
    """An order on a series that bears the patient of one of the character set files, and one of its images."""
    theirs = pydicom.dcmread(data / "charsets" / f"{request.param}.dcm")

    def become(slice_: Dataset, index: int) -> None:
        for keyword in ("SpecificCharacterSet", "PatientName", "PatientID", "StudyDescription"):
            if keyword in theirs:
                slice_[keyword] = theirs.get_item(keyword)

    paths = make.ct_series(tmp_path / "ct", change=become)
    return make.order_of(paths, make.findings_of(make.two_lungs((6, 16, 24)))), pydicom.dcmread(paths[0])


@pytest.mark.parametrize("foreign", CHARACTER_SETS, indirect=True)
def test_names_in_every_script_are_copied_byte_for_byte(foreign: tuple[Order, Dataset]):
    order, theirs = foreign
    for one in built(order):
        ours = read(one)
        assert raw(ours, "PatientName") == raw(theirs, "PatientName")
        assert ours.SpecificCharacterSet == theirs.SpecificCharacterSet


@pytest.mark.parametrize("foreign", CHARACTER_SETS, indirect=True)
def test_names_are_transcoded_when_our_text_needs_more(foreign: tuple[Order, Dataset]):
    order, theirs = foreign
    seg, report = built(with_remark(order, "Slices ≥ 3 mm ☢"))
    ours = read(report)
    able = theirs.SpecificCharacterSet in ("GB18030", "ISO_IR 192")
    assert ours.SpecificCharacterSet == (theirs.SpecificCharacterSet if able else "ISO_IR 192")
    assert str(ours.PatientName) == ESCAPE.sub("", str(theirs.PatientName))
    assert "☢" in str(ours)
    assert read(seg).SpecificCharacterSet == theirs.SpecificCharacterSet


def test_text_that_the_sources_character_set_can_say_stays_in_it(chest: Order):
    _, report = built(with_remark(chest, "Größe geprüft"))
    assert read(report).SpecificCharacterSet == "ISO_IR 100"
    assert "Größe".encode("latin-1") in report.part10


def test_a_series_without_character_set_gets_utf_8_only_for_our_own_text(tmp_path: Path):
    paths = make.ct_series(tmp_path / "ct", change=lambda slice_, index: slice_.pop("SpecificCharacterSet"))
    order = make.order_of(paths, make.findings_of(make.two_lungs((6, 16, 24))))
    assert "SpecificCharacterSet" not in read(built(order)[1])
    assert read(built(with_remark(order, "µ"))[1]).SpecificCharacterSet == "ISO_IR 192"


def test_the_japanese_series_keeps_its_patient(data: Path):
    paths = sorted((data / "odd_series_dicom2nifti" / "hitachi_anatomical_001").glob("*.dcm"))
    source = make.source.read(paths)
    order = make.order_of(paths, make.findings_of(make.two_lungs(source.shape), voxel_ml=voxel_ml(source)))
    theirs = pydicom.dcmread(paths[0], stop_before_pixels=True)
    for one in built(order):
        ours = read(one)
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "SpecificCharacterSet"):
            assert ours.get(keyword) == theirs.get(keyword), keyword


def requested(slice_: Dataset, index: int) -> None:
    """A study that answers a request, of a hospital with several issuers."""
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    slice_.IssuerOfAccessionNumberSequence = [issuer]
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = "ÄLT-7", "OLD", "TEXT"
    slice_.OtherPatientIDsSequence = [other]
    step = Dataset()
    step.RequestedProcedureID, step.ScheduledProcedureStepID = "RP7", "SPS7"
    step.RequestedProcedureDescription = "CT Thorax für Emphysem"
    protocol = Dataset()
    protocol.CodeValue, protocol.CodingSchemeDesignator, protocol.CodeMeaning = "CT7", "99LOCAL", "Thorax nativ"
    step.ScheduledProtocolCodeSequence = [protocol]
    slice_.RequestAttributesSequence = [step]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=["implicit", "big endian"])
def test_requests_and_issuers_are_copied_from_sources_of_any_encoding(tmp_path: Path, syntax: str):
    paths = make.ct_series(tmp_path / "ct", change=requested)
    for path in paths:
        slice_ = pydicom.dcmread(path)
        if syntax == ExplicitVRBigEndian:
            slice_.PixelData = slice_.pixel_array.astype(">i2").tobytes()
        slice_.file_meta.TransferSyntaxUID = syntax
        little = syntax != ExplicitVRBigEndian
        pydicom.dcmwrite(path, slice_, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little)
    order = make.order_of(paths, make.findings_of(make.two_lungs((6, 16, 24))))
    for changed_order in (order, with_remark(order, "☢")):
        seg, report = (read(one) for one in built(changed_order))
        for ours in (seg, report):
            assert ours.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"
            assert ours.OtherPatientIDsSequence[0].PatientID == "ÄLT-7"
            assert ours.RequestAttributesSequence[0].RequestedProcedureDescription == "CT Thorax für Emphysem"
            assert ours.RequestAttributesSequence[0].ScheduledProtocolCodeSequence[0].CodeValue == "CT7"
        request = report.ReferencedRequestSequence[0]
        assert request.RequestedProcedureID == "RP7"
        assert request.RequestedProcedureDescription == "CT Thorax für Emphysem"
        assert request.AccessionNumber == "ACC1"
        assert request.StudyInstanceUID == report.StudyInstanceUID


def test_missing_type_2_attributes_are_there_and_empty(tmp_path: Path):
    def bare(slice_: Dataset, index: int) -> None:
        for keyword in header.ALWAYS:
            del slice_[keyword]

    order = make.order_of(make.ct_series(tmp_path / "ct", change=bare), make.findings_of(make.two_lungs((6, 16, 24))))
    for one in built(order):
        ours = read(one)
        assert all(keyword in ours and not ours[keyword].value for keyword in header.ALWAYS)


def test_a_malformed_age_is_left_out_and_a_proper_one_copied(tmp_path: Path):
    def odd(slice_: Dataset, index: int) -> None:
        slice_["PatientAge"] = pydicom.DataElement("PatientAge", "AS", "0Y", already_converted=True)
        slice_.PatientWeight = "71.5"

    paths = make.ct_series(tmp_path / "ct", change=odd)
    ours = read(built(make.order_of(paths, make.findings_of(make.two_lungs((6, 16, 24)))))[0])
    assert "PatientAge" not in ours
    assert ours.PatientWeight == 71.5


def test_times_are_in_the_configured_zone(chest: Order):
    summer = replace(chest, made_at=datetime(2026, 7, 1, 23, 30, tzinfo=ZoneInfo("America/St_Johns")))
    ours = read(built(summer)[0])
    assert (ours.ContentDate, ours.ContentTime) == ("20260701", "233000.000000")
    assert ours.TimezoneOffsetFromUTC == "-0230"
    assert ours.ContributingEquipmentSequence[0].ContributionDateTime == "20260701233000.000000-0230"


def test_times_follow_a_source_that_declares_its_zone(tmp_path: Path):
    paths = make.ct_series(tmp_path / "ct", change=lambda s, index: setattr(s, "TimezoneOffsetFromUTC", "-0500"))
    ours = read(built(make.order_of(paths, make.findings_of(make.two_lungs((6, 16, 24)))))[0])
    assert ours.TimezoneOffsetFromUTC == "-0500"
    assert (ours.ContentDate, ours.ContentTime) == ("20260110", "083015.250000")
    assert ours.StudyTime == "101500"


def test_results_say_what_they_are(chest: Order):
    for number, one in enumerate(built(chest)):
        ours = read(one)
        assert ours.SeriesDescription == "AI ct_lung 1.0.0 RESEARCH"
        assert ours.ContentQualification == "RESEARCH"
        assert ours.SeriesNumber == 9000 + number
        assert ours.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert header.is_ours(ours)
    released = replace(chest, research=False)
    assert read(built(released)[0]).SeriesDescription == "AI ct_lung 1.0.0"


def test_a_long_pipeline_name_still_says_research(chest: Order):
    named = replace(chest, pipeline="ct_" + "lung" * 20)
    description = read(built(named)[0]).SeriesDescription
    assert len(description) == 64
    assert description.endswith(" RESEARCH")


def test_one_model_version_has_one_device_uid(chest: Order):
    algorithm = chest.findings.algorithm
    assert header.device(algorithm) == header.device(replace(algorithm, parameters=()))
    assert header.device(algorithm) != header.device(replace(algorithm, version="1.0.1"))
    assert header.device(algorithm) != header.device(replace(algorithm, weights_digest="0" * 64))


@pytest.mark.parametrize("keyword", header.IDENTITY)
def test_any_part_of_the_identity_changed_is_another_identity(chest: Order, keyword: str):
    first, other = chest.source.header, Dataset()
    other.update(first)
    vr = pydicom.datadict.dictionary_VR(keyword)
    part = Dataset()
    part.PatientID = "7"
    value = {"SQ": [part], "DA": "20010203", "TM": "0102", "UI": "1.2.3", "DS": "1.71", "AS": "071Y"}.get(vr, "OTHER")
    setattr(other, keyword, value)
    assert header.identity_digest(other) != header.identity_digest(first)


@pytest.mark.parametrize(
    ("of_header", "ours"),
    [
        ({}, False),
        ({"Manufacturer": None}, False),
        ({"Manufacturer": "Philips"}, False),
        ({"Manufacturer": "Isocenter"}, True),
        ({"Manufacturer": "ISOCENTER "}, True),
        ({"Manufacturer": "Philips", "ContributingEquipmentSequence": [{"Manufacturer": "Isocenter"}]}, True),
        ({"Manufacturer": "Philips", "ContributingEquipmentSequence": [{"Manufacturer": "Gateway"}]}, False),
        ({"ContributingEquipmentSequence": None}, False),
    ],
)
def test_ours_is_what_isocenter_made_or_touched(of_header: dict[str, object], ours: bool):
    assert header.is_ours(of_header) is ours
