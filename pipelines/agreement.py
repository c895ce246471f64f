"""How sure a network is: the probability of what it decided, and how well runs on mirrored images agree.

Both are kept as small label maps on the network's grid, 255 for certain, brought to the source's grid like labels are;
so a finding's figure is a mean over its own voxels.

Source:  Wang et al., Aleatoric uncertainty estimation with test-time augmentation, Neurocomputing 338 (2019)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Mirrored = Literal["no", "left and right", "all axes"]
Axes = tuple[int, ...]
Told = Callable[[float], None]
Once = Callable[["Tensor", Told], tuple["Tensor", tuple[str, ...]]]
"""One run of the network on an image: its values, and what must be said about the way they were got."""

FULL = 255
SLAB = 16
"""Planes that are worked on at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runs:
    """The network's values for one image: the mean of its runs, and where there were several, what each said.

    What a run said is the likeliest class of each voxel, (x, y, z) uint8, or a classification's values themselves.
    """

    mean: Tensor
    each: tuple[Tensor, ...]
    remarks: tuple[str, ...]

    def doubts(self, *, certainty: bool) -> tuple[Tensor | None, Tensor | None]:
        """Probability of each voxel's likeliest class, when that is wanted, and the share of the runs that chose it.

        Shapes:  (x, y, z) uint8 both, 255 for 1
        """
        import torch

        found = torch.empty(2, *self.mean.shape[1:], dtype=torch.uint8, device=self.mean.device)
        for part in _slabs(found.shape[1]):
            values = self.mean[:, part]
            if certainty:
                found[0, part] = (torch.softmax(values, dim=0).amax(dim=0) * FULL).round().to(torch.uint8)
            if self.each:
                chosen = values.argmax(dim=0)
                alike = torch.stack([one[part] == chosen for one in self.each]).float().mean(dim=0)
                found[1, part] = (alike * FULL).round().to(torch.uint8)
        return found[0] if certainty else None, found[1] if self.each else None


def ways(mirrored: Mirrored, dimensions: int) -> tuple[Axes, ...]:
    """The spatial axes along which each run's image is mirrored, the first being none.

    The first axis of the network's image is the patient's left and right where its chain turns images so.
    """
    if mirrored == "no":
        return ((),)
    if mirrored == "left and right":
        return (), (0,)
    return tuple(axes for count in range(dimensions + 1) for axes in combinations(range(dimensions), count))


def repeated(once: Once, image: Tensor, mirrored: Mirrored, told: Told) -> Runs:
    """The network on an image and its mirror images; `told` hears the fraction of all runs that is done.

    Shapes:  (channel, x, y[, z]) -> values (class, x, y[, z]), or (class,)
    """
    import torch

    all_ways = ways(mirrored, image.ndim - 1)
    mean: Tensor | None = None
    each: list[Tensor] = []
    remarks: dict[str, None] = {}
    for number, axes in enumerate(all_ways):

        def part(fraction: float, number: int = number) -> None:
            told((number + fraction) / len(all_ways))

        values, said = once(_flipped(image, axes), part)
        values = _flipped(values, axes) if values.ndim > 1 else values
        if len(all_ways) > 1:
            each.append(values.argmax(dim=0).to(torch.uint8) if values.ndim > 1 else values)
            values = values / len(all_ways)
        mean = values if mean is None else mean.add_(values)
        remarks |= dict.fromkeys(said)
    assert mean is not None
    return Runs(mean=mean, each=tuple(each), remarks=tuple(remarks))


def _flipped(values: Tensor, axes: Axes) -> Tensor:
    """Values (channel, x, y[, z]) mirrored along spatial axes; mirrored again they are what they were."""
    return values.flip([axis + 1 for axis in axes]) if axes else values


def _slabs(size: int) -> Iterator[slice]:
    return (slice(first, first + SLAB) for first in range(0, size, SLAB))
