"""What lies where in a chest CT, without weights: body, airway, and the lung of either side with what is amiss in it.

All of it works on an upright copy of the volume (see `steps`), so up, back and left are the patient's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dicom_sr.nouns import LabelMap, Volume
from pipelines import hemithorax, runtime, steps
from pipelines.parting import parted
from pipelines.spec import Progress, silent
from pipelines.steps import Mask, Upright

if TYPE_CHECKING:
    from torch import Tensor

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")

AIR_BELOW = -500.0
"""Tissue that holds air. Unit: HU."""
OPEN_AIR_BELOW = -930.0
"""Most of what lies around a patient is darker; a lung that the field of view cuts is not. Unit: HU."""
WINDPIPE_BELOW = -800.0
WINDPIPE_MM = 40.0
"""A windpipe is seen over at least this height."""
POCKET_BELOW = -940.0
"""Gas in stomach and bowel. Unit: HU."""
PURE_GAS_BELOW = -980.0
"""Gas with no tissue in it, over several millimetres. Unit: HU."""
LEAK_ML = 12.0
"""An airway that grows by more than this in one step has broken into the lung."""
AIRWAY_MAX_ML = 140.0
AIRWAY_REACH_MM = 70.0
"""Main bronchi are followed no further from the windpipe, to the side and back, than this."""
LUNG_MIN_ML = 150.0
MASS_MIN_ML = 14.0
"""A ball of 3 cm: what is larger is a mass, what is smaller is counted as lung."""
LARGE_MASS_ML = 60.0
SOFT_TISSUE = 40.0
IN_PLANE = np.array([[[0] * 3] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0] * 3] * 3], dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Airway:
    """Windpipe and main bronchi. `lumen` is what they enclose; `carina` is the height index at which they part."""

    lumen: Tensor
    carina: int
    leaked: bool
    """The bronchi could not be told from the lung, so only the windpipe is in `lumen`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lung:
    """The aerated lung of one side, upright, and what speaks against measuring it.

    `fill` is the share of its side of the rib cage that it fills. `mass_ml` is the largest part of that side without
    air which is no fluid level at the base, 0 if none is as large as a mass, and `mass_at` where it lies. `cut_mm2` is
    the area over which the lung meets the edge of what was scanned, most of it at `cut_at`. `gas_ml` is gas without
    tissue in it.
    """

    mask: Tensor
    volume_ml: float
    fill: float
    mass_ml: float
    mass_at: str
    cut_mm2: float
    cut_at: str
    gas_ml: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chest:
    """What was seen. Without an airway there are no lungs; a side without a lung is absent."""

    view: Upright
    airway: Airway | None
    lungs: dict[Side, Lung]


def see(volume: Volume, *, step: float, device: str, progress: Progress = silent) -> Chest:
    """Body, airway and lungs of a chest CT, on cubes of `step` mm."""
    view = steps.upright(volume, step=step, device=device)
    with runtime.at_most(1):
        progress("finding the body", 0.2)
        trunk = body(view)
        view, trunk = _trimmed(view, trunk)
        middle = midline(view, trunk)
        air = trunk & (view.values < AIR_BELOW)
        progress("following the airway", 0.3)
        tree = airway(view, air, middle)
        if tree is None:
            return Chest(view=view, airway=None, lungs={})
        progress("finding the lungs", 0.4)
        masks = lungs(view, air, tree, middle)
        progress("judging completeness", 0.6)
        return Chest(view=view, airway=tree, lungs=_judged(masks, view, trunk, middle))


def body(view: Upright) -> Mask:
    """The trunk with all the air it encloses, slice by slice as seen from the feet."""
    import torch
    from scipy import ndimage

    inside = view.inside.cpu().numpy()
    labels, counts = steps.components(steps.opened(view.hu > AIR_BELOW, 1))
    if not counts.any():
        return np.zeros_like(inside)
    outside = (labels != counts.argmax()) & inside
    parts, number = ndimage.label(outside, structure=IN_PLANE)
    edge = steps.dilated(torch.from_numpy(~inside), 1).numpy()
    dark = np.bincount(parts[view.values < OPEN_AIR_BELOW], minlength=number + 1)
    open_air = np.zeros(number + 1, dtype=bool)
    open_air[np.unique(parts[edge])] = True
    open_air &= dark > 0.5 * np.bincount(parts.ravel(), minlength=number + 1)
    open_air[0] = False
    trunk: Mask = inside & ~open_air[parts]
    return trunk


