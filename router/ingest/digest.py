"""The three digests of an instance: data set, pixels, identity.

The first two take as long as reading the file, so they are computed off the thread that acknowledges. The data set's
digest covers its bytes as received, without the file meta information; the pixels' digest the bytes of the pixel
data's value: encapsulated ones up to the sequence delimiter, those of a deflated data set inflated.
"""

import hashlib
import struct
from contextlib import suppress
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian

from router.db.versions import Arrival, Digests, InstanceRow
from router.ingest import headers, part10
from router.ingest.facts import Facts
from router.ingest.walker import ITEM, NotParseable

CHUNK = 1 << 20
GROUP = part10.GROUP_LENGTH_AT + 4

BELONGS_TO = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "AccessionNumber")
SEPARATOR = "\x1f"


def identity_digest(facts: Facts) -> str:
    """sha256 over who and what order an instance belongs to: patient, issuer, study, accession."""
    return _digest_of(SEPARATOR.join([str(facts.get(keyword, "")) for keyword in BELONGS_TO]))


@lru_cache(maxsize=256)
def _digest_of(identity: str) -> str:
    """All instances of a study have one."""
    return hashlib.sha256(identity.encode()).hexdigest()


def digests(path: Path, version: int, of: Arrival | InstanceRow) -> Digests:
    """Digests of a stored file's data set and pixels, in one reading.

    Raises:  OSError
    """
    whole, pixels = hashlib.sha256(), hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        start, size = part10.dataset_offset(file.read(GROUP)), file.seek(0, 2)
        begin = end = size
        if of.pixel_offset is not None:
            begin = of.pixel_offset
            end = begin + of.pixel_length if of.pixel_length is not None else fragments_end(file, begin, size)
        _feed(file, start, begin, whole)
        _feed(file, begin, end, whole, pixels)
        _feed(file, end, size, whole)
        if of.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            _feed_deflated(file, start, pixels)
    return Digests(
        sop_instance_uid=of.sop_instance_uid,
        version=version,
        dataset_digest=whole.hexdigest(),
        pixel_digest=pixels.hexdigest(),
    )


def _feed_deflated(file: BinaryIO, start: int, sink: "hashlib._Hash") -> None:
    """Hash the pixels of a deflated data set, as it was read when it was received: within the bound of a header."""
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data, suppress(NotParseable):
        header, inflated = headers.deflated(data, start)
        if header.pixel_offset is not None and header.pixel_length is not None:
            sink.update(memoryview(inflated)[header.pixel_offset : header.pixel_offset + header.pixel_length])


def fragments_end(file: BinaryIO, at: int, size: int) -> int:
    """Where the fragments of encapsulated pixel data end, before their sequence delimiter.

    Source:  PS3.5 A.4
    """
    while at + 8 <= size:
        file.seek(at)
        group, element, length = struct.unpack("<HHI", file.read(8))
        if group << 16 | element != ITEM or at + 8 + length > size:
            break
        at += 8 + length
    return at


def _feed(file: BinaryIO, begin: int, end: int, *sinks: "hashlib._Hash") -> None:
    """Hash the bytes between two offsets, a piece at a time."""
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    file.seek(begin)
    while begin < end:
        got = file.readinto(view[: min(CHUNK, end - begin)])  # type: ignore[attr-defined]
        if not got:
            break
        for sink in sinks:
            sink.update(view[:got])
        begin += got
