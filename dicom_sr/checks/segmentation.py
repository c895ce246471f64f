"""A BINARY SEG: whole in itself, on its source, and voxel for voxel the label map that it was made from.

Frames are placed on the source by their own position and orientation, never by what they claim to be derived from;
then the claim is held against the place.

Source:  PS3.3 C.7.6.16, C.7.6.17, C.8.20.2; PS3.5 8.1.1
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_sr.checks.fault import Fault, code_of, every, expect, items, numbers, same, text
from dicom_sr.kinds import Order
from dicom_sr.nouns import Findings, LabelMap
from dicom_sr.source import SourceSeries

TOLERANCE_MM = 0.01
SIDES = {"left": "right", "right": "left"}


@dataclass(frozen=True, slots=True, eq=False)
class FrameOf:
    """One frame as the object describes it; `plane` is the slice index on which its geometry lies, None if on none."""

    place: str
    number: int
    plane: int | None
    mask: NDArray[np.bool_]


def structure(dataset: Dataset, place: str) -> Iterator[Fault]:
    """What must hold of a BINARY SEG alone."""
    for keyword, wanted in (("SamplesPerPixel", 1), ("BitsAllocated", 1), ("BitsStored", 1), ("HighBit", 0)):
        yield from expect(place, keyword, dataset.get(keyword), wanted)
    yield from expect(place, "PhotometricInterpretation", text(dataset, "PhotometricInterpretation"), "MONOCHROME2")
    yield from expect(place, "Modality", text(dataset, "Modality"), "SEG")
    yield from expect(place, "PixelRepresentation", dataset.get("PixelRepresentation"), 0)
    yield from _segments(dataset, place)
    yield from _dimensions(dataset, place)
    yield from _pixels(dataset, place)


def on_source(dataset: Dataset, source: SourceSeries, findings: Findings | None, place: str) -> Iterator[Fault]:
    """What must hold of it beside its source; with `findings`, that it is their label maps, voxel for voxel."""
    if source.frame_of_reference_uid:
        frame_of_reference = text(dataset, "FrameOfReferenceUID")
        yield from expect(place, "FrameOfReferenceUID", frame_of_reference, source.frame_of_reference_uid)
    yield from expect(place, "Rows", dataset.get("Rows"), source.shape[1])
    yield from expect(place, "Columns", dataset.get("Columns"), source.shape[2])
    grid = list(_grid(dataset, source, place))
    yield from grid
    yield from _references(dataset, source, place)
    whole = not grid and (dataset.get("Rows"), dataset.get("Columns")) == source.shape[1:]
    if not whole or any(True for _ in _pixels(dataset, place)):
        return
    layers = () if findings is None else findings.layers
    seen = [np.zeros(source.shape, np.uint8) for _ in layers]
    lies_in = layer_of(layers)
    for frame in frames(dataset, source, place):
        if frame.plane is None:
            yield Fault(f"{frame.place}.PlanePositionSequence", "lies on no plane of the source")
            continue
        yield from _derivation(dataset, source, frame)
        if layers:
            layer = seen[lies_in.get(frame.number, 0)]
            if layer[frame.plane][frame.mask].any():
                yield Fault(frame.place, "overlaps another segment")
            layer[frame.plane][frame.mask] = frame.number
    for found, wanted in zip(seen, layers, strict=True):
        yield from _projection(found, wanted, place)


def layer_of(layers: Sequence[LabelMap]) -> dict[int, int]:
    """The label map of each segment that does not lie in the first, by segment number."""
    return {
        int(number): index
        for index, labels in enumerate(layers)
        if index
        for number in np.flatnonzero(np.bincount(labels.ravel(), minlength=1))
        if number
    }


def frames(dataset: Dataset, source: SourceSeries, place: str) -> Iterator[FrameOf]:
    """Each frame with its mask, placed on the source by its own geometry."""
    size, rows = int(dataset.Rows) * int(dataset.Columns), int(dataset.Rows)
    packed = np.frombuffer(dataset.PixelData, np.uint8)
    shared = items(dataset, "SharedFunctionalGroupsSequence")
    inverse: NDArray[np.float64] = np.linalg.inv(source.affine).astype(np.float64)
    for index, (where, group) in enumerate(every(dataset, "PerFrameFunctionalGroupsSequence", place)):
        first, last = index * size // 8, ((index + 1) * size + 7) // 8
        bits = np.unpackbits(packed[first:last], bitorder="little")[index * size % 8 :][:size]
        numbered = (items(group, "SegmentIdentificationSequence") or _shared(shared, "SegmentIdentificationSequence"))[
            :1
        ]
        number = int(numbered[0].get("ReferencedSegmentNumber") or 0) if numbered else 0
        yield FrameOf(where, number, _plane(group, inverse, source), bits.reshape(rows, -1).astype(np.bool_))


def _shared(shared: list[Dataset], keyword: str) -> list[Dataset]:
    return items(shared[0], keyword) if shared else []


def _plane(group: Dataset, inverse: NDArray[np.float64], source: SourceSeries) -> int | None:
    """The slice whose first voxel lies where the frame's first pixel does."""
    positions = items(group, "PlanePositionSequence")
    position = numbers(positions[0], "ImagePositionPatient") if positions else ()
    if len(position) != 3:
        return None
    index = round(float((inverse @ (*position, 1.0))[0]))
    if not 0 <= index < len(source.planes):
        return None
    return index if np.abs(np.subtract(position, source.planes[index].position)).max() < TOLERANCE_MM else None


