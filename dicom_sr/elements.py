"""Data elements as bytes, Explicit VR Little Endian, named by keyword: what the writers build objects from.

A data set is a dict of tag and encoded element, so parts made at different times (a header, ten thousand frames'
functional groups made from a template) are joined without ever being objects. Values that are copied from a source are
copied as the bytes that lie there: nothing about their form can make a result fail.

Source:  PS3.5 7.1 (Data Elements), PS3.10 7.1 (File Meta Information)
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from dicom_sr.nouns import Code
from dicom_sr.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

Elements = dict[int, bytes]
"""A data set: tag to the whole encoded element. Later ones replace earlier ones; `joined` sorts."""

Text = Callable[[str], bytes]
"""Encodes text in the character set of the object that is being written."""

Value = str | int | float | bytes | None | Sequence[str] | Sequence[int] | Sequence[float] | Sequence[Elements]

LONG_HEADER = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
IN_CHARACTER_SET = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
BINARY = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H"}


def ascii_text(value: str) -> bytes:
    """Text that needs no character set."""
    return value.encode("ascii")


def elements(text: Text = ascii_text, /, **values: Value) -> Elements:
    """These attributes, by keyword, encoded; None gives an empty element.

    Bytes are taken as the value they are, sequences of data sets become items, other sequences multiple values.
    """
    return {tag_of(keyword): element(keyword, value, text) for keyword, value in values.items()}


def element(keyword: str, value: Value, text: Text = ascii_text) -> bytes:
    """One encoded element."""
    tag, vr = tag_of(keyword), vr_of(keyword)
    return framed(tag, vr, encoded(vr, value, text))


def framed(tag: int, vr: str, value: bytes) -> bytes:
    """The element of this tag with this value, padded to even length."""
    if len(value) & 1:
        value += b"\0" if vr in ("UI", "OB", "UN") else b" "
    if vr in LONG_HEADER:
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def native(length: int) -> bytes:
    """What stands before a value of native Pixel Data of so many bytes."""
    tag = tag_of("PixelData")
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"OB", 0, length)


def encoded(vr: str, value: Value, text: Text) -> bytes:
    """The value field, not yet padded."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return value
    if vr == "SQ":
        return b"".join(item(part) for part in value)  # type: ignore[union-attr, arg-type]
    alone = isinstance(value, str | int | float) or not isinstance(value, Sequence)  # the quick question first
    several: Any = (value,) if alone else value
    if vr in BINARY:
        return struct.pack(f"<{len(several)}{BINARY[vr]}", *several)
    if vr == "AT":
        return b"".join(struct.pack("<HH", int(tag) >> 16, int(tag) & 0xFFFF) for tag in several)
    if vr == "DS":
        return "\\".join(part if isinstance(part, str) else decimal(part) for part in several).encode()
    if vr in IN_CHARACTER_SET:
        return b"\\".join(text(str(part)) for part in several)
    return "\\".join(str(part) for part in several).encode("ascii")


def decimal(value: float) -> str:
    """A number as a decimal string of at most 16 characters, as exact as that allows (PS3.5 6.2, VR DS)."""
    shortest = repr(float(value))
    return shortest if len(shortest) <= 16 else str(format_number_as_ds(float(value)))


def item(content: Elements | bytes) -> bytes:
    """A sequence item of defined length."""
    content = content if isinstance(content, bytes) else joined(content)
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


def joined(content: Mapping[int, bytes]) -> bytes:
    """The elements in the order of their tags."""
    return b"".join(content[tag] for tag in sorted(content))


def code(value: Code, text: Text = ascii_text) -> Elements:
    """A code sequence item (PS3.3 8.8, Basic Code Sequence Macro)."""
    return dict(_plain_code(value)) if value.meaning.isascii() else _code(value, text)


@lru_cache(maxsize=4096)
def _plain_code(value: Code) -> Elements:
    """The same where no character set matters: a report says the same few codes in each group."""
    return _code(value, ascii_text)


def _code(value: Code, text: Text) -> Elements:
    long = len(value.value) > 16
    return elements(
        text,
        **{"LongCodeValue" if long else "CodeValue": value.value},
        CodingSchemeDesignator=value.scheme,
        CodeMeaning=value.meaning,
    )


def coded(keyword: str, value: Code, text: Text = ascii_text) -> bytes:
    """One encoded sequence with this code as its only item."""
    return _plainly_coded(keyword, value) if value.meaning.isascii() else element(keyword, [_code(value, text)])


@lru_cache(maxsize=4096)
def _plainly_coded(keyword: str, value: Code) -> bytes:
    return element(keyword, [_plain_code(value)])


@lru_cache(maxsize=256)
def word(keyword: str, value: str) -> bytes:
    """One encoded element with a word of the standard's own, such as a value type."""
    return element(keyword, value)


def part10(
    content: Mapping[int, bytes],
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
) -> bytes:
    """The whole file in a transfer syntax of explicit VR, little endian (PS3.10 7.1)."""
    meta = joined(
        elements(
            FileMetaInformationVersion=b"\0\1",
            MediaStorageSOPClassUID=sop_class_uid,
            MediaStorageSOPInstanceUID=sop_instance_uid,
            TransferSyntaxUID=str(transfer_syntax_uid),
            ImplementationClassUID=IMPLEMENTATION_CLASS_UID,
            ImplementationVersionName=IMPLEMENTATION_VERSION_NAME,
        )
    )
    head: Iterable[bytes] = (b"\0" * 128, b"DICM", element("FileMetaInformationGroupLength", len(meta)), meta)
    return b"".join((*head, *(content[tag] for tag in sorted(content))))


@cache
def tag_of(keyword: str) -> int:
    """The tag of this keyword."""
    tag: int | None = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(f"{keyword} is no keyword of PS3.6")
    return tag


@cache
def vr_of(keyword: str) -> str:
    """The VR of this keyword."""
    return str(dictionary_VR(tag_of(keyword)))
