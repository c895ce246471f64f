"""Runs of equal labels: one pass over a label map finds where its segments lie, and is enough to pack their masks.

A run is a stretch of equal labels in the order of a plane's pixels; it may go over the end of a row. Bits are written
for runs and not for pixels, so that neither what lies between segments nor their inside is looked at again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_sr.nouns import LabelMap

Frame = tuple[int, int]
"""Segment number and plane (slice index) of one frame."""


@dataclass(frozen=True, slots=True, eq=False)
class PlaneRuns:
    """The runs of one plane: first pixel of each, rising, then the plane's size, and the label of each.

    Each ends where the next begins.
    """

    first: NDArray[np.int32]
    label: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The runs of all planes of some label maps of one shape, and what lies where.

    `present` has shape (plane, segment number); `layer` is the label map in which each segment lies, by number.
    """

    shape: tuple[int, int, int]
    planes: tuple[tuple[PlaneRuns, ...], ...]
    """Of each label map, of each plane."""
    present: NDArray[np.bool_]
    layer: NDArray[np.int32]

    def frames(self) -> list[Frame]:
        """One frame per segment and plane in which it lies: by segment, then against the normal."""
        last = self.shape[0] - 1
        return [(int(number) + 1, last - int(plane)) for number, plane in np.argwhere(self.present[::-1, 1:].T)]

    def packed(self, frames: Sequence[Frame]) -> NDArray[np.uint8]:
        """The masks of these frames, one bit a pixel, least significant first, of even length (PS3.5 8.1.1).

        Bytes that hold no pixel of a segment are never touched.
        """
        planes, rows, columns = self.shape
        size = rows * columns
        packed = np.zeros((len(frames) * size + 15) // 16 * 2, np.uint8)
        begin = np.full((planes, 256), -1, np.int64)  # the bit at which the frame of each segment begins
        for index, (number, plane) in enumerate(frames):
            begin[plane, number] = index * size
        for layer in self.planes:
            for runs, bit in zip(layer, begin, strict=True):
                wanted = np.flatnonzero((bit >= 0)[runs.label])
                if wanted.size:
                    label = runs.label[wanted]
                    within = (bit & 7).astype(np.int32)[label]
                    _fill(packed, (bit >> 3)[label], runs.first[wanted] + within, runs.first[wanted + 1] + within)
        return packed


def runs_of(layers: Sequence[LabelMap], highest: int) -> Runs:
    """The runs of these label maps, whose labels are at most `highest`."""
    shape = layers[0].shape
    present = np.zeros((shape[0], highest + 1), bool)
    layer_of = np.zeros(highest + 1, np.int32)
    begins = np.ones(shape[1] * shape[2], bool)
    found = []
    for index, labels in enumerate(layers):
        here = np.zeros_like(present)
        planes = []
        for plane, there in zip(labels, here, strict=True):
            flat = plane.ravel()
            np.not_equal(flat[1:], flat[:-1], out=begins[1:])
            first = np.flatnonzero(begins)
            planes.append(PlaneRuns(np.append(first, flat.size).astype(np.int32), flat[first]))
            there[planes[-1].label] = True
        found.append(tuple(planes))
        layer_of[here.any(axis=0)] = index
        present |= here
    return Runs(shape, tuple(found), present, layer_of)


LEFT = np.array([0xFF << bit & 0xFF for bit in range(8)], np.uint8)
"""A byte's bits from this one on."""
RIGHT = np.array([0xFF >> 7 - bit for bit in range(8)], np.uint8)
"""A byte's bits up to this one."""


def _fill(
    packed: NDArray[np.uint8], begin: NDArray[np.int64], first: NDArray[np.int32], end: NDArray[np.int32]
) -> None:
    """Set the bits from each `first` up to before its `end`, counted from the byte `begin`; none is asked for twice."""
    last = end - 1
    head, tail = first >> 3, last >> 3
    left, right = LEFT[first & 7], RIGHT[last & 7]
    between = tail - head - 1
    left[between < 0] &= right[between < 0]
    head_at = begin + head
    # different bits of one byte: to add them is to set them, and numpy adds many times faster than it sets
    np.add.at(packed, head_at, left)
    several = np.flatnonzero(between >= 0)
    np.add.at(packed, head_at[several] + between[several] + 1, right[several])
    inner = np.flatnonzero(between > 0)
    length = between[inner]
    before = np.cumsum(length) - length
    packed[np.repeat(head_at[inner] + 1 - before, length) + np.arange(int(length.sum()))] = 0xFF
