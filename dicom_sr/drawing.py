"""What the pictures that leave as DICOM have in common: the source's grey planes, segments over them, words beside.

No patient text is ever drawn. Pictures are (row, column, colour) uint8, red, green and blue.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicom_sr import pixels
from dicom_sr.kinds import Order
from dicom_sr.nouns import Findings, LabelMap, Segment
from dicom_sr.source import SourceSeries

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

LEGIBLE = 512
"""Planes with a shorter side are enlarged by a whole number, so that words on them can be read."""

TINT = 0.25
"""How much of a segment's colour lies over its pixels; its outline is all colour."""

YELLOW, WHITE, DARK = (255, 214, 90), (235, 235, 235), (16, 16, 20)

CT_WINDOWS = ((-600.0, 1500.0), (40.0, 400.0))
"""Centre and width for CT: lungs, and everything else; by what the segments lie on."""


def claim(order: Order) -> str:
    """The words that stand on every picture."""
    algorithm = order.findings.algorithm
    return f"AI {order.pipeline} {algorithm.version}" + ("  RESEARCH USE ONLY" if order.research else "")


def key_planes(findings: Findings, count: int) -> list[int]:
    """Slice indices that show most: for each segment that on which it is largest, then evenly over all; sorted."""
    if findings.labels is None or not findings.segments:
        return []
    occupied = np.flatnonzero(np.any([layer.any(axis=(1, 2)) for layer in findings.layers], axis=0))
    chosen: dict[int, None] = {}
    for segment in sorted(findings.segments, key=lambda one: -findings.voxels[one.number])[:count]:
        layer = findings.layer(segment.number)
        areas = [np.count_nonzero(plane == segment.number) for plane in layer]
        chosen[int(np.argmax(areas))] = None
    for pick in np.linspace(0, len(occupied) - 1, count + 2)[1:-1]:
        if len(chosen) < count:
            chosen[int(occupied[round(float(pick))])] = None
    return sorted(list(chosen)[:count])


def planes_of(source: SourceSeries, indices: Sequence[int]) -> NDArray[np.float32]:
    """Rescaled values of these planes, shape (number of indices, row, column)."""
    some = replace(source, planes=tuple(source.planes[index] for index in indices))
    return pixels.load(some).array.astype(np.float32)


def window(order: Order, values: NDArray[np.float32], indices: Sequence[int]) -> tuple[float, float]:
    """Lowest and highest value shown on all pictures of an order.

    For CT a usual window, the lungs' where most of what was found is air; else from the 1st to the 99th percentile.
    """
    if order.source.acquisition.modality != "CT":
        low, high = (float(part) for part in np.percentile(values, (1, 99)))
        return low, max(high, low + 1)
    inside = [
        plane[layer[index] > 0] for plane, index in zip(values, indices, strict=True) for layer in order.findings.layers
    ]
    found = np.concatenate(inside) if inside else values.ravel()
    center, width = CT_WINDOWS[0 if found.size and float(np.median(found)) < -400 else 1]
    return center - width / 2, center + width / 2


def grey(plane: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """The plane's values as shades."""
    shades: NDArray[np.uint8] = np.clip((plane - low) / (high - low) * 255 + 0.5, 0, 255).astype(np.uint8)
    return shades


def enlargement(rows: int, columns: int) -> int:
    """By how much a plane is enlarged."""
    return max(1, -(-LEGIBLE // max(1, min(rows, columns))))


def drawn(shades: NDArray[np.uint8], layers: Sequence[LabelMap], segments: Sequence[Segment], scale: int) -> Picture:
    """The plane enlarged, each segment tinted and outlined where it lies; `layers` are the label maps of this plane."""
    big = np.kron(shades, np.ones((scale, scale), np.uint8))
    picture = np.repeat(big[:, :, None], 3, axis=2).astype(np.float32)
    for segment in segments:
        for layer in layers:
            small = layer == segment.number
            if not small.any():
                continue
            mask = np.kron(small, np.ones((scale, scale), bool))
            colour = np.array(segment.rgb, np.float32)
            picture[mask] = (1 - TINT) * picture[mask] + TINT * colour
            picture[mask & ~eroded(mask)] = colour
    return picture.astype(np.uint8)


def eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask whose four neighbours lie in it too."""
    padded = np.pad(mask, 1)
    inner: NDArray[np.bool_] = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & inner


def write(draw: ImageDraw.ImageDraw, at: tuple[float, float], words: str, size: int, fill: Colour) -> None:
    """Words with a dark edge, legible on anything."""
    font, edge = ImageFont.load_default(size), max(1, size // 10)
    draw.text(at, words, fill=fill, font=font, stroke_width=edge, stroke_fill=DARK)


def legend(draw: ImageDraw.ImageDraw, height: int, segments: Sequence[Segment], size: int) -> None:
    """Colour and name of each segment, upwards from the lower left corner."""
    most = max(1, (height // 2) // (size + 4))
    shown = [(one.rgb, one.label) for one in segments[:most]]
    if len(segments) > most:
        shown[-1] = (WHITE, f"and {len(segments) - most + 1} more")
    for line, (colour, words) in enumerate(reversed(shown), start=1):
        top = height - 6 - line * (size + 4)
        draw.rectangle((6, top + 2, 6 + size - 2, top + size), fill=colour, outline=DARK)
        write(draw, (10 + size, top - 1), words, size, WHITE)


def captioned(picture: Picture, order: Order, index: int, present: Sequence[Segment]) -> Picture:
    """A plane's picture with what it is, which slice, and what its colours mean."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    height = picture.shape[0]
    size = max(12, height // 36)
    write(draw, (6, 4), claim(order), size, YELLOW)
    write(draw, (6, 8 + size), f"slice {index + 1} of {order.source.shape[0]}", size - 2, WHITE)
    legend(draw, height, present, size - 2)
    return np.asarray(image)
