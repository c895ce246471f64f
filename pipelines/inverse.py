"""From the network's grid back to the source's: interpolated values turned into labels, only where there is a choice.

Interpolation is a mean of eight neighbours. Where all eight agree on a class, so does every point between them, and
the voxel has that class without a computation; the other points, the boundaries, are gathered and interpolated one by
one. So no floating-point volume of the source's size ever exists, and the labels are those of MONAI's Invertd followed
by AsDiscreted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dicom_sr.nouns import LabelMap
from pipelines.geometry import Axis, Geometry
from pipelines.infer import AT_A_TIME, Between, between, spread

if TYPE_CHECKING:
    from torch import Tensor, dtype

Activation = Callable[["Tensor"], "Tensor"]
"""What the config applies to the values before they are inverted; classes lie on the first axis."""
Told = Callable[[float], None]

SLAB = 16
"""Network planes whose values are activated and brought into order at a time."""
DENSE = 0.08
"""Share of boundary points above which all points are interpolated axis by axis, as fewer are cheaper one by one."""
MAX_CLASSES = 255
MAX_MASKS = 62


def silent(fraction: float) -> None:
    """Nobody listens."""


def nearest(labels: "Tensor", geometry: Geometry) -> LabelMap:
    """A label map of the network's grid on the source's: each voxel takes the nearest one's label.

    Shapes:  (x, y, z) uint8 -> (slice, row, column)
    """
    import torch

    column, row, plane = geometry.to_network
    found = labels.permute(plane.other, row.other, column.other)
    for axis, line in ((2, column), (1, row), (0, plane)):
        index = torch.from_numpy(line.nearest.clip(0, found.shape[axis] - 1)).to(labels.device)
        found = found.index_select(axis, index)
    return _array(found)


def most_likely(
    values: "Tensor", geometry: Geometry, *, activation: Activation | None = None, told: Told = silent
) -> LabelMap:
    """On the source's grid, the class whose interpolated value is greatest; the first of equals.

    Shapes:  (class, x, y, z) -> (slice, row, column) uint8
    """
    import torch

    found: LabelMap = _array(_inverted(values, geometry, _winners, activation, torch.uint8, told))
    return found


def above(
    values: "Tensor",
    geometry: Geometry,
    threshold: float,
    *,
    activation: Activation | None = None,
    told: Told = silent,
) -> NDArray[np.bool_]:
    """On the source's grid, where each class's interpolated value reaches the threshold.

    Shapes:  (class, x, y, z) -> (class, slice, row, column)
    """
    import torch

    classes = values.shape[0]
    kind = torch.int16 if classes < 15 else torch.int32 if classes < 31 else torch.int64

    def reached(given: "Tensor") -> "Tensor":
        bits = torch.zeros(given.shape[1:], dtype=kind, device=given.device)
        for index, value in enumerate(given):
            bits |= (value >= threshold).to(kind) << index
        return bits

    bits = _array(_inverted(values, geometry, reached, activation, kind, told))
    return np.stack([(bits & (1 << index)) != 0 for index in range(classes)])


def _winners(values: "Tensor") -> "Tensor":
    """The class of the greatest value at each place, the first of equals; (class, ...) -> uint8 without that axis."""
    import torch

    best = values[0].clone()
    label = torch.zeros(best.shape, dtype=torch.uint8, device=values.device)
    for index in range(1, len(values)):
        # the index only rises, so the later of two winners is the greater number
        torch.maximum(label, (values[index] > best).to(torch.uint8).mul_(index), out=label)
        torch.maximum(best, values[index], out=best)
    return label


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """Some neighbouring planes of the network's grid.

    `values` are theirs, (class, x, y, z); `table` has the same as (voxel, class), a voxel's number being what `strides`
    makes of its indices. `cells` holds, for each cube of eight neighbours, the code that they share, or `mixed`.
    """

    values: "Tensor"
    cells: "Tensor"
    table: "Tensor"
    strides: tuple[int, int, int]
    mixed: int


def _inverted(
    values: "Tensor",
    geometry: Geometry,
    code: Callable[["Tensor"], "Tensor"],
    activation: Activation | None,
    kind: "dtype",
    told: Told,
) -> "Tensor":
    """The code of each voxel of the source, (slice, row, column); `code` turns values into one number a place.

    It runs along the network's first axis, whatever axis of the source that is, since values lie together there.
    """
    import torch

    mixed = MAX_CLASSES if kind is torch.uint8 else -1
    lines = _lines(geometry, values.shape[1:], str(values.device))
    sizes = [len(line.low) for line in lines]
    found = torch.empty(*sizes, dtype=kind, device=values.device)

    def fill(stretch: tuple[range, int]) -> None:
        points, first = stretch
        given = values[:, first : first + SLAB]
        slab = _slab(given if activation is None else activation(given), code, mixed)
        some = max(AT_A_TIME // (sizes[1] * sizes[2]), 1)
        for start in range(points.start, points.stop, some):
            part = slice(start, min(start + some, points.stop))
            found[part] = _between_cells(slab, _part(lines[0], part, first), lines[1], lines[2], code)

    stretches = _stretches(lines[0].low.tolist())
    for number, _ in enumerate(spread(fill, stretches, str(values.device))):
        told(number / len(stretches))
    back = {axis.other: index for index, axis in zip((2, 1, 0), geometry.to_network, strict=True)}
    order = sorted(range(3), key=lambda network_axis: back[network_axis])
    return found.permute(order)


def _lines(geometry: Geometry, shape: Any, device: str) -> tuple[Between, Between, Between]:
    """For each axis of the network, where the source's indices along it lie; rising, so slabs are met in order."""
    along: dict[int, Axis] = {axis.other: axis for axis in geometry.to_network}
    first, second, third = (between(along[a], int(shape[a]), device) for a in range(3))
    return first, second, third


