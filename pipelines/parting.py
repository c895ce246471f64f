"""Left lung and right lung, where they touch: before and behind the heart only two layers of pleura lie between them.

A threshold makes one lung of the two. They are taken apart by eating away the edge until two are left, grown back, and
the border is then moved onto the bright line between them, as far as one can be seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines import steps
from pipelines.steps import Mask, Upright

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]

DARK_BELOW = -700.0
"""Darker than partial volume with the pleura between two lungs. Unit: HU."""
MOST_STEPS = 12
ONE_SIDED = 0.93
"""A seed with this share of its voxels on one side of the midline belongs to that side."""
REACH_MM = 40.0
"""Lungs touch no further from the midline than this."""
GROWN_TRUST, SEED_TRUST = 0.5, 20.0
"""What it costs to let a voxel change sides: one that was only grown, and on top of that one never in doubt."""
LINE_OVER = 60.0
"""How much brighter than lung the pleura between two lungs is at least. Unit: HU."""


def parted(lungs: Tensor, view: Upright, middle: float) -> tuple[Tensor, Tensor]:
    """The left and the right lung of a mask that holds both, touching or not; one may be empty."""
    import torch

    dark = lungs & (view.hu < DARK_BELOW)
    seeds = _seeds(dark, middle)
    grown = _regrown(seeds, middle, 25.0 / view.step, dark, lungs) if seeds else _halves(lungs, middle)
    trust = [
        (GROWN_TRUST * label.float() + SEED_TRUST * seed.float()).cpu().numpy()
        for label, seed in zip(grown, seeds or grown, strict=True)
    ]
    left, right = (label.cpu().numpy() for label in grown)
    _drawn_along_the_pleura(left, right, trust, view, middle)
    return torch.from_numpy(left).to(dark.device), torch.from_numpy(right).to(dark.device)


def _seeds(dark: Tensor, middle: float) -> tuple[Tensor, Tensor] | None:
    """What is left on either side once nothing reaches from one to the other, or None where that never comes."""
    import torch

    for depth in range(MOST_STEPS):
        labels, counts = steps.components(steps.eroded(dark, depth))
        big = [part for part in np.argsort(counts)[::-1][:6] if counts[part] > 0.04 * counts.sum()]
        share = {int(part): _left_share(labels == part, middle) for part in big}
        if not share:
            return None
        if all(part >= ONE_SIDED or part <= 1 - ONE_SIDED for part in share.values()):
            left = np.isin(labels, [part for part in share if share[part] > 0.5])
            right = np.isin(labels, [part for part in share if share[part] <= 0.5])
            return torch.from_numpy(left).to(dark.device), torch.from_numpy(right).to(dark.device)
    return None


def _left_share(part: Mask, middle: float) -> float:
    across = part.sum(axis=(0, 1))
    return float(across[int(middle) + 1 :].sum() / max(across.sum(), 1))


def _halves(lungs: Tensor, middle: float) -> tuple[Tensor, Tensor]:
    """Parted at the midline, unless most lies on one side: then it is one lung that reaches across."""
    import torch

    share = _left_share(lungs.cpu().numpy(), middle)
    if not 0.25 <= share <= 0.75:
        none = torch.zeros_like(lungs)
        return (lungs, none) if share > 0.5 else (none, lungs)
    on_the_left = torch.arange(lungs.shape[2], device=lungs.device) > middle
    return lungs & on_the_left, lungs & ~on_the_left


def _regrown(seeds: tuple[Tensor, Tensor], middle: float, reach: float, *grounds: Tensor) -> tuple[Tensor, Tensor]:
    """Both grown in turn over each ground until nothing is added; at first not far across the midline."""
    import torch

    left, right = seeds
    off = torch.arange(left.shape[2], device=left.device) - middle
    for ground in grounds:
        for for_left, for_right in ((ground & (off > -reach), ground & (off < reach)), (ground, ground)):
            before = -1
            while before != (before := int(left.sum()) + int(right.sum())):
                for step in (1, 2):
                    left = left | (steps.dilated(left, step) & for_left & ~right)
                    right = right | (steps.dilated(right, step) & for_right & ~left)
    return left, right


def _drawn_along_the_pleura(left: Mask, right: Mask, trust: list[Floats], view: Upright, middle: float) -> None:
    """Moves the border onto the bright line between the lungs, slice by slice, in place.

    `trust` says for left and right how much each voxel would mind to change sides.
    """
    hu = view.values
    reach = round(REACH_MM / view.step)
    low, high = max(0, int(middle) - reach), min(hu.shape[2], int(middle) + reach + 1)
    borders: Mask = left[:, :, low + 1 : high] & right[:, :, low : high - 1]
    touching: Mask = np.any(borders, axis=2)
    if not touching.any():
        return
    usual = float(np.median(hu[left | right]))
    off_middle = np.abs(np.arange(low, high) - middle)
    for height in np.flatnonzero(touching.any(axis=1)):
        rows = np.flatnonzero(touching[height])
        both = left[height] | right[height]
        for group in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            runs = [_run(both[row], low + 1 + int(borders[height, row].argmax())) for row in group]
            worth = np.full((len(group), high - low), -1e5)
            for line, row, (first, last) in zip(worth, group, runs, strict=True):
                part = slice(max(first - 1, low), min(last + 1, high))
                bright = np.clip(hu[height, row, part] - usual - LINE_OVER, 0, 300)
                lost = _misplaced(trust[0][height, row, first:last], trust[1][height, row, first:last])
                at = np.clip(np.arange(part.start, part.stop), first, last) - first
                line[part.start - low : part.stop - low] = (
                    bright - lost[at] - off_middle[part.start - low : part.stop - low]
                )
            for row, (first, last), cut in zip(group, runs, low + _best_path(worth), strict=True):
                edge = min(max(int(cut), first), last)
                right[height, row, first:edge], left[height, row, first:edge] = True, False
                right[height, row, edge:last], left[height, row, edge:last] = False, True


def _misplaced(left: Floats, right: Floats) -> Floats:
    """What a cut before each voxel of a row, or after the last, would put on the wrong side."""
    lost: Floats = np.concatenate([[0], np.cumsum(left)]) + np.concatenate([np.cumsum(right[::-1])[::-1], [0]])
    return lost


def _run(row: Mask, at: int) -> tuple[int, int]:
    """First and one past the last of the true values around an index."""
    gaps = np.flatnonzero(~row)
    place = int(np.searchsorted(gaps, at))
    return int(gaps[place - 1]) + 1 if place else 0, int(gaps[place]) if place < len(gaps) else len(row)


def _best_path(worth: NDArray[np.float64], *, move: float = 25.0) -> NDArray[np.intp]:
    """The column of each row on the path of the greatest worth that moves at most one column a row, at a price."""
    best = worth.copy()
    for row in range(1, len(best)):
        before = np.pad(best[row - 1], 1, constant_values=-np.inf)
        best[row] += np.maximum(np.maximum(before[:-2], before[2:]) - move, before[1:-1])
    path = np.zeros(len(best), dtype=np.intp)
    path[-1] = best[-1].argmax()
    for row in range(len(best) - 2, -1, -1):
        priced = best[row] - move * (np.arange(best.shape[1]) != path[row + 1])
        first = max(0, path[row + 1] - 1)
        path[row] = first + priced[first : path[row + 1] + 2].argmax()
    return path
