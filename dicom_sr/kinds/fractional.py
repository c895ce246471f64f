"""Result kind `fractional`: a FRACTIONAL Segmentation, one frame per segment and plane on which its map is not zero.

Made of the maps of segments, rounded to 255 steps; probabilities and occupancies are objects of their own. Segments
without a map are delineated in a BINARY one beside it, where the set has none. UIDs of an order used here: "fractional"
with 0, 1, "fractional.series", "fractional.dimension", those of `segmentation`, and "tracking" with the segment's
number.

Source:  PS3.3 A.51, C.8.20.2 (Segmentation Fractional Type, Maximum Fractional Value)
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import SegmentationStorage

from dicom_sr import codes
from dicom_sr.elements import Elements, elements, framed, tag_of
from dicom_sr.header import letterhead, on_letterhead
from dicom_sr.kinds import Built, Order, segmentation
from dicom_sr.kinds.segmentation import codes_of, image, segments
from dicom_sr.multiframe import dimensions, references
from dicom_sr.nouns import Code
from dicom_sr.script import Script

KIND = "fractional"

MOST = 255
"""MaximumFractionalValue: what stands for 1."""

Fractions = Mapping[int, NDArray[np.uint8]]
"""Stored values of each segment, by segment number, shape (slice, row, column)."""


def build(order: Order) -> tuple[Built, ...]:
    """The SEGs of these findings; none when they delineate nothing."""
    findings = order.findings
    made: list[Built] = []
    for kind in ("PROBABILITY", "OCCUPANCY"):
        maps = {
            one.segment_number: np.rint(one.values * np.float32(MOST)).astype(np.uint8)
            for one in findings.maps
            if one.segment_number is not None and (one.quantity == codes.find("occupancy")) == (kind == "OCCUPANCY")
        }
        fractions = {number: values for number, values in sorted(maps.items()) if values.any()}
        if fractions:
            made.append(_of(order, fractions, kind, len(made)))
    rest = {segment.number for segment in findings.segments} - {number for one in made for number in one.segments}
    if not rest or any(one.kind == segmentation.KIND for one in order.companions):
        return tuple(made)
    return (*made, *segmentation.delineating(replace(order, companions=(*order.companions, *made)), rest))


def _of(order: Order, fractions: Fractions, kind: str, ordinal: int) -> Built:
    numbers = {number: local for local, number in enumerate(fractions, start=1)}
    frames = [
        (number, plane)
        for number, values in fractions.items()
        for plane in reversed(range(len(values)))
        if values[plane].any()
    ]
    pixels = framed(tag_of("PixelData"), "OB", b"".join(fractions[number][plane].tobytes() for number, plane in frames))
    taken = np.zeros(order.source.shape, np.uint8)
    for values in fractions.values():
        taken += values > 0

    def content(script: Script) -> tuple[Elements, list[Code]]:
        own = image(order, len(frames), script, type="FRACTIONAL", bits=8, overlapping=bool((taken > 1).any()))
        own |= elements(SegmentationFractionalType=kind, MaximumFractionalValue=MOST)
        own |= segments(order, script, numbers) | references(order.source)
        own |= dimensions(
            order,
            [(numbers[number], plane) for number, plane in frames],
            uid=order.uid(f"{KIND}.dimension", ordinal),
            several=len(numbers) > 1,
        )
        described = [segment for segment in order.findings.segments if segment.number in numbers]
        return own | {tag_of("PixelData"): pixels}, codes_of(described)

    built = on_letterhead(
        letterhead(order, KIND, ordinal=ordinal),
        kind=KIND,
        sop_class_uid=SegmentationStorage,
        modality="SEG",
        content=content,
    )
    return replace(built, segments=numbers)
