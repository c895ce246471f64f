"""Frames of an object beside its source: each on a slice by its own geometry, and derived from the slice it lies on.

Source:  PS3.3 C.7.6.16 (Multi-frame Functional Groups), C.7.6.17 (Multi-frame Dimension), C.12.2 (Common Instance
Reference)
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_sr import geometry
from dicom_sr.checks.fault import Fault, every, expect, items, numbers, text
from dicom_sr.checks.framed import FrameOf, Reference
from dicom_sr.checks.seen import Seen
from dicom_sr.source import SourceSeries

TOLERANCE_MM = 0.01


def another_grid(seen: Seen, source: SourceSeries) -> bool:
    """Whether a SEG by others lies, as it may, on a grid of its own: its frames name no instance of the source."""
    named = {uid for frame in seen.frames for _, uid, _ in frame.sources}
    return not named & {plane.sop_instance_uid for plane in source.planes}


def planes_of(seen: Seen, source: SourceSeries) -> list[int | None]:
    """The slice on which each frame lies by its own geometry, None for none."""
    known: dict[tuple[float, ...], None] = {frame.position: None for frame in seen.frames if len(frame.position) == 3}
    found = dict(zip(known, on_planes(np.array([*known]).reshape(-1, 3), source), strict=True))
    return [found.get(frame.position) for frame in seen.frames]


def on_planes(positions: NDArray[np.float64], source: SourceSeries) -> list[int | None]:
    """The slice whose first voxel lies at each of these positions, shape (n, 3), None for none."""
    inverse = np.linalg.inv(source.affine)
    index = np.rint(positions @ inverse[0, :3] + inverse[0, 3]).astype(np.int64)
    inside = (index >= 0) & (index < len(source.planes))
    firsts = np.array([plane.position for plane in source.planes])
    near = np.abs(positions - firsts[np.where(inside, index, 0)]).max(axis=1, initial=0) < TOLERANCE_MM
    return [int(one) if there else None for one, there in zip(index, inside & near, strict=True)]


def derivations(seen: Seen, source: SourceSeries, planes: Sequence[int | None], *, whole: bool) -> Iterator[Fault]:
    """Each frame lies on a slice of the source and names it; `planes` are the slices as `planes_of` gives them."""
    clean: set[tuple[tuple[Reference, ...], int]] = set()
    for index, (frame, plane) in enumerate(zip(seen.frames, planes, strict=True), start=1):
        if plane is not None and (frame.sources, plane) in clean:
            continue
        where = f"{seen.place}.PerFrameFunctionalGroupsSequence[{index}]"
        if plane is None:
            yield Fault(f"{where}.PlanePositionSequence", "lies on no plane of the source")
            continue
        found = list(_derivation(frame, plane, source, where, whole=whole))
        if not found:
            clean.add((frame.sources, plane))
        yield from found


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


def dimensions(seen: Seen) -> Iterator[Fault]:
    """Each frame has an index along each dimension, no two frames the same, and a segment where there are any."""
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
    numbered = "SegmentSequence" in dataset and text(dataset, "SegmentationType") != "LABELMAP"
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


def grid(seen: Seen, source: SourceSeries) -> Iterator[Fault]:
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
    between, step = numbers(measures[0], "SpacingBetweenSlices"), geometry.between(source.affine)
    if between and abs(between[0] - step) > TOLERANCE_MM:
        yield Fault(
            f"{place}.PixelMeasuresSequence.SpacingBetweenSlices", f"is {between[0]:g}, the source has {step:g}"
        )
    if not numbers(measures[0], "SliceThickness"):
        yield Fault(f"{place}.PixelMeasuresSequence.SliceThickness", "is missing")


def references(dataset: Dataset, source: SourceSeries, place: str, *, whole: bool) -> Iterator[Fault]:
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
