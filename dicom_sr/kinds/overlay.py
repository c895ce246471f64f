"""Result kind `overlay`: slices with the segments drawn in, as Secondary Captures that any viewer shows.

One series, one single-frame object a slice, at the slice's own place in the patient: the key slices, or all slices on
which something lies. Every picture says which algorithm made it and that it is for research; no patient text is drawn.
UIDs of an order used here: "overlay" with 0, 1 ..., "overlay.series".
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dicom_sr import drawing
from dicom_sr.capture import captured
from dicom_sr.kinds import Built, Order

KIND = "overlay"


class Settings(BaseModel):
    """Which slices."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    slices: Literal["key", "all"] = Field("key", description="The slices that show most, or all with a segment")
    count: int = Field(8, ge=1, le=64, description="Key slices at most")


def build(order: Order) -> tuple[Built, ...]:
    """The pictures in the order of the slices; none where nothing was delineated."""
    settings = Settings.model_validate(order.settings.get(KIND, {}))
    findings = order.findings
    if settings.slices == "key":
        indices = drawing.key_planes(findings, settings.count)
    else:
        indices = [
            index for index in range(order.source.shape[0]) if any(layer[index].any() for layer in findings.layers)
        ]
    if not indices:
        return ()
    shown = drawing.key_planes(findings, settings.count)
    low, high = drawing.window(order, drawing.planes_of(order.source, shown), shown)
    scale = drawing.enlargement(*order.source.shape[1:])
    made = []
    for ordinal, index in enumerate(indices):
        (plane,) = drawing.planes_of(order.source, [index])
        layers = [layer[index] for layer in findings.layers]
        here = set(np.unique(layers)) - {0}
        present = [segment for segment in findings.segments if segment.number in here]
        named = ", ".join(segment.label for segment in present)
        picture = drawing.drawn(drawing.grey(plane, low, high), layers, present, scale)
        made.append(
            captured(
                order,
                KIND,
                drawing.captioned(picture, order, index, present),
                ordinal=ordinal,
                plane=order.source.planes[index],
                words=f"{drawing.claim(order)}: outlines of {named}"[:1024],
            )
        )
    return tuple(made)
