"""A TID 1500 report: a whole content tree, references that resolve, and the findings' own numbers and words.

Source:  PS3.3 C.17.3; PS3.16 TID 1500, 1411, 1501, 4019
"""

from collections.abc import Iterator, Sequence
from functools import cache
from math import isclose

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from dicom_sr import codes
from dicom_sr.checks import places, recomputed
from dicom_sr.checks.fault import Fault, code_of, expect, items, numbers, same, text
from dicom_sr.checks.seen import VALUES, Around, Item, Seen
from dicom_sr.checks.segmentation import SOP_CLASSES as SEGMENTATIONS
from dicom_sr.checks.segmentation import contradicts, found_in
from dicom_sr.header import device
from dicom_sr.kinds import NOTE, Order
from dicom_sr.kinds.measurement_report import PRODUCT_USE, RESEARCH_USE
from dicom_sr.nouns import Box, Code, MeasurementGroup
from dicom_sr.references import frame_of_reference
from dicom_sr.source import SourceSeries

SOP_CLASSES = frozenset(map(str, (EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage)))

TYPE_1 = (
    "CompletionFlag",
    "VerificationFlag",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContinuityOfContent",
    "ContentSequence",
)

TYPE_2 = ("PerformedProcedureCodeSequence", "ReferencedPerformedProcedureStepSequence")

RELATIONSHIPS = {
    "CONTAINS",
    "HAS OBS CONTEXT",
    "HAS ACQ CONTEXT",
    "HAS CONCEPT MOD",
    "HAS PROPERTIES",
    "INFERRED FROM",
    "SELECTED FROM",
}

NAMED = {"TEXT", "CODE", "NUM", "UIDREF", "DATETIME", "DATE", "TIME", "PNAME", "CONTAINER"}
"""Value types whose items must bear a concept name."""

RELATED_BY = {
    "language": "HAS CONCEPT MOD",
    "observer_type": "HAS OBS CONTEXT",
    "device_observer_uid": "HAS OBS CONTEXT",
    "procedure_reported": "HAS CONCEPT MOD",
    "imaging_measurements": "CONTAINS",
    "measurement_group": "CONTAINS",
    "tracking_identifier": "HAS OBS CONTEXT",
    "tracking_unique_identifier": "HAS OBS CONTEXT",
    "finding": "CONTAINS",
    "finding_site": "HAS CONCEPT MOD",
    "laterality": "HAS CONCEPT MOD",
    "derivation": "HAS CONCEPT MOD",
    "algorithm_name": "HAS CONCEPT MOD",
    "algorithm_version": "HAS CONCEPT MOD",
    "referenced_segment": "CONTAINS",
    "source_series_for_segmentation": "CONTAINS",
}
"""How the templates relate an item of this name to its parent."""

COMMON_UNITS = {
    "1",
    "g",
    "mg",
    "kg",
    "l",
    "dl",
    "ml",
    "mL",
    "cm3",
    "g/cm3",
    "m",
    "km",
    "ms",
    "min",
    "h",
    "d",
    "a",
    "deg",
}
COMMON_UNITS |= {"rad", "Cel", "kPa", "mGy", "mSv"}
UNITS = COMMON_UNITS | {value for names in concepts["UCUM"].values() for value in names}
"""UCUM units that reports use: those of the standard's context groups, and common ones that they leave out."""

VOLUME_SHARE = 0.001
"""Largest relative difference between a volume in the report and the one that the SEG's voxels have."""


def alone(seen: Seen) -> Iterator[Fault]:
    """What must hold of a report alone; of templates other than TID 1500 only what holds of every content tree."""
    dataset, place, root = seen.dataset, seen.place, seen.root
    yield from expect(place, "Modality", text(dataset, "Modality"), "SR")
    yield from expect(place, "ValueType", root.value_type, "CONTAINER")
    for child in root.all():
        yield from _item(child, seen, is_root=child is root)
    templates = [text(item, "TemplateIdentifier") for item in items(dataset, "ContentTemplateSequence")]
    titled = same(root.name, codes.find("imaging_measurement_report"))
    if not (seen.ours or titled or templates == ["1500"]):
        return
    yield from expect(place, "ContentTemplateSequence.TemplateIdentifier", templates, ["1500"])
    if not titled:
        yield Fault(f"{place}.ConceptNameCodeSequence", "is not Imaging Measurement Report")
    for name in ("language", "observer_type", "procedure_reported", "imaging_measurements"):
        if not root.of(name):
            yield Fault(place, f"the item {codes.find(name).meaning} of TID 1500 is missing")
    for container in root.of("imaging_measurements"):
        for group in container.of("measurement_group"):
            yield from _group(group)
    yield from _unique_tracking(root)


