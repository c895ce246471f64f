"""Result kind `label_map`: a LABELMAP Segmentation on the source's grid, run-length encoded, a frame a non-empty plane.

Pixel values are the segment numbers of the findings. The background is described, too, as every pixel value must be.
Segments that overlap others lie in an object of their own each layer, under the same numbers. highdicom is the
reference in the tests. UIDs of an order used here: "label_map" with 0, 1 ..., "label_map.series",
"label_map.dimension", "frame_of_reference" for a source without one, "tracking" with the segment's number.

Source:  PS3.3 A.51, C.8.20.2.3 (LABELMAP); PS3.5 annex G (RLE), A.4 (Encapsulated Pixel Data)
"""

import struct
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from dicom_sr import codes
from dicom_sr.elements import Elements, code, elements, framed, tag_of
from dicom_sr.header import letterhead, on_letterhead
from dicom_sr.kinds import Built, Order
from dicom_sr.kinds.segmentation import cielab, codes_of, image, segments
from dicom_sr.multiframe import dimensions, references
from dicom_sr.nouns import Code, LabelMap
from dicom_sr.script import Script
from dicom_sr.uids import LABEL_MAP_SEGMENTATION_STORAGE

KIND = "label_map"

LONGEST = 128
"""Equal bytes that one run of RLE can hold (PS3.5 G.3.1)."""

HEADER = struct.pack("<16I", 1, 64, *([0] * 14))
"""Of an RLE frame of bytes: one segment, which begins behind this header (PS3.5 G.5)."""


def build(order: Order) -> tuple[Built, ...]:
    """A label map for each layer of the findings; none when they delineate nothing."""
    layers = order.findings.layers if order.findings.segments else ()
    return tuple(_layer(order, labels, ordinal) for ordinal, labels in enumerate(layers))


def _layer(order: Order, labels: LabelMap, ordinal: int) -> Built:
    planes = [plane for plane in reversed(range(len(labels))) if labels[plane].any()]
    frames = [run_lengths(labels[plane]) for plane in planes]
    there = np.zeros(256, bool)
    for frame in frames:
        there[np.frombuffer(frame, np.uint8, offset=len(HEADER) + 1)[::2]] = True
    mine = [segment for segment in order.findings.segments if there[segment.number]]
    numbers = {segment.number: segment.number for segment in mine}
    pixels = encapsulated(frames)

    def content(script: Script) -> tuple[Elements, list[Code]]:
        own = image(order, len(planes), script, type="LABELMAP", bits=8)
        own |= segments(order, script, numbers, before=[_background(order, script)]) | references(order.source)
        own |= dimensions(
            order,
            [(0, plane) for plane in planes],
            uid=order.uid(f"{KIND}.dimension", ordinal),
            several=False,
            by_value=True,
        )
        padding = framed(tag_of("PixelPaddingValue"), "US", b"\0\0")
        return own | {tag_of("PixelPaddingValue"): padding, tag_of("PixelData"): pixels}, codes_of(mine)

    built = on_letterhead(
        letterhead(order, KIND, ordinal=ordinal),
        kind=KIND,
        sop_class_uid=LABEL_MAP_SEGMENTATION_STORAGE,
        modality="SEG",
        content=content,
        transfer_syntax_uid=str(RLELossless),
    )
    return replace(built, segments=numbers)


def _background(order: Order, script: Script) -> Elements:
    """What the pixel value 0 means; it is no segment of the findings and is not tracked."""
    meant = code(codes.find("background"))
    return elements(
        script,
        SegmentNumber=0,
        SegmentLabel="Background",
        SegmentedPropertyCategoryCodeSequence=[meant],
        SegmentedPropertyTypeCodeSequence=[meant],
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=order.findings.algorithm.name,
        RecommendedDisplayCIELabValue=cielab((0, 0, 0)),
    )


def run_lengths(plane: NDArray[np.uint8]) -> bytes:
    """One frame of bytes, shape (row, column), in RLE; no run goes beyond its row.

    A run of n equal bytes is 1 - n modulo 256 and the byte; for n = 1 that reads as one literal byte.
    """
    ends = np.empty(plane.shape, bool)
    np.not_equal(plane[:, 1:], plane[:, :-1], out=ends[:, 1:])
    ends[:, ::LONGEST] = True
    starts = np.flatnonzero(ends)
    runs = np.empty((len(starts), 2), np.uint8)
    runs[:, 0] = 1 - np.diff(starts, append=plane.size)
    runs[:, 1] = plane.ravel()[starts]
    return HEADER + runs.tobytes()


def encapsulated(frames: Sequence[bytes]) -> bytes:
    """The PixelData element of these frames of even length, one fragment each, with a Basic Offset Table."""
    offsets = np.cumsum([0, *(len(frame) + 8 for frame in frames)], dtype=np.uint64)[:-1]
    fits = not len(offsets) or int(offsets[-1]) < 2**32
    table = offsets.astype("<u4").tobytes() if fits else b""
    parts = [struct.pack("<HH2sHI", tag_of("PixelData") >> 16, tag_of("PixelData") & 0xFFFF, b"OB", 0, 0xFFFFFFFF)]
    for value in (table, *frames):
        parts += (struct.pack("<HHI", 0xFFFE, 0xE000, len(value)), value)
    return b"".join((*parts, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)))