def _trimmed(view: Upright, trunk: Mask) -> tuple[Upright, Mask]:
    """Both without the air beside the trunk; the full height stays."""
    box = steps.extent(trunk)
    if box is None:
        return view, trunk
    roomy = tuple(slice(max(0, axis.start - 4), axis.stop + 4) for axis in box[1:])
    part = (slice(0, trunk.shape[0]), roomy[0], roomy[1])
    return view.cropped(part), trunk[part]


def midline(view: Upright, trunk: Mask) -> float:
    """Index along the left axis of the patient's middle: half of the skeleton lies on either side."""
    bone = (view.values > 200) & trunk
    across = (bone if bone.any() else trunk).sum(axis=(0, 1))
    return float(np.searchsorted(np.cumsum(across), across.sum() / 2))


def windpipe(view: Upright, air: Mask, middle: float) -> Mask | None:
    """The upright column of round dark cross-sections near the midline that is the trachea, or None."""
    from scipy import ndimage

    parts, number = ndimage.label(air & (view.values < WINDPIPE_BELOW), structure=IN_PLANE)
    areas = np.bincount(parts.ravel(), minlength=number + 1) * view.step**2
    keep = np.zeros(number + 1, dtype=bool)
    for part, box in enumerate(ndimage.find_objects(parts), 1):
        deep, wide = ((axis.stop - axis.start) * view.step for axis in box[1:])
        beside = abs((box[2].start + box[2].stop - 1) / 2 - middle) * view.step
        is_round = 0.4 < deep / wide < 2.5 and areas[part] > 0.45 * deep * wide
        keep[part] = 50 <= areas[part] <= 750 and max(deep, wide) <= 40 and is_round and beside < 60
    labels, _ = steps.components(keep[parts])
    best, tallest = 0, WINDPIPE_MM / view.step
    for part, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
        if box[0].stop - box[0].start > tallest:
            best, tallest = part, box[0].stop - box[0].start
    return labels == best if best else None


def airway(view: Upright, air: Mask, middle: float) -> Airway | None:
    """Windpipe and main bronchi, grown down from the windpipe just as far as they do not break into the lung."""
    import torch

    seed = windpipe(view, air, middle)
    if seed is None:
        return None
    near = _around(seed, round(AIRWAY_REACH_MM / view.step))
    hu, start, hollow = view.values[near], seed[near], air[near]
    grown, before = start, float(start.sum()) * view.voxel_ml
    for threshold in range(-980, -690, 20):
        labels, counts = steps.components(hollow & (hu < threshold))
        touched = np.unique(labels[start])
        size = float(counts[touched].sum()) * view.voxel_ml
        if size > AIRWAY_MAX_ML or size > before + LEAK_ML:
            break
        before = max(size, before)
        grown = np.isin(labels, touched[touched > 0]) | start
    lumen = seed.copy()
    lumen[near] = grown
    tree = torch.from_numpy(lumen).to(view.hu.device)
    return Airway(lumen=tree, carina=_carina(lumen, view.step), leaked=grown is start)


def _around(mask: Mask, margin: int) -> steps.Box:
    """The full height of what lies within a margin of a mask."""
    box = steps.extent(mask) or (slice(0, 0), slice(0, 0), slice(0, 0))
    back, left = (slice(max(0, axis.start - margin), axis.stop + margin) for axis in box[1:])
    return slice(0, mask.shape[0]), back, left


def _carina(lumen: Mask, step: float) -> int:
    """Height index of the first cross-section, from the head, that is much wider than the windpipe."""
    heights = np.flatnonzero(lumen.any(axis=(1, 2)))[::-1]
    across = [np.flatnonzero(lumen[height].any(axis=0)) for height in heights]
    widths = [(columns[-1] - columns[0] + 1) * step for columns in across]
    usual = float(np.median(widths[: max(4, int(30 / step))]))
    wide = [height for height, width in zip(heights, widths, strict=True) if width > max(1.7 * usual, usual + 10)]
    return int(wide[0] if wide else heights[-1])