def beside(seen: Seen, around: Around) -> Iterator[Fault]:
    """That its references resolve and its numbers are the SEG's; with an order, that it says what was found."""
    segs = [one for one in around.objects if one.sop_class in SEGMENTATIONS]
    yield from references(seen, around, segs)
    if around.order is not None:
        yield from says(seen, around.order, segs)
    else:
        yield from recomputed.volumes(seen, segs, around)


def _item(item: Item, seen: Seen, *, is_root: bool) -> Iterator[Fault]:
    """One content item: value type, relationship, name and value."""
    dataset, place = item.dataset, item.place
    if item.value_type not in VALUES:
        yield Fault(f"{place}.ValueType", f"{item.value_type!r} is no value type")
        return
    relationship = text(dataset, "RelationshipType")
    if not is_root and relationship not in RELATIONSHIPS:
        yield Fault(f"{place}.RelationshipType", f"{relationship!r} is no relationship")
    if item.name is None and (item.value_type in NAMED or "ConceptNameCodeSequence" in dataset):
        yield Fault(f"{place}.ConceptNameCodeSequence", "is not one code")
    if item.value_type == "SCOORD3D" and seen.sop_class != Comprehensive3DSRStorage:
        yield Fault(place, "SCOORD3D is only for Comprehensive 3D SR")
    wanted = _related().get((item.name.scheme, item.name.value)) if item.name else None
    if wanted:
        yield from expect(place, "RelationshipType", relationship, wanted)
    keyword = VALUES[item.value_type]
    if "ReferencedContentItemIdentifier" in dataset:
        return
    several = keyword.endswith("Sequence")
    if len(items(dataset, keyword)) != 1 if several else not text(dataset, keyword):
        yield Fault(f"{place}.{keyword}", "has no value")
    elif item.value_type == "NUM":
        yield from _number(item)


@cache
def _related() -> dict[tuple[str, str], str]:
    """RELATED_BY by scheme and value of the concept."""
    return {(codes.find(name).scheme, codes.find(name).value): how for name, how in RELATED_BY.items()}


def _number(item: Item) -> Iterator[Fault]:
    """A NUM: a value, said twice the same, in the unit and range of its quantity."""
    measured = items(item.dataset, "MeasuredValueSequence")[0]
    place, unit = f"{item.place}.MeasuredValueSequence", code_of(measured, "MeasurementUnitsCodeSequence")
    values, floating = numbers(measured, "NumericValue"), numbers(measured, "FloatingPointValue")
    if len(values) != 1 or unit is None:
        yield Fault(place, "lacks its value or its unit")
        return
    if floating and not isclose(values[0], floating[0], rel_tol=1e-9, abs_tol=1e-12):
        yield Fault(f"{place}.FloatingPointValue", f"is {floating[0]!r}, NumericValue is {values[0]!r}")
    if unit.scheme == "UCUM" and unit.value not in UNITS and not unit.value.startswith("{"):
        yield Fault(f"{place}.MeasurementUnitsCodeSequence", f"{unit.value!r} is no unit")
    derivations = item.of("derivation")
    derivation = code_of(derivations[0].dataset, "ConceptCodeSequence") if derivations else None
    quantity = codes.quantity_of(item.name, derivation) if item.name else None
    if quantity is None:
        return
    if same(unit, quantity.unit) and not quantity.minimum <= values[0] <= quantity.maximum:
        yield Fault(f"{place}.NumericValue", f"{quantity.name} cannot be {values[0]:g} {unit.value}")


