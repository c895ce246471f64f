"""Where a classifier looked: how much its score falls when a part of the image is covered.

The image is covered patch by patch with its own mean, patches overlapping by half, and each voxel gets the mean fall of
the patches that covered it. It needs no layer of a known name and no gradient, so it works for any network; it costs a
run for each patch.

Source:  Zeiler, Fergus, Visualizing and understanding convolutional networks, ECCV 2014 (occlusion sensitivity)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ACROSS = {2: 8, 3: 5}
"""Patches along an axis, by the number of axes, if they did not overlap."""
AT_ONCE = 8
"""Covered images in a batch."""

Scored = Callable[["Tensor"], "Tensor"]


def occlusion(image: Tensor, scored: Scored, told: Callable[[float], None]) -> Tensor:
    """How much the score falls where the image is covered; 0 where it does not fall.

    `scored` gives the score that is explained for each image of a batch; `told` hears the fraction done.

    Shapes:  image (channel, x, y[, z]); scored (n, channel, x, y[, z]) -> (n,); gives (x, y[, z]) float32
    """
    import torch

    shape = image.shape[1:]
    sizes = [max(-(-n // ACROSS[len(shape)]), 1) for n in shape]
    boxes = [
        tuple(slice(start, min(start + size, n)) for start, size, n in zip(corner, sizes, shape, strict=True))
        for corner in product(*(range(0, n, max(size // 2, 1)) for n, size in zip(shape, sizes, strict=True)))
    ]
    cover = image.mean(dim=tuple(range(1, image.ndim)), keepdim=True)
    whole = float(scored(image[None])[0])
    fall = torch.zeros(shape, dtype=torch.float32, device=image.device)
    count = torch.zeros(shape, dtype=torch.float32, device=image.device)
    for first in range(0, len(boxes), AT_ONCE):
        told(first / len(boxes))
        part = boxes[first : first + AT_ONCE]
        covered = image[None].repeat(len(part), *(1 for _ in image.shape))
        for one, box in zip(covered, part, strict=True):
            one[(slice(None), *box)] = cover.expand_as(one)[(slice(None), *box)]
        for box, score in zip(part, scored(covered).tolist(), strict=True):
            fall[box] += whole - score
            count[box] += 1
    return fall.div_(count).clamp_(min=0)