def lungs(view: Upright, air: Mask, tree: Airway, middle: float) -> dict[Side, Tensor]:
    """The aerated lung of each side that has one, vessels and small nodules filled in, the airway left out.

    What counts as lung reaches past the carina upwards and downwards, and is no free gas.
    """
    import torch

    zone = steps.dilated(tree.lumen, 2)
    tissue = torch.from_numpy(air).to(view.hu.device) & ~zone
    tissue &= ~pockets(view, tissue, tree.carina)
    labels, counts = steps.components(tissue)
    accepted = np.zeros(len(counts), dtype=bool)
    for part in np.argsort(counts)[::-1][:8]:
        large = counts[part] * view.voxel_ml >= LUNG_MIN_ML
        accepted[part] = large and _is_lung(labels == part, view, tree.carina)
    both = torch.from_numpy(accepted[labels]).to(view.hu.device)
    left, right = parted(both, view, middle)
    filled: dict[Side, Tensor] = {
        "left": _filled(left, view) & ~zone & ~right,
        "right": _filled(right, view) & ~zone & ~left,
    }
    filled["right"] &= ~filled["left"]
    return {side: mask for side, mask in filled.items() if float(mask.sum()) * view.voxel_ml >= LUNG_MIN_ML}


def pockets(view: Upright, air: Tensor, carina: int) -> Tensor:
    """Gas below the carina that soft tissue surrounds: stomach and bowel, however thin the diaphragm above it."""
    import torch

    gas = steps.opened(view.smooth() < POCKET_BELOW, 1) & air
    gas[carina:] = False
    labels, counts = steps.components(gas)
    parts = torch.from_numpy(labels.astype(np.int32)).to(air.device)
    found = torch.zeros_like(air)
    for part in np.flatnonzero(counts * view.voxel_ml > 1.0):
        pocket = steps.dilated(parts == int(part), 2) & air
        around = steps.dilated(pocket, 2) & ~pocket
        if float((view.hu[around] > -300).float().mean()) > 0.4:
            found |= pocket
    return found


def _is_lung(part: Mask, view: Upright, carina: int) -> bool:
    heights = np.flatnonzero(part.any(axis=(1, 2)))
    gas = float((view.values[part] < PURE_GAS_BELOW).mean())
    return bool(heights[0] < carina <= heights[-1]) and gas < 0.6


def _filled(lung: Tensor, view: Upright) -> Tensor:
    """With vessels closed, and every enclosed hole that is smaller than a mass."""
    import torch

    solid = steps.closed(lung, 2)
    holes, counts = steps.components(~solid)
    small = counts * view.voxel_ml < MASS_MIN_ML
    small[0] = False
    return (solid | torch.from_numpy(small[holes]).to(lung.device)) & view.inside


def _judged(masks: dict[Side, Tensor], view: Upright, trunk: Mask, middle: float) -> dict[Side, Lung]:
    if not masks:
        return {}
    bone = (view.values > hemithorax.BONE_ABOVE) & trunk
    deep = sum(mask.sum(dim=(0, 2)).cpu().numpy() for mask in masks.values())
    centre = float(np.average(np.arange(trunk.shape[1]), weights=deep))
    gas = steps.opened(view.smooth() < PURE_GAS_BELOW, 1)
    fans = {
        side: hemithorax.rays(trunk.shape, middle=middle, centre=centre, step=view.step, left=side == "left")
        for side in masks
    }
    met = {side: fans[side].along(mask.cpu().numpy()) for side, mask in masks.items()}
    found: dict[Side, Lung] = {}
    for side, mask in masks.items():
        lung = mask.cpu().numpy()
        other = met.get("right" if side == "left" else "left")
        airless = hemithorax.airless(lung, bone, fans[side], step=view.step, other=other) | _enclosed(lung, view)
        size = float(lung.sum()) * view.voxel_ml
        mass_ml, mass_at = _mass(airless, lung, view)
        cut_mm2, cut_at = _cut(mask, view)
        found[side] = Lung(
            mask=mask,
            volume_ml=size,
            fill=size / (size + float(airless.sum()) * view.voxel_ml),
            mass_ml=mass_ml,
            mass_at=mass_at,
            cut_mm2=cut_mm2,
            cut_at=cut_at,
            gas_ml=float((gas & mask).sum()) * view.voxel_ml,
        )
    return found


