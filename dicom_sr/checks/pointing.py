"""What objects point at: every reference resolves to an instance of that class, here or in the source."""

from collections.abc import Iterable, Iterator, Mapping

from pydicom.dataset import Dataset

from dicom_sr.checks.fault import Fault, every, text

Pointer = tuple[str, Dataset]
"""An item with ReferencedSOPClassUID and ReferencedSOPInstanceUID, and its place."""


def resolved(pointers: Iterable[Pointer], known: Mapping[str, tuple[str, str]]) -> Iterator[Fault]:
    """A fault for each that points at nothing known, or at another class; nothing where nothing is known."""
    if not known:
        return
    for where, item in pointers:
        uid, sop_class = text(item, "ReferencedSOPInstanceUID"), text(item, "ReferencedSOPClassUID")
        found = known.get(uid)
        if found is None:
            yield Fault(where, f"points at {uid or 'nothing'}, which is not there")
        elif found[0] != sop_class:
            yield Fault(where, f"points at {uid} as another SOP Class than it is")


def evidence(dataset: Dataset, place: str) -> Iterator[tuple[str, str, Dataset]]:
    """Place, SeriesInstanceUID and item of each instance in the evidence (PS3.3 C.17.2.1)."""
    for where, study in every(dataset, "CurrentRequestedProcedureEvidenceSequence", place):
        for there, series in every(study, "ReferencedSeriesSequence", where):
            for here, item in every(series, "ReferencedSOPSequence", there):
                yield here, text(series, "SeriesInstanceUID"), item
