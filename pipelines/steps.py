"""Steps that pipelines share: a volume seen upright, morphology on it, and the way back to the volume's own grid.

Every decision about anatomy is made on an upright copy of the volume, whose axes are the patient's and whose voxels
are cubes; so no pipeline knows how the slices lay, and an oblique series needs no second code path. Upright arrays
are (up, back, left): the first index grows towards the head, the second towards the back, the third towards the
patient's left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dicom_sr.nouns import Volume

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]

NEVER_MEASURED = -1300
"""Below this no CT measures: what is darker was filled in around the field of view. Unit: HU."""
FILLED = -1000.0
SLAB = 1 << 23
"""Voxels that are turned into floats at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Upright:
    """A coarse copy of a volume on cubes along the patient's axes.

    `hu` is (up, back, left) float32; `inside` says where the volume was measured at all, which is nowhere on the
    array's own border. `affine` maps (up, back, left)
    indices to patient millimetres; `step` is the edge of a cube in mm.
    """

    hu: Tensor
    inside: Tensor
    affine: NDArray[np.float64]
    step: float

    @property
    def voxel_ml(self) -> float:
        """Volume of one cube."""
        return self.step**3 / 1000.0

    @property
    def values(self) -> NDArray[np.float32]:
        """`hu` for numpy; not to be written to."""
        values: NDArray[np.float32] = self.hu.cpu().numpy()
        return values

    def smooth(self) -> Tensor:
        """`hu`, each the mean of the 27 cubes around it."""
        from torch.nn.functional import avg_pool3d

        return avg_pool3d(self.hu[None], 3, stride=1, padding=1, count_include_pad=False)[0]

    def cropped(self, box: Box) -> Upright:
        """The part inside an index box."""
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ (*(axis.start for axis in box), 1.0))[:3]
        return replace(self, hu=self.hu[box].contiguous(), inside=self.inside[box].contiguous(), affine=affine)


def tensor(array: NDArray[np.generic], device: str | torch.device) -> Tensor:
    """A part of an array on a device. Torch takes no memory that must not be written to, so that is copied."""
    import torch

    part = np.ascontiguousarray(array)
    return torch.from_numpy(part if part.flags.writeable else part.copy()).to(device)


def upright(volume: Volume, *, step: float, device: str) -> Upright:
    """The volume on cubes of `step` mm along the patient's axes; means over what is finer, linear where it is coarser.

    Units:   mm
    """
    import torch

    pooled, measured, affine = _pooled(volume, step, device)
    corners = np.array(
        [
            affine @ (*(c * (n - 1) for c, n in zip(corner, pooled.shape, strict=True)), 1)
            for corner in np.ndindex(2, 2, 2)
        ]
    )
    low, high = corners[:, :3].min(axis=0) - step, corners[:, :3].max(axis=0) + step
    shape = tuple(int(n) for n in (np.ceil((high - low) / step - 1e-6).astype(int) + 1)[::-1])
    target = np.eye(4)
    target[:3, :3] = step * np.eye(3)[:, ::-1]
    target[:3, 3] = low
    to_pooled = np.linalg.inv(affine) @ target
    hu = torch.full(shape, FILLED, dtype=torch.float32, device=device)
    inside = torch.zeros(shape, dtype=torch.bool, device=device)
    for first in range(0, shape[0], 16):
        rows = slice(first, min(first + 16, shape[0]))
        grid, within = _sampling(to_pooled, (rows, shape[1], shape[2]), pooled.shape, device)
        hu[rows] = _sample(pooled, grid)
        inside[rows] = within if measured is None else within & (_sample(measured, grid) > 0.5)
    for axis in range(3):
        inside.index_fill_(axis, torch.tensor([0, shape[axis] - 1], device=device), False)
    hu[~inside] = FILLED
    return Upright(hu=hu, inside=inside, affine=target, step=step)


