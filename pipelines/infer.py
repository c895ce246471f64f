"""The chain on the device: stored values to the network's grid, through the network tile by tile, and blended.

It gives what MONAI's transforms and inferer give on the same weights, with less moved: stored integers are resampled
straight to the network's grid some planes at a time, and tiles are added up in place. The way back is
`pipelines.inverse`.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipelines.geometry import Axis, Geometry

if TYPE_CHECKING:
    from torch import Tensor

Part = TypeVar("Part")
Done = TypeVar("Done")
Placement = Literal["published", "even"]
Box = tuple[slice, ...]

AT_A_TIME = 1 << 21
"""Voxels that are worked on at once: large enough for all threads, small enough for the cache."""
BATCHES_AT_ONCE = 4
"""Batches of tiles that a CPU's threads have in hand: each needs the memory of a whole pass through the network."""


def spread(
    work: Callable[[Part], Done], parts: Iterable[Part], device: str, *, at_once: int | None = None
) -> Generator[Done, None, None]:
    """The work's results, in order; on a CPU each part is one thread's, on a GPU they come one after the other.

    Whole parts are shared out, not each small operation: threads that meet at every operation lose a factor of ten on
    a busy machine. Where no more than `at_once` parts may be in hand, each has its share of the threads.
    """
    import torch

    threads = torch.get_num_threads()
    hands = min(threads, at_once or threads)
    if hands == 1 or device != "cpu":
        yield from map(work, parts)
        return

    def alone(part: Part) -> Done:
        torch.set_num_threads(threads // hands)
        with torch.inference_mode():
            return work(part)

    with ThreadPoolExecutor(hands) as pool:
        todo, waiting = iter(parts), deque[Future[Done]]()
        try:
            for part in todo:
                waiting.append(pool.submit(alone, part))
                if len(waiting) > hands:  # what is done and not yet taken needs memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)


# ---------------------------------------------------------------- to the network's grid


@dataclass(frozen=True, slots=True, eq=False)
class Between:
    """Each output index lies between two input indices: which, and how far towards the higher."""

    low: "Tensor"
    high: "Tensor"
    share: "Tensor"

    def of(self, values: "Tensor", axis: int) -> "Tensor":
        """The values interpolated along one axis."""
        import torch

        shape = [-1 if n == axis else 1 for n in range(values.ndim)]
        low = values.index_select(axis, self.low)
        return torch.lerp(low, values.index_select(axis, self.high), self.share.view(shape))


def between(axis: Axis, size: int, device: str) -> Between:
    """Neighbours and share of each coordinate on an axis of `size` voxels; clamped to it."""
    import torch

    at = np.clip(axis.at, 0, size - 1)
    low = np.minimum(np.floor(at), max(size - 2, 0))
    share = torch.from_numpy((at - low).astype(np.float32)).to(device)
    first = torch.from_numpy(low.astype(np.int64)).to(device)
    return Between(first, torch.clamp(first + 1, max=size - 1), share)


def resampled(
    array: NDArray[Any],
    geometry: Geometry,
    device: str,
    *,
    window: Callable[["Tensor"], "Tensor"] = lambda values: values,
) -> "Tensor":
    """Stored values on the network's grid, as MONAI's Orientation and Spacing give them, then put through `window`.

    Shapes:  (slice, row, column) -> (1, x, y, z) float32; `window` works voxel by voxel
    """
    import torch

    sizes = array.shape[::-1]
    places = {axis.other: index for index, axis in enumerate(geometry.to_source)}
    columns, rows, planes = (between(geometry.to_source[places[source]], sizes[source], device) for source in range(3))
    found = torch.empty(1, *geometry.shape, dtype=torch.float32, device=device)
    upright = found[0].permute([places[source] for source in (2, 1, 0)])
    lows, highs = planes.low.tolist(), planes.high.tolist()

    def fill(part: range) -> None:
        needed = sorted({lows[i] for i in part} | {highs[i] for i in part})
        values = torch.from_numpy(array[needed]).to(device).float()
        small = columns.of(rows.of(values, 1), 2)
        rank = {plane: index for index, plane in enumerate(needed)}
        low, high = ([rank[planes[i]] for i in part] for planes in (lows, highs))
        share = planes.share[part.start : part.stop]
        line = Between(torch.tensor(low, device=device), torch.tensor(high, device=device), share)
        upright[part.start : part.stop] = window(line.of(small, 0))

    some = max(AT_A_TIME // (array.shape[1] * array.shape[2]), 2)
    for _ in spread(fill, _ranges(len(lows), some), device):
        pass
    return found


def _ranges(total: int, some: int) -> list[range]:
    return [range(start, min(start + some, total)) for start in range(0, total, some)]


# ---------------------------------------------------------------- tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How an image is cut and blended (the arguments of MONAI's SlidingWindowInferer)."""

    roi: tuple[int, ...]
    overlap: tuple[float, ...]
    gaussian: bool = False
    sigma: tuple[float, ...] = (0.125, 0.125, 0.125)
    padding_mode: str = "constant"
    fill: float = 0.0
    batch: int = 1
    placement: Placement = "published"


def starts(size: int, tile: int, overlap: float, placement: Placement) -> tuple[int, ...]:
    """Where tiles begin along one axis of at least a tile.

    "published" steps as MONAI does and pushes the last tile back to the edge; "even" takes as few tiles as keep the
    overlap and spreads them.
    """
    step = max(int(tile * (1 - overlap)), 1) if size > tile else tile
    count = -(-(size - tile) // step) + 1
    if placement == "even" and count > 1:
        return tuple(round(index * (size - tile) / (count - 1)) for index in range(count))
    return tuple(min(index * step, size - tile) for index in range(count))


@lru_cache(maxsize=8)
def importance(roi: tuple[int, ...], sigma: tuple[float, ...], device: str) -> "Tensor":
    """How much a tile's voxels count: a Gaussian about its middle, as MONAI's."""
    from monai.data.utils import compute_importance_map

    weights: Tensor = compute_importance_map(roi, mode="gaussian", sigma_scale=sigma, device=device)
    return weights


def blended(
    image: "Tensor",
    network: Callable[["Tensor"], "Tensor"],
    tiling: Tiling,
    *,
    keep_on: str | None = None,
    half: bool = False,
    told: Callable[[float], None] = lambda fraction: None,
) -> "Tensor":
    """The network's answer for the whole image, tile by tile; `told` hears the fraction done at each tile's border.

    Accumulators lie on `keep_on` (the image's device by default), in half precision when `half`.

    Shapes:  (channel, x, y, z) -> (class, x, y, z)
    """
    import torch

    size = image.shape[1:]
    padded, offsets = _padded(image, tiling)
    shape = padded.shape[1:]
    corners = list(
        product(*(starts(n, t, o, tiling.placement) for n, t, o in zip(shape, tiling.roi, tiling.overlap, strict=True)))
    )
    where = keep_on or str(image.device)
    kind = torch.float16 if half else torch.float32
    weights = importance(tiling.roi, tiling.sigma, where).to(kind) if tiling.gaussian else None
    total: Tensor | None = None
    count = torch.zeros(shape, dtype=kind, device=where)

    def answered(part: list[Box]) -> "Tensor":
        return _plain(network(torch.stack([padded[(slice(None), *box)] for box in part])), tiling)

    boxes = [tuple(slice(c, c + t) for c, t in zip(corner, tiling.roi, strict=True)) for corner in corners]
    parts = batches(boxes, tiling.batch)
    told(0.0)
    with closing(spread(answered, parts, str(image.device), at_once=min(len(parts), BATCHES_AT_ONCE))) as found:
        for number, (part, answers) in enumerate(zip(parts, found, strict=True), start=1):
            if total is None:
                total = torch.zeros(*shape, answers.shape[1], dtype=kind, device=where).movedim(-1, 0)
            for box, answer in zip(part, answers, strict=True):
                values = answer.to(device=where, dtype=kind)
                total[(slice(None), *box)] += values if weights is None else values.mul_(weights)
                count[box] += 1 if weights is None else weights
            told(number / len(parts))
    assert total is not None
    total /= count
    inside = tuple(slice(start, start + n) for start, n in zip(offsets, size, strict=True))
    return total[(slice(None), *inside)].float()


def batches(boxes: list[Box], size: int) -> list[list[Box]]:
    """Tiles in batches of this size; the last takes one more rather than leave one alone, which torch is slow with."""
    found = [boxes[first : first + size] for first in range(0, len(boxes), size)]
    if size > 1 and len(found) > 1 and len(found[-1]) == 1:
        found[-2:] = [found[-2] + found[-1]]
    return found


class UnfitAnswerError(ValueError):
    """The network's answer is not one tensor of its tile's size, so it cannot be blended here."""


def _plain(answer: Any, tiling: Tiling) -> "Tensor":
    import torch

    if not isinstance(answer, torch.Tensor) or tuple(answer.shape[2:]) != tiling.roi:
        raise UnfitAnswerError("the network answers with something else than one value a voxel and class")
    return answer


def _padded(image: "Tensor", tiling: Tiling) -> tuple["Tensor", tuple[int, ...]]:
    """The image, at least a tile large, and where the original begins in it."""
    from torch.nn.functional import pad

    missing = [max(tile - n, 0) for n, tile in zip(image.shape[1:], tiling.roi, strict=True)]
    if not any(missing):
        return image, (0,) * len(missing)
    around = [part for short in reversed(missing) for part in (short // 2, short - short // 2)]
    value = tiling.fill if tiling.padding_mode == "constant" else None
    return pad(image[None], around, mode=tiling.padding_mode, value=value)[0], tuple(short // 2 for short in missing)
