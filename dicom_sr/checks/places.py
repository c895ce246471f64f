"""What a report draws on slices lies where it was found.

Outlines are held against the label map, rectangles and regions against their millimetres; each only by its extent and
its slice, so that this does not repeat what the writer computed.

Source:  PS3.3 C.18.6 (Spatial Coordinates Macro)
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dicom_sr.checks.fault import Fault, items, numbers, text
from dicom_sr.checks.seen import Item
from dicom_sr.kinds import Order
from dicom_sr.nouns import MeasurementGroup

TOLERANCE = 1.01
"""Pixels by which a line may lie off what it encloses: it runs between pixels."""

Span = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""Least and greatest slice, column and row, columns and rows from the outer corner of the first pixel."""


def wanted(order: Order, group: MeasurementGroup, drawn_lines: int) -> Span | None:
    """Where the group lies, or None where nothing has to be drawn of it."""
    must = group.region is not None or (group.box is not None and order.sr != "comprehensive3d")
    must = must or order.tracking == "cornerstone"
    if not must and not drawn_lines:
        return None
    if group.segment_number is None and group.box is None and group.region is None:
        planes, rows, columns = order.source.shape
        return (0, planes - 1), (0, columns), (0, rows)
    if group.segment_number is not None:
        layer = order.findings.layer(group.segment_number)
        there = [index for index, plane in enumerate(layer) if (plane == group.segment_number).any()]
        everywhere = np.zeros(layer.shape[1:], bool)
        for index in there:
            everywhere |= layer[index] == group.segment_number
        down, across = np.flatnonzero(everywhere.any(axis=1)), np.flatnonzero(everywhere.any(axis=0))
        return (there[0], there[-1]), (across[0], across[-1] + 1), (down[0], down[-1] + 1)
    points = np.array(group.region.points) if group.region else np.array(_corners(group))
    inverse: NDArray[np.float64] = np.linalg.inv(order.source.affine).astype(np.float64)
    at = np.c_[points, np.ones(len(points))] @ inverse[:3].T + (0, 0.5, 0.5)
    low, high = at.min(axis=0), at.max(axis=0)
    return (low[0] - 1, high[0] + 1), (low[2], high[2]), (low[1], high[1])


def _corners(group: MeasurementGroup) -> list[tuple[float, float, float]]:
    assert group.box is not None
    (x0, y0, z0), (x1, y1, z1) = group.box.minimum, group.box.maximum
    return [(x, y, z) for x in (x0, x1) for y in (y0, y1) for z in (z0, z1)]


def drawn(place: str, lines: Sequence[Item], span: Span | None, order: Order) -> Iterator[Fault]:
    """Each line lies within its finding's extent on a slice that shows it; something is drawn where it must be."""
    if span is None:
        return
    if not lines:
        yield Fault(place, "is drawn on no slice")
    indices = {(plane.sop_instance_uid, plane.frame): index for index, plane in enumerate(order.source.planes)}
    for line in lines:
        images = [r for child in line.children for r in items(child.dataset, "ReferencedSOPSequence")]
        frames = [int(number) for image in images for number in numbers(image, "ReferencedFrameNumber")] or [1]
        on = [indices.get((text(image, "ReferencedSOPInstanceUID"), frames[0])) for image in images]
        if len(on) != 1 or on[0] is None or not span[0][0] <= on[0] <= span[0][1]:
            yield Fault(line.place, "is drawn on no slice that shows the finding")
            continue
        data = numbers(line.dataset, "GraphicData")
        if not data or len(data) % 2:
            yield Fault(f"{line.place}.GraphicData", f"has {len(data)} numbers, must be two a point")
            continue
        points = np.array(data).reshape(-1, 2)
        for axis, name in enumerate(("columns", "rows")):
            low, high = span[1 + axis]
            if points[:, axis].min() < low - TOLERANCE or points[:, axis].max() > high + TOLERANCE:
                yield Fault(line.place, f"reaches beyond the {name} of the finding")
        _, height, width = order.source.shape
        if (points < 0).any() or (points > (width, height)).any():
            yield Fault(line.place, "leaves its image")
