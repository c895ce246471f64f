"""A SEG: whole in itself, on its source, and voxel for voxel the label map that it was made from.

Frames are placed on the source by their own position and orientation, never by what they claim to be derived from;
then the claim is held against the place.

Source:  PS3.3 A.51, C.7.6.16, C.7.6.17, C.8.20.2; PS3.5 8.1.1
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from dicom_sr import codes
from dicom_sr.checks import frames, masks
from dicom_sr.checks.attributes import missing
from dicom_sr.checks.fault import Fault, code_of, every, expect, items, one_of, same, text
from dicom_sr.checks.seen import Around, Seen
from dicom_sr.kinds import Order
from dicom_sr.nouns import LabelMap
from dicom_sr.source import SourceSeries
from dicom_sr.uids import LABEL_MAP_SEGMENTATION_STORAGE

SOP_CLASSES = frozenset({str(SegmentationStorage), LABEL_MAP_SEGMENTATION_STORAGE})

TYPE_1 = (
    "ImageType",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "LossyImageCompression",
    "SegmentationType",
    "SegmentSequence",
    "ContentLabel",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "SharedFunctionalGroupsSequence",
)

TYPE_2 = ("ContentDescription",)

SEGMENT_1 = (
    "SegmentNumber",
    "SegmentLabel",
    "SegmentAlgorithmType",
    "SegmentedPropertyCategoryCodeSequence",
    "SegmentedPropertyTypeCodeSequence",
)

PICTURE: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "BINARY": ((1,), ("MONOCHROME2",)),
    "FRACTIONAL": ((8,), ("MONOCHROME2",)),
    "LABELMAP": ((8, 16), ("MONOCHROME2", "PALETTE COLOR")),
}
"""Bits a pixel and photometric interpretations of each type (PS3.3 C.8.20.2)."""

SIDES = {"left": "right", "right": "left"}


def alone(seen: Seen) -> Iterator[Fault]:
    """What must hold of a SEG alone."""
    dataset, place = seen.dataset, seen.place
    if not seen.pixels and "PixelData" not in dataset:
        yield Fault(f"{place}.PixelData", "is missing")
    if text(dataset, "DimensionOrganizationType") != "TILED_FULL":
        yield from missing(dataset, ("PerFrameFunctionalGroupsSequence",), (), place)
    if "FrameOfReferenceUID" in dataset:
        yield from missing(dataset, ("FrameOfReferenceUID",), ("PositionReferenceIndicator",), place)
    kind = text(dataset, "SegmentationType")
    if kind == "LABELMAP":
        yield from _described(seen)
    bits, interpretations = PICTURE.get(kind, ((), ()))
    if bits:
        yield from one_of(place, "BitsAllocated", str(dataset.get("BitsAllocated")), map(str, bits))
        yield from expect(place, "BitsStored", dataset.get("BitsStored"), dataset.get("BitsAllocated"))
        yield from expect(place, "HighBit", dataset.get("HighBit"), int(dataset.get("BitsStored") or 0) - 1)
        found = text(dataset, "PhotometricInterpretation")
        yield from one_of(place, "PhotometricInterpretation", found, interpretations)
    yield from expect(place, "SamplesPerPixel", dataset.get("SamplesPerPixel"), 1)
    yield from expect(place, "Modality", text(dataset, "Modality"), "SEG")
    yield from expect(place, "PixelRepresentation", dataset.get("PixelRepresentation"), 0)
    if kind == "FRACTIONAL":
        yield from missing(dataset, ("SegmentationFractionalType", "MaximumFractionalValue"), (), place)
    if (kind == "LABELMAP") != (seen.sop_class == LABEL_MAP_SEGMENTATION_STORAGE):
        yield Fault(f"{place}.SegmentationType", f"{kind} is not of this SOP Class")
    yield from _segments(dataset, place)
    yield from frames.dimensions(seen)
    yield from masks.lengths(seen)


def beside(seen: Seen, around: Around) -> Iterator[Fault]:
    """What must hold of it beside its source; with an order, that it is what was found, voxel for voxel."""
    if around.source is not None:
        yield from _on_source(seen, around.source, around.order)
    if around.order is not None:
        yield from _as_found(seen.dataset, around.order, seen.place)
        first = next((one for one in around.objects if one.sop_class in SOP_CLASSES), seen)
        yield from delineated(around.objects, around.order) if seen is first else ()


def _on_source(seen: Seen, source: SourceSeries, order: Order | None) -> Iterator[Fault]:
    dataset, place = seen.dataset, seen.place
    if source.frame_of_reference_uid:
        frame_of_reference = text(dataset, "FrameOfReferenceUID")
        yield from expect(place, "FrameOfReferenceUID", frame_of_reference, source.frame_of_reference_uid)
    yield from frames.references(dataset, source, place, whole=order is not None)
    faults = [*frames.grid(seen, source)]
    same_matrix = (dataset.get("Rows"), dataset.get("Columns")) == source.shape[1:]
    if order is not None or not frames.another_grid(seen, source):
        yield from expect(place, "Rows", dataset.get("Rows"), source.shape[1])
        yield from expect(place, "Columns", dataset.get("Columns"), source.shape[2])
        yield from faults
    if faults or not same_matrix or any(True for _ in masks.lengths(seen)):
        return
    planes = frames.planes_of(seen, source)
    yield from frames.derivations(seen, source, planes, whole=order is not None)
    if order is not None and None not in planes and len(planes) == masks.shape(seen)[0]:
        yield from _voxels(seen, planes, order)


def _voxels(seen: Seen, planes: Sequence[int | None], order: Order) -> Iterator[Fault]:
    """Voxel for voxel what was found; `planes` are those on which the frames lie."""
    dataset = seen.dataset
    findings, numbers = order.findings, found_in(dataset, order)
    layers = layer_of(findings.layers, findings.voxels)
    if text(dataset, "SegmentationType") == "LABELMAP":
        for layer in {id(layer): layer for number, layer in layers.items() if number in numbers.values()}.values():
            yield from masks.labelled(seen, planes, layer)
    elif text(dataset, "SegmentationType") == "BINARY":
        placed = [
            (numbers.get(frame.number or 0, 0), plane or 0) for frame, plane in zip(seen.frames, planes, strict=True)
        ]
        mine = {number: layers[number] for number in numbers.values()}
        yield from masks.binary(seen, placed, mine, {number: findings.voxels[number] for number in mine})
    elif text(dataset, "SegmentationType") == "FRACTIONAL":
        yield from _fractions(seen, planes, order, numbers)


def _fractions(seen: Seen, planes: Sequence[int | None], order: Order, numbers: Mapping[int, int]) -> Iterator[Fault]:
    """The fractions are those of the parametric maps of the segments, of their kind, rounded to what is stored."""
    dataset, place = seen.dataset, seen.place
    maps = {one.segment_number: one for one in order.findings.maps if one.segment_number in numbers.values()}
    strangers = sorted(set(numbers.values()) - maps.keys())
    if strangers:
        yield Fault(f"{place}.SegmentSequence", f"no map was made of the segments {strangers}")
        return
    for one in maps.values():
        kind = "OCCUPANCY" if same(one.quantity, codes.find("occupancy")) else "PROBABILITY"
        yield from expect(place, "SegmentationFractionalType", text(dataset, "SegmentationFractionalType"), kind)
    most = int(dataset.get("MaximumFractionalValue") or 0)
    stored = masks.values(seen)
    for number, one in maps.items():
        mine = {
            plane: index for index, plane in enumerate(planes) if numbers.get(seen.frames[index].number or 0) == number
        }
        for plane, values in enumerate(one.values):
            wanted = np.rint(values * np.float32(most))
            wrong = int(np.count_nonzero(wanted != (stored[mine[plane]] if plane in mine else 0)))
            if wrong:
                yield Fault(
                    f"{place}.PixelData", f"{wrong} fractions of segment {number} in plane {plane} are not as found"
                )


def found_in(dataset: Dataset, order: Order) -> dict[int, int]:
    """Which segment of the findings each SegmentNumber stands for, by the UID under which it is tracked."""
    known = {order.uid("tracking", segment.number): segment.number for segment in order.findings.segments}
    described = items(dataset, "SegmentSequence")
    return {
        int(item.SegmentNumber): known[text(item, "TrackingUID")]
        for item in described
        if item.get("SegmentNumber") and text(item, "TrackingUID") in known
    }


def delineated(objects: Sequence[Seen], order: Order) -> Iterator[Fault]:
    """The masks of a set delineate each segment of the findings, each once; no fault where there are none."""
    wanted = [segment.number for segment in order.findings.segments]
    for kinds in (("LABELMAP",), ("BINARY", "FRACTIONAL")):
        found: dict[str, list[int]] = {}
        for one in objects:
            kind = text(one.dataset, "SegmentationType")
            if one.sop_class in SOP_CLASSES and kind in kinds:
                found.setdefault(kind, []).extend(found_in(one.dataset, order).values())
        twice = any(len(set(numbers)) < len(numbers) for numbers in found.values())
        if found and (twice or sorted(set().union(*found.values())) != wanted):
            said = ", ".join(f"{kind} {sorted(numbers)}" for kind, numbers in found.items())
            yield Fault(f"{kinds[0]}.SegmentSequence", f"has the segments {said}; {wanted} were found")


def layer_of(layers: tuple[LabelMap, ...], voxels: Mapping[int, int]) -> dict[int, LabelMap]:
    """The label map in which each segment lies, by segment number."""
    if len(layers) == 1:
        return dict.fromkeys(voxels, layers[0])
    present = [np.bincount(layer.ravel(), minlength=256) for layer in layers]
    return {number: layer for number in voxels for layer, counts in zip(layers, present, strict=True) if counts[number]}


def _segments(dataset: Dataset, place: str) -> Iterator[Fault]:
    numbered = [segment.get("SegmentNumber") for segment in items(dataset, "SegmentSequence")]
    if text(dataset, "SegmentationType") != "LABELMAP":  # there numbers are pixel values, and may have gaps
        yield from expect(place, "SegmentSequence.SegmentNumber", numbered, list(range(1, len(numbered) + 1)))
    elif len(set(numbered)) < len(numbered) or None in numbered:
        yield Fault(f"{place}.SegmentSequence.SegmentNumber", f"is {numbered}, must be one for each")
    uids = [uid for segment in items(dataset, "SegmentSequence") if (uid := text(segment, "TrackingUID"))]
    if len(set(uids)) < len(uids):
        yield Fault(f"{place}.SegmentSequence", "two segments have one TrackingUID")
    for where, segment in every(dataset, "SegmentSequence", place):
        manual = text(segment, "SegmentAlgorithmType") == "MANUAL"
        yield from missing(segment, SEGMENT_1 if manual else (*SEGMENT_1, "SegmentAlgorithmName"), (), where)
        for keyword in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
            if code_of(segment, keyword) is None:
                yield Fault(f"{where}.{keyword}", "is not one code")
        yield from _laterality(segment, where)


def _described(seen: Seen) -> Iterator[Fault]:
    """Every value of a LABELMAP's pixels is described by a segment, 0 by the background (PS3.3 C.8.20.2.3)."""
    if seen.ours and not any(True for _ in masks.lengths(seen)):
        known = {int(item.get("SegmentNumber", -1)) for item in items(seen.dataset, "SegmentSequence")}
        stored = masks.values(seen)
        present = np.zeros(256**stored.itemsize, bool)
        for frame in stored:
            present[frame.ravel()] = True
        strangers = sorted({int(value) for value in np.flatnonzero(present)} - known)
        if strangers:
            yield Fault(f"{seen.place}.SegmentSequence", f"does not describe the pixel values {strangers}")