def _enclosed(lung: Mask, view: Upright) -> Mask:
    """Holes in a lung that are as large as a mass."""
    holes, counts = steps.components(~lung)
    border = np.zeros(len(counts), dtype=bool)
    for axis in range(3):
        border[np.unique(np.take(holes, [0, -1], axis=axis))] = True
    large = (counts * view.voxel_ml >= MASS_MIN_ML) & ~border
    large[0] = False
    enclosed: Mask = large[holes]
    return enclosed


def _mass(airless: Mask, lung: Mask, view: Upright) -> tuple[float, str]:
    """Size of the largest airless part that has lung beneath it or is large, and where in the lung it lies."""
    import torch

    labels, counts = steps.components(steps.opened(torch.from_numpy(airless), 1))
    beneath = np.logical_or.accumulate(lung, axis=0)
    for part in np.argsort(counts)[::-1]:
        size = float(counts[part]) * view.voxel_ml
        if size < MASS_MIN_ML:
            break
        mass = labels == part
        if size >= LARGE_MASS_ML or beneath[mass].mean() > 0.3:
            low, high = np.flatnonzero(lung.any(axis=(1, 2)))[[0, -1]]
            height = (np.flatnonzero(mass.any(axis=(1, 2))).mean() - low) / max(high - low, 1)
            return size, "upper third" if height > 2 / 3 else "middle third" if height > 1 / 3 else "lower third"
    return 0.0, ""


def _cut(lung: Tensor, view: Upright) -> tuple[float, str]:
    """Area over which the lung meets the edge of what was scanned, and where most of it is."""
    edge = steps.dilated(~view.inside, 1) & view.inside
    heights = np.flatnonzero((lung & edge).any(dim=2).any(dim=1).cpu().numpy())
    area = float((lung & edge).sum()) * view.step**2
    if not heights.size:
        return 0.0, ""
    used = np.flatnonzero(lung.any(dim=2).any(dim=1).cpu().numpy())
    place = (heights.mean() - used[0]) / max(used[-1] - used[0], 1)
    return area, "foot end" if place < 0.2 else "head end" if place > 0.8 else "side"


def delineated(volume: Volume, chest: Chest, numbers: dict[Side, int]) -> LabelMap:
    """The label map of these lungs on the volume's own grid: inside as seen upright, at the surface as its voxels say.

    The surface lies half way between the lung's own density and soft tissue.
    """
    import torch

    plan, surface = _plan(chest, numbers)
    cores = (plan > 0) & (plan < surface)
    border = (float(chest.view.hu[cores].median()) + SOFT_TISSUE) / 2
    labels = np.zeros(volume.array.shape, dtype=np.uint8)
    for box, code in steps.nearest(chest.view, plan, volume):
        hu = steps.tensor(volume.array[box], plan.device)
        label = torch.where(code < surface, code, (code - surface) * (hu < border))
        labels[box] = label.cpu().numpy()
    return labels


def _plan(chest: Chest, numbers: dict[Side, int]) -> tuple[Tensor, int]:
    """Upright codes: a lung's number well inside it, its number plus an offset about its surface; and that offset."""
    import torch

    surface = len(numbers) + 1
    with runtime.at_most(1):
        plan = torch.zeros_like(chest.view.inside, dtype=torch.uint8)
        for side, number in numbers.items():
            mask = chest.lungs[side].mask
            core = steps.eroded(mask, 1)
            shell = steps.dilated(mask, 1) & ~core
            for other, lung in chest.lungs.items():
                if other != side:
                    shell &= ~lung.mask
            plan[shell] = number + surface
            plan[core] = number
    return plan, surface
