"""Numbers of a report by whomever, computed again from the SEG that they are about, and from its source's voxels.

Only what can be computed is held against the report: volumes of BINARY segments, and attenuations in Hounsfield units.

Source:  PS3.16 TID 1411, TID 1419
"""

from collections.abc import Callable, Iterator, Sequence
from math import isclose

import numpy as np
from numpy.typing import NDArray

from dicom_sr import codes
from dicom_sr.checks import masks
from dicom_sr.checks.fault import Fault, code_of, items, numbers, same, text
from dicom_sr.checks.frames import planes_of
from dicom_sr.checks.seen import Around, Item, Seen
from dicom_sr.nouns import Code

SHARE = 0.01
"""Largest relative difference: others round their numbers to two or three digits."""

MILLILITRES = {"ml": 1.0, "mL": 1.0, "cm3": 1.0, "mm3": 0.001, "l": 1000.0, "L": 1000.0, "dm3": 1000.0}
"""UCUM units of volume in millilitres."""

STATISTICS: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "Mean": lambda values: float(values.mean()),
    "Minimum": lambda values: float(values.min()),
    "Maximum": lambda values: float(values.max()),
    "Standard Deviation": lambda values: float(values.std()),
    "Median": lambda values: float(np.median(values)),
}
"""Derivations that are computed again, by meaning."""


def volumes(seen: Seen, segs: Sequence[Seen], around: Around) -> Iterator[Fault]:
    """Each volume of a segment whose SEG is at hand."""
    by_uid = {text(seg.dataset, "SOPInstanceUID"): seg for seg in segs}
    for group in (item for item in seen.root.all() if item.of("referenced_segment")):
        pointed = [r for item in group.of("referenced_segment") for r in items(item.dataset, "ReferencedSOPSequence")]
        if len(pointed) != 1 or text(pointed[0], "ReferencedSOPInstanceUID") not in by_uid:
            continue
        seg = by_uid[text(pointed[0], "ReferencedSOPInstanceUID")]
        number = pointed[0].get("ReferencedSegmentNumber")
        yield from _tracked(group, seg, number)
        for item in group.children:
            if item.value_type == "NUM" and item.name is not None:
                yield from _volume(item, seg, number)
                yield from _statistic(item, seg, number, around)


def _tracked(group: Item, seg: Seen, number: object) -> Iterator[Fault]:
    """The tracking UID of a group is that of its segment, where the segment has one."""
    tracked = [
        text(s, "TrackingUID") for s in items(seg.dataset, "SegmentSequence") if s.get("SegmentNumber") == number
    ]
    said = group.words("tracking_unique_identifier")
    if tracked and tracked[0] and said and said != tracked:
        yield Fault(group.place, "is tracked under another UID than its segment")


def _volume(item: Item, seg: Seen, number: object) -> Iterator[Fault]:
    measured = next(iter(items(item.dataset, "MeasuredValueSequence")), None)
    unit = code_of(measured, "MeasurementUnitsCodeSequence") if measured is not None else None
    value = numbers(measured, "NumericValue") if measured is not None else ()
    if unit is None or unit.value not in MILLILITRES or len(value) != 1 or not _is_volume(item.name):
        return
    wanted = _counted_ml(seg, number)
    if wanted is not None and not isclose(value[0] * MILLILITRES[unit.value], wanted, rel_tol=SHARE, abs_tol=0.01):
        yield Fault(item.place, f"is {value[0]:g} {unit.value}, the segment's pixels have {wanted:g} ml")


def _is_volume(name: Code | None) -> bool:
    return same(name, codes.find("volume")) or (name is not None and (name.scheme, name.value) == ("SRT", "G-D705"))


def _counted_ml(seg: Seen, number: object) -> float | None:
    """Volume of a BINARY segment by its own pixels and spacings; None where it does not say them."""
    if text(seg.dataset, "SegmentationType") != "BINARY" or any(True for _ in masks.lengths(seg)):
        return None
    shared = items(seg.dataset, "SharedFunctionalGroupsSequence")
    measures = items(shared[0], "PixelMeasuresSequence") if shared else []
    spacing = numbers(measures[0], "PixelSpacing") if measures else ()
    depth = numbers(measures[0], "SpacingBetweenSlices") or numbers(measures[0], "SliceThickness") if measures else ()
    if len(spacing) != 2 or len(depth) != 1:
        return None
    stored = masks.values(seg)
    count = sum(int(stored[index].sum()) for index, frame in enumerate(seg.frames) if frame.number == number)
    return count * spacing[0] * spacing[1] * depth[0] / 1000


def _statistic(item: Item, seg: Seen, number: object, around: Around) -> Iterator[Fault]:
    """A mean, minimum, maximum ... attenuation of the source's voxels under the segment."""
    derivations = item.of("derivation")
    computed = STATISTICS.get(derivations[0].words_of) if derivations else None
    measured = next(iter(items(item.dataset, "MeasuredValueSequence")), None)
    unit = code_of(measured, "MeasurementUnitsCodeSequence") if measured is not None else None
    value = numbers(measured, "NumericValue") if measured is not None else ()
    if computed is None or len(value) != 1 or not same(unit, codes.find("hounsfield_unit")):
        return
    values = under(seg, number, around)
    if values is None or not values.size:
        return
    wanted = computed(values)
    if not isclose(value[0], wanted, rel_tol=SHARE, abs_tol=1.0):
        yield Fault(item.place, f"is {value[0]:g} HU, the segment's voxels have {wanted:g} HU")


def under(seg: Seen, number: object, around: Around) -> NDArray[np.float64] | None:
    """The source's values under a BINARY segment on the source's grid, or None where they are not at hand."""
    source, volume = around.source, around.volume
    if source is None or volume is None or text(seg.dataset, "SegmentationType") != "BINARY":
        return None
    if masks.shape(seg)[1:] != source.shape[1:] or any(True for _ in masks.lengths(seg)):
        return None
    stored, planes = masks.values(seg), planes_of(seg, source)
    parts = []
    for index, (frame, plane) in enumerate(zip(seg.frames, planes, strict=True)):
        if frame.number == number and plane is None:
            return None
        if frame.number == number and plane is not None:
            parts.append(volume.array[plane][stored[index] > 0])
    return np.concatenate(parts).astype(np.float64) if parts else None
