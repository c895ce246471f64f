"""The beginning of a stored file, preamble and file meta information: by hand, since it is written every time."""

import struct
from functools import lru_cache
from mmap import mmap

from pydicom.datadict import tag_for_keyword

from dicom_sr.uids import ISOCENTER

Bytes = bytes | bytearray | memoryview | mmap

IMPLEMENTATION_CLASS_UID = f"2.25.{ISOCENTER.int}"
IMPLEMENTATION_VERSION_NAME = "ISOCENTER"
PREAMBLE = bytes(128) + b"DICM"
GROUP_LENGTH_AT = len(PREAMBLE) + 8


def _element(keyword: str, vr: bytes, value: bytes) -> bytes:
    tag = tag_for_keyword(keyword) or 0
    if len(value) % 2:
        value += b"\0" if vr in (b"UI", b"OB") else b" "
    if vr == b"OB":
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


_VERSION = _element("FileMetaInformationVersion", b"OB", b"\0\1")
_IMPLEMENTATION = _element("ImplementationClassUID", b"UI", IMPLEMENTATION_CLASS_UID.encode()) + _element(
    "ImplementationVersionName", b"SH", IMPLEMENTATION_VERSION_NAME.encode()
)


def beginning(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, calling_ae_title: str) -> bytes:
    """All that comes before the data set.

    Source:  PS3.10 7.1 (DICOM File Meta Information)
    """
    before, after = _shared(sop_class_uid, transfer_syntax_uid, calling_ae_title)
    meta = before + _element("MediaStorageSOPInstanceUID", b"UI", sop_instance_uid.encode()) + after
    return PREAMBLE + _element("FileMetaInformationGroupLength", b"UL", struct.pack("<I", len(meta))) + meta


@lru_cache(maxsize=256)
def _shared(sop_class_uid: str, transfer_syntax_uid: str, calling_ae_title: str) -> tuple[bytes, bytes]:
    """What stands before and after the instance's UID, the same for all that one sender sends of a kind."""
    return (
        _VERSION + _element("MediaStorageSOPClassUID", b"UI", sop_class_uid.encode()),
        _element("TransferSyntaxUID", b"UI", transfer_syntax_uid.encode())
        + _IMPLEMENTATION
        + _element("SourceApplicationEntityTitle", b"AE", calling_ae_title.encode("ascii", "replace")),
    )


def dataset_offset(start: Bytes) -> int:
    """Where the data set begins, given at least the first 144 bytes of the file.

    Raises:  struct.error
    Source:  PS3.10 7.1: the group's own length stands first
    """
    (length,) = struct.unpack_from("<I", start, GROUP_LENGTH_AT)
    return int(GROUP_LENGTH_AT + 4 + length)
