"""Pure maths of image planes in patient space (PS3.3 C.7.6.2): no files, no data sets.

Index order is (slice, row, column); millimetres are patient axes L, P, S. The first triple of ImageOrientationPatient
is the direction in which the column index grows, the second the direction in which the row index grows; their cross
product is the normal, and slices are numbered along it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

ORTHOGONAL = 1e-2
"""How far an orientation may be from orthonormal: written with two decimals it still is."""


def is_orthonormal(orientation: Sequence[float]) -> bool:
    """Whether six numbers are two unit vectors at a right angle.

    Source:  PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation)
    """
    if len(orientation) != 6 or not np.isfinite(orientation).all():
        return False
    column_wise, row_wise = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    off = (np.linalg.norm(column_wise) - 1, np.linalg.norm(row_wise) - 1, column_wise @ row_wise)
    return bool(np.abs(off).max() <= ORTHOGONAL)


def axes(orientation: ArrayLike) -> tuple[Array, Array, Array]:
    """Unit directions in which the slice, the row and the column index grow.

    Shapes:  orientation (6,) -> three of (3,)
    Source:  PS3.3 C.7.6.2.1.1
    """
    pair = np.asarray(orientation, float).reshape(2, 3)
    column_wise, row_wise = pair / np.linalg.norm(pair, axis=1, keepdims=True)
    normal = np.cross(column_wise, row_wise)
    return normal / np.linalg.norm(normal), row_wise, column_wise


def projections(positions: ArrayLike, orientation: ArrayLike) -> Array:
    """Where planes lie along their common normal.

    Shapes:  positions (n, 3), orientation (6,) -> (n,)
    Units:   mm
    """
    return np.asarray(positions, float).reshape(-1, 3) @ axes(orientation)[0]


def affine(positions: ArrayLike, orientation: ArrayLike, spacing: ArrayLike, thickness: float) -> Array:
    """Matrix from (slice, row, column) indices of voxel centres to patient millimetres.

    Positions are sorted along the normal and evenly spaced; the step between slices is taken from the first and the
    last, so a tilted gantry appears as shear. A single plane gets `thickness` as its step.

    Shapes:  positions (n, 3), orientation (6,), spacing (2,) row then column -> (4, 4)
    Units:   mm, patient axes L, P, S
    Source:  PS3.3 C.7.6.2.1.1 (Image Position and Image Orientation), 10.7.1.3 (Pixel Spacing)
    """
    at = np.asarray(positions, float).reshape(-1, 3)
    normal, row_wise, column_wise = axes(orientation)
    between_rows, between_columns = np.asarray(spacing, float)
    matrix = np.eye(4)
    matrix[:3, 0] = (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else normal * thickness
    matrix[:3, 1] = row_wise * between_rows
    matrix[:3, 2] = column_wise * between_columns
    matrix[:3, 3] = at[0]
    return matrix


def shear_deg(matrix: ArrayLike) -> float:
    """Angle between the step from slice to slice and the normal of the slices: 0 unless the gantry was tilted.

    Shapes:  matrix (4, 4), as `affine` gives it
    Units:   degrees, 0 to 90
    """
    step, row_wise, column_wise = np.asarray(matrix, float)[:3, :3].T
    normal = np.cross(column_wise, row_wise)
    across = np.linalg.norm(np.cross(normal, step))
    return float(np.degrees(np.arctan2(across, abs(normal @ step))))


def between(matrix: ArrayLike) -> float:
    """Distance of a slice from the next, along their normal; shorter than the step where the gantry was tilted.

    Shapes:  matrix (4, 4), as `affine` gives it
    Units:   mm
    Source:  PS3.3 C.7.6.16.2.1 (Pixel Measures, Spacing Between Slices)
    """
    step, row_wise, column_wise = np.asarray(matrix, float)[:3, :3].T
    if shear_deg(matrix) < 1e-3:
        return float(np.linalg.norm(step))
    normal = np.cross(column_wise, row_wise)
    return round(abs(float(normal @ step)) / float(np.linalg.norm(normal)), 6)


def aside(positions: ArrayLike, orientation: ArrayLike) -> Array:
    """How far each plane's origin lies from the straight line through the first and the last, measured in the plane.

    Shapes:  positions (n, 3), sorted along the normal -> (n,)
    Units:   mm
    """
    at = np.asarray(positions, float).reshape(-1, 3)
    along = projections(at, orientation)
    reach = along[-1] - along[0]
    if len(at) < 3 or reach <= 0:
        return np.zeros(len(at))
    line = at[0] + np.outer((along - along[0]) / reach, at[-1] - at[0])
    off: Array = np.linalg.norm(at - line, axis=1)
    return off


def same_place(along: Array) -> float:
    """Distance below which two planes of a stack lie at one place: a twentieth of the mean step, at least a micron.

    Shapes:  along (n,), sorted projections
    Units:   mm
    """
    mean = (along[-1] - along[0]) / (len(along) - 1) if len(along) > 1 else 0.0
    return float(max(1e-3, 0.05 * mean))


def evenness(step: float) -> float:
    """How far one step may differ from the usual one: 5 %, or the rounding of positions written with one decimal,
    but never so much that a missing slice could hide.

    Units:   mm
    """
    return min(max(0.05 * step, 0.11), 0.3 * step)
