"""How results point at what they were made from and at each other; UIDs are quoted as the source wrote them."""

from collections.abc import Iterable, Sequence

from dicom_sr.elements import Elements, elements
from dicom_sr.kinds import Built, Order, Replaced
from dicom_sr.source import Plane, SourceSeries


def instance(plane: Plane, *, frame: bool = False) -> Elements:
    """A reference to the plane's object, and to its frame when asked and there are several (PS3.3 10.3)."""
    reference = elements(ReferencedSOPClassUID=plane.sop_class_uid, ReferencedSOPInstanceUID=plane.sop_instance_uid)
    if frame and plane.number_of_frames > 1:
        reference |= elements(ReferencedFrameNumber=plane.frame)
    return reference


def source_instances(source: SourceSeries) -> list[Elements]:
    """A reference to each object of the series once, in the order of its planes."""
    return [instance(plane) for plane in {plane.sop_instance_uid: plane for plane in source.planes}.values()]


def referenced_series(source: SourceSeries, instances: bytes | None = None) -> Elements:
    """The series with all its objects, as an item of ReferencedSeriesSequence (PS3.3 C.12.2).

    `instances` are their references where they are encoded already.
    """
    return elements(
        SeriesInstanceUID=source.acquisition.series_instance_uid,
        ReferencedInstanceSequence=source_instances(source) if instances is None else instances,
    )


def evidence(order: Order, companions: Sequence[Built]) -> Elements:
    """CurrentRequestedProcedureEvidenceSequence: the source series and each companion (PS3.3 C.17.2)."""
    made: dict[str, list[Elements]] = {}
    series = [
        elements(
            SeriesInstanceUID=order.source.acquisition.series_instance_uid,
            ReferencedSOPSequence=source_instances(order.source),
        )
    ]
    for companion in companions:
        reference = elements(
            ReferencedSOPClassUID=companion.sop_class_uid, ReferencedSOPInstanceUID=companion.sop_instance_uid
        )
        made.setdefault(companion.series_instance_uid, []).append(reference)
    series += [elements(SeriesInstanceUID=uid, ReferencedSOPSequence=several) for uid, several in made.items()]
    study = str(order.source.header.StudyInstanceUID)
    return elements(
        CurrentRequestedProcedureEvidenceSequence=[elements(StudyInstanceUID=study, ReferencedSeriesSequence=series)]
    )


def instances(objects: Iterable[Replaced]) -> list[Elements]:
    """Objects by study and series, as sequences of references to instances want them (PS3.3 C.17.2.1)."""
    studies: dict[str, dict[str, list[Elements]]] = {}
    for one in objects:
        reference = elements(ReferencedSOPClassUID=one.sop_class_uid, ReferencedSOPInstanceUID=one.sop_instance_uid)
        studies.setdefault(one.study_instance_uid, {}).setdefault(one.series_instance_uid, []).append(reference)
    return [
        elements(
            StudyInstanceUID=study,
            ReferencedSeriesSequence=[
                elements(SeriesInstanceUID=uid, ReferencedSOPSequence=references) for uid, references in series.items()
            ],
        )
        for study, series in studies.items()
    ]


def frame_of_reference(order: Order) -> str:
    """The source's frame of reference; one of our own ("frame_of_reference") where the source names none."""
    return order.source.frame_of_reference_uid or order.uid("frame_of_reference", 0)


def delineated(order: Order, number: int) -> tuple[Built, int] | None:
    """The segmentation of the result set in which this segment of the findings lies, and its number there."""
    for built in order.companions:
        if number in built.segments:
            return built, built.segments[number]
    return None


def tracking(order: Order, number: int) -> tuple[str, str]:
    """TrackingID and TrackingUID of a segment, the same in the SEG and in the SR."""
    label = next(segment.label for segment in order.findings.segments if segment.number == number)
    return f"{label} ({order.pipeline})", order.uid("tracking", number)
