"""Numbers of labelled structures: one pass over the volume, exact counts, everything else read from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_sr.nouns import LabelMap, Volume
from pipelines import steps

FLOOR, CEILING = -4096, 8192
"""Values outside are counted at the ends. Unit: HU."""
SLAB = 1 << 20
"""Voxels counted at a time: few enough to stay in the cache."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distribution:
    """How the values of one structure are spread.

    `counts[i]` is the number of voxels with a value in [FLOOR + i, FLOOR + i + 1); for whole numbers that is exact.
    """

    counts: NDArray[np.int64]
    total: float
    voxel_ml: float

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(self.counts.sum())

    @property
    def volume_ml(self) -> float:
        """Volume in millilitres."""
        return self.voxels * self.voxel_ml

    @property
    def mean(self) -> float:
        """Mean value."""
        return self.total / self.voxels

    def percent_below(self, value: int) -> float:
        """Share of the voxels that lie below a whole number, in percent."""
        return 100.0 * float(self.counts[: value - FLOOR].sum()) / self.voxels

    def percentile(self, percent: float) -> float:
        """The smallest value that at least this share of the voxels does not exceed (for fractions, rounded down)."""
        needed = percent / 100.0 * self.voxels
        return float(FLOOR + np.searchsorted(np.cumsum(self.counts), needed - 1e-6 * max(needed, 1)))


def distributions(volume: Volume, labels: LabelMap, numbers: int, *, device: str = "cpu") -> tuple[Distribution, ...]:
    """The distribution of each label 1 ... `numbers`, in order.

    Shapes:  labels as the volume's array
    """
    import torch

    width = CEILING - FLOOR
    counts = torch.zeros((numbers + 1) * width, dtype=torch.int64, device=device)
    sums = torch.zeros(numbers + 1, dtype=torch.float64, device=device)
    box = steps.extent(labels) or (slice(0, 0), slice(0, 0), slice(0, 0))
    fractions = volume.array.dtype.kind == "f"
    for part in steps.slabs(box, SLAB):
        label = steps.tensor(labels[part], device)
        values = steps.tensor(volume.array[part], device)
        place = (torch.floor(values) if fractions else values).clamp(FLOOR, CEILING - 1).to(torch.int64)
        place += label.to(torch.int64) * width - FLOOR
        counts += torch.bincount(place.flatten(), minlength=len(counts))
        if fractions:
            for number in range(1, numbers + 1):
                sums[number] += values[label == number].to(torch.float64).sum()
    table = counts.reshape(numbers + 1, width).cpu().numpy()
    totals = sums.cpu().numpy() if fractions else table @ np.arange(FLOOR, CEILING, dtype=np.float64)
    return tuple(
        Distribution(counts=table[number], total=float(totals[number]), voxel_ml=volume.voxel_ml)
        for number in range(1, numbers + 1)
    )