def _laterality(segment: Dataset, place: str) -> Iterator[Fault]:
    """The side in the label and the side in the codes must not contradict each other."""
    types = items(segment, "SegmentedPropertyTypeCodeSequence")
    modifier = code_of(types[0], "SegmentedPropertyTypeModifierCodeSequence") if types else None
    coded = " ".join([text(types[0], "CodeMeaning") if types else "", modifier.meaning if modifier else ""])
    if contradicts(text(segment, "SegmentLabel"), coded):
        yield Fault(f"{place}.SegmentLabel", f"says another side than its code {coded.strip()!r}")


def contradicts(label: str, coded: str) -> bool:
    """Whether a label names a side and the codes name the other one only."""
    said, meant = label.casefold().replace("_", " ").split(), coded.casefold().split()
    return any(side in said and other in meant and side not in meant for side, other in SIDES.items())


def _as_found(dataset: Dataset, order: Order, place: str) -> Iterator[Fault]:
    """Its segments are the ones that were found: label, codes, side and tracking."""
    numbers, by_value = found_in(dataset, order), text(dataset, "SegmentationType") == "LABELMAP"
    segments = {segment.number: segment for segment in order.findings.segments}
    for where, item in every(dataset, "SegmentSequence", place):
        number = int(item.get("SegmentNumber") or 0)
        if by_value and number == 0:  # the background
            continue
        if number not in numbers:
            yield Fault(f"{where}.TrackingUID", "is that of no segment that was found")
            continue
        found = segments[numbers[number]]
        if by_value:
            yield from expect(where, "SegmentNumber", number, found.number)
        for keyword in ("TrackingID", "RecommendedDisplayCIELabValue"):
            if not text(item, keyword):
                yield Fault(f"{where}.{keyword}", "is missing")
        yield from expect(where, "SegmentLabel", text(item, "SegmentLabel"), found.label)
        types = items(item, "SegmentedPropertyTypeCodeSequence")
        side = code_of(types[0], "SegmentedPropertyTypeModifierCodeSequence") if types else None
        for keyword, coded, wanted in (
            (
                "SegmentedPropertyCategoryCodeSequence",
                code_of(item, "SegmentedPropertyCategoryCodeSequence"),
                found.category,
            ),
            ("SegmentedPropertyTypeCodeSequence", code_of(item, "SegmentedPropertyTypeCodeSequence"), found.type),
            ("SegmentedPropertyTypeModifierCodeSequence", side, found.laterality),
        ):
            if not same(coded, wanted):
                yield Fault(
                    f"{where}.{keyword}", f"is {coded and coded.meaning!r}, must be {wanted and wanted.meaning!r}"
                )
        yield from expect(
            where, "SegmentAlgorithmName", text(item, "SegmentAlgorithmName"), order.findings.algorithm.name
        )
