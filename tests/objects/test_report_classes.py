"""A report of every class says every finding; what a class cannot say in space is drawn on the nearest slice."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_sr import codes, outline
from dicom_sr.check import GateClosed, check
from dicom_sr.kinds import Order, measurement_report, segmentation
from dicom_sr.nouns import Box, Findings, ImpossibleFindings, MeasurementGroup, Region
from tests.objects.test_gate import changed
from tests.objects.test_report import groups


def with_places(order: Order) -> Order:
    """The order with a box and a region beside its lungs."""
    lung, (x, y, z) = codes.find("lung"), order.source.planes[0].position
    box = Box(minimum=(x + 2, y + 2, z + 4), maximum=(x + 6, y + 7, z + 8))
    line = ((x + 3, y + 3, z + 5), (x + 5, y + 3, z + 5), (x + 5, y + 6, z + 5), (x + 3, y + 3, z + 5))
    found = order.findings
    more = (
        MeasurementGroup(
            label="Nodule", finding=lung, site=lung, box=box, measurements=(codes.quantity("volume").measured(2.0),)
        ),
        MeasurementGroup(label="Mark", finding=lung, site=lung, region=Region(points=line)),
    )
    findings = Findings(
        algorithm=found.algorithm, labels=found.labels, segments=found.segments, groups=(*found.groups, *more)
    )
    return replace(order, findings=findings)


def report_of(order: Order) -> Dataset:
    """The order's report beside its SEG, through the gate."""
    seg = segmentation.build(order)
    built = measurement_report.build(replace(order, companions=(seg,)))
    check([seg, built], order)
    return pydicom.dcmread(BytesIO(built.part10))


def drawn(item: Dataset) -> list[Dataset]:
    """All SCOORDs below an item."""
    below = [found for child in item.get("ContentSequence", ()) for found in drawn(child)]
    return [item, *below] if item.get("ValueType") == "SCOORD" else below


@pytest.mark.parametrize("sr", ["comprehensive3d", "comprehensive", "enhanced"])
@pytest.mark.parametrize("tracking", ["plain", "cornerstone"])
def test_no_class_loses_a_finding(chest: Order, sr: str, tracking: str):
    report = report_of(replace(with_places(chest), sr=sr, tracking=tracking))
    assert report.SOPClassUID.keyword == {"comprehensive3d": "Comprehensive3DSRStorage",
        "comprehensive": "ComprehensiveSRStorage", "enhanced": "EnhancedSRStorage"}[sr]  # fmt: skip
    assert len(groups(report)) == 4
    assert ("SCOORD3D" in str(report)) == (sr == "comprehensive3d" and tracking == "plain")
    (line,) = drawn(groups(report)[3])
    image = line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert image == chest.source.planes[2].sop_instance_uid
    assert np.allclose(np.array(line.GraphicData).reshape(-1, 2)[0], (3 / 0.5 + 0.5, 3 / 0.75 + 0.5))


def test_what_is_drawn_for_ohif_is_the_outline_on_the_fullest_slice(chest: Order):
    report = report_of(replace(chest, tracking="cornerstone"))
    labels = chest.findings.labels
    for group, number in zip(groups(report), (1, 2), strict=True):
        lines = drawn(group)
        assert len(lines) == len([item for item in group.ContentSequence if item.ValueType == "NUM"]) == 3
        plane = outline.fullest(labels, number)
        image = lines[0].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        assert image == chest.source.planes[plane].sop_instance_uid
        points = np.array(lines[0].GraphicData).reshape(-1, 2)
        assert (points[0] == points[-1]).all()
        inside = labels[plane] == number
        assert all(
            inside[max(int(y - 0.5), 0) : int(y + 1.5), max(int(x - 0.5), 0) : int(x + 1.5)].any() for x, y in points
        )


def test_the_image_library_holds_only_slices_that_are_drawn_on(chest: Order):
    def library(order: Order) -> list[Dataset]:
        return [i for i in report_of(order).ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "111028"]

    assert library(chest) == []
    (listed,) = library(replace(with_places(chest), sr="comprehensive"))
    assert len(listed.ContentSequence[0].ContentSequence) == 1


def test_a_finding_off_the_source_is_an_error_not_a_loss(chest: Order):
    lung, (x, y, z) = codes.find("lung"), chest.source.planes[0].position
    box = Box(minimum=(x, y, z + 400), maximum=(x + 4, y + 4, z + 410))
    group = MeasurementGroup(label="Nodule", finding=lung, site=lung, box=box)
    order = replace(chest, findings=Findings(algorithm=chest.findings.algorithm, groups=(group,)), sr="enhanced")
    with pytest.raises(outline.NotOnASlice, match="slices off the source"):
        measurement_report.build(order)


def test_a_group_lies_in_one_place_only():
    lung, box = codes.find("lung"), Box(minimum=(0, 0, 0), maximum=(1, 1, 1))
    with pytest.raises(ImpossibleFindings, match="several places"):
        MeasurementGroup(label="x", finding=lung, site=lung, box=box, segment_number=1)


def to_first(dataset: Dataset) -> None:
    """The line is drawn on another slice."""
    image = drawn(groups(dataset)[0])[0].ContentSequence[0].ReferencedSOPSequence[0]
    image.ReferencedSOPInstanceUID = "1.2.826.0.1.3680043.10.99999.1.3.1"


MUTANTS = {
    "on a slice without the finding": to_first,
    "moved": lambda ds: setattr(drawn(groups(ds)[0])[0], "GraphicData", [21.0, 1.0, 23.0, 15.5]),
    "not drawn": lambda ds: setattr(groups(ds)[3], "ContentSequence", groups(ds)[3].ContentSequence[:4]),
    "in space": lambda ds: setattr(drawn(groups(ds)[0])[0], "ValueType", "SCOORD3D"),
    "no points": lambda ds: delattr(drawn(groups(ds)[0])[0], "GraphicData"),
    "other class": lambda ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.88.22"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_misdrawn_report_is_stopped(chest: Order, name: str):
    order = replace(with_places(chest), sr="comprehensive", tracking="cornerstone")
    seg = segmentation.build(order)
    built = measurement_report.build(replace(order, companions=(seg,)))
    with pytest.raises(GateClosed):
        check([seg, changed(built, MUTANTS[name])], order)