def _group(group: Item) -> Iterator[Fault]:
    """A measurement group: tracked, of a finding; on one segment where its template is 1411."""
    templates = [text(item, "TemplateIdentifier") for item in items(group.dataset, "ContentTemplateSequence")]
    if templates and templates not in (["1410"], ["1411"], ["1501"]):
        yield Fault(f"{group.place}.ContentTemplateSequence", f"{templates} is no template of a measurement group")
    for name, least in (("tracking_identifier", 1), ("tracking_unique_identifier", 1), ("finding", 0)):
        if not least <= len(group.of(name)) <= 1:
            yield Fault(
                group.place, f"has {len(group.of(name))} items {codes.find(name).meaning}, must be {least} to 1"
            )
    if group.of("referenced_segment"):
        sources = len(group.of("source_series_for_segmentation")) + len(group.of("source_image_for_segmentation"))
        if not sources:
            yield Fault(group.place, "names a segment and not what it was made from")
    sides = [side.meaning for site in group.of("finding_site") for side in _sides(site)]
    if contradicts(" ".join(group.words("tracking_identifier")), " ".join(sides)):
        yield Fault(group.place, "its tracking identifier says another side than its laterality")


def _sides(site: Item) -> list[Code]:
    coded = [code_of(side.dataset, "ConceptCodeSequence") for side in site.of("laterality")]
    return [side for side in coded if side is not None]


def _unique_tracking(root: Item) -> Iterator[Fault]:
    uids = [word for container in root.of("imaging_measurements") for group in container.of("measurement_group")
            for word in group.words("tracking_unique_identifier")]  # fmt: skip
    if len(set(uids)) < len(uids):
        yield Fault(root.place, "two groups have one Tracking Unique Identifier")


def references(seen: Seen, around: Around, segs: Sequence[Seen]) -> Iterator[Fault]:
    """Every reference resolves: in the evidence, and there in what is at hand."""
    dataset, place = seen.dataset, seen.place
    listed: dict[str, tuple[str, str]] = {}
    for study in items(dataset, "CurrentRequestedProcedureEvidenceSequence"):
        yield from expect(
            place, "Evidence.StudyInstanceUID", text(study, "StudyInstanceUID"), text(dataset, "StudyInstanceUID")
        )
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in items(dataset, keyword):
            for series in items(study, "ReferencedSeriesSequence"):
                for item in items(series, "ReferencedSOPSequence"):
                    uid, sop_class = text(item, "ReferencedSOPInstanceUID"), text(item, "ReferencedSOPClassUID")
                    listed[uid] = sop_class, text(series, "SeriesInstanceUID")
    not_meant = {text(one.dataset, "SOPInstanceUID") for one in around.objects if one.place == NOTE}
    not_meant.add(text(dataset, "SOPInstanceUID"))
    known = {uid: what for uid, what in around.known.items() if uid not in not_meant}
    where = f"{place}.CurrentRequestedProcedureEvidenceSequence"
    for uid, what in listed.items() if around.source is not None or around.images else ():
        if known.get(uid) != what:
            yield Fault(where, f"{uid} is not what it is said to be, or not known")
    left_out = len(known.keys() - listed.keys()) if around.order is not None else 0
    if left_out:
        yield Fault(where, f"{left_out} instances are left out")
    segments = {
        text(seg.dataset, "SOPInstanceUID"): {s.get("SegmentNumber"): s for s in items(seg.dataset, "SegmentSequence")}
        for seg in segs
    }
    for item in seen.root.all():
        if item.value_type in ("IMAGE", "COMPOSITE", "WAVEFORM"):
            for reference in items(item.dataset, "ReferencedSOPSequence"):
                yield from _reference(item, reference, listed, segments)


def _reference(
    item: Item, reference: Dataset, listed: dict[str, tuple[str, str]], segments: dict[str, dict[int, Dataset]]
) -> Iterator[Fault]:
    uid, sop_class = text(reference, "ReferencedSOPInstanceUID"), text(reference, "ReferencedSOPClassUID")
    if uid not in listed:
        yield Fault(item.place, f"refers to {uid}, which is no evidence of this report")
    elif listed[uid][0] != sop_class:
        yield Fault(item.place, f"refers to {uid} as another SOP Class")
    number = reference.get("ReferencedSegmentNumber")
    if sop_class in SEGMENTATIONS and uid in segments and number not in segments[uid]:
        yield Fault(item.place, f"refers to segment {number}, the SEG has {sorted(segments[uid])}")


