"""Result kind `rtstruct`: an RT Structure Set with the outlines in patient millimetres, for planning systems.

Closed planar contours, one region each, a hole joined to its region by a keyhole; half-way between pixels, so that
whoever fills them gets the label map again. UIDs of an order used here: "rtstruct", "rtstruct.series".

Source:  PS3.3 A.19, C.8.8.5, C.8.8.6, C.8.8.8, C.7.6.2
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import RTStructureSetStorage

from dicom_sr.elements import Elements, code, elements
from dicom_sr.header import clock, written
from dicom_sr.kinds import Built, Order
from dicom_sr.nouns import Code, Segment
from dicom_sr.outlines import Loop, Mask, filled, keyholed, regions
from dicom_sr.references import frame_of_reference, instance, source_instances
from dicom_sr.script import Script
from dicom_sr.source import Plane

KIND = "rtstruct"

STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, retired, which RTReferencedStudySequence still names (PS3.3 C.8.8.5)."""

LONGEST = 65_534
"""Bytes of one decimal string value in Explicit VR; a longer contour is cut in two (PS3.5 7.1.2)."""


def build(order: Order) -> Built | None:
    """The structure set; None where nothing was delineated, or the source names no frame of reference."""
    if order.findings.labels is None or not order.findings.segments:
        return None

    def content(script: Script) -> tuple[Elements, list[Code]]:
        return structures(order, script) | elements(
            ROIContourSequence=[contours_of(order, segment) for segment in order.findings.segments],
            RTROIObservationsSequence=[observed(order, segment, script) for segment in order.findings.segments],
        ), [s.type for s in order.findings.segments]

    return written(order, kind=KIND, sop_class_uid=RTStructureSetStorage, modality="RTSTRUCT", content=content)


def structures(order: Order, script: Script) -> Elements:
    """Structure Set module: the regions by number and name, and the images that they are drawn on."""
    now, reference = clock(order), frame_of_reference(order)
    series = elements(
        SeriesInstanceUID=order.source.acquisition.series_instance_uid,
        ContourImageSequence=source_instances(order.source),
    )
    study = elements(
        ReferencedSOPClassUID=STUDY_CLASS,
        ReferencedSOPInstanceUID=str(order.source.header.StudyInstanceUID),
        RTReferencedSeriesSequence=[series],
    )
    rois = [
        elements(
            script,
            ROINumber=segment.number,
            ReferencedFrameOfReferenceUID=reference,
            ROIName=segment.label,
            ROIGenerationAlgorithm="AUTOMATIC",
            ROIGenerationDescription=f"AI {order.pipeline} {order.findings.algorithm.version}"[:64],
        )
        for segment in order.findings.segments
    ]
    label = ("AI RESEARCH" if order.research else "AI")[:16]
    return elements(
        script,
        OperatorsName=None,
        StructureSetLabel=label,
        StructureSetName=order.title[:64],
        StructureSetDate=now.strftime("%Y%m%d"),
        StructureSetTime=now.strftime("%H%M%S.%f"),
        ApprovalStatus="UNAPPROVED",
        FrameOfReferenceUID=reference,
        PositionReferenceIndicator=None,
        ReferencedFrameOfReferenceSequence=[
            elements(FrameOfReferenceUID=reference, RTReferencedStudySequence=[study]),
        ],
        StructureSetROISequence=rois,
    )


def contours_of(order: Order, segment: Segment) -> Elements:
    """All contours of a segment, slice by slice."""
    layer = order.findings.layer(segment.number)
    contours = [
        elements(
            ContourImageSequence=[instance(plane, frame=True)],
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=text.count(b"\\") // 3 + 1,
            ContourData=text,
        )
        for index, plane in enumerate(order.source.planes)
        for text in outlined(plane, layer[index] == segment.number)
    ]
    return elements(ReferencedROINumber=segment.number, ROIDisplayColor=segment.rgb, ContourSequence=contours)


def outlined(plane: Plane, mask: Mask) -> Iterator[bytes]:
    """The contours of a mask on a plane, each as its decimal string; the first point is not repeated at the end."""
    for region in regions(mask):
        text = decimals(placed(plane, keyholed(region)[:-1]))
        if len(text) <= LONGEST:
            yield text
            continue
        top, bottom = int(np.ceil(region[0][:, 0].min())), int(np.floor(region[0][:, 0].max()))
        rows = np.arange(mask.shape[0])[:, None]
        middle = (top + bottom + 1) // 2
        for part in (mask & (rows < middle), mask & (rows >= middle)):
            yield from outlined(plane, part & within(region, mask.shape))


def within(region: list[Loop], shape: tuple[int, ...]) -> Mask:
    """The pixels of a region."""
    return filled(region, (shape[0], shape[1]))


def placed(plane: Plane, points: Loop) -> NDArray[np.float64]:
    """Points of a plane in patient millimetres, shape (point, 3)."""
    between_rows, between_columns = plane.spacing
    along = np.array(plane.orientation[:3]) * between_columns
    down = np.array(plane.orientation[3:]) * between_rows
    at: NDArray[np.float64] = np.array(plane.position) + points[:, :1] * down + points[:, 1:] * along
    return at


def decimals(points: NDArray[np.float64]) -> bytes:
    """The coordinates to a hundredth of a millimetre."""
    return b"\\".join(b"%.2f" % (value + 0.0) for value in np.round(points.ravel(), 2))


def observed(order: Order, segment: Segment, script: Script) -> Elements:
    """What a region is."""
    return elements(
        script,
        ObservationNumber=segment.number,
        ReferencedROINumber=segment.number,
        RTROIInterpretedType="ORGAN",
        ROIInterpreter=None,
        RTROIIdentificationCodeSequence=[code(segment.type, script)],
    )
