"""An instance has come again: is it a repeat, a correction or a conflict?

Same data set: repeat. Same pixels in the same geometry, other identity or encoding: correction. Anything else under
one SOPInstanceUID is a conflict. Where the transfer syntaxes differ the decoded pixels are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels
from sqlalchemy import Connection

from router.db import instances
from router.db.versions import Arrival, Digests, InstanceRow, Status
from router.ingest.digest import digests
from router.ingest.quiet import MALFORMED, quietly
from router.store import Store

GEOMETRY = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID",
    "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
"""What gives stored pixels their place and their meaning."""

IDENTITY = (
    "SpecificCharacterSet", "StudyInstanceUID", "SeriesInstanceUID", "StudyID", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "StudyDate", "StudyTime", "StudyDescription", "ReferringPhysicianName",
    "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDs",
    "OtherPatientIDsSequence", "OtherPatientNames", "PatientBirthDate", "PatientBirthTime", "PatientSex", "PatientAge",
    "PatientSize", "PatientWeight", "PatientComments", "RequestAttributesSequence", "OriginalAttributesSequence",
    "InstitutionName", "TimezoneOffsetFromUTC", "ModifiedAttributesSequence",
)  # fmt: skip
"""What an archive corrects; of an object without pixels everything else is its content."""


class Verdict(StrEnum):
    """What an instance is whose UID is known."""

    REPEAT = "repeat"
    RESTORED = "restored"
    CORRECTION = "correction"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The verdict on an arrival, digests included, and what else was computed to reach it."""

    verdict: Verdict
    arrival: Arrival
    computed: tuple[Digests, ...] = ()
    version: InstanceRow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A version that is known: its digests as far as they can be had, and its file if that is there."""

    row: InstanceRow
    digests: Digests | None
    path: Path | None


def compare(arrival: Arrival, known: Sequence[InstanceRow], store: Store) -> Outcome:
    """What an arrival is beside the known versions, the newest first; nothing is written.

    Raises:  OSError
    """
    path = store.path(arrival.path)
    new = digests(path, 0, arrival)
    arrival = replace(arrival, dataset_digest=new.dataset_digest, pixel_digest=new.pixel_digest)
    held = [_held(row, store) for row in known]
    computed = tuple(one.digests for one in held if one.digests and one.row.dataset_digest is None)
    for one in held:
        if one.row.status is not Status.REPLACED and one.digests and is_same(one.row, one.digests, arrival):
            verdict = Verdict.REPEAT if one.path else Verdict.RESTORED
            return Outcome(verdict=verdict, arrival=arrival, computed=computed, version=one.row)
    standing = next((one for one in held if one.row.status in (Status.CURRENT, Status.PURGED)), held[0])
    if not is_correction(standing, arrival, path):
        return Outcome(verdict=Verdict.CONFLICT, arrival=arrival, computed=computed)
    if (
        standing.digests
    ):  # the pixels keep their name, whatever they are encoded in: nothing that was computed runs again
        arrival = replace(arrival, pixel_digest=standing.digests.pixel_digest)
    return Outcome(verdict=Verdict.CORRECTION, arrival=arrival, computed=computed)


def write(connection: Connection, outcome: Outcome) -> None:
    """Write an outcome down, in the transaction that has seen the versions unchanged."""
    instances.set_digests(connection, outcome.computed)
    match outcome.verdict:
        case Verdict.RESTORED if outcome.version is not None:
            status = Status.CONFLICT if outcome.version.status is Status.CONFLICT else Status.CURRENT
            instances.restore(connection, outcome.version.version, outcome.arrival, status)
        case Verdict.CORRECTION:
            instances.record_correction(connection, outcome.arrival)
        case Verdict.CONFLICT:
            instances.record_conflict(connection, outcome.arrival)


def _held(row: InstanceRow, store: Store) -> Held:
    path = store.path(row.path) if store.has(row.path, size=row.size) else None
    if row.dataset_digest is not None and row.pixel_digest is not None:
        known: Digests | None = Digests(
            sop_instance_uid=row.sop_instance_uid,
            version=row.version,
            dataset_digest=row.dataset_digest,
            pixel_digest=row.pixel_digest,
        )
    else:
        known = digests(path, row.version, row) if path else None
    return Held(row=row, digests=known, path=path)


def is_same(row: InstanceRow, known: Digests, arrival: Arrival) -> bool:
    """Whether not a byte differs."""
    return row.transfer_syntax_uid == arrival.transfer_syntax_uid and known.dataset_digest == arrival.dataset_digest


def is_correction(standing: Held, arrival: Arrival, path: Path) -> bool:
    """Whether it has the pixels of the standing version, or that one is gone and cannot be asked."""
    row = standing.row
    if row.sop_class_uid != arrival.sop_class_uid or geometry(row.header) != geometry(arrival.header):
        return False
    if standing.digests and arrival.pixel_offset is not None and standing.digests.pixel_digest == arrival.pixel_digest:
        same_encoding = row.transfer_syntax_uid == arrival.transfer_syntax_uid
        return not same_encoding or _interpretation(row) == _interpretation(arrival)
    if standing.path is None:
        return standing.digests is None or row.transfer_syntax_uid != arrival.transfer_syntax_uid
    if arrival.pixel_offset is None:
        return same_content(standing.path, path)
    return row.transfer_syntax_uid != arrival.transfer_syntax_uid and same_pixels(standing.path, path)


def geometry(header: dict[str, Any]) -> dict[str, Any]:
    """The facts that place the pixels."""
    return {keyword: header[keyword] for keyword in GEOMETRY if header.get(keyword) not in (None, "")}


def _interpretation(of: InstanceRow | Arrival) -> Any:
    return of.header.get("PhotometricInterpretation")


def same_pixels(one: Path, other: Path) -> bool:
    """Whether two files decode to the same pixels, frame by frame; what cannot be decoded is not the same."""
    try:
        with quietly():
            frames = zip(iter_pixels(one), iter_pixels(other), strict=True)
            return all(bool((first == second).all()) for first, second in frames)
    except (RuntimeError, *MALFORMED):
        return False


def same_content(one: Path, other: Path) -> bool:
    """Whether two objects without pixels differ in nothing but identity; what cannot be read is not the same."""
    try:
        with quietly():
            return bool(_content(one) == _content(other))
    except MALFORMED:
        return False


def _content(path: Path) -> Dataset:
    dataset = dcmread(path)
    for keyword in IDENTITY:
        if keyword in dataset:
            del dataset[keyword]
    return dataset
