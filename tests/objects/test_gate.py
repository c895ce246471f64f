"""The gate lets every good set pass and none with a single defect."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_sr import result_set
from dicom_sr.check import GateClosed, check, inspect
from dicom_sr.kinds import Built, Order, measurement_report, segmentation
from tests.objects import conftest as make

Set = dict[str, Built]
Change = Callable[[Dataset], None]


def built(order: Order) -> list[Built]:
    """The set of an order: SEG, where there is one, and SR."""
    seg = segmentation.build(order)
    companions = (seg,) if seg else ()
    return [*companions, measurement_report.build(replace(order, companions=companions))]


def changed(original: Built, change: Change) -> Built:
    """The same object with one defect."""
    dataset = pydicom.dcmread(BytesIO(original.part10))
    change(dataset)
    out = BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=False)
    return replace(original, head=out.getvalue(), pixels=b"")


def content(dataset: Dataset, *names: str) -> Dataset:
    """The content item reached by these concept meanings."""
    for name in names:
        dataset = next(i for i in dataset.ContentSequence if i.ConceptNameCodeSequence[0].CodeMeaning == name)
    return dataset


def group(dataset: Dataset, *names: str) -> Dataset:
    """An item of the first measurement group."""
    return content(dataset, "Imaging Measurements", "Measurement Group", *names)


def volume(dataset: Dataset) -> Dataset:
    """The measured value of the first volume."""
    return group(dataset, "Volume").MeasuredValueSequence[0]


def without(dataset: Dataset, *names: str) -> None:
    """Take a content item away."""
    parent = content(dataset, *names[:-1])
    parent.ContentSequence.remove(content(parent, names[-1]))


def flip_bit(dataset: Dataset) -> None:
    """One wrong pixel."""
    pixels = bytearray(dataset.PixelData)
    pixels[20] ^= 4
    dataset.PixelData = bytes(pixels)


def mirror(dataset: Dataset) -> None:
    """All frames left to right."""
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    size = int(dataset.NumberOfFrames) * dataset.Rows * dataset.Columns
    frames = bits[:size].reshape(-1, dataset.Rows, dataset.Columns)[:, :, ::-1]
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)


def swap_frames(dataset: Dataset) -> None:
    """Two frames trade their places but not their pixels."""
    frames = dataset.PerFrameFunctionalGroupsSequence
    first, second = frames[0].PlanePositionSequence, frames[1].PlanePositionSequence
    frames[0].PlanePositionSequence, frames[1].PlanePositionSequence = second, first


def swap_derivations(dataset: Dataset) -> None:
    """Two frames trade what they say they are derived from."""
    frames = dataset.PerFrameFunctionalGroupsSequence
    first, second = frames[0].DerivationImageSequence, frames[1].DerivationImageSequence
    frames[0].DerivationImageSequence, frames[1].DerivationImageSequence = second, first


def shift_plane(dataset: Dataset) -> None:
    """One frame between two planes."""
    position = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    x, y, z = position.ImagePositionPatient
    position.ImagePositionPatient = [x, y, float(z) + 1.0]


def swap_sides(dataset: Dataset) -> None:
    """Left and right trade their codes."""
    first, second = (s.SegmentedPropertyTypeCodeSequence[0] for s in dataset.SegmentSequence)
    one, other = first.SegmentedPropertyTypeModifierCodeSequence, second.SegmentedPropertyTypeModifierCodeSequence
    first.SegmentedPropertyTypeModifierCodeSequence = other
    second.SegmentedPropertyTypeModifierCodeSequence = one


def swap_groups(dataset: Dataset) -> None:
    """The groups of the two lungs trade their tracking UIDs."""
    groups = [g for g in content(dataset, "Imaging Measurements").ContentSequence if "ContentTemplateSequence" in g]
    one, other = (content(g, "Tracking Unique Identifier") for g in groups)
    one.UID, other.UID = other.UID, one.UID


def drop_frame(dataset: Dataset) -> None:
    """The last frame is gone, everywhere."""
    dataset.NumberOfFrames -= 1
    dataset.PerFrameFunctionalGroupsSequence.pop()
    dataset.PixelData = dataset.PixelData[: -dataset.Rows * dataset.Columns // 8]


def double_dimension(dataset: Dataset) -> None:
    """Two frames with one index."""
    frames = dataset.PerFrameFunctionalGroupsSequence
    frames[1].FrameContentSequence = frames[0].FrameContentSequence


OTHER_UID = "1.2.826.0.1.3680043.10.99999.9.9"

SEG_MUTANTS: dict[str, Change] = {
    "one pixel": flip_bit,
    "mirrored": mirror,
    "swapped planes": swap_frames,
    "swapped derivations": swap_derivations,
    "frame off its plane": shift_plane,
    "frame missing": drop_frame,
    "pixels short": lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2]),
    "pixels long": lambda ds: setattr(ds, "PixelData", ds.PixelData + b"\0\0"),
    "no derivation on one frame": lambda ds: delattr(ds.PerFrameFunctionalGroupsSequence[2], "DerivationImageSequence"),
    "no position on one frame": lambda ds: delattr(ds.PerFrameFunctionalGroupsSequence[2], "PlanePositionSequence"),
    "number of frames": lambda ds: setattr(ds, "NumberOfFrames", ds.NumberOfFrames - 1),
    "dangling derivation": lambda ds: setattr(
        ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0],
        "ReferencedSOPInstanceUID",
        OTHER_UID,
    ),
    "dangling series reference": lambda ds: setattr(
        ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0], "ReferencedSOPInstanceUID", OTHER_UID
    ),
    "image left out of references": lambda ds: ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence.pop(),
    "no referenced series": lambda ds: delattr(ds, "ReferencedSeriesSequence"),
    "other series referenced": lambda ds: setattr(ds.ReferencedSeriesSequence[0], "SeriesInstanceUID", OTHER_UID),
    "source image of another series": lambda ds: setattr(
        ds.SourceImageSequence[0], "ReferencedSOPInstanceUID", OTHER_UID
    ),
    "other frame of reference": lambda ds: setattr(ds, "FrameOfReferenceUID", OTHER_UID),
    "other spacing": lambda ds: setattr(
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", [0.5, 0.75]
    ),
    "other slice spacing": lambda ds: setattr(
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "SpacingBetweenSlices", 5
    ),
    "other orientation": lambda ds: setattr(
        ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0], "ImageOrientationPatient", [1, 0, 0, 0, 0, 1]
    ),
    "segment 77 of 2": lambda ds: setattr(
        ds.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0], "ReferencedSegmentNumber", 77
    ),
    "frame of the other segment": lambda ds: setattr(
        ds.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0], "ReferencedSegmentNumber", 2
    ),
    "segment numbers": lambda ds: setattr(ds.SegmentSequence[1], "SegmentNumber", 3),
    "segment gone": lambda ds: ds.SegmentSequence.pop(),
    "sides swapped in codes": swap_sides,
    "label of the other side": lambda ds: setattr(ds.SegmentSequence[0], "SegmentLabel", "Right lung"),
    "no side": lambda ds: delattr(
        ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0], "SegmentedPropertyTypeModifierCodeSequence"
    ),
    "other structure": lambda ds: setattr(
        ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0], "CodeValue", "44567001"
    ),
    "wrong code meaning": lambda ds: setattr(
        ds.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0], "CodeMeaning", "Liver"
    ),
    "code without scheme": lambda ds: delattr(
        ds.SegmentSequence[0].SegmentedPropertyCategoryCodeSequence[0], "CodingSchemeDesignator"
    ),
    "no category": lambda ds: delattr(ds.SegmentSequence[0], "SegmentedPropertyCategoryCodeSequence"),
    "no colour": lambda ds: delattr(ds.SegmentSequence[0], "RecommendedDisplayCIELabValue"),
    "no tracking UID": lambda ds: delattr(ds.SegmentSequence[0], "TrackingUID"),
    "one tracking UID for two": lambda ds: setattr(
        ds.SegmentSequence[0], "TrackingUID", ds.SegmentSequence[1].TrackingUID
    ),
    "no label": lambda ds: setattr(ds.SegmentSequence[0], "SegmentLabel", ""),
    "doubled dimension index": double_dimension,
    "other dimension organization": lambda ds: setattr(
        ds.DimensionIndexSequence[0], "DimensionOrganizationUID", OTHER_UID
    ),
    "not binary": lambda ds: setattr(ds, "SegmentationType", "BINARI"),
    "bits": lambda ds: setattr(ds, "BitsStored", 8),
    "no rows": lambda ds: delattr(ds, "Rows"),
    "other columns": lambda ds: setattr(ds, "Columns", 16),
    "no content label": lambda ds: setattr(ds, "ContentLabel", ""),
    "no position reference": lambda ds: delattr(ds, "PositionReferenceIndicator"),
}

COMMON_MUTANTS: dict[str, Change] = {
    "other patient": lambda ds: setattr(ds, "PatientName", "Somebody^Else"),
    "other patient id": lambda ds: setattr(ds, "PatientID", "PH0002"),
    "no issuer": lambda ds: delattr(ds, "IssuerOfPatientID"),
    "other study": lambda ds: setattr(ds, "StudyInstanceUID", OTHER_UID),
    "other accession number": lambda ds: setattr(ds, "AccessionNumber", "ACC2"),
    "no birth date": lambda ds: delattr(ds, "PatientBirthDate"),
    "other character set": lambda ds: setattr(ds, "SpecificCharacterSet", "ISO_IR 144"),
    "no SOP instance UID": lambda ds: delattr(ds, "SOPInstanceUID"),
    "SOP instance UID not as ordered": lambda ds: setattr(ds, "SOPInstanceUID", OTHER_UID),
    "SOP instance UID not as in the file's head": lambda ds: setattr(
        ds.file_meta, "MediaStorageSOPInstanceUID", OTHER_UID
    ),
    "SOP class not as in the file's head": lambda ds: setattr(
        ds.file_meta, "MediaStorageSOPClassUID", "1.2.840.10008.5.1.4.1.1.2"
    ),
    "series UID not as ordered": lambda ds: setattr(ds, "SeriesInstanceUID", OTHER_UID),
    "no series number": lambda ds: setattr(ds, "SeriesNumber", None),
    "other series number": lambda ds: setattr(ds, "SeriesNumber", 2),
    "research not said": lambda ds: setattr(ds, "SeriesDescription", "AI ct_lung 1.0.0"),
    "product": lambda ds: setattr(ds, "ContentQualification", "PRODUCT"),
    "other manufacturer": lambda ds: setattr(ds, "Manufacturer", "Acme"),
    "no contributing equipment": lambda ds: delattr(ds, "ContributingEquipmentSequence"),
    "other device": lambda ds: setattr(ds.ContributingEquipmentSequence[0], "DeviceUID", OTHER_UID),
    "other version": lambda ds: setattr(ds.ContributingEquipmentSequence[0], "SoftwareVersions", "0.9"),
    "other time zone": lambda ds: setattr(ds, "TimezoneOffsetFromUTC", "+0000"),
    "other content time": lambda ds: setattr(ds, "ContentTime", "120000"),
    "other modality": lambda ds: setattr(ds, "Modality", "CT"),
}

SR_MUTANTS: dict[str, Change] = {
    "other number": lambda ds: setattr(volume(ds), "NumericValue", "1"),
    "negative volume": lambda ds: [setattr(volume(ds), k, -3) for k in ("NumericValue", "FloatingPointValue")],
    "nonsense unit": lambda ds: setattr(volume(ds).MeasurementUnitsCodeSequence[0], "CodeValue", "furlong"),
    "no unit": lambda ds: delattr(volume(ds), "MeasurementUnitsCodeSequence"),
    "no value": lambda ds: setattr(group(ds, "Volume"), "MeasuredValueSequence", []),
    "other floating value": lambda ds: setattr(volume(ds), "FloatingPointValue", 7.0),
    "measurement gone": lambda ds: without(ds, "Imaging Measurements", "Measurement Group", "LAA-950"),
    "reason gone": lambda ds: without(ds, "Imaging Measurements", "Measurement Group", "Measurement withheld"),
    "withheld code gone": lambda ds: without(ds, "Imaging Measurements", "Measurement Group", "Perc15"),
    "remark of a number gone": lambda ds: without(ds, "Imaging Measurements", "Measurement Group", "Comment"),
    "group gone": lambda ds: without(ds, "Imaging Measurements", "Measurement Group"),
    "no tracking identifier": lambda ds: without(
        ds, "Imaging Measurements", "Measurement Group", "Tracking Identifier"
    ),
    "no tracking UID": lambda ds: without(
        ds, "Imaging Measurements", "Measurement Group", "Tracking Unique Identifier"
    ),
    "swapped tracking UIDs": swap_groups,
    "no finding": lambda ds: without(ds, "Imaging Measurements", "Measurement Group", "Finding"),
    "no site": lambda ds: without(ds, "Imaging Measurements", "Measurement Group", "Finding Site"),
    "other side": lambda ds: setattr(
        group(ds, "Finding Site", "Laterality").ConceptCodeSequence[0], "CodeValue", "24028007"
    ),
    "side gone": lambda ds: delattr(group(ds, "Finding Site"), "ContentSequence"),
    "other finding": lambda ds: setattr(group(ds, "Finding").ConceptCodeSequence[0], "CodeValue", "44567001"),
    "segment 77": lambda ds: setattr(
        group(ds, "Referenced Segment").ReferencedSOPSequence[0], "ReferencedSegmentNumber", 77
    ),
    "segment of the other lung": lambda ds: setattr(
        group(ds, "Referenced Segment").ReferencedSOPSequence[0], "ReferencedSegmentNumber", 2
    ),
    "dangling SEG": lambda ds: setattr(
        group(ds, "Referenced Segment").ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", OTHER_UID
    ),
    "SEG as another class": lambda ds: setattr(
        group(ds, "Referenced Segment").ReferencedSOPSequence[0],
        "ReferencedSOPClassUID",
        "1.2.840.10008.5.1.4.1.1.2",
    ),
    "no source series": lambda ds: without(
        ds, "Imaging Measurements", "Measurement Group", "Source series for segmentation"
    ),
    "other source series": lambda ds: setattr(group(ds, "Source series for segmentation"), "UID", OTHER_UID),
    "no evidence": lambda ds: delattr(ds, "CurrentRequestedProcedureEvidenceSequence"),
    "evidence of another study": lambda ds: setattr(
        ds.CurrentRequestedProcedureEvidenceSequence[0], "StudyInstanceUID", OTHER_UID
    ),
    "image left out of evidence": lambda ds: (
        ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence.pop()
    ),
    "unknown evidence": lambda ds: setattr(
        ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0],
        "ReferencedSOPInstanceUID",
        OTHER_UID,
    ),
    "SEG not in evidence": lambda ds: ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence.pop(),
    "verified": lambda ds: setattr(ds, "VerificationFlag", "VERIFIED"),
    "completion": lambda ds: setattr(ds, "CompletionFlag", "DONE"),
    "partial": lambda ds: setattr(ds, "CompletionFlag", "PARTIAL"),
    "other template": lambda ds: setattr(ds.ContentTemplateSequence[0], "TemplateIdentifier", "2000"),
    "other group template": lambda ds: setattr(group(ds).ContentTemplateSequence[0], "TemplateIdentifier", "1501"),
    "other title": lambda ds: setattr(ds.ConceptNameCodeSequence[0], "CodeValue", "126001"),
    "title's meaning": lambda ds: setattr(ds.ConceptNameCodeSequence[0], "CodeMeaning", "Discharge Summary"),
    "relationship": lambda ds: setattr(group(ds, "Finding"), "RelationshipType", "HAS"),
    "relationship of a tracking identifier": lambda ds: setattr(
        group(ds, "Tracking Identifier"), "RelationshipType", "CONTAINS"
    ),
    "value type": lambda ds: setattr(group(ds, "Finding"), "ValueType", "CODES"),
    "empty text": lambda ds: setattr(group(ds, "Tracking Identifier"), "TextValue", ""),
    "no name": lambda ds: delattr(group(ds, "Volume"), "ConceptNameCodeSequence"),
    "no observer": lambda ds: without(ds, "Device Observer UID"),
    "other observer": lambda ds: setattr(content(ds, "Device Observer UID"), "UID", OTHER_UID),
    "no procedure": lambda ds: without(ds, "Procedure reported"),
    "no algorithm": lambda ds: without(ds, "Imaging Measurements", "Algorithm Name"),
    "other algorithm version": lambda ds: setattr(
        content(ds, "Imaging Measurements", "Algorithm Version"), "TextValue", "0.9"
    ),
    "research use not said": lambda ds: without(ds, "Qualitative Evaluations", "Intended use"),
    "completeness not said": lambda ds: without(ds, "Qualitative Evaluations", "Completeness of source series"),
    "own codes not declared": lambda ds: delattr(ds, "CodingSchemeIdentificationSequence"),
    "remark gone": lambda ds: without(ds, "Qualitative Evaluations", "Comment"),
    "no performed procedure": lambda ds: delattr(ds, "PerformedProcedureCodeSequence"),
}


def test_a_good_set_passes(chest: Order):
    check(built(chest), chest)


def test_a_set_without_segmentation_passes(chest: Order):
    order = replace(chest, findings=make.findings_of(None))
    check(built(order), order)


def test_a_report_alone_passes(chest: Order):
    check([measurement_report.build(chest)], chest)


@pytest.mark.parametrize("name", [*SEG_MUTANTS, *COMMON_MUTANTS])
def test_a_segmentation_with_one_defect_is_stopped(chest: Order, name: str):
    seg, report = built(chest)
    bad = changed(seg, (SEG_MUTANTS | COMMON_MUTANTS)[name])
    with pytest.raises(GateClosed):
        check([bad, report], chest)


@pytest.mark.parametrize("name", [*SR_MUTANTS, *COMMON_MUTANTS])
def test_a_report_with_one_defect_is_stopped(chest: Order, name: str):
    seg, report = built(chest)
    bad = changed(report, (COMMON_MUTANTS | SR_MUTANTS)[name])
    with pytest.raises(GateClosed):
        check([seg, bad], chest)


def test_mutants_without_their_defect_pass(chest: Order):
    order = chest
    check([changed(one, lambda dataset: None) for one in built(order)], order)


def test_a_truncated_object_is_stopped(chest: Order):
    seg, report = built(chest)
    with pytest.raises(GateClosed, match="measurement_report"):
        check([seg, replace(report, head=report.head[:-40])], chest)


def test_a_negative_result_left_out_is_stopped(chest: Order):
    order = replace(chest, findings=make.findings_of(None))
    (report,) = built(order)
    bad = changed(report, lambda dataset: without(dataset, "Qualitative Evaluations", "Reason for search outcome"))
    with pytest.raises(GateClosed, match="Left lung: No lung air"):
        check([bad], order)


def test_a_volume_that_the_voxels_do_not_have_is_stopped(tmp_path: Path):
    labels = make.two_lungs((6, 16, 24))
    order = make.order_of(make.ct_series(tmp_path / "ct"), make.findings_of(labels, voxel_ml=0.0012))
    with pytest.raises(GateClosed, match="the segment's voxels have"):
        check(built(order), order)


def test_one_uid_for_two_objects_is_stopped(chest: Order):
    seg, _ = built(chest)
    with pytest.raises(GateClosed, match="two objects"):
        check([seg, seg], chest)


def test_the_gate_names_every_fault_with_its_place_and_no_patient(chest: Order):
    seg, report = built(chest)

    def spoil(dataset: Dataset) -> None:
        dataset.PatientName = "Secret^Patient"
        dataset.FrameOfReferenceUID = OTHER_UID

    with pytest.raises(GateClosed) as caught:
        check([changed(seg, spoil), report], chest)
    places = {fault.place for fault in caught.value.faults}
    assert {"segmentation.PatientName", "segmentation.FrameOfReferenceUID"} <= places
    assert "Secret" not in str(caught.value)
    assert "Phantom" not in str(caught.value)


def test_our_own_objects_are_inspected_without_an_order(chest: Order):
    datasets = [pydicom.dcmread(BytesIO(one.part10)) for one in built(chest)]
    assert inspect(datasets, related=[]) == []
    found = inspect(datasets, source=chest.source)
    assert [fault.what[:17] for fault in found] == ["is -834.5 HU, the", "is -834.5 HU, the"]  # means that are made up
    del datasets[0].SegmentSequence[0].SegmentLabel
    assert [str(fault) for fault in inspect(datasets)] == ["SEG.SegmentSequence[1].SegmentLabel: is missing"]


def test_a_note_may_reject_what_the_set_supersedes_all_of_it_and_nothing_else(chest: Order):
    order = replace(chest, supersedes=make.superseded(chest), uid=lambda name, place: chest.uid(f"again.{name}", place))
    note, *others = result_set.build(("rejection_note", "segmentation", "measurement_report"), order)
    assert note.kind == "rejection_note"

    def without_one(dataset: Dataset) -> None:
        dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence.pop()

    def of_the_source(dataset: Dataset) -> None:
        (first, *_) = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        first.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = chest.source.planes[0].sop_instance_uid

    for change in (without_one, of_the_source):
        with pytest.raises(GateClosed, match="rejection_note"):
            check([changed(note, change), *others], order)
    nothing = replace(order, supersedes=replace(make.superseded(chest), rejected=()))
    with pytest.raises(GateClosed, match="rejects objects, and the set supersedes none"):
        check([note, *others], nothing)