def _stretches(lows: list[int]) -> list[tuple[range, int]]:
    """The source's indices, cut where a slab of the network's planes ends, each with the first plane of its slab."""
    found, start = [], 0
    while start < len(lows):
        first = lows[start] if lows[-1] >= lows[start] else max(lows[start] + 2 - SLAB, 0)
        stop = start + 1
        while stop < len(lows) and first <= lows[stop] < first + SLAB - 1:
            stop += 1
        found.append((range(start, stop), first))
        start = stop
    return found


def _slab(values: "Tensor", code: Callable[["Tensor"], "Tensor"], mixed: int) -> Slab:
    table = values.movedim(0, -1).reshape(-1, len(values))  # no copy where the classes of a voxel lie together already
    table, values = table.contiguous(), table.t().contiguous().reshape(values.shape)
    codes = code(values)
    corner = codes
    same = None
    for axis in range(3):
        if codes.shape[axis] > 1:
            one, other = corner.narrow(axis, 0, corner.shape[axis] - 1), corner.narrow(axis, 1, corner.shape[axis] - 1)
            alike = one == other
            if same is not None:
                alike &= same.narrow(axis, 0, same.shape[axis] - 1) & same.narrow(axis, 1, same.shape[axis] - 1)
            corner, same = one, alike
    cells = corner if same is None else corner.where(same, corner.new_tensor(mixed))
    _, height, depth = codes.shape
    strides = tuple(step if n > 1 else 0 for step, n in zip((height * depth, depth, 1), codes.shape, strict=True))
    return Slab(values, cells, table, (strides[0], strides[1], strides[2]), mixed)


def _part(line: Between, part: slice, first: int) -> Between:
    return Between(line.low[part] - first, line.high[part] - first, line.share[part])


def _between_cells(
    slab: Slab, across: Between, down: Between, deep: Between, code: Callable[["Tensor"], "Tensor"]
) -> "Tensor":
    """Codes at the points of a small grid: the cell's where its corners agree, else interpolated and decided."""
    import torch
    from torch.nn.functional import embedding_bag

    found = slab.cells
    for axis, line in ((2, deep), (1, down), (0, across)):
        found = found.index_select(axis, line.low.clamp(max=found.shape[axis] - 1))
    mixed = found == slab.mixed
    if int(mixed.sum()) > DENSE * mixed.numel():
        first, stop = int(across.low.min()), int(across.high.max()) + 1
        near = Between(across.low - first, across.high - first, across.share)
        return code(near.of(down.of(deep.of(slab.values[:, first:stop], 3), 2), 1))
    undecided = torch.nonzero(mixed)
    if len(undecided):
        points = undecided.unbind(dim=1)
        base = torch.zeros(len(undecided), 1, dtype=torch.int64, device=found.device)
        weight = torch.ones(len(undecided), 1, device=found.device)
        for line, point, stride in zip((across, down, deep), points, slab.strides, strict=True):
            share = line.share[point][:, None]
            start = base + (line.low[point] * stride)[:, None] if stride else base
            base = torch.cat([start, start + stride], dim=1)
            weight = torch.cat([weight * (1 - share), weight * share], dim=1)
        decided = embedding_bag(base, slab.table, mode="sum", per_sample_weights=weight)
        found[points] = code(decided.t().contiguous())
    return found


def _array(found: "Tensor") -> NDArray[Any]:
    return np.ascontiguousarray(found.cpu().numpy())
