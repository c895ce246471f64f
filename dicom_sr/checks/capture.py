"""A Secondary Capture: whole pixels, honest flags, and for a slice of ours the outlines where the findings lie.

Source:  PS3.3 A.8.1, C.7.6.1, C.7.6.3, C.8.6.1
"""

from collections.abc import Iterator

import numpy as np
from pydicom.uid import SecondaryCaptureImageStorage

from dicom_sr import drawing
from dicom_sr.checks.fault import Fault, every, expect, items, numbers, one_of, text
from dicom_sr.checks.pointing import resolved
from dicom_sr.checks.seen import Around, Seen
from dicom_sr.kinds import Order
from dicom_sr.references import frame_of_reference
from dicom_sr.source import Plane

SOP_CLASSES = frozenset({str(SecondaryCaptureImageStorage)})
TYPE_1 = ("ConversionType", "ImageType", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
          "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")  # fmt: skip
TYPE_2 = ()

MOST = 0.8
"""Share of a segment's outline that must bear its colour; words may lie over the rest."""


def alone(seen: Seen) -> Iterator[Fault]:
    """What must hold of a picture alone."""
    dataset, place = seen.dataset, seen.place
    samples = {"RGB": 3}.get(text(dataset, "PhotometricInterpretation"), 1)
    yield from expect(place, "SamplesPerPixel", dataset.get("SamplesPerPixel"), samples)
    if seen.ours:
        size = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated) // 8
        if len(seen.pixels) != size + size % 2:
            yield Fault(f"{place}.PixelData", f"has {len(seen.pixels)} bytes, must have {size + size % 2}")
        yield from one_of(place, "BurnedInAnnotation", text(dataset, "BurnedInAnnotation"), ("YES", "NO"))
        if (
            "RESEARCH" not in text(dataset, "DerivationDescription")
            and text(dataset, "ContentQualification") != "PRODUCT"
        ):
            yield Fault(f"{place}.DerivationDescription", "does not say RESEARCH")


def beside(seen: Seen, around: Around) -> Iterator[Fault]:
    """It is of its source; with an order, flags are the source's and outlines lie where the findings lie."""
    dataset, place = seen.dataset, seen.place
    pointers = list(every(dataset, "SourceImageSequence", place))
    yield from resolved(pointers, around.known)
    if around.order is None:
        return
    source, order = around.order.source, around.order
    burned = "YES" if source.acquisition.burned_in else "NO"
    yield from expect(place, "BurnedInAnnotation", text(dataset, "BurnedInAnnotation"), burned)
    lossy = "01" if source.acquisition.lossy else "00"
    yield from expect(place, "LossyImageCompression", text(dataset, "LossyImageCompression"), lossy)
    if "ImagePositionPatient" not in dataset or len(pointers) != 1:
        return
    yield from expect(place, "FrameOfReferenceUID", text(dataset, "FrameOfReferenceUID"), frame_of_reference(order))
    image = items(dataset, "SourceImageSequence")[0]
    uid, frame = text(image, "ReferencedSOPInstanceUID"), int(image.get("ReferencedFrameNumber") or 1)
    for index, plane in enumerate(source.planes):
        if (plane.sop_instance_uid, plane.frame) == (uid, frame):
            yield from _placed(seen, plane, order)
            yield from _outlined(seen, index, order)


def _placed(seen: Seen, plane: Plane, order: Order) -> Iterator[Fault]:
    """The corner of the picture is the corner of the plane, and so is the opposite one."""
    rows, columns = int(seen.dataset.Rows), int(seen.dataset.Columns)
    spacing = numbers(seen.dataset, "PixelSpacing")
    yield from expect(
        seen.place, "ImageOrientationPatient", numbers(seen.dataset, "ImageOrientationPatient"), plane.orientation
    )
    along, down = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    ours, theirs = (
        [
            np.array(position) + (x - 0.5) * between[1] * along + (y - 0.5) * between[0] * down
            for y, x in ((0, 0), (height, width))
        ]
        for position, between, height, width in (
            (numbers(seen.dataset, "ImagePositionPatient"), spacing, rows, columns),
            (plane.position, plane.spacing, *order.source.shape[1:]),
        )
    )
    if not np.allclose(ours, theirs, atol=0.01):
        yield Fault(f"{seen.place}.ImagePositionPatient", "the picture does not lie where its source plane lies")


def _outlined(seen: Seen, index: int, order: Order) -> Iterator[Fault]:
    """Each segment's outline is drawn in its colour where the label map has it."""
    rows, columns = int(seen.dataset.Rows), int(seen.dataset.Columns)
    picture = np.frombuffer(seen.pixels, np.uint8, rows * columns * 3).reshape(rows, columns, 3)
    scale = rows // order.source.shape[1]
    for segment in order.findings.segments:
        mask = np.kron(order.findings.layer(segment.number)[index] == segment.number, np.ones((scale, scale), bool))
        outline = mask & ~drawing.eroded(mask)
        if outline.any() and (picture[outline] == segment.rgb).all(axis=1).mean() < MOST:
            yield Fault(f"{seen.place}.PixelData", f"the outline of segment {segment.number} is not where it was found")