def _segments(dataset: Dataset, place: str) -> Iterator[Fault]:
    numbered = [segment.get("SegmentNumber") for segment in items(dataset, "SegmentSequence")]
    yield from expect(place, "SegmentSequence.SegmentNumber", numbered, list(range(1, len(numbered) + 1)))
    uids = [uid for segment in items(dataset, "SegmentSequence") if (uid := text(segment, "TrackingUID"))]
    if len(set(uids)) < len(uids):
        yield Fault(f"{place}.SegmentSequence", "two segments have one TrackingUID")
    for where, segment in every(dataset, "SegmentSequence", place):
        for keyword in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
            if code_of(segment, keyword) is None:
                yield Fault(f"{where}.{keyword}", "is not one code")
        yield from _laterality(segment, where)


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


def _dimensions(dataset: Dataset, place: str) -> Iterator[Fault]:
    organizations = {text(item, "DimensionOrganizationUID") for item in items(dataset, "DimensionOrganizationSequence")}
    along = items(dataset, "DimensionIndexSequence")
    for where, index in every(dataset, "DimensionIndexSequence", place):
        if text(index, "DimensionOrganizationUID") not in organizations:
            yield Fault(f"{where}.DimensionOrganizationUID", "is not in DimensionOrganizationSequence")
    if text(dataset, "DimensionOrganizationType") == "TILED_FULL":
        return
    described = items(dataset, "PerFrameFunctionalGroupsSequence")
    yield from expect(place, "NumberOfFrames", int(dataset.get("NumberOfFrames") or 0), len(described))
    shared = items(dataset, "SharedFunctionalGroupsSequence")
    known = {segment.get("SegmentNumber") for segment in items(dataset, "SegmentSequence")}
    used: Counter[tuple[float, ...]] = Counter()
    for where, group in every(dataset, "PerFrameFunctionalGroupsSequence", place):
        contents = items(group, "FrameContentSequence")
        values = numbers(contents[0], "DimensionIndexValues") if contents else ()
        if len(values) != len(along) or not all(value >= 1 for value in values):
            yield Fault(
                f"{where}.FrameContentSequence.DimensionIndexValues", f"{values} do not fit {len(along)} dimensions"
            )
        used[values] += 1
        numbered = items(group, "SegmentIdentificationSequence") or _shared(shared, "SegmentIdentificationSequence")
        number = numbered[0].get("ReferencedSegmentNumber") if numbered else None
        if number not in known:
            yield Fault(f"{where}.SegmentIdentificationSequence", f"there is no segment {number}")
    for values, times in used.items():
        if times > 1:
            yield Fault(f"{place}.PerFrameFunctionalGroupsSequence", f"{times} frames have the indices {values}")


