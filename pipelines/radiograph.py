"""How a frontal radiograph of the chest is laid out: how it is turned, whether its greys are inverted, where it ends.

The image is made small and its values are replaced by their ranks, so that no window, gamma or detector matters; then
it is correlated with drawn chests of several sizes and places in the eight ways in which it could stand (four turns,
two signs). The answer is only given when one way fits well, no other fits nearly as well, and two dark lungs lie beside
a brighter mediastinum above a bright abdomen.

Source:  the idea of matching small images: J. M. Boone et al., Recognition of chest radiograph orientation for picture
archiving and communications systems display using neural networks, J Digit Imaging 5 (1992) 190
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float64]
"""Brightness as displayed, (row, column)."""

SIDE = 64
"""Rows and columns of the small image."""
WORKED_ON = 512
"""Rows or columns, at most, of the image in which the exposed field is looked for."""
FLAT = 0.03
"""A row or column whose values spread less, as a share of the image's spread, is border and no image."""
FIT = 0.5
AHEAD = 0.2
"""The best way must correlate at least so well, and by so much better than the next."""
DARKER = 0.15
ALIKE = 0.3
"""In ranks: how much darker lungs are than mediastinum and abdomen, and how much they may differ from each other."""
CLOSED = 0.3
"""Of the way from a lung's darkest rank to the mediastinum's: as bright as this it becomes above its apex."""
SIZES, WIDTHS, HEIGHTS = (0.8, 0.95, 1.1), (0.85, 1.0, 1.2), (-0.15, 0.0, 0.15)


class NothingShownError(ValueError):
    """Every row and column of the image is of one value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the image stands: turned clockwise by so many quarters, its greys inverted or not, its apices cut off."""

    quarters: int
    inverted: bool
    apices_cut_off: bool


def field(shown: Grey) -> tuple[slice, slice]:
    """Rows and columns of the exposed field: without borders of one value.

    Raises:  NothingShownError
    """
    step = max(1, max(shown.shape) // WORKED_ON)
    small = blocks(shown, step)
    low, high = np.percentile(small, (0.5, 99.5))
    rows, columns = slice(0, small.shape[0]), slice(0, small.shape[1])
    for _ in range(2):
        rows = _within(small[:, columns], 1, FLAT * (high - low))
        columns = _within(small[rows], 0, FLAT * (high - low))
    return slice(rows.start * step, rows.stop * step), slice(columns.start * step, columns.stop * step)


def _within(image: Grey, along: int, least: float) -> slice:
    low, high = np.percentile(image, (3, 97), axis=along)
    lively = np.flatnonzero(high - low > least)
    if not lively.size or least <= 0:
        raise NothingShownError
    return slice(int(lively[0]), int(lively[-1]) + 1)


def layout(shown: Grey) -> Layout | str:
    """The layout of a frontal chest, or why it cannot be told. `shown` is the exposed field."""
    values = ranks(blurred(resized(shown, SIDE)))
    ways = {
        (quarters, sign): max((sign * fit, index) for index, fit in enumerate(_fits(np.rot90(values, quarters))))
        for quarters, sign in product(range(4), (1, -1))
    }
    best, second = sorted(ways, key=lambda way: -ways[way][0])[:2]
    fit, index = ways[best]
    if fit < FIT:
        return f"it looks unlike a frontal chest, whichever way it is turned (correlation {fit:.2f})"
    if fit - ways[second][0] < AHEAD:
        return f"two ways to turn it look alike (correlations {fit:.2f} and {ways[second][0]:.2f})"
    quarters, sign = best
    upright = np.rot90(values if sign > 0 else 1 - values, quarters)
    left, right, middle, below = (float(upright[region].mean()) for region in regions(index))
    if max(left, right) + DARKER > min(middle, below) or abs(left - right) > ALIKE:
        return "no two dark lungs beside a brighter mediastinum are seen"
    # numpy turns anticlockwise, so what makes it upright is by how much it stands clockwise
    return Layout(quarters=quarters, inverted=sign < 0, apices_cut_off=_open_above(upright, index, middle))


def _open_above(upright: Grey, index: int, middle: float) -> bool:
    """Whether a lung reaches the upper edge as dark as it is."""
    down, across = _places(index)
    core = (down[:, 0] > -0.5) & (down[:, 0] < 0.4)
    for side in (-1, 1):
        strip = upright[:, (across[0] * side > 0.28) & (across[0] * side < 0.52)].mean(axis=1)
        darkest = int(np.flatnonzero(core)[strip[core].argmin()])
        lung = strip[darkest]
        if strip[: darkest + 1].max() - lung < CLOSED * (middle - lung):
            return True
    return False


def _fits(values: Grey) -> NDArray[np.float64]:
    """Correlation with each drawn chest."""
    found: NDArray[np.float64] = drawn() @ _standard(values)
    return found / values.size


@cache
def drawn() -> Grey:
    """The drawn chests, one a row, with mean 0 and deviation 1."""
    return np.stack([_standard(ranks(blurred(_chest(index), 4))) for index in range(len(_variants()))])


@cache
def _variants() -> tuple[tuple[float, float, float], ...]:
    return tuple(product(SIZES, WIDTHS, HEIGHTS))


def _places(index: int) -> tuple[Grey, Grey]:
    """Height and breadth of each pixel from -1 to 1 about the middle of this drawn chest."""
    size, width, height = _variants()[index]
    down, across = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) * 2 - 1
    return (down - height) / size, across / size / width


