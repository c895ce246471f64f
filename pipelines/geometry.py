"""Where a network's voxels lie in the source, and back: axis by axis, without touching a pixel.

Published chains turn the image (Orientation) and change its spacing (Spacing), and nothing else moves a voxel. Both
work along the image's own axes, so the way there and back is three short lists of coordinates. They come from MONAI's
own kernels, run on a ramp instead of an image: rounding, clamping and ties are MONAI's to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.declared import Step

Coordinates = NDArray[np.float64]

MOVES = frozenset(("Orientation", "Spacing"))
LINEAR = frozenset(("bilinear", "linear", "trilinear"))


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Where the indices of one axis lie on an axis of the other image; `nearest` as MONAI would round them."""

    other: int
    at: Coordinates
    nearest: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Geometry:
    """Two grids: the source, here in MONAI's order (column, row, slice), and the network's.

    `to_source[a]` tells where the network's axis a lies in the source, `to_network[b]` the reverse. `affine` maps the
    network's indices to patient millimetres in MONAI's axes (R, A, S).
    """

    to_source: tuple[Axis, Axis, Axis]
    to_network: tuple[Axis, Axis, Axis]
    affine: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The network's grid."""
        x, y, z = (len(axis.at) for axis in self.to_source)
        return x, y, z


def in_ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """A Volume's affine, (slice, row, column) to L P S, as MONAI's, (column, row, slice) to R A S.

    It is rounded to single precision, as in the NIfTI files that published chains read: of an oblique grid MONAI
    places the resampled one by half a voxel differently when the axes are orthogonal to the last bit.
    """
    turned = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine @ np.eye(4)[[2, 1, 0, 3]]
    return turned.astype(np.float32).astype(np.float64)


def geometry(shape: Sequence[int], affine: NDArray[np.float64], steps: Sequence[Step]) -> Geometry | None:
    """What these steps do to a grid, or None when they do more than turn it and space it once along its axes.

    Shapes:  shape (column, row, slice); affine (4, 4), R A S
    """
    import torch
    from monai.data import MetaTensor

    if any(step.name not in MOVES or len(step.keys()) != 1 for step in steps):
        return None
    if sum(step.name == "Spacing" for step in steps) > 1:
        return None
    image = MetaTensor(torch.zeros(1).expand(1, *shape), affine=torch.from_numpy(affine))
    there = [Axis(a, np.arange(float(n)), np.arange(n)) for a, n in enumerate(shape)]
    back = [Axis(a, np.arange(float(n)), np.arange(n)) for a, n in enumerate(shape)]
    for step in steps:
        before, size = image.peek_pending_affine().numpy(), tuple(image.peek_pending_shape())
        (key,) = step.keys()
        image = step.build(lazy=True)({key: image})[key]
        now, after = image.peek_pending_affine().numpy(), tuple(int(n) for n in image.peek_pending_shape())
        matrix = np.linalg.solve(before, now)
        if step.name == "Orientation":
            there, back = _turned(there, back, matrix, after)
        elif size != after or not _close(before, now, matrix):
            if not _along_axes(matrix, step):
                return None
            there, back = _spaced(there, back, matrix, size, after, step)
    x, y, z = there
    column, row, plane = back
    return Geometry(
        to_source=(x, y, z), to_network=(column, row, plane), affine=image.peek_pending_affine().numpy().copy()
    )


def _turned(
    there: list[Axis], back: list[Axis], matrix: NDArray[np.float64], after: tuple[int, ...]
) -> tuple[list[Axis], list[Axis]]:
    """Axes swapped and reversed."""
    turn = np.rint(matrix).astype(int)
    turned: list[Axis] = []
    moved = list(back)
    for new in range(3):
        old = int(np.flatnonzero(turn[:3, new])[0])
        step, start = turn[old, new], turn[old, 3]
        index = start + step * np.arange(after[new])
        axis = there[old]
        turned.append(Axis(axis.other, axis.at[index], axis.nearest[index]))
        source = back[axis.other]
        moved[axis.other] = Axis(new, (source.at - start) * step, (source.nearest - start) * step)
    return turned, moved


def _spaced(
    there: list[Axis],
    back: list[Axis],
    matrix: NDArray[np.float64],
    size: tuple[int, ...],
    after: tuple[int, ...],
    step: Step,
) -> tuple[list[Axis], list[Axis]]:
    """Each axis stretched or shrunk; before this, `there` and `back` are whole numbers."""
    padding, corners = step.arguments.get("padding_mode", "border"), bool(step.arguments.get("align_corners", False))
    inverse = np.linalg.inv(matrix)
    spaced, moved = [], list(back)
    for new, axis in enumerate(there):
        at, _ = _ramp(matrix[new, new], matrix[new, 3], size[new], after[new], padding, corners)
        direction = axis.at[1] - axis.at[0] if len(axis.at) > 1 else 1.0
        on_source = axis.at[0] + direction * at
        spaced.append(Axis(axis.other, on_source, np.rint(on_source).astype(np.int64)))
        source = back[axis.other]
        at, nearest = _ramp(inverse[new, new], inverse[new, 3], after[new], size[new], padding, corners)
        whole = source.nearest
        moved[axis.other] = Axis(new, at[whole], nearest[whole])
    return spaced, moved


def _ramp(
    scale: float, start: float, size: int, after: int, padding: str, corners: bool
) -> tuple[Coordinates, NDArray[np.int64]]:
    """Where MONAI samples an axis of `size` voxels for one of `after`: in between, and rounded to a voxel."""
    import torch
    from monai.networks.layers import AffineTransform

    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 0], matrix[0, 3] = scale, start
    ramp = torch.arange(size, dtype=torch.float64)[None, None, :, None, None]
    found: list[NDArray[np.float64]] = []
    for mode in ("bilinear", "nearest"):
        sampled: Any = AffineTransform(
            normalized=False, mode=mode, padding_mode=padding, align_corners=corners, reverse_indexing=True
        )(ramp, theta=matrix, spatial_size=(after, 1, 1))
        found.append(sampled.flatten().numpy())
    return found[0], np.rint(found[1]).astype(np.int64)


def _along_axes(matrix: NDArray[np.float64], step: Step) -> bool:
    """Whether each axis is sampled linearly by itself, clamped at the ends."""
    mode = step.arguments.get("mode", "bilinear")
    mode = mode if isinstance(mode, str) else mode[0] if isinstance(mode, list | tuple) and len(mode) == 1 else ""
    off_axis = np.abs(matrix[:3, :3] - np.diag(np.diag(matrix[:3, :3]))).max()
    return bool(off_axis < 1e-6 and mode in LINEAR and step.arguments.get("padding_mode", "border") == "border")


def _close(before: NDArray[np.float64], now: NDArray[np.float64], matrix: NDArray[np.float64]) -> bool:
    """Whether MONAI would leave an image as it is, by its own tolerance."""
    from monai.data.utils import AFFINE_TOL

    return np.allclose(before, now, atol=AFFINE_TOL) or np.allclose(matrix, np.eye(4), atol=AFFINE_TOL)