def _pixels(dataset: Dataset, place: str) -> Iterator[Fault]:
    """PixelData of the length that the frames need, its last bits zero."""
    pixels = dataset.get("PixelData") or b""
    bits = int(dataset.get("NumberOfFrames") or 0) * int(dataset.get("Rows") or 0) * int(dataset.get("Columns") or 0)
    wanted = (bits + 15) // 16 * 2
    if len(pixels) != wanted:
        yield Fault(f"{place}.PixelData", f"has {len(pixels)} bytes, {wanted} are needed")
    elif np.unpackbits(np.frombuffer(pixels[bits // 8 :], np.uint8), bitorder="little")[bits % 8 :].any():
        yield Fault(f"{place}.PixelData", "is not padded with zeros")


def _grid(dataset: Dataset, source: SourceSeries, place: str) -> Iterator[Fault]:
    """Orientation and spacing of the frames against those of the source."""
    shared = items(dataset, "SharedFunctionalGroupsSequence")
    orientations, measures = _shared(shared, "PlaneOrientationSequence"), _shared(shared, "PixelMeasuresSequence")
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


def _references(dataset: Dataset, source: SourceSeries, place: str) -> Iterator[Fault]:
    """ReferencedSeriesSequence names the source series and exactly its instances."""
    wanted = {(plane.sop_class_uid, plane.sop_instance_uid) for plane in source.planes}
    listed = items(dataset, "ReferencedSeriesSequence")
    series = [text(item, "SeriesInstanceUID") for item in listed]
    yield from expect(
        place, "ReferencedSeriesSequence.SeriesInstanceUID", series, [source.acquisition.series_instance_uid]
    )
    found = {_named(item) for part in listed for item in items(part, "ReferencedInstanceSequence")}
    if found != wanted:
        yield Fault(
            f"{place}.ReferencedSeriesSequence",
            f"{len(found - wanted)} unknown instances, {len(wanted - found)} left out",
        )
    rooted = {_named(item) for item in items(dataset, "SourceImageSequence")}
    if not rooted <= wanted:
        yield Fault(f"{place}.SourceImageSequence", f"{len(rooted - wanted)} instances are not of the source")


def _named(item: Dataset) -> tuple[str, str]:
    return text(item, "ReferencedSOPClassUID"), text(item, "ReferencedSOPInstanceUID")


def _derivation(dataset: Dataset, source: SourceSeries, frame: FrameOf) -> Iterator[Fault]:
    """The frame says that it is derived from the very plane on which it lies."""
    assert frame.plane is not None
    index = int(frame.place.rsplit("[", 1)[1].rstrip("]")) - 1
    group, plane = dataset.PerFrameFunctionalGroupsSequence[index], source.planes[frame.plane]
    images = [image for part in items(group, "DerivationImageSequence") for image in items(part, "SourceImageSequence")]
    if len(images) != 1:
        yield Fault(f"{frame.place}.DerivationImageSequence", f"names {len(images)} source images, must be 1")
        return
    if _named(images[0]) != (plane.sop_class_uid, plane.sop_instance_uid):
        yield Fault(f"{frame.place}.DerivationImageSequence", "names another image than the one it lies on")
    if plane.number_of_frames > 1 and numbers(images[0], "ReferencedFrameNumber") != (plane.frame,):
        yield Fault(f"{frame.place}.DerivationImageSequence", f"must name frame {plane.frame} of the source")


def _projection(seen: LabelMap, labels: LabelMap, place: str) -> Iterator[Fault]:
    for index in range(len(labels)):
        wrong = int(np.count_nonzero(seen[index] != labels[index]))
        if wrong:
            yield Fault(f"{place}.PixelData", f"{wrong} pixels of plane {index} are not the label map's")


def as_found(dataset: Dataset, order: Order, place: str) -> Iterator[Fault]:
    """Its segments are the ones that were found: label, codes, side and tracking."""
    described = items(dataset, "SegmentSequence")
    if len(described) != len(order.findings.segments):
        yield Fault(
            f"{place}.SegmentSequence", f"has {len(described)} items, {len(order.findings.segments)} were found"
        )
        return
    for (where, item), found in zip(every(dataset, "SegmentSequence", place), order.findings.segments, strict=True):
        for keyword in ("TrackingID", "RecommendedDisplayCIELabValue"):
            if not text(item, keyword):
                yield Fault(f"{where}.{keyword}", "is missing")
        yield from expect(where, "SegmentLabel", text(item, "SegmentLabel"), found.label)
        yield from expect(where, "TrackingUID", text(item, "TrackingUID"), order.uid("tracking", found.number))
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
