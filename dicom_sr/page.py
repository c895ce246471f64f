"""The page that sums a run up: title, key slices, measurements with their reasons, and what was not found."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dicom_sr import drawing, show
from dicom_sr.drawing import DARK, WHITE, YELLOW, Picture
from dicom_sr.kinds import Order

WIDTH, HEIGHT = 1024, 1024
MARGIN, TITLE, BODY = 24, 26, 16
PICTURES = 3
CAUTION = "For research use only. Not for clinical diagnosis; no person has verified these results."
GREY = (170, 170, 170)
COLUMNS = (0, 280, 720)
"""Where the columns of the table begin, from the margin, in pixels."""


def page(order: Order) -> Picture:
    """The page as a picture, HEIGHT x WIDTH."""
    image = Image.new("RGB", (WIDTH, HEIGHT), DARK)
    draw = ImageDraw.Draw(image)
    top = MARGIN
    drawing.write(draw, (MARGIN, top), drawing.claim(order), TITLE, YELLOW)
    drawing.write(draw, (MARGIN, top + TITLE + 10), order.title, TITLE - 4, WHITE)
    top += 2 * TITLE + 24
    top = pasted(image, order, top)
    room = (HEIGHT - top - 3 * (BODY + 6) - MARGIN) // (BODY + 6)
    lines = list(rows(order, draw))
    if len(lines) > room:
        lines = [*lines[: room - 1], [(0, f"and {len(lines) - room + 1} more lines, in the report", GREY)]]
    for line in lines:
        for start, words, fill in line:
            draw.text((MARGIN + start, top), words, fill=fill, font=ImageFont.load_default(BODY))
        top += BODY + 6
    foot = HEIGHT - MARGIN - 2 * (BODY + 4)
    if order.research:
        drawing.write(draw, (MARGIN, foot), CAUTION, BODY, YELLOW)
    drawing.write(draw, (MARGIN, foot + BODY + 6), fitted(draw, order.completeness, WIDTH - 2 * MARGIN), BODY - 2, GREY)
    return np.asarray(image)


def pasted(image: Image.Image, order: Order, top: int) -> int:
    """Key slices in a row, in their true proportions; where the next thing begins."""
    indices = drawing.key_planes(order.findings, PICTURES)
    if not indices:
        return top
    values = drawing.planes_of(order.source, indices)
    low, high = drawing.window(order, values, indices)
    side = (WIDTH - 2 * MARGIN - (PICTURES - 1) * 8) // PICTURES
    between_rows, between_columns = order.source.planes[0].spacing
    for place, (index, plane) in enumerate(zip(indices, values, strict=True)):
        layers = [layer[index] for layer in order.findings.layers]
        scale = drawing.enlargement(*plane.shape)
        picture = Image.fromarray(drawing.drawn(drawing.grey(plane, low, high), layers, order.findings.segments, scale))
        height, width = plane.shape[0] * between_rows, plane.shape[1] * between_columns
        factor = side / max(height, width)
        small = picture.resize(
            (max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.LANCZOS
        )
        image.paste(small, (MARGIN + place * (side + 8), top))
        drawing.write(
            ImageDraw.Draw(image), (MARGIN + place * (side + 8) + 4, top + 2), f"slice {index + 1}", BODY, WHITE
        )
    return top + side + 16


def rows(order: Order, draw: ImageDraw.ImageDraw) -> Iterator[list[tuple[int, str, drawing.Colour]]]:
    """The lines of the table: where each word begins, the word, its colour. Notes stand whole below their value."""
    last = None
    for row in show.table(order.findings):
        finding = "" if row.finding == last else fitted(draw, row.finding, COLUMNS[1] - 8)
        measured = fitted(draw, row.measurement, COLUMNS[2] - COLUMNS[1] - 8)
        yield [
            (COLUMNS[0], finding, WHITE),
            (COLUMNS[1], measured, WHITE),
            (COLUMNS[2], f"{row.value} {row.unit}", WHITE),
        ]
        for part in wrapped(draw, row.note, WIDTH - 2 * MARGIN - COLUMNS[1]):
            yield [(COLUMNS[1], part, GREY)]
        last = row.finding
    for remark in order.findings.remarks:
        for part in wrapped(draw, f"Remark: {remark}", WIDTH - 2 * MARGIN):
            yield [(0, part, WHITE)]


def wrapped(draw: ImageDraw.ImageDraw, words: str, width: int) -> list[str]:
    """The words in lines of at most this width, in pixels."""
    font, lines = ImageFont.load_default(BODY), list[str]()
    for word in words.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and draw.textlength(longer, font=font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def fitted(draw: ImageDraw.ImageDraw, words: str, width: int) -> str:
    """The words, shortened to fit."""
    font = ImageFont.load_default(BODY)
    if draw.textlength(words, font=font) <= width:
        return words
    while words and draw.textlength(f"{words}...", font=font) > width:
        words = words[:-1]
    return f"{words}..."