def _pooled(volume: Volume, step: float, device: str) -> tuple[Tensor, Tensor | None, NDArray[np.float64]]:
    """Means over whole numbers of voxels no larger than `step`, the share that was measured, and the new affine."""
    import torch
    from torch.nn.functional import avg_pool3d

    factors = [max(1, int(step / size + 0.25)) for size in volume.spacing]
    array, padding = volume.array, volume.padding
    gaps = padding is not None or bool(array.min() < NEVER_MEASURED)
    thick = factors[0] * max(1, SLAB // (factors[0] * array.shape[1] * array.shape[2]))
    means, shares = [], []
    for first in range(0, array.shape[0], thick):
        part = tensor(array[first : first + thick], device).float()
        if gaps:
            measured = part >= NEVER_MEASURED
            if padding is not None:
                measured &= ~tensor(padding[first : first + thick], device)
            part = part.where(measured, torch.tensor(FILLED, device=device))
            shares.append(avg_pool3d(measured.float()[None], factors, ceil_mode=True)[0])
        means.append(avg_pool3d(part[None], factors, ceil_mode=True)[0])
    affine = volume.affine.copy()
    affine[:3, :3] *= factors
    affine[:3, 3] += volume.affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    return torch.cat(means), torch.cat(shares) if shares else None, affine


def _sampling(
    matrix: NDArray[np.float64], shape: tuple[slice, int, int], source: tuple[int, ...], device: str
) -> tuple[Tensor, Tensor]:
    """For a slab of target indices: where to sample the source (grid_sample's order), and whether that is inside it."""
    import torch

    rows, columns, depth = shape
    steps = [
        torch.arange(rows.start, rows.stop, device=device),
        torch.arange(columns, device=device),
        torch.arange(depth, device=device),
    ]
    mesh = [axis.float().reshape([-1 if n == i else 1 for n in range(3)]) for i, axis in enumerate(steps)]
    index = [
        sum((float(row[i]) * mesh[i] for i in range(3)), torch.tensor(float(row[3]), device=device))
        for row in matrix[:3]
    ]
    within = torch.ones(1, dtype=torch.bool, device=device)
    for axis, size in zip(index, source, strict=False):
        within = within & (axis >= -0.5 - 1e-3) & (axis <= size - 0.5 + 1e-3)
    scaled = [2 * axis / max(size - 1, 1) - 1 for axis, size in zip(index, source, strict=False)]
    full = [max(axis.shape[i] for axis in scaled) for i in range(3)]
    grid = torch.stack([axis.expand(full) for axis in scaled[::-1]], dim=-1)
    return grid, within


def _sample(image: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    from torch.nn.functional import grid_sample

    return grid_sample(image[None, None], grid[None], mode=mode, padding_mode="border", align_corners=True)[0, 0]


def nearest(view: Upright, codes: Tensor, volume: Volume) -> Iterator[tuple[Box, Tensor]]:
    """Codes of the upright grid as the volume's own voxels see them, slab by slab, only where codes are not 0.

    Yields an index box of the volume, and the codes in it (uint8).
    """
    import torch

    to_upright = np.linalg.inv(view.affine) @ volume.affine
    box = _reach(codes, np.linalg.inv(to_upright), volume.array.shape)
    roomy = torch.nn.functional.pad(codes, (1, 1, 1, 1, 1, 1))  # so that what lies outside is 0
    for slab in slabs(box, SLAB // 4):
        index = [
            (torch.round(axis).to(torch.int64) + 1).clamp(0, size - 1)
            for axis, size in zip(_indices(to_upright, slab, codes.device), roomy.shape, strict=True)
        ]
        yield slab, _taken(roomy, index)


def slabs(box: Box, voxels: int) -> Iterator[Box]:
    """A box in slabs of whole slices, each of about this many voxels at most."""
    thick = max(1, voxels // max(1, (box[1].stop - box[1].start) * (box[2].stop - box[2].start)))
    for first in range(box[0].start, box[0].stop, thick):
        yield slice(first, min(first + thick, box[0].stop)), box[1], box[2]


def _taken(codes: Tensor, index: list[Tensor]) -> Tensor:
    """Codes at broadcastable indices; axis by axis where each index varies along one axis only."""
    vary = [tuple(n for n in range(3) if axis.shape[n] > 1) for axis in index]
    if set(vary) != {(0,), (1,), (2,)}:
        size = codes.shape
        return codes.reshape(-1)[(index[0] * size[1] + index[1]) * size[2] + index[2]]
    for n, axis in enumerate(index):
        codes = codes.index_select(n, axis.flatten())
    order = [along[0] for along in vary]
    return codes.permute([order.index(n) for n in range(3)])


def _indices(matrix: NDArray[np.float64], box: Box, device: torch.device) -> list[Tensor]:
    """Where the voxels of a box lie in another grid: one index array an axis, each only as wide as it varies."""
    import torch

    mesh = [
        torch.arange(axis.start, axis.stop, dtype=torch.float32, device=device).reshape(
            [-1 if n == i else 1 for n in range(3)]
        )
        for i, axis in enumerate(box)
    ]
    return [
        sum(
            (float(row[i]) * mesh[i] for i in range(3) if abs(row[i]) > 1e-9),
            torch.full((1, 1, 1), float(row[3]), device=device),
        )
        for row in matrix[:3]
    ]


def _reach(codes: Tensor, to_volume: NDArray[np.floating], shape: tuple[int, ...]) -> Box:
    """Index box of the volume that holds every voxel with a code."""
    box = extent(codes.cpu().numpy())
    if box is None:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    corners = np.array(
        [
            [axis.stop if high else axis.start - 1 for axis, high in zip(box, corner, strict=True)]
            for corner in np.ndindex(2, 2, 2)
        ]
    )
    places = corners @ to_volume[:3, :3].T + to_volume[:3, 3]
    first = np.clip(np.floor(places.min(axis=0)).astype(int), 0, shape)
    last = np.clip(np.ceil(places.max(axis=0)).astype(int) + 1, 0, shape)
    return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])


# ---------------------------------------------------------------- morphology


def components(mask: Tensor | Mask) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Parts of a mask that touch by faces: labels, and the voxel count of each (0 for the background)."""
    import cc3d

    labels: NDArray[np.uint32] = cc3d.connected_components(
        mask if isinstance(mask, np.ndarray) else mask.cpu().numpy(), connectivity=6
    )
    counts = np.bincount(labels.ravel(), minlength=1)
    counts[0] = 0
    return labels, counts


def extent(mask: NDArray[np.generic]) -> Box | None:
    """Index box of all that is not 0, or None when nothing is."""
    spans = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    if not spans[0].size:
        return None
    first, second, third = (slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    return first, second, third


def _spread(mask: Tensor, axis: int) -> Tensor:
    """Each voxel or one of its two neighbours along an axis."""
    wide = mask.clone()
    size = mask.shape[axis]
    wide.narrow(axis, 1, size - 1).logical_or_(mask.narrow(axis, 0, size - 1))
    wide.narrow(axis, 0, size - 1).logical_or_(mask.narrow(axis, 1, size - 1))
    return wide


def dilated(mask: Tensor, steps: int) -> Tensor:
    """The mask grown by `steps` voxels: crosses and cubes in turn, which comes close to a ball."""
    for turn in range(steps):
        if turn % 2:
            mask = _spread(_spread(_spread(mask, 0), 1), 2)
        else:
            mask = _spread(mask, 0) | _spread(mask, 1) | _spread(mask, 2)
    return mask


def eroded(mask: Tensor, steps: int) -> Tensor:
    """The mask shrunk by `steps` voxels; the border of the array takes nothing away."""
    return ~dilated(~mask, steps)


def closed(mask: Tensor, steps: int) -> Tensor:
    """Gaps narrower than about 2 x `steps` voxels filled."""
    return eroded(dilated(mask, steps), steps) | mask


def opened(mask: Tensor, steps: int) -> Tensor:
    """Without what is narrower than about 2 x `steps` voxels."""
    return dilated(eroded(mask, steps), steps) & mask
