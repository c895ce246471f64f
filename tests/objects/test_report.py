"""The report says what was found, what was withheld and why, and what was not found."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_sr import codes
from dicom_sr.check import check
from dicom_sr.kinds import Order, built, measurement_report, names, segmentation
from dicom_sr.nouns import Box, Evaluation, Findings, MeasurementGroup
from tests.objects import conftest as make
from tests.objects.test_gate import content
from tests.objects.test_maps import mapped


def report_of(order: Order, *, with_segmentation: bool = True) -> Dataset:
    """The order's report, through the gate, read back."""
    seg = segmentation.build(order) if with_segmentation else None
    companions = (seg,) if seg else ()
    built = measurement_report.build(replace(order, companions=companions))
    check([*companions, built], order)
    return pydicom.dcmread(BytesIO(built.part10))


def groups(report: Dataset) -> list[Dataset]:
    """The measurement groups."""
    return [
        item for item in content(report, "Imaging Measurements").ContentSequence if "ContentTemplateSequence" in item
    ]


def texts(dataset: Dataset) -> Iterator[str]:
    """All texts of a report, at any depth."""
    for item in dataset.get("ContentSequence", ()):
        if "TextValue" in item:
            yield item.TextValue
        yield from texts(item)


def meaning(item: Dataset) -> str:
    """The meaning of a CODE's value."""
    return str(item.ConceptCodeSequence[0].CodeMeaning)


def test_every_number_is_there_with_its_unit_and_side(chest: Order):
    for found, group in zip(groups(report_of(chest)), chest.findings.groups, strict=True):
        assert meaning(content(found, "Finding Site", "Laterality")) == group.laterality.meaning
        for measurement in group.measurements:
            item = content(found, measurement.name.meaning)
            if measurement.value is not None:
                value = item.MeasuredValueSequence[0]
                assert value.FloatingPointValue == measurement.value
                assert value.MeasurementUnitsCodeSequence[0].CodeValue == measurement.unit.value


def test_a_withheld_number_is_no_number_but_a_code_and_its_reason(chest: Order):
    group = groups(report_of(chest))[0]
    assert content(group, "Perc15").ValueType == "CODE"
    assert meaning(content(group, "Perc15")) == "Measurement not attempted"
    assert content(group, "Measurement withheld").TextValue.startswith("Perc15: Slices are 5.0 mm thick")


def test_groups_share_tracking_with_their_segments(chest: Order):
    seg = pydicom.dcmread(BytesIO(segmentation.build(chest).part10))
    for group, segment in zip(groups(report_of(chest)), seg.SegmentSequence, strict=True):
        assert segment.TrackingUID == content(group, "Tracking Unique Identifier").UID
        assert content(group, "Tracking Identifier").TextValue == segment.TrackingID
        reference = content(group, "Referenced Segment").ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == segment.SegmentNumber


def test_nothing_found_is_a_report_of_what_was_looked_for(chest: Order):
    report = report_of(replace(chest, findings=make.findings_of(None)))
    outcomes = [i for i in content(report, "Qualitative Evaluations").ContentSequence if i.ValueType == "CODE"]
    assert [meaning(outcome) for outcome in outcomes] == ["Looked for and not found"] * 2
    assert [meaning(content(outcome, "Laterality")) for outcome in outcomes] == ["Left", "Right"]
    assert "Left lung: No lung air in this volume" in list(texts(report))
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [item.SeriesInstanceUID for item in series] == [chest.source.acquisition.series_instance_uid]
    assert len(series[0].ReferencedSOPSequence) == 6


def test_the_evidence_lists_every_image_and_the_segmentation(chest: Order):
    series = report_of(chest).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert sorted(len(item.ReferencedSOPSequence) for item in series) == [1, 6]


def test_without_a_segmentation_in_the_set_nothing_dangles(chest: Order):
    report = report_of(chest, with_segmentation=False)
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in groups(report)] == ["1501", "1501"]
    assert segmentation.build(chest).sop_instance_uid not in str(report)
    assert report.SeriesNumber == 9000


