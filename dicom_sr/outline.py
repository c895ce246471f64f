"""Where a finding is drawn on a slice: the outline of a segment on its fullest slice, a box or a region on its nearest.

Points are in the image's own coordinates: (column, row) from the outer corner of the first pixel, whose centre is
(0.5, 0.5).

Source:  PS3.3 C.18.6.1.2 (Graphic Data), C.7.6.2.1.1 (Image Position and Orientation)
"""

from dataclasses import dataclass
from itertools import pairwise

import contourpy
import numpy as np
from numpy.typing import NDArray

from dicom_sr.nouns import Box, Findings, LabelMap, Region
from dicom_sr.problem import Problem
from dicom_sr.source import SourceSeries

MOST_POINTS = 400
"""Points of an outline; a finer one is thinned evenly, a viewer shows no difference."""


class NotOnASlice(Problem):
    """A finding lies on no slice of its source, so a report of a two-dimensional class would lose it."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Points on one plane of the source, shape (point, 2) as (column, row); more than one are a polyline."""

    plane: int
    points: NDArray[np.float64]

    @property
    def graphic_type(self) -> str:
        """POINT or POLYLINE (PS3.3 C.18.6.1.1)."""
        return "POINT" if len(self.points) == 1 else "POLYLINE"


def of_segment(findings: Findings, number: int) -> Drawn:
    """The longest outline of the segment on the slice where it has most voxels, closed."""
    layer = findings.layer(number)
    plane = fullest(layer, number)
    return Drawn(plane, outline(layer[plane] == number))


def fullest(labels: LabelMap, number: int) -> int:
    """The slice where the label has most voxels; the middle one of several."""
    counts = np.array([np.count_nonzero(plane == number) for plane in labels])
    most = np.flatnonzero(counts == counts.max())
    return int(most[len(most) // 2])


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The outline that encloses most, half way between the pixels inside and outside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    cut = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.float32)
    lines = contourpy.contour_generator(z=cut).lines(0.5)
    line = np.asarray(max(lines, key=lambda one: abs(area(np.asarray(one)))), np.float64)
    line = _thinned(line) + np.array([left - 0.5, top - 0.5])
    return np.vstack([line, line[:1]]) if (line[0] != line[-1]).any() else line


def area(line: NDArray[np.float64]) -> float:
    """Signed area of a closed line, by its corners."""
    x, y = line[:, 0], line[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def _thinned(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without points on straight runs, and with at most MOST_POINTS."""
    turn = [
        index
        for index, (before, after) in enumerate(pairwise(np.diff(line, axis=0)), start=1)
        if abs(before[0] * after[1] - before[1] * after[0]) > 1e-9
    ]
    kept = line[[0, *turn, len(line) - 1]]
    return kept if len(kept) <= MOST_POINTS else kept[np.linspace(0, len(kept) - 1, MOST_POINTS).astype(int)]


def of_box(box: Box, source: SourceSeries) -> Drawn:
    """The rectangle that the box covers on the slice nearest to its centre.

    Raises:  NotOnASlice
    """
    corners = np.array([[low, high] for low, high in zip(box.minimum, box.maximum, strict=True)])
    points = _indices(np.array(np.meshgrid(*corners)).reshape(3, -1).T, source)
    plane = _nearest(points[:, 0].mean(), source, "a box")
    (top, left), (bottom, right) = points[:, 1:].min(axis=0) + 0.5, points[:, 1:].max(axis=0) + 0.5
    line = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])
    return Drawn(plane, line.clip((0, 0), (source.shape[2], source.shape[1])))


def of_everything(source: SourceSeries) -> Drawn:
    """The edge of the image, of the middle one of several: for what is said of all of it."""
    _, rows, columns = source.shape
    line = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows], [0, 0]], np.float64)
    return Drawn(len(source.planes) // 2, line.clip(0.5, (columns - 0.5, rows - 0.5)))


def of_region(region: Region, source: SourceSeries) -> Drawn:
    """The region's points on the slice nearest to them.

    Raises:  NotOnASlice
    """
    points = _indices(np.array(region.points), source)
    return Drawn(_nearest(points[:, 0].mean(), source, "a region"), points[:, 2:0:-1] + 0.5)


def _indices(points: NDArray[np.float64], source: SourceSeries) -> NDArray[np.float64]:
    """Patient millimetres as (slice, row, column) indices of voxel centres."""
    inverse: NDArray[np.float64] = np.linalg.inv(source.affine).astype(np.float64)
    at: NDArray[np.float64] = np.c_[points, np.ones(len(points))] @ inverse[:3].T
    return at


def _nearest(at: float, source: SourceSeries, what: str) -> int:
    """The nearest slice, at most one slice beyond the first or last."""
    if not -1 <= at <= len(source.planes):
        raise NotOnASlice(
            f"{what} lies {abs(at - np.clip(at, 0, len(source.planes) - 1)):.1f} slices off the source",
            remedy="Report this defect of the pipeline; or choose sr: comprehensive3d for this destination",
        )
    return int(np.clip(round(at), 0, len(source.planes) - 1))