def says(seen: Seen, order: Order, segs: Sequence[Seen]) -> Iterator[Fault]:
    """The report says what was found: each group with its numbers, each reason, each negative result, each remark."""
    dataset, place, root, findings = seen.dataset, seen.place, seen.root, order.findings
    observed = root.words("device_observer_uid")
    if observed != [device(findings.algorithm)]:
        yield Fault(place, "Device Observer UID is not the Device UID of the equipment")
    yield from expect(place, "CompletionFlag", text(dataset, "CompletionFlag"), "COMPLETE")
    yield from expect(place, "VerificationFlag", text(dataset, "VerificationFlag"), "UNVERIFIED")
    groups = [group for container in root.of("imaging_measurements") for group in container.of("measurement_group")]
    if len(groups) != len(findings.groups):
        yield Fault(place, f"has {len(groups)} measurement groups, {len(findings.groups)} were found")
        return
    for found, group in zip(groups, findings.groups, strict=True):
        yield from _same_group(found, group)
        on_slice = [item for item in found.all() if item.value_type == "SCOORD"]
        if group.box is not None and not on_slice:
            yield from _same_box(found, group.box, frame_of_reference(order))
        wanted_lines = places.wanted(order, group, len(on_slice))
        yield from places.drawn(found.place, on_slice, wanted_lines, order)
        segmented = bool(segs) and group.segment_number is not None and not on_slice
        template = "1411" if segmented or (group.box is not None and not on_slice) else None
        identified = [text(item, "TemplateIdentifier") for item in items(found.dataset, "ContentTemplateSequence")]
        if template or identified not in (["1410"], ["1501"]):
            yield from expect(found.place, "ContentTemplateSequence", identified, [template or "1501"])
        if group.segment_number is not None:
            yield from _same_segment(found, group, segs if segmented else (), order)
            series = order.source.acquisition.series_instance_uid
            if segmented:
                yield from expect(found.place, "SourceSeries", found.words("source_series_for_segmentation"), [series])
            yield from _same_volume(found, findings.voxels[group.segment_number] * voxel_ml(order.source))
    stated = [child.words_of for part in root.of("qualitative_evaluations") for child in part.children]
    wanted = [f"{missing.label}: {missing.reason}" for missing in findings.not_found]
    use = RESEARCH_USE if order.research else PRODUCT_USE
    for words in (*wanted, *findings.remarks, order.completeness, use):
        if words not in stated:
            yield Fault(place, f"does not say: {words}")
    outcomes = [item for part in root.of("qualitative_evaluations") for item in part.of("outcome")]
    if len(outcomes) != len(findings.not_found):
        yield Fault(place, f"codes {len(outcomes)} negative results, there are {len(findings.not_found)}")
    algorithm = findings.algorithm
    for container in root.of("imaging_measurements"):
        yield from expect(container.place, "AlgorithmName", container.words("algorithm_name"), [algorithm.name])
        yield from expect(
            container.place, "AlgorithmVersion", container.words("algorithm_version"), [algorithm.version]
        )
        if f"weights: {algorithm.weights_digest or 'none'}" not in container.words("algorithm_parameters"):
            yield Fault(container.place, "does not name the weights of the algorithm")


def voxel_ml(source: SourceSeries) -> float:
    """Volume of one voxel of the source in millilitres."""
    return abs(float(np.linalg.det(source.affine[:3, :3]))) / 1000