def _chest(index: int) -> Grey:
    """Lungs 0, abdomen 1, what lies between between."""
    down, across = _places(index)
    image = np.where(np.abs(across) > 0.98, 0.05, 0.55)
    from_top = down + 0.95
    half = 0.3 * np.sqrt(np.clip(from_top / 0.5, 1e-4, 1))
    for side in (-1, 1):
        middle = side * (0.26 + 0.16 * np.clip(from_top / 1.2, 0, 1))
        image[(down > -0.92) & (down < 0.55) & (np.abs(across - middle) < half)] = 0.0
    image[np.abs(across) < 0.14 + 0.1 * np.clip(down, 0, 1)] = 0.85
    image[(down > 0.1) & (down < 0.6) & (((across - 0.12) / 0.28) ** 2 + ((down - 0.35) / 0.3) ** 2 < 1)] = 0.85
    image[(down >= 0.55) & (np.abs(across) < 0.98)] = 1.0
    return image


def regions(index: int) -> tuple[NDArray[np.bool_], ...]:
    """Where the two lungs, the mediastinum and the abdomen of a drawn chest lie."""
    down, across = _places(index)
    lungs = [(np.abs(across - side * 0.42) < 0.2) & (down > -0.5) & (down < 0.4) for side in (-1, 1)]
    middle = (np.abs(across) < 0.12) & (down > -0.6) & (down < 0.5)
    return *lungs, middle, (np.abs(across) < 0.7) & (down > 0.7)


def _standard(values: Grey) -> NDArray[np.float64]:
    flat: NDArray[np.float64] = values.ravel()
    flat = flat - flat.mean()
    found: NDArray[np.float64] = flat / np.sqrt(np.mean(flat**2))
    return found


def ranks(values: Grey) -> Grey:
    """Each value's place among all, from 0 to 1; equal values get neighbouring places."""
    places = np.empty(values.size)
    places[values.ravel().argsort(kind="stable")] = np.arange(values.size) / values.size
    return places.reshape(values.shape)


def blurred(values: Grey, passes: int = 2) -> Grey:
    """Values averaged with their neighbours, 1 2 1 along each axis, so many times."""
    for _ in range(passes):
        for axis in (0, 1):
            around = np.pad(values, [(1, 1) if n == axis else (0, 0) for n in range(2)], mode="edge")
            before, after = np.delete(around, [-1, -2], axis), np.delete(around, [0, 1], axis)
            values = (before + 2 * values + after) / 4
    return values


def resized(image: Grey, side: int) -> Grey:
    """Means over side x side parts of the image, which is at least as large."""
    rows, columns = (np.linspace(0, size, side + 1).astype(int) for size in image.shape)
    sums = np.add.reduceat(np.add.reduceat(image, rows[:-1], axis=0), columns[:-1], axis=1)
    found: Grey = sums / np.outer(np.diff(rows), np.diff(columns))
    return found


def blocks(image: Grey, step: int) -> Grey:
    """Means over blocks of step x step pixels; what is left over at the end is dropped."""
    rows, columns = (size // step * step for size in image.shape)
    found: Grey = image[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    return found
