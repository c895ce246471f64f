"""A SEG is the label map on its source, in every geometry, as highdicom writes it, element for element."""

import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.sr.coding import Code as PydicomCode

from dicom_sr import codes, readback, result_set
from dicom_sr.check import GateClosed, check
from dicom_sr.checks.report import voxel_ml
from dicom_sr.elements import tag_of
from dicom_sr.kinds import Built, Order, segmentation
from dicom_sr.nouns import Findings
from dicom_sr.runs import runs_of
from tests.objects import conftest as make
from tests.objects.test_gate import changed, group

ORIENTATIONS = {
    "axial": make.AXIAL,
    "axial_reversed": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "coronal": make.CORONAL,
    "coronal_reversed": (-1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "sagittal": make.SAGITTAL,
    "sagittal_reversed": (0.0, -1.0, 0.0, 0.0, 0.0, -1.0),
    "oblique": make.OBLIQUE,
    "oblique_2": make.OBLIQUE_2,
}

SHAPES = [(6, 16, 24), (5, 13, 11), (4, 10, 12), (1, 16, 24), (3, 9, 7), (7, 25, 25), (2, 8, 8)]

HEADER_OF_OURS = {
    "SpecificCharacterSet",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "ContentDate",
    "ContentTime",
    "Manufacturer",
    "ManufacturerModelName",
    "SeriesDescription",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "ContentCreatorName",
    "ContributingEquipmentSequence",
}
"""What both write and each fills in its own way."""


def order_for(folder: Path, shape: tuple[int, int, int], orientation: tuple[float, ...] = make.AXIAL) -> Order:
    """An order for two lungs in a series of this geometry."""
    paths = make.ct_series(folder / "ct", shape=shape, orientation=orientation)
    return make.order_of(paths, make.findings_of(make.two_lungs(shape)))


def read_back(part10: bytes, order: Order) -> np.ndarray:
    """The label map as highdicom reads it, plane for plane of the source by instance UID."""
    seg = hd.seg.segread(BytesIO(part10))
    uids = [plane.sop_instance_uid for plane in order.source.planes]
    return seg.get_pixels_by_source_instance(
        uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
def test_highdicom_reads_the_label_map_back_in_every_orientation(tmp_path: Path, orientation: tuple[float, ...]):
    order = order_for(tmp_path, (6, 16, 24), orientation)
    built = segmentation.build(order)
    assert np.array_equal(read_back(built.part10, order), order.findings.labels)
    check([built], order)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_highdicom_reads_the_label_map_back_in_every_size(tmp_path: Path, shape: tuple[int, int, int]):
    order = order_for(tmp_path, shape)
    built = segmentation.build(order)
    assert np.array_equal(read_back(built.part10, order), order.findings.labels)
    check([built], order)


@given(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_packed_pixels_unpack_to_the_masks(planes: int, rows: int, columns: int, seed: int, share: float):
    chance = np.random.default_rng(seed)
    labels = (chance.integers(1, 4, (planes, rows, columns)) * (chance.random((planes, rows, columns)) < share)).astype(
        "u1"
    )
    runs = runs_of([labels], 3)
    frames = segmentation.evened(runs.frames(), labels.shape)
    bits = np.unpackbits(runs.packed(frames), bitorder="little")
    assert bits.size % 16 == 0
    masks = bits[: len(frames) * rows * columns].reshape(-1, rows, columns)
    assert not bits[len(frames) * rows * columns :].any()
    seen = np.zeros_like(labels)
    for (number, plane), mask in zip(frames, masks, strict=True):
        assert np.array_equal(mask, labels[plane] == number)
        seen[plane][mask > 0] = number
    assert np.array_equal(seen, labels)
    assert len(set(frames)) == len(frames)


def of_highdicom(order: Order, *, kind: str = "BINARY", ours: pydicom.Dataset | None = None) -> pydicom.Dataset:
    """What highdicom writes for the same findings, under the same UIDs."""
    images = [pydicom.dcmread(plane.path) for plane in order.source.planes]
    algorithm = hd.AlgorithmIdentificationSequence(
        name="ct_lung", family=PydicomCode("123110", "DCM", "Artificial Intelligence"), version="1.0.0"
    )
    ours = ours or pydicom.dcmread(BytesIO(segmentation.build(order).part10))
    descriptions = []
    described = [item for item in ours.SegmentSequence if item.SegmentNumber]
    for segment, item in zip(order.findings.segments, described, strict=True):
        described = hd.seg.SegmentDescription(
            segment_number=segment.number,
            segment_label=segment.label,
            segmented_property_category=PydicomCode(segment.category.value, "SCT", segment.category.meaning),
            segmented_property_type=PydicomCode(segment.type.value, "SCT", segment.type.meaning),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=item.TrackingUID,
            tracking_id=item.TrackingID,
            display_color=hd.color.CIELabColor(50, 0, 0),
        )
        described.RecommendedDisplayCIELabValue = item.RecommendedDisplayCIELabValue
        side = PydicomCode(segment.laterality.value, "SCT", segment.laterality.meaning)
        modifier = hd.sr.CodedConcept(side.value, side.scheme_designator, side.meaning)
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
        descriptions.append(described)
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=order.findings.labels,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=ours.SeriesInstanceUID,
        series_number=9000,
        sop_instance_uid=ours.SOPInstanceUID,
        instance_number=1,
        manufacturer="Isocenter",
        manufacturer_model_name="ct_lung",
        software_versions="1.0.0",
        device_serial_number="1",
        content_label="SEGMENTATION",
        content_description=order.title,
        dimension_organization_type=None,
    )


def split(part10: bytes) -> dict[int, bytes]:
    """Tag to encoded element of a file in Explicit VR Little Endian with defined lengths."""
    at, found = 132, {}
    while at < len(part10):
        group, number, vr, length = struct.unpack_from("<HH2sH", part10, at)
        size = 8 + length
        if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OD", b"OF", b"OL", b"OV", b"SV", b"UV"):
            size = 12 + struct.unpack_from("<I", part10, at + 8)[0]
        found[group << 16 | number] = part10[at : at + size]
        at += size
    return found


@pytest.mark.parametrize("orientation", [make.AXIAL, make.SAGITTAL, make.OBLIQUE], ids=["axial", "sagittal", "oblique"])
@pytest.mark.parametrize("shape", [(6, 16, 24), (4, 12, 12)], ids=str)
def test_elements_are_highdicoms_byte_for_byte(
    tmp_path: Path, shape: tuple[int, int, int], orientation: tuple[float, ...]
):
    order = order_for(tmp_path, shape, orientation)
    ours = split(segmentation.build(order).part10)
    theirs_file = BytesIO()
    theirs_dataset = of_highdicom(order)
    uid = theirs_dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID
    theirs_dataset.save_as(theirs_file)
    wanted = order.uid("segmentation.dimension", 0).encode()
    theirs = split(theirs_file.getvalue())
    skipped = {tag_of(keyword) for keyword in HEADER_OF_OURS} | {tag for tag in theirs if tag >> 16 == 2}
    uids = {tag_of("DimensionOrganizationSequence"), tag_of("DimensionIndexSequence")}
    for tag, element in theirs.items():
        if tag in skipped or (tag == tag_of("SharedFunctionalGroupsSequence") and orientation == make.OBLIQUE):
            continue  # highdicom's own arithmetic gives SpacingBetweenSlices as 2.50000000000000 there
        if tag in uids:
            assert wanted in ours[tag]
            assert uid.encode() in element
            continue
        assert ours.get(tag) == element, pydicom.datadict.keyword_for_tag(tag)


def test_nothing_delineated_makes_no_segmentation(chest: Order):
    assert segmentation.build(replace(chest, findings=make.findings_of(None))) is None


def test_overlapping_segments_keep_all_their_voxels(tmp_path: Path):
    labels = make.two_lungs((6, 16, 24))
    lungs, both = make.findings_of(labels), np.zeros_like(labels)
    both[1:4, 4:12, 5:20] = 3
    whole = replace(codes.structure("left_lung").segment(3), label="Both", laterality=None)
    findings = Findings(
        algorithm=lungs.algorithm,
        labels=labels,
        segments=(*lungs.segments, whole),
        groups=lungs.groups,
        overlaps=(both,),
    )
    order = make.order_of(make.ct_series(tmp_path / "ct"), findings)
    built = segmentation.build(order)
    check([built], order)
    seg = hd.seg.segread(BytesIO(built.part10))
    assert seg.SegmentsOverlap == "YES"
    uids = [plane.sop_instance_uid for plane in order.source.planes]
    read = seg.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True, skip_overlap_checks=True
    )
    assert np.array_equal(read[..., 0], labels == 1)
    assert np.array_equal(read[..., 1], labels == 2)
    assert np.array_equal(read[..., 2], both == 3)


def test_one_segment_is_identified_once_for_all_frames(tmp_path: Path):
    labels = (make.two_lungs((6, 16, 24)) == 1).astype(np.uint8)
    order = make.order_of(make.ct_series(tmp_path / "ct"), make.findings_of(make.two_lungs((6, 16, 24))))
    one = replace(order.findings, labels=labels, segments=order.findings.segments[:1], groups=order.findings.groups[:1])
    order = replace(order, findings=one)
    dataset = pydicom.dcmread(BytesIO(segmentation.build(order).part10))
    assert dataset.DimensionOrganizationType == "3D"
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
    check([segmentation.build(order)], order)


@pytest.mark.parametrize(
    ("shape", "extra"), [((5, 8, 9), 1), ((6, 10, 12), 1), ((6, 16, 24), 0), ((37, 10, 25), 0)], ids=str
)
def test_an_empty_frame_makes_an_odd_number_of_pixel_bytes_even(
    tmp_path: Path, shape: tuple[int, int, int], extra: int
):
    labels = make.two_lungs(shape)
    while len(runs_of([labels], 2).frames()) % 2 == 0:
        labels[np.flatnonzero((labels == 1).any(axis=(1, 2)))[0]] = 0
    order = make.order_of(make.ct_series(tmp_path / "ct", shape=shape), make.findings_of(labels))
    built = segmentation.build(order)
    frames = int(pydicom.dcmread(BytesIO(built.part10)).NumberOfFrames)
    assert frames == len(runs_of([labels], 2).frames()) + extra
    check([built], order)
    assert np.array_equal(read_back(built.part10, order), labels)


def test_frames_of_a_multi_frame_source_are_named_by_number(data: Path):
    paths = sorted((data / "odd_series_dicom2nifti" / "philips_enhanced_anatomical_001").rglob("*.dcm"))
    source = make.source.read(paths)
    labels = make.two_lungs(source.shape)
    order = make.order_of(paths, make.findings_of(labels, voxel_ml=voxel_ml(source)))
    built = segmentation.build(order)
    check([built], order)
    dataset = pydicom.dcmread(BytesIO(built.part10))
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    named = [
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for frame in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert set(named) <= {plane.frame for plane in source.planes}
    frames = [plane.frame for plane in source.planes]
    read = hd.seg.segread(BytesIO(built.part10)).get_pixels_by_source_frame(
        source.planes[0].sop_instance_uid, frames, combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(read, labels)


def test_a_tilted_series_keeps_its_true_planes(data: Path):
    paths = sorted((data / "odd_series_dicom2nifti" / "failing_gantrytilting_001").rglob("*.dcm"))
    source = make.source.read(paths)
    order = make.order_of(paths, make.findings_of(make.two_lungs(source.shape), voxel_ml=voxel_ml(source)))
    built = segmentation.build(order)
    check([built], order)
    assert np.array_equal(read_back(built.part10, order), order.findings.labels)


def test_odd_values_of_the_source_are_quoted_and_never_a_reason_to_fail(tmp_path: Path):
    def odd(slice_: pydicom.Dataset, index: int) -> None:
        slice_.SOPInstanceUID = f"1.2.826.0.1.3680043.10.099999.01.{index:03}"
        slice_.SeriesInstanceUID = "1.2.826.0.1.3680043.10.099999.02"
        slice_.FrameOfReferenceUID = "1.2.826.0.1.3680043.10.099999.03"
        position = ["-12.5000000000000000", "-8.25000000000000000", f"{40.5 + 2.5 * index:.17f}"]
        long = pydicom.DataElement("ImagePositionPatient", "DS", position, already_converted=True)
        slice_["ImagePositionPatient"] = long
        del slice_.PatientBirthDate
        del slice_.ReferringPhysicianName

    with pydicom.config.disable_value_validation():
        paths = make.ct_series(tmp_path / "ct", change=odd)
    order = make.order_of(paths, make.findings_of(make.two_lungs((6, 16, 24))))
    built = segmentation.build(order)
    check([built], order)
    with pydicom.config.disable_value_validation():
        dataset = pydicom.dcmread(BytesIO(built.part10))
        assert dataset.FrameOfReferenceUID == "1.2.826.0.1.3680043.10.099999.03"
        references = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert references[3].ReferencedSOPInstanceUID == "1.2.826.0.1.3680043.10.099999.01.003"
        assert dataset.PatientBirthDate == ""


def rgb_of(lab: tuple[int, int, int]) -> list[int]:
    """The sRGB colour that a viewer makes of a scaled CIELab value under D50."""
    lightness, a, b = lab[0] / 65535 * 100, lab[1] / 65535 * 255 - 128, lab[2] / 65535 * 255 - 128
    fy = (lightness + 16) / 116
    parts = np.array([fy + a / 500, fy, fy - b / 200])
    xyz = np.where(parts > 6 / 29, parts**3, 3 * (6 / 29) ** 2 * (parts - 4 / 29)) * (0.9642, 1, 0.8249)
    to_rgb = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(np.array(to_rgb) @ xyz, 0, 1)
    share = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [round(255 * float(part)) for part in share]


@pytest.mark.parametrize("rgb", [(0, 0, 0), (255, 255, 255), (86, 180, 233), (230, 159, 0), (255, 0, 0), (0, 0, 255)])
def test_viewers_see_the_colour_that_was_asked_for(rgb: tuple[int, int, int]):
    assert np.abs(np.subtract(rgb_of(segmentation.cielab(rgb)), rgb)).max() <= 2


def parts_of(order: Order, above: int) -> list[Built]:
    """The SEGs of an order that wants no more frames in one than so many."""
    built = segmentation.build(replace(order, settings={"segmentation": {"split_frames_above": above}}))
    return list(built) if isinstance(built, tuple) else [built]


def test_a_segmentation_with_too_many_frames_is_split_between_segments(chest: Order):
    whole = pydicom.dcmread(BytesIO(segmentation.build(chest).part10))
    assert parts_of(chest, whole.NumberOfFrames)[0].part10 == segmentation.build(chest).part10
    parts = parts_of(chest, whole.NumberOfFrames - 1)
    assert [dict(part.segments) for part in parts] == [{1: 1}, {2: 1}]
    datasets = [pydicom.dcmread(BytesIO(part.part10)) for part in parts]
    assert len({ds.SOPInstanceUID for ds in datasets}) == 2
    assert len({ds.SeriesInstanceUID for ds in datasets}) == len({ds.SeriesNumber for ds in datasets}) == 1
    assert [ds.InstanceNumber for ds in datasets] == [1, 2]
    for number, part in enumerate(parts, start=1):
        assert np.array_equal(read_back(part.part10, chest), chest.findings.labels == number)
    # a segment that is larger by itself stays whole
    assert [dict(part.segments) for part in parts_of(chest, 1)] == [{1: 1}, {2: 1}]


def test_a_part_speaks_only_of_the_overlap_of_its_own_segments(chest: Order):
    labels = chest.findings.labels
    left, right = chest.findings.segments
    over = np.where(labels == 1, 3, 0).astype(np.uint8)
    over[3:] = 0  # all of it overlaps the left lung, nothing the right one
    findings = replace(
        chest.findings, segments=(left, right, replace(left, number=3, label="Left again")), overlaps=(over,), groups=()
    )
    order = replace(chest, findings=findings)
    frames = runs_of(findings.layers, 3).frames()
    last_two = sum(number > 1 for number, _ in frames)
    parts = parts_of(order, last_two)
    assert [dict(part.segments) for part in parts] == [{1: 1}, {2: 1, 3: 2}]
    said = [pydicom.dcmread(BytesIO(part.part10)).SegmentsOverlap for part in (*parts_of(order, 1000), *parts)]
    assert said == ["YES", "NO", "NO"]


def test_a_report_points_at_the_part_in_which_a_segment_lies(chest: Order):
    order = replace(chest, settings={"segmentation": {"split_frames_above": 1}})
    first, second, report = result_set.build(("segmentation", "measurement_report"), order)
    groups = hd.sr.srread(BytesIO(report.part10)).content.get_volumetric_roi_measurement_groups()
    references = [group.referenced_segment[0].ReferencedSOPSequence[0] for group in groups]
    assert [(one.ReferencedSOPInstanceUID, one.ReferencedSegmentNumber) for one in references] == [
        (first.sop_instance_uid, 1), (second.sop_instance_uid, 1)]  # fmt: skip
    with pytest.raises(GateClosed, match="were found"):
        check([first, report], order)

    def astray(dataset: pydicom.Dataset) -> None:
        reference = group(dataset, "Referenced Segment").ReferencedSOPSequence[0]
        reference.ReferencedSOPInstanceUID = second.sop_instance_uid

    with pytest.raises(GateClosed, match="does not point at segment"):
        check([first, second, changed(report, astray)], order)


def test_a_console_sees_the_parts_of_a_segmentation_as_one(chest: Order):
    parts = [pydicom.dcmread(BytesIO(part.part10)) for part in parts_of(chest, 1)]
    seen = readback.together(parts, chest.source)
    assert np.array_equal(seen.labels, chest.findings.labels)
    assert [segment.label for segment in seen.segments] == ["Left lung", "Right lung"]
