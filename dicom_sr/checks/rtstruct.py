"""A structure set: regions, contours and observations that belong together, and enclose what was found.

Source:  PS3.3 A.19, C.8.8.5, C.8.8.6, C.8.8.8
"""

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from dicom_sr.checks.fault import Fault, every, expect, items, numbers, text
from dicom_sr.checks.pointing import resolved
from dicom_sr.checks.seen import Around, Seen
from dicom_sr.kinds import Order
from dicom_sr.outlines import filled
from dicom_sr.references import frame_of_reference

SOP_CLASSES = frozenset({str(RTStructureSetStorage)})
TYPE_1 = ("StructureSetLabel", "StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence")
TYPE_2 = ("StructureSetDate", "StructureSetTime", "OperatorsName")


def alone(seen: Seen) -> Iterator[Fault]:
    """What must hold of a structure set alone."""
    dataset, place = seen.dataset, seen.place
    yield from expect(place, "Modality", text(dataset, "Modality"), "RTSTRUCT")
    numbered = [int(roi.ROINumber) for roi in items(dataset, "StructureSetROISequence")]
    for keyword in ("ROIContourSequence", "RTROIObservationsSequence"):
        referred = [int(part.ReferencedROINumber) for part in items(dataset, keyword)]
        yield from expect(place, keyword, sorted(set(referred) - set(numbered)), [])
    for where, contour in _contours(seen):
        points = len(numbers(contour, "ContourData"))
        yield from expect(where, "NumberOfContourPoints", 3 * int(contour.get("NumberOfContourPoints") or 0), points)


def beside(seen: Seen, around: Around) -> Iterator[Fault]:
    """All images are there; with an order, in its frame of reference, contours enclose the segments."""
    contours = list(_contours(seen))
    pointers = [(w, image) for where, one in contours for w, image in every(one, "ContourImageSequence", where)]
    yield from resolved(pointers, around.known)
    if around.order is None:
        return
    wanted = frame_of_reference(around.order)
    for where, roi in every(seen.dataset, "StructureSetROISequence", seen.place):
        found = text(roi, "ReferencedFrameOfReferenceUID")
        yield from expect(where, "ReferencedFrameOfReferenceUID", found, wanted)
    yield from _enclosed(seen, around.order)


def _contours(seen: Seen) -> Iterator[tuple[str, Dataset]]:
    for where, roi in every(seen.dataset, "ROIContourSequence", seen.place):
        yield from every(roi, "ContourSequence", where)


def _enclosed(seen: Seen, order: Order) -> Iterator[Fault]:
    """Placed on the source by their millimetres alone, a region's contours enclose exactly the segment's voxels."""
    to_voxel = np.linalg.inv(order.source.affine)
    for roi in items(seen.dataset, "ROIContourSequence"):
        number, planes = int(roi.ReferencedROINumber), dict[int, list[np.ndarray]]()
        for contour in items(roi, "ContourSequence"):
            points = np.array(numbers(contour, "ContourData")).reshape(-1, 3)
            voxels = points @ to_voxel[:3, :3].T + to_voxel[:3, 3]
            closed = np.concatenate([voxels, voxels[:1]])
            planes.setdefault(round(float(voxels[:, 0].mean())), []).append(closed[:, 1:])
        layer = order.findings.layer(number)
        for index in range(order.source.shape[0]):
            mask = filled(planes.get(index, []), order.source.shape[1:])
            if not np.array_equal(mask, layer[index] == number):
                yield Fault(f"{seen.place}.ContourData", f"does not enclose segment {number} on plane {index}")
