"""A SEG: whole in itself, on its source, and voxel for voxel the label map that it was made from.

Frames are placed on the source by their own position and orientation, never by what they claim to be derived from;
then the claim is held against the place.

Source:  PS3.3 A.51, C.7.6.16, C.7.6.17, C.8.20.2; PS3.5 8.1.1
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from dicom_sr.checks import masks
from dicom_sr.checks.attributes import missing
from dicom_sr.checks.fault import Fault, code_of, every, expect, items, numbers, one_of, same, text
from dicom_sr.checks.seen import Around, FrameOf, Reference, Seen
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

TOLERANCE_MM = 0.01
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
    yield from _dimensions(seen)
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
    yield from _references(dataset, source, place, whole=order is not None)
    faults = [*_grid(seen, source)]
    same_matrix = (dataset.get("Rows"), dataset.get("Columns")) == source.shape[1:]
    if order is not None or not _another_grid(seen, source):
        yield from expect(place, "Rows", dataset.get("Rows"), source.shape[1])
        yield from expect(place, "Columns", dataset.get("Columns"), source.shape[2])
        yield from faults
    if faults or not same_matrix or any(True for _ in masks.lengths(seen)):
        return
    planes = planes_of(seen, source)
    clean: set[tuple[tuple[Reference, ...], int]] = set()
    for index, (frame, plane) in enumerate(zip(seen.frames, planes, strict=True), start=1):
        if plane is None:
            where = f"{place}.PerFrameFunctionalGroupsSequence[{index}]"
            yield Fault(f"{where}.PlanePositionSequence", "lies on no plane of the source")
        elif (frame.sources, plane) not in clean:
            where = f"{place}.PerFrameFunctionalGroupsSequence[{index}]"
            found = list(_derivation(frame, plane, source, where, whole=order is not None))
            if not found:
                clean.add((frame.sources, plane))
            yield from found
    if order is None or None in planes or len(planes) != masks.shape(seen)[0]:
        return
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
    masked = [one for one in objects if text(one.dataset, "SegmentationType") in ("BINARY", "LABELMAP")]
    for kind in sorted({text(one.dataset, "SegmentationType") for one in masked}):
        of_kind = [one.dataset for one in masked if text(one.dataset, "SegmentationType") == kind]
        found = sorted(number for dataset in of_kind for number in found_in(dataset, order).values())
        wanted = [segment.number for segment in order.findings.segments]
        if found != wanted:
            yield Fault(f"{kind}.SegmentSequence", f"has the segments {found}, {wanted} were found")


def layer_of(layers: tuple[LabelMap, ...], voxels: Mapping[int, int]) -> dict[int, LabelMap]:
    """The label map in which each segment lies, by segment number."""
    if len(layers) == 1:
        return dict.fromkeys(voxels, layers[0])
    present = [np.bincount(layer.ravel(), minlength=256) for layer in layers]
    return {number: layer for number in voxels for layer, counts in zip(layers, present, strict=True) if counts[number]}


def _another_grid(seen: Seen, source: SourceSeries) -> bool:
    """Whether a SEG by others lies, as it may, on a grid of its own: its frames name no instance of the source."""
    named = {uid for frame in seen.frames for _, uid, _ in frame.sources}
    return not named & {plane.sop_instance_uid for plane in source.planes}


def planes_of(seen: Seen, source: SourceSeries) -> list[int | None]:
    """The slice on which each frame lies by its own geometry, None for none."""
    inverse: NDArray[np.float64] = np.linalg.inv(source.affine).astype(np.float64)
    found: dict[tuple[float, ...], int | None] = {}
    for frame in seen.frames:
        if frame.position not in found:
            found[frame.position] = plane_of(frame.position, inverse, source)
    return [found[frame.position] for frame in seen.frames]


def plane_of(position: tuple[float, ...], inverse: NDArray[np.float64], source: SourceSeries) -> int | None:
    """The slice whose first voxel lies at this position; `inverse` is that of the source's affine."""
    if len(position) != 3:
        return None
    index = round(float((inverse @ (*position, 1.0))[0]))
    if not 0 <= index < len(source.planes):
        return None
    return index if np.abs(np.subtract(position, source.planes[index].position)).max() < TOLERANCE_MM else None


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