def _same_group(found: Item, group: MeasurementGroup) -> Iterator[Fault]:
    for name, wanted in (("finding", group.finding), ("finding_site", group.site)):
        coded = [code_of(item.dataset, "ConceptCodeSequence") for item in found.of(name)]
        if len(coded) != 1 or not same(coded[0], wanted):
            yield Fault(found.place, f"{name} is {[c and c.meaning for c in coded]}, must be {wanted.meaning!r}")
    sides = [side for site in found.of("finding_site") for side in _sides(site)]
    if [(s.scheme, s.value) for s in sides] != (
        [(group.laterality.scheme, group.laterality.value)] if group.laterality else []
    ):
        yield Fault(found.place, f"laterality is {[side.meaning for side in sides]}")
    numbers_found = [_number_of(child) for child in found.children if child.value_type == "NUM"]
    numbers_wanted = [
        ((m.name.scheme, m.name.value), m.value, m.unit.value) for m in group.measurements if m.value is not None
    ]
    if len(numbers_found) != len(numbers_wanted) or not all(map(_equal, numbers_found, numbers_wanted)):
        yield Fault(found.place, f"the numbers are {numbers_found}, must be {numbers_wanted}")
    said = " ".join([*found.words("withheld_reason"), *found.words("comment")])
    coded = [child.name for child in found.children if child.value_type == "CODE"]
    for measurement in group.measurements:
        if measurement.withheld and not any(same(measurement.name, name) for name in coded):
            yield Fault(found.place, f"does not code that {measurement.name.meaning} is withheld")
        for words in (measurement.withheld, measurement.remark):
            if words and words not in said:
                yield Fault(found.place, f"does not say of {measurement.name.meaning}: {words}")


Number = tuple[tuple[str, str], float | None, str]


def _same_box(found: Item, box: Box, frame_of_reference_uid: str) -> Iterator[Fault]:
    """The faces in the report enclose the box that was found, in the source's frame of reference."""
    faces = found.of("volume_surface")
    points = np.array([point for face in faces for point in numbers(face.dataset, "GraphicData")]).reshape(-1, 3)
    wanted = np.array([box.minimum, box.maximum])
    if len(faces) != 6 or np.abs(np.array([points.min(axis=0), points.max(axis=0)]) - wanted).max() > 0.01:
        yield Fault(found.place, f"its {len(faces)} faces do not enclose the box that was found")
    for face in faces:
        uid = text(face.dataset, "ReferencedFrameOfReferenceUID")
        yield from expect(face.place, "ReferencedFrameOfReferenceUID", uid, frame_of_reference_uid)


def _number_of(item: Item) -> Number:
    measured = next(iter(items(item.dataset, "MeasuredValueSequence")), Dataset())
    unit, values = code_of(measured, "MeasurementUnitsCodeSequence"), numbers(measured, "NumericValue")
    name = (item.name.scheme, item.name.value) if item.name else ("", "")
    return name, values[0] if values else None, unit.value if unit else ""


def _equal(found: Number, wanted: Number) -> bool:
    close = found[1] is not None and wanted[1] is not None and isclose(found[1], wanted[1], rel_tol=1e-9, abs_tol=1e-12)
    return found[0] == wanted[0] and found[2] == wanted[2] and close


def _same_segment(found: Item, group: MeasurementGroup, segs: Sequence[Seen], order: Order) -> Iterator[Fault]:
    """The group points at its own segment where a mask of the set has it, and is tracked as it is."""
    pointed = [r for item in found.of("referenced_segment") for r in items(item.dataset, "ReferencedSOPSequence")]
    there = [(text(r, "ReferencedSOPInstanceUID"), r.get("ReferencedSegmentNumber")) for r in pointed]
    wanted = [
        [(text(seg.dataset, "SOPInstanceUID"), number)]
        for seg in segs
        for number, of_findings in found_in(seg.dataset, order).items()
        if of_findings == group.segment_number
    ]
    if segs and there not in wanted:
        yield Fault(found.place, f"does not point at segment {group.segment_number} of the findings")
    if group.segment_number and found.words("tracking_unique_identifier") != [
        order.uid("tracking", group.segment_number)
    ]:
        yield Fault(found.place, "is tracked under another UID than its segment")


def _same_volume(found: Item, wanted_ml: float) -> Iterator[Fault]:
    """A volume in the report is the one that the segment's voxels have."""
    for item in found.of("volume"):
        _, value, unit = _number_of(item)
        plain = item.value_type == "NUM" and unit == codes.find("millilitre").value
        if plain and value is not None and not isclose(value, wanted_ml, rel_tol=VOLUME_SHARE, abs_tol=0.01):
            yield Fault(item.place, f"is {value:g} ml, the segment's voxels have {wanted_ml:g} ml")
