"""The gate: the last look at a result set before it leaves. It passes whole or not at all.

Every object is read back from its bytes. `check` holds a set against the order it was made for; `inspect` looks at any
objects, by others too, beside whatever source is at hand. Nothing here raises for a fault: all of them are listed.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage

from dicom_sr.checks import attributes, identity, report, segmentation
from dicom_sr.checks.fault import Fault, text
from dicom_sr.kinds import Built, Order
from dicom_sr.problem import Problem
from dicom_sr.source import SourceSeries

__all__ = ["Fault", "GateClosed", "check", "inspect"]


class GateClosed(Problem):
    """A result set contradicts the standard, its source or its findings; nothing of it leaves."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        listed = "; ".join(str(fault) for fault in faults)
        super().__init__(
            f"the result set has {len(faults)} fault{'s' if len(faults) > 1 else ''}: {listed}",
            remedy="Nothing was sent; report this defect of Isocenter or its pipeline with the quarantined objects",
        )
        self.faults = tuple(faults)


def check(objects: Sequence[Built], order: Order) -> None:
    """Let a result set pass, or say everything that is wrong with it.

    Raises:  GateClosed
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's opinion of values that are the source's own
        faults = _faults(objects, order)
    if faults:
        raise GateClosed(faults)


def read(built: Built) -> Dataset:
    """A built object, read back from its bytes."""
    return pydicom.dcmread(BytesIO(built.part10))


def inspect(
    datasets: Sequence[Dataset], *, source: SourceSeries | None = None, related: Iterable[Dataset] = ()
) -> list[Fault]:
    """Every fault of these objects, by whomever; references are followed as far as source and related objects go."""
    faults: list[Fault] = []
    others = [*datasets, *related]
    for dataset in datasets:
        place = text(dataset, "Modality") or "object"
        faults += _alone(dataset, place, ours=False)
        sop_class = text(dataset, "SOPClassUID")
        if source is not None and sop_class == SegmentationStorage:
            faults += segmentation.on_source(dataset, source, None, place)
        if source is not None and sop_class == Comprehensive3DSRStorage:
            faults += report.references(dataset, _known(source, dataset, others), _segs(others), place)
        if source is not None:
            faults += identity.of_source(dataset, source.header, place)
    return faults


def _faults(objects: Sequence[Built], order: Order) -> list[Fault]:
    faults: list[Fault] = []
    datasets: list[tuple[Built, Dataset]] = []
    for built in objects:
        try:
            datasets.append((built, read(built)))
        except (InvalidDicomError, ValueError, EOFError, KeyError, NotImplementedError) as error:
            faults.append(Fault(built.kind, f"cannot be read back: {error}"))
    whole = [dataset for _, dataset in datasets]
    for built, dataset in datasets:
        faults += _of_order(built, dataset, whole, order)
    return faults + list(identity.of_one_set(whole, order))


def _of_order(built: Built, dataset: Dataset, whole: Sequence[Dataset], order: Order) -> Iterator[Fault]:
    """All that one object of an ordered set must be."""
    place, source = built.kind, order.source
    yield from _alone(dataset, place, ours=True)
    yield from identity.of_source(dataset, source.header, place)
    yield from identity.as_ordered(dataset, built, order, place)
    if built.sop_class_uid == SegmentationStorage:
        yield from segmentation.on_source(dataset, source, order.findings, place)
        yield from segmentation.as_found(dataset, order, place)
    elif built.sop_class_uid == Comprehensive3DSRStorage:
        known, segs = _known(source, dataset, whole), _segs(whole)
        yield from report.references(dataset, known, segs, place)
        yield from report.says(dataset, order, segs, place)


def _alone(dataset: Dataset, place: str, *, ours: bool) -> Iterator[Fault]:
    yield from attributes.attributes(dataset, place, ours=ours)
    if text(dataset, "SOPClassUID") == SegmentationStorage and text(dataset, "SegmentationType") == "BINARY":
        yield from segmentation.structure(dataset, place)
    elif text(dataset, "SOPClassUID") in attributes.REPORTS:
        yield from report.structure(dataset, place)


def _segs(datasets: Iterable[Dataset]) -> list[Dataset]:
    return [dataset for dataset in datasets if text(dataset, "SOPClassUID") == SegmentationStorage]


def _known(source: SourceSeries, report_: Dataset, datasets: Iterable[Dataset]) -> dict[str, tuple[str, str]]:
    """What a report may point at: the source's instances and the other objects, with their class and series."""
    series = source.acquisition.series_instance_uid
    known = {plane.sop_instance_uid: (plane.sop_class_uid, series) for plane in source.planes}
    for dataset in datasets:
        if dataset is not report_:
            known[text(dataset, "SOPInstanceUID")] = text(dataset, "SOPClassUID"), text(dataset, "SeriesInstanceUID")
    return known