def _dimensions(seen: Seen) -> Iterator[Fault]:
    dataset, place = seen.dataset, seen.place
    organizations = {text(item, "DimensionOrganizationUID") for item in items(dataset, "DimensionOrganizationSequence")}
    along = len(items(dataset, "DimensionIndexSequence"))
    for where, index in every(dataset, "DimensionIndexSequence", place):
        if text(index, "DimensionOrganizationUID") not in organizations:
            yield Fault(f"{where}.DimensionOrganizationUID", "is not in DimensionOrganizationSequence")
    if text(dataset, "DimensionOrganizationType") == "TILED_FULL":
        return
    yield from expect(place, "NumberOfFrames", int(dataset.get("NumberOfFrames") or 0), len(seen.frames))
    known = {segment.get("SegmentNumber") for segment in items(dataset, "SegmentSequence")}
    numbered = text(dataset, "SegmentationType") != "LABELMAP"
    for index, frame in enumerate(seen.frames, start=1):
        if len(frame.indices) != along or (along and min(frame.indices) < 1):
            where = f"{place}.PerFrameFunctionalGroupsSequence[{index}].FrameContentSequence"
            yield Fault(f"{where}.DimensionIndexValues", f"{frame.indices} do not fit {along} dimensions")
        if numbered and frame.number not in known:
            where = f"{place}.PerFrameFunctionalGroupsSequence[{index}]"
            yield Fault(f"{where}.SegmentIdentificationSequence", f"there is no segment {frame.number}")
    for values, times in Counter(frame.indices for frame in seen.frames).items():
        if times > 1:
            yield Fault(f"{place}.PerFrameFunctionalGroupsSequence", f"{times} frames have the indices {values}")


def _grid(seen: Seen, source: SourceSeries) -> Iterator[Fault]:
    """Orientation and spacing of the frames against those of the source."""
    place = seen.place
    orientations, measures = (
        [part for group in seen.for_all for part in items(group.dataset, name)]
        for name in ("PlaneOrientationSequence", "PixelMeasuresSequence")
    )
    orientation = numbers(orientations[0], "ImageOrientationPatient") if orientations else ()
    spacing = numbers(measures[0], "PixelSpacing") if measures else ()
    if len(orientation) != 6 or len(spacing) != 2:
        yield Fault(f"{place}.SharedFunctionalGroupsSequence", "orientation or spacing is missing")
        return
    rows, columns = np.array(orientation[3:]) * spacing[0], np.array(orientation[:3]) * spacing[1]
    extent = np.array(source.shape[1:])
    off = np.abs(np.stack([rows, columns], axis=1) - source.affine[:3, 1:3]).max(axis=0) * extent
    if off.max() > TOLERANCE_MM * 10:
        yield Fault(f"{place}.SharedFunctionalGroupsSequence", f"another grid than the source's, by {off.max():.3g} mm")
    between, step = numbers(measures[0], "SpacingBetweenSlices"), float(np.linalg.norm(source.affine[:3, 0]))
    if between and abs(between[0] - step) > TOLERANCE_MM:
        yield Fault(
            f"{place}.PixelMeasuresSequence.SpacingBetweenSlices", f"is {between[0]:g}, the source has {step:g}"
        )
    if not numbers(measures[0], "SliceThickness"):
        yield Fault(f"{place}.PixelMeasuresSequence.SliceThickness", "is missing")


def _references(dataset: Dataset, source: SourceSeries, place: str, *, whole: bool) -> Iterator[Fault]:
    """ReferencedSeriesSequence names the source series and only its instances; `whole` if all of them must be there."""
    wanted = {(plane.sop_class_uid, plane.sop_instance_uid) for plane in source.planes}
    listed = items(dataset, "ReferencedSeriesSequence")
    ours = source.acquisition.series_instance_uid
    series = [text(item, "SeriesInstanceUID") for item in listed]
    if whole:
        yield from expect(place, "ReferencedSeriesSequence.SeriesInstanceUID", series, [ours])
    of_source = [part for part in listed if whole or text(part, "SeriesInstanceUID") == ours]
    found = {_named(item) for part in of_source for item in items(part, "ReferencedInstanceSequence")}
    if found - wanted or (whole and found != wanted):
        yield Fault(
            f"{place}.ReferencedSeriesSequence",
            f"{len(found - wanted)} unknown instances, {len(wanted - found)} left out",
        )
    rooted = {_named(item) for item in items(dataset, "SourceImageSequence")}
    if not rooted <= wanted and (whole or rooted & wanted):
        yield Fault(f"{place}.SourceImageSequence", f"{len(rooted - wanted)} instances are not of the source")


def _named(item: Dataset) -> tuple[str, str]:
    return text(item, "ReferencedSOPClassUID"), text(item, "ReferencedSOPInstanceUID")


def _derivation(frame: FrameOf, index: int, source: SourceSeries, where: str, *, whole: bool) -> Iterator[Fault]:
    """The frame says that it is derived from the very plane on which it lies; others need not say it (Type 3)."""
    plane = source.planes[index]
    if len(frame.sources) != 1:
        if whole:
            yield Fault(f"{where}.DerivationImageSequence", f"names {len(frame.sources)} source images, must be 1")
        return
    sop_class, uid, numbered = frame.sources[0]
    if (sop_class, uid) != (plane.sop_class_uid, plane.sop_instance_uid):
        yield Fault(f"{where}.DerivationImageSequence", "names another image than the one it lies on")
    if plane.number_of_frames > 1 and numbered != (plane.frame,):
        yield Fault(f"{where}.DerivationImageSequence", f"must name frame {plane.frame} of the source")


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
