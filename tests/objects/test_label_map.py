"""A label map is what was found, as highdicom writes and reads it, and a report points into it."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import RLELossless

from dicom_sr import codes, readback, result_set
from dicom_sr.check import GateClosed, check, inspect
from dicom_sr.elements import tag_of
from dicom_sr.kinds import Order, label_map
from dicom_sr.nouns import Findings
from dicom_sr.uids import LABEL_MAP_SEGMENTATION_STORAGE
from tests.objects import conftest as make
from tests.objects.test_gate import COMMON_MUTANTS, OTHER_UID, changed
from tests.objects.test_segmentation import (
    HEADER_OF_OURS,
    ORIENTATIONS,
    SHAPES,
    of_highdicom,
    order_for,
    read_back,
    split,
)


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_the_label_map_is_read_back_in_every_orientation(tmp_path: Path, orientation: tuple[float, ...]):
    order = order_for(tmp_path, (6, 16, 24), orientation)
    (built,) = label_map.build(order)
    assert np.array_equal(read_back(built.part10, order), order.findings.labels)
    dataset = pydicom.dcmread(BytesIO(built.part10))
    seen = readback.findings(dataset, order.source)
    assert np.array_equal(seen.labels, order.findings.labels)
    assert seen.algorithm.name == order.findings.algorithm.name
    check([built], order)
    assert inspect([dataset], source=order.source) == []


@pytest.mark.parametrize("shape", [*SHAPES, (2, 5, 300)], ids=str)
def test_the_label_map_is_read_back_in_every_size(tmp_path: Path, shape: tuple[int, int, int]):
    order = order_for(tmp_path, shape)
    (built,) = label_map.build(order)
    assert np.array_equal(read_back(built.part10, order), order.findings.labels)
    check([built], order)


@given(st.integers(1, 9), st.integers(1, 400), st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_run_lengths_decode_to_the_plane(rows: int, columns: int, seed: int, share: float):
    chance = np.random.default_rng(seed)
    plane = (chance.integers(1, 256, (rows, columns)) * (chance.random((rows, columns)) < share)).astype(np.uint8)
    frame = label_map.run_lengths(plane)
    assert len(frame) % 2 == 0
    assert np.array_equal(np.frombuffer(imagecodecs.dicomrle_decode(frame, "u1"), np.uint8), plane.ravel())


def test_elements_are_highdicoms_byte_for_byte(tmp_path: Path):
    order = order_for(tmp_path, (6, 16, 24))
    (built,) = label_map.build(order)
    ours = pydicom.dcmread(BytesIO(built.part10))
    theirs = of_highdicom(order, kind="LABELMAP", ours=ours)
    assert np.array_equal(ours.pixel_array, theirs.pixel_array)
    uid = theirs.DimensionOrganizationSequence[0].DimensionOrganizationUID
    for part in (theirs.DimensionOrganizationSequence[0], theirs.DimensionIndexSequence[0]):
        part.DimensionOrganizationUID = order.uid("label_map.dimension", 0)
    assert uid not in str(theirs.DimensionIndexSequence)
    out = BytesIO()
    theirs.save_as(out)
    compared = split(built.part10)
    skipped = {tag_of(keyword) for keyword in (*HEADER_OF_OURS, "PixelData")}
    for tag, element in split(out.getvalue()).items():
        if tag not in skipped and tag >> 16 != 2:
            assert compared.get(tag) == element, pydicom.datadict.keyword_for_tag(tag)


def test_a_report_points_into_the_label_map(chest: Order):
    seg, report = result_set.build(("label_map", "measurement_report"), chest)
    assert pydicom.dcmread(BytesIO(seg.part10)).file_meta.TransferSyntaxUID == RLELossless
    groups = hd.sr.srread(BytesIO(report.part10)).content.get_volumetric_roi_measurement_groups()
    pointed = [group.referenced_segment[0] for group in groups]
    assert [(p.ReferencedSOPSequence[0].ReferencedSOPClassUID, p.ReferencedSOPSequence[0].ReferencedSegmentNumber)
            for p in pointed] == [(LABEL_MAP_SEGMENTATION_STORAGE, 1), (LABEL_MAP_SEGMENTATION_STORAGE, 2)]  # fmt: skip
    other = changed(report, lambda ds: None)
    check([seg, other], chest)


def overlapping(folder: Path) -> Order:
    """Two lungs, and over both of them a third segment."""
    labels = make.two_lungs((6, 16, 24))
    lungs, both = make.findings_of(labels), np.zeros_like(labels)
    both[1:4, 4:12, 5:20] = 3
    whole = replace(codes.structure("left_lung").segment(3), label="Both", laterality=None)
    findings = Findings(
        algorithm=lungs.algorithm, labels=labels, segments=(*lungs.segments, whole), groups=lungs.groups,
        overlaps=(both,),
    )  # fmt: skip
    return make.order_of(make.ct_series(folder / "ct"), findings)


def test_overlapping_segments_lie_in_label_maps_of_their_own(tmp_path: Path):
    order = overlapping(tmp_path)
    *maps, report = result_set.build(("label_map", "measurement_report"), order)
    assert [dict(one.segments) for one in maps] == [{1: 1, 2: 2}, {3: 3}]
    assert len({one.sop_instance_uid for one in maps}) == 2
    for built, layer in zip(maps, order.findings.layers, strict=True):
        assert np.array_equal(read_back(built.part10, order), layer)
    with pytest.raises(GateClosed, match="were found"):
        check([maps[0], report], order)


def value_77(dataset: pydicom.Dataset) -> None:
    """A pixel value that no segment describes."""
    pixels = dataset.pixel_array
    pixels[0, 3, 3] = 77
    dataset.PixelData = pydicom.encaps.encapsulate([label_map.run_lengths(plane) for plane in pixels])


def mirrored(dataset: pydicom.Dataset) -> None:
    """All planes left to right."""
    planes = dataset.pixel_array[:, :, ::-1]
    dataset.PixelData = pydicom.encaps.encapsulate([label_map.run_lengths(plane) for plane in planes])


MUTANTS = {
    "mirrored": (mirrored, "are not the label map's"),
    "a value that is no segment": (value_77, "does not describe the pixel values \\[77\\]"),
    "background not described": (lambda ds: ds.SegmentSequence.pop(0), "pixel values \\[0\\]"),
    "numbers swapped": (
        lambda ds: [setattr(ds.SegmentSequence[n], "SegmentNumber", 3 - n) for n in (1, 2)], "SegmentNumber"),
    "segment gone": (lambda ds: ds.SegmentSequence.pop(), "were found"),
    "class of a binary one": (
        lambda ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.4"), "SOPClassUID"),
    "binary said": (lambda ds: setattr(ds, "SegmentationType", "BINARY"), "is not of this SOP Class"),
    "other frame of reference": (lambda ds: setattr(ds, "FrameOfReferenceUID", OTHER_UID), "FrameOfReferenceUID"),
    "other side": (
        lambda ds: setattr(ds.SegmentSequence[1], "SegmentLabel", "Right lung"), "another side"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_label_map_with_one_defect_is_stopped(chest: Order, name: str):
    (built,) = label_map.build(chest)
    change, said = MUTANTS[name]
    with pytest.raises(GateClosed, match=said):
        check([changed(built, change)], chest)


@pytest.mark.parametrize("name", COMMON_MUTANTS)
def test_a_label_map_of_somebody_else_is_stopped(chest: Order, name: str):
    (built,) = label_map.build(chest)
    with pytest.raises(GateClosed):
        check([changed(built, COMMON_MUTANTS[name])], chest)


def test_a_cut_frame_is_stopped(chest: Order):
    (built,) = label_map.build(chest)
    with pytest.raises(GateClosed):
        check([replace(built, head=built.head[:-30])], chest)
