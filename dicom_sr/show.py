"""Results for people: the numbers as a table, the segments as a picture. No patient text is ever drawn.

Pictures are for the demo and the console; what leaves as DICOM is made by the result kinds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicom_sr.nouns import Findings, Measurement, Segment, Volume

Picture = NDArray[np.uint8]
"""Red, green and blue, shape (height, width, 3)."""

WINDOW_CENTER, WINDOW_WIDTH = -500.0, 1500.0
"""Lung window in HU; other modalities are shown from their 1st to their 99th percentile."""

TILE = 256
"""Largest side of one slice in the picture, in pixels."""

BACKGROUND = (16, 16, 20)

HIDDEN = 60
"""Grey of a slice that is not shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: what, where, how much, and what is to be said of it."""

    finding: str
    measurement: str
    value: str
    unit: str
    note: str


def table(findings: Findings) -> list[Row]:
    """All measurements with their reasons, then what was looked for and not found."""
    rows = [
        Row(
            finding=group.label,
            measurement=_title(measurement),
            value="withheld" if measurement.value is None else number(measurement.value),
            unit="" if measurement.value is None else unit(measurement),
            note=measurement.withheld or measurement.remark or "",
        )
        for group in findings.groups
        for measurement in group.measurements
    ]
    missing = [
        Row(finding=one.label, measurement="", value="not found", unit="", note=one.reason)
        for one in findings.not_found
    ]
    return rows + missing


def number(value: float) -> str:
    """A number as a person reads it: four significant digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def unit(measurement: Measurement) -> str:
    """The unit as a person reads it: UCUM, but HU for Hounsfield units."""
    return {"[hnsf'U]": "HU"}.get(measurement.unit.value, measurement.unit.value)


def contact_sheet(
    volume: Volume, findings: Findings, *, columns: int = 4, rows: int = 3, title: str = "", ours: bool = True
) -> bytes:
    """A PNG of slices spread over the findings, the segments coloured and outlined, with a legend.

    `title` names the pipeline; "AI ... RESEARCH USE" is always drawn on what is ours, patient text never: of a source
    that bears some in its pixels only the segments are drawn, on grey.
    """
    chosen = slices(findings, volume.array.shape[0], columns * rows)
    low, high = window(volume)
    tiles = [tile(volume, findings, index, low, high) for index in chosen]
    height, width = max(t.height for t in tiles), max(t.width for t in tiles)
    legend = legend_of(findings)
    lines = (len(tiles) + columns - 1) // columns
    sheet = Image.new("RGB", (columns * width, lines * height + 28 + 18 * len(legend) + 8), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    algorithm = findings.algorithm
    head = f"{title or algorithm.name} {algorithm.version}"
    head = f"AI {head}   RESEARCH USE ONLY" if ours else head
    head += "   images left out: text in their pixels" if volume.acquisition.burned_in else ""
    draw.text((8, 6), head, fill=(255, 210, 90), font=ImageFont.load_default(14))
    for place, picture in enumerate(tiles):
        sheet.paste(picture, (place % columns * width, 28 + place // columns * height))
    for line, (colour, words) in enumerate(legend):
        top = 28 + lines * height + 4 + 18 * line
        draw.rectangle((8, top + 3, 20, top + 15), fill=colour)
        draw.text((28, top), words, fill=(235, 235, 235), font=ImageFont.load_default(12))
    out = BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def legend_of(findings: Findings) -> list[tuple[tuple[int, int, int], str]]:
    """Colour and words of each segment, and of what was not found."""
    lines = [(segment.rgb, _described(findings, segment)) for segment in findings.segments]
    return lines + [((90, 90, 90), f"{one.label}: not found. {one.reason}") for one in findings.not_found]


def _described(findings: Findings, segment: Segment) -> str:
    found = [m for group in findings.groups if group.segment_number == segment.number for m in group.measurements]
    given = [f"{_title(m)} {number(m.value)} {unit(m)}" for m in found if m.value is not None]
    withheld = [f"{_title(m)} withheld" for m in found if m.value is None]
    return ", ".join([segment.label, *given, *withheld])


def _title(measurement: Measurement) -> str:
    return (
        f"{measurement.derivation.meaning} {measurement.name.meaning}"
        if measurement.derivation
        else measurement.name.meaning
    )


def slices(findings: Findings, number_of_slices: int, count: int) -> list[int]:
    """Slice indices to show: evenly over the slices with a segment, or over all; at most `count`."""
    shown = np.arange(number_of_slices)
    if findings.labels is not None and findings.segments:
        shown = np.flatnonzero(findings.labels.any(axis=(1, 2)))
    picks = np.linspace(0, len(shown) - 1, min(count, len(shown)))
    return [int(shown[round(float(pick))]) for pick in picks]


def window(volume: Volume) -> tuple[float, float]:
    """Lowest and highest value that is shown."""
    if volume.acquisition.modality == "CT":
        return WINDOW_CENTER - WINDOW_WIDTH / 2, WINDOW_CENTER + WINDOW_WIDTH / 2
    if volume.acquisition.modality == "SEG":
        return 0.0, 1.0
    low, high = np.percentile(volume.array[:: max(1, len(volume.array) // 16)], (1, 99))
    return float(low), float(max(high, low + 1))


def tile(volume: Volume, findings: Findings, index: int, low: float, high: float) -> Image.Image:
    """One slice in its true proportions, its segments tinted and outlined, its index in a corner."""
    plane = volume.array[index].astype(np.float32)
    grey = np.clip((plane - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    if volume.acquisition.photometric_interpretation == "MONOCHROME1":
        grey = 255 - grey
    if volume.acquisition.burned_in:
        grey = np.full_like(grey, HIDDEN)
    picture = overlaid(grey, None if findings.labels is None else findings.labels[index], findings.segments)
    _, row_mm, column_mm = volume.spacing
    height, width = grey.shape[0] * row_mm, grey.shape[1] * column_mm
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    ImageDraw.Draw(image).text((4, 2), f"slice {index + 1}", fill=(200, 200, 200), font=ImageFont.load_default(11))
    return image


def overlaid(grey: NDArray[np.uint8], labels: NDArray[np.uint8] | None, segments: Sequence[Segment]) -> Picture:
    """The grey plane with each segment as a light tint and a full outline."""
    picture = np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)
    if labels is None:
        return picture.astype(np.uint8)
    for segment in segments:
        mask: NDArray[np.bool_] = np.equal(labels, segment.number)
        colour = np.array(segment.rgb, np.float32)
        picture[mask] = 0.7 * picture[mask] + 0.3 * colour
        picture[mask & ~_inner(mask)] = colour
    return picture.astype(np.uint8)


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask whose four neighbours lie in it too."""
    padded = np.pad(mask, 1)
    inner: NDArray[np.bool_] = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner
