"""A presentation state: annotations on images that are there, in layers that are declared, around what was found.

Source:  PS3.3 A.33.1, C.10.5, C.10.7
"""

from collections.abc import Iterator

import numpy as np
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from dicom_sr.checks.fault import Fault, every, expect, items, numbers, text
from dicom_sr.checks.pointing import resolved
from dicom_sr.checks.seen import Around, Seen
from dicom_sr.kinds import Order
from dicom_sr.kinds.presentation_state import CENTRE, used
from dicom_sr.outlines import filled

SOP_CLASSES = frozenset({str(GrayscaleSoftcopyPresentationStateStorage)})
TYPE_1 = ("PresentationCreationDate", "PresentationCreationTime", "ContentLabel", "ReferencedSeriesSequence",
          "DisplayedAreaSelectionSequence", "PresentationLUTShape")  # fmt: skip
TYPE_2 = ("ContentDescription", "ContentCreatorName")


def alone(seen: Seen) -> Iterator[Fault]:
    """What must hold of a presentation state alone."""
    yield from expect(seen.place, "Modality", text(seen.dataset, "Modality"), "PR")
    declared = {text(layer, "GraphicLayer") for layer in items(seen.dataset, "GraphicLayerSequence")}
    for where, annotation in every(seen.dataset, "GraphicAnnotationSequence", seen.place):
        if text(annotation, "GraphicLayer") not in declared:
            yield Fault(f"{where}.GraphicLayer", "is not declared")
        for there, graphic in every(annotation, "GraphicObjectSequence", where):
            points = graphic.get("NumberOfGraphicPoints")
            yield from expect(there, "GraphicData", len(numbers(graphic, "GraphicData")), 2 * int(points or 0))


def beside(seen: Seen, around: Around) -> Iterator[Fault]:
    """All images are there; with an order, each outline encloses its segment."""
    pointers = [
        (there, image)
        for where, annotation in every(seen.dataset, "GraphicAnnotationSequence", seen.place)
        for there, image in every(annotation, "ReferencedImageSequence", where)
    ]
    yield from resolved(pointers, around.known)
    if around.order is not None:
        yield from _enclosed(seen, around.order)


def _enclosed(seen: Seen, order: Order) -> Iterator[Fault]:
    """On each image the outlines of a segment's layer enclose exactly the segment's pixels."""
    drawn: dict[tuple[str, int, str], list[np.ndarray]] = {}
    for annotation in items(seen.dataset, "GraphicAnnotationSequence"):
        for image in items(annotation, "ReferencedImageSequence"):
            key = (text(image, "ReferencedSOPInstanceUID"), int(image.get("ReferencedFrameNumber") or 1))
            loops = drawn.setdefault((*key, text(annotation, "GraphicLayer")), [])
            for graphic in items(annotation, "GraphicObjectSequence"):
                loops.append(np.array(numbers(graphic, "GraphicData")).reshape(-1, 2)[:, ::-1] - CENTRE)
    for index in used(order):
        plane = order.source.planes[index]
        for segment in order.findings.segments:
            loops = drawn.get((plane.sop_instance_uid, plane.frame, f"SEGMENT{segment.number}"), [])
            mask = order.findings.layer(segment.number)[index] == segment.number
            if not np.array_equal(filled(loops, order.source.shape[1:]), mask):
                yield Fault(f"{seen.place}.GraphicData", f"does not enclose segment {segment.number} on plane {index}")
