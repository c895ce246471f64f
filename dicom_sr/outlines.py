"""Outlines of masks as closed loops, half-way between pixels: every pixel centre is clearly inside or clearly outside.

Points are (row, column) indices, pixel centres are whole numbers. A loop's last point is its first.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Loop = NDArray[np.float64]
"""Closed loop, shape (point, 2): row and column."""


def regions(mask: Mask) -> list[list[Loop]]:
    """The connected parts of a mask, each its outer loop and then the loops of its holes."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = int(rows[0]) - 1, int(columns[0]) - 1
    inner = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    generator = contour_generator(z=inner.astype(np.float64), fill_type=FillType.OuterOffset)
    points, offsets = cast(tuple[list[Loop], list[NDArray[np.uint32]]], generator.filled(0.5, 2.0))
    found = []
    for polygon, ends in zip(points, offsets, strict=True):
        loops = [polygon[ends[i] : ends[i + 1], ::-1] + (top, left) for i in range(len(ends) - 1)]
        found.append([straightened(loop) for loop in loops])
    return found


def straightened(loop: Loop) -> Loop:
    """The loop without points on a straight line between their neighbours."""
    open_ = loop[:-1]
    before, after = open_ - np.roll(open_, 1, axis=0), np.roll(open_, -1, axis=0) - open_
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9
    kept: Loop = open_[turns]
    return np.concatenate([kept, kept[:1]])


def keyholed(region: Sequence[Loop]) -> Loop:
    """A region as one loop, each hole joined to it by a cut that goes in and back out (PS3.3 C.8.8.6.3)."""
    whole = region[0]
    for hole in sorted(region[1:], key=lambda loop: float(loop[:, 1].min())):
        distance = np.linalg.norm(whole[:, None, :] - hole[None, :-1, :], axis=2)
        at, start = np.unravel_index(int(distance.argmin()), distance.shape)
        turned = np.concatenate([hole[start:-1], hole[: start + 1]])
        whole = np.concatenate([whole[: at + 1], turned, whole[at:]])
    return whole


def filled(loops: Sequence[Loop], shape: tuple[int, int]) -> Mask:
    """The pixels whose centres lie within an odd number of loops: what the outlines enclose."""
    crossings = np.zeros((shape[0], shape[1] + 1), np.int64)
    for loop in loops:
        begin, end = loop[:-1], loop[1:]
        first = np.clip(np.ceil(np.minimum(begin[:, 0], end[:, 0])), 0, shape[0]).astype(int)
        last = np.clip(np.ceil(np.maximum(begin[:, 0], end[:, 0])), 0, shape[0]).astype(int)
        edge = np.repeat(np.arange(len(begin)), last - first)
        line = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[edge]
        run = (line - begin[edge, 0]) / (end[edge, 0] - begin[edge, 0])
        at = begin[edge, 1] + run * (end[edge, 1] - begin[edge, 1])
        np.add.at(crossings, (line, np.clip(np.ceil(at), 0, shape[1]).astype(int)), 1)
    inside: Mask = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return inside