def test_the_report_says_who_found_it_how_complete_it_was_and_that_it_is_research(chest: Order):
    report = report_of(chest)
    said = list(texts(report))
    assert {"ct_lung", "1.0.0", "weights: none", "allow_thick: false", chest.completeness} <= set(said)
    assert any(text.startswith("For research use only") for text in said)
    assert "Arms beside the body" in said
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert meaning(content(report, "Procedure reported")) == "CT unspecified body region"
    released = list(texts(report_of(replace(chest, research=False))))
    assert not any("research" in text for text in released)


def test_own_terms_are_declared_with_their_definition(chest: Order):
    (scheme,) = report_of(chest).CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99ISOCENTER"
    assert "-950 HU" in scheme.CodingSchemeName


def test_findings_without_segments_and_evaluations_are_said(chest: Order):
    lung, outcome = codes.find("lung"), codes.find("outcome")
    group = MeasurementGroup(
        label="Both lungs",
        finding=lung,
        site=lung,
        laterality=codes.find("bilateral"),
        measurements=(codes.quantity("volume").measured(5432.1),),
        evaluations=(
            Evaluation(name=outcome, answer=codes.find("not_found")),
            Evaluation(name=codes.find("comment"), answer="Breath-hold poor"),
        ),
    )
    findings = Findings(algorithm=chest.findings.algorithm, groups=(group,))
    (found,) = groups(report_of(replace(chest, findings=findings)))
    assert found.ContentTemplateSequence[0].TemplateIdentifier == "1501"
    assert meaning(content(found, "Search outcome")) == "Looked for and not found"
    assert content(found, "Comment").TextValue == "Breath-hold poor"


def test_a_detected_box_is_said_face_by_face(chest: Order):
    lung = codes.find("lung")
    box = Box(minimum=(-10.0, -20.5, 30.25), maximum=(5.0, 8.0, 44.0))
    group = MeasurementGroup(label="Nodule", finding=lung, site=lung, box=box)
    report = report_of(replace(chest, findings=Findings(algorithm=chest.findings.algorithm, groups=(group,))))
    faces = [item for item in groups(report)[0].ContentSequence if item.ValueType == "SCOORD3D"]
    points = np.array([face.GraphicData for face in faces]).reshape(6, 5, 3)
    assert (points[:, 0] == points[:, -1]).all()
    assert tuple(points.min(axis=(0, 1))) == box.minimum
    assert tuple(points.max(axis=(0, 1))) == box.maximum
    assert faces[0].ReferencedFrameOfReferenceUID == chest.source.frame_of_reference_uid


@given(st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-1000, max_value=4000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_number_survives_the_report(tmp_path_factory, value: float):
    order = small(tmp_path_factory)
    lung = codes.find("lung")
    measured = codes.quantity("mean_attenuation").measured(value)
    group = MeasurementGroup(label="Lung", finding=lung, site=lung, measurements=(measured,))
    findings = Findings(algorithm=order.findings.algorithm, groups=(group,))
    item = content(groups(report_of(replace(order, findings=findings)))[0], "Attenuation Coefficient")
    assert item.MeasuredValueSequence[0].FloatingPointValue == value
    assert len(item.MeasuredValueSequence[0].NumericValue.original_string) <= 16


ORDERS: list[Order] = []


def small(tmp_path_factory) -> Order:
    """One order for all examples of a property."""
    if not ORDERS:
        folder: Path = tmp_path_factory.mktemp("small")
        ORDERS.append(make.order_of(make.ct_series(folder), make.findings_of(make.two_lungs((6, 16, 24)))))
    return ORDERS[0]


@pytest.fixture
def again(chest: Order) -> Order:
    """An order of which every kind is built: it has maps, and supersedes results that some destination has."""
    return replace(
        chest,
        findings=mapped(chest.findings, 1, 2),
        supersedes=make.superseded(chest),
        uid=lambda name, place: chest.uid(f"again.{name}", place),
    )


def test_the_same_order_makes_the_same_bytes(again: Order):
    for name in names():
        assert built(name, again) == built(name, again) != ()


def test_every_kind_passes_the_gate_and_has_uids_of_its_own(again: Order):
    made = {name: built(name, again) for name in names()}
    uids = [one.sop_instance_uid for several in made.values() for one in several]
    uids += [several[0].series_instance_uid for several in made.values()]
    assert len(set(uids)) == len(uids)
    for several in made.values():
        check(several, again)
