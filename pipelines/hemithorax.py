"""How much of its side of the rib cage a lung fills: what lies between lung, ribs and mediastinum and holds no air.

A lung that is whole lies against the ribs from its front round to the spine, and its inner surface runs smoothly from
apex to base. Fluid, consolidation and masses break one or the other. Both are looked at along rays from the middle of
the chest, slice by slice and every few degrees: what a ray meets between the lung and the first rib behind it, where a
ray that should meet lung meets none, where the inner surface bulges outwards between two places where it does not, and
where the lung ends much higher at the side and back than the other one does. Behind the breast bone, where ribs are
cartilage, in the apex and next to the spine no ray is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.steps import Mask

Floats = NDArray[np.float64]

FRONT, BACK, APART = 40, 155, 3
"""First and last ray, in degrees from the front round to the back, and the angle between two."""
BONE_ABOVE = 150.0
"""Unit: HU."""
APEX_MM = 35.0
BULGE_MM = 25.0
"""The aortic arch and the hilum reach out less far than this."""
BULGE_HEIGHT_MM = 62.0
"""What is taller, as the heart is, counts as mediastinum."""
BASE_MM = 40.0
"""The bases of two healthy lungs differ less in height, at the side and the back."""
SIDE = 80
"""Where the side begins, in degrees from the front."""
SNUG_MM = 7.5
"""Between lung and the inner surface of a rib lie less than this."""
FAR = 1e3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rays:
    """Rays from the middle of the chest to one side, the same in every slice.

    `back` and `left` are the indices of their points, (ray, distance); `on` says which points lie in the slice.
    `ray`, `distance` give the point that is nearest to each place of a slice, and `seen` where there is one.
    """

    back: NDArray[np.intp]
    left: NDArray[np.intp]
    on: Mask
    ray: NDArray[np.intp]
    distance: NDArray[np.intp]
    seen: Mask

    def along(self, mask: Mask) -> Mask:
        """A mask (up, back, left) as the rays meet it: (up, ray, distance)."""
        met: Mask = mask[:, self.back, self.left] & self.on
        return met

    def spread(self, met: Mask) -> Mask:
        """The way back: (up, ray, distance) onto (up, back, left)."""
        mask = np.zeros((met.shape[0], *self.seen.shape), dtype=bool)
        mask[:, self.seen] = met[:, self.ray[self.seen], self.distance[self.seen]]
        return mask


def rays(shape: tuple[int, int, int], *, middle: float, centre: float, step: float, left: bool) -> Rays:
    """Rays to the left or right of (`centre`, `middle`), indices along the back and left axes; `step` in mm."""
    angles = np.radians(np.arange(FRONT, BACK + 1, APART))[:, None]
    distances = np.arange(int(220 / step))
    sign = 1 if left else -1
    x = np.rint(middle + sign * np.sin(angles) * distances).astype(np.intp)
    y = np.rint(centre - np.cos(angles) * distances).astype(np.intp)
    on = (x >= 0) & (x < shape[2]) & (y >= 0) & (y < shape[1])
    dy, dx = np.mgrid[: shape[1], : shape[2]] - np.array([centre, middle])[:, None, None]
    distance = np.rint(np.hypot(dx, dy)).astype(np.intp)
    ray = np.rint((np.degrees(np.arctan2(sign * dx, -dy)) - FRONT) / APART).astype(np.intp)
    seen = (ray >= 0) & (ray < len(angles)) & (distance < len(distances))
    return Rays(
        back=y.clip(0, shape[1] - 1), left=x.clip(0, shape[2] - 1), on=on, ray=ray, distance=distance, seen=seen
    )


def airless(lung: Mask, bone: Mask, fan: Rays, *, step: float, other: Mask | None = None) -> Mask:
    """Voxels that belong to the space of this lung and hold none of it.

    `other` is the other lung as its own rays meet it.

    Shapes:  lung and bone (up, back, left), other (up, ray, distance) -> (up, back, left)
    Units:   mm
    """
    met = fan.along(lung)
    hit: Mask = np.any(met, axis=2)
    size = met.shape[2]
    inner = np.where(hit, met.argmax(axis=2), size).astype(np.float64)
    outer = np.where(hit, size - 1 - met[:, :, ::-1].argmax(axis=2), 0)
    wall = np.maximum(_wall(fan.along(_stretched(bone, step)), hit, outer, step), outer)
    asked = _asked(lung, step) & hit.any(axis=1)
    from_, to = outer + 1.0, wall
    from_[(wall - outer) * step <= SNUG_MM] = FAR
    empty = _expected(hit) & ~hit
    from_[~hit] = FAR
    from_[empty] = _depth(inner, wall, hit)[empty]
    from_[wall >= FAR] = FAR
    points = np.arange(size)
    cells = (points >= from_[:, :, None]) & (points < to[:, :, None] - 1) & asked[:, None, None]
    smooth = _without_bulges(np.where(hit, inner, wall), hit, step)
    cells |= (points >= smooth[:, :, None]) & (points < inner[:, :, None]) & (hit & asked[:, None])[:, :, None]
    if other is not None:
        cells |= _below(hit, other, step)
    return fan.spread(cells) & ~lung


def _below(hit: Mask, other: Mask, step: float) -> Mask:
    """Where the other lung lies beneath the height at which this one has ended already."""
    opposite = np.any(other, axis=2)
    base = np.where(hit.any(axis=0), hit.argmax(axis=0), len(hit))
    lower = np.where(opposite.any(axis=0), opposite.argmax(axis=0), len(hit))
    high = ((base - lower) * step > BASE_MM) & (FRONT + APART * np.arange(len(base)) >= SIDE) & hit.any(axis=0)
    beneath = np.arange(len(hit))[:, None] < base
    below: Mask = other & (beneath & high)[:, :, None]
    return below


def _stretched(bone: Mask, step: float) -> Mask:
    """Ribs made tall enough to close the gaps between them."""
    from scipy import ndimage

    size = 2 * round(10 / step) + 1
    tall: Mask = ndimage.maximum_filter1d(bone.view(np.uint8), size, axis=0).astype(bool)
    return tall


def _wall(bone: Mask, hit: Mask, outer: NDArray[Any], step: float) -> Floats:
    """Distance of the ribs along each ray: the first behind the lung; without lung, where ribs usually are."""
    from scipy import ndimage

    points = np.arange(bone.shape[2])
    behind = bone & (points >= outer[:, :, None] - 1) & hit[:, :, None]
    wall = np.where(behind.any(axis=2), behind.argmax(axis=2), FAR)
    usual = np.array([np.median(column[column < FAR]) if (column < FAR).sum() > 3 else np.nan for column in wall.T])
    if np.isnan(usual).all():
        return np.full(hit.shape, FAR)
    usual = np.where(np.isnan(usual), np.nanmedian(usual), usual)[None, :, None]
    likely = bone & (points >= 0.75 * usual) & (points <= 1.3 * usual)
    wall = np.where(hit, wall, np.where(likely.any(axis=2), likely.argmax(axis=2), FAR))
    size = (2 * round(12 / step) + 1, 5)
    smoothed: Floats = ndimage.percentile_filter(wall.astype(np.float64), 30, size=size)
    return smoothed


def _asked(lung: Mask, step: float) -> Mask:
    """Slices that can be judged: not the apex, and not where the lung ends in thin recesses."""
    area = lung.sum(axis=(1, 2)).astype(np.float64)
    heights = np.arange(len(area))
    used = np.flatnonzero(area)
    if not used.size:
        return np.zeros(len(area), dtype=bool)
    apex = (heights > used[-1] - APEX_MM / step) | ((heights > area.argmax()) & (area < 0.4 * area.max()))
    asked: Mask = (area > 0.1 * area.max()) & ~apex
    return asked


def _expected(hit: Mask) -> Mask:
    """Rays that should meet lung: all behind the foremost that does, for lungs end later the further back."""
    expected: Mask = np.logical_or.accumulate(hit, axis=1)
    return expected


def _depth(inner: Floats, wall: Floats, hit: Mask) -> Floats:
    """Where the lung of an empty ray would begin: as in the slice above, but no deeper than its neighbours in front."""
    above = np.full(hit.shape[1], np.nan)
    begin = np.full(hit.shape, FAR)
    for height in range(len(hit) - 1, -1, -1):
        above = np.where(hit[height], inner[height], above)
        if not hit[height].any():
            continue
        guess = np.where(np.isnan(above), np.nanmedian(above), above)
        thickness = np.where(hit[height], wall[height] - inner[height], np.inf)
        ahead = np.array([thickness[max(0, ray - 7) : ray].min(initial=np.inf) for ray in range(len(thickness))])
        shallow = np.minimum.accumulate(np.where(np.isinf(ahead), FAR, ahead))
        begin[height] = np.maximum(guess, wall[height] - np.where(np.isinf(ahead), shallow, ahead))
    return begin


def _without_bulges(inner: Floats, hit: Mask, step: float) -> Floats:
    """The inner surface with every outward bulge cut down that has flat surface above and below it."""
    from scipy import ndimage

    size = 2 * round(BULGE_HEIGHT_MM / step / 2) + 1
    filled = np.where(inner < FAR, inner, np.inf)
    used = np.flatnonzero(hit.any(axis=1))
    flat = filled.copy()
    if used.size:
        part = filled[used[0] : used[-1] + 1]
        padded = np.pad(part, ((size, size), (0, 0)), constant_values=np.inf)
        low = ndimage.minimum_filter1d(padded, size, axis=0, mode="nearest")
        opened = ndimage.maximum_filter1d(low, size, axis=0, mode="nearest")[size:-size]
        flat[used[0] : used[-1] + 1] = opened
    return np.where((inner - flat) * step > BULGE_MM, flat, FAR)
