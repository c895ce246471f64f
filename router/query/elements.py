"""Identifiers as bytes, both ways: a request is read without a complaint, an answer is written without an object.

A request's identifier is small and comes from anybody, so it is read by a parser that knows nothing but lengths, with
bounded depth. An answer is written some thousand times a second, so it is put together from bytes.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR

Elements = dict[int, bytes | list["Elements"]]
"""A data set: tag -> value as in the stream, or the items of a sequence."""

DEEPEST = 8
MOST_BYTES = 4 << 20
UNDEFINED = 0xFFFFFFFF
LONG_HEADER = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

IN_CHARACTER_SET = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
BINARY = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "UL": "I", "US": "H"}


class UnreadableError(ValueError):
    """The bytes are no data set."""


def read(content: bytes, *, explicit: bool) -> Elements:
    """The elements of a little endian data set.

    Raises:  UnreadableError
    """
    if len(content) > MOST_BYTES:
        raise UnreadableError("an identifier of several megabytes")
    try:
        return _elements(content, 0, len(content), explicit, 0)[0]
    except struct.error:
        raise UnreadableError("the data set is truncated") from None


def _elements(content: bytes, at: int, end: int, explicit: bool, depth: int) -> tuple[Elements, int]:
    if depth > DEEPEST:
        raise UnreadableError("sequences in sequences, too deep")
    found: Elements = {}
    while at < end:
        group, element = struct.unpack_from("<HH", content, at)
        tag = group << 16 | element
        if tag == ITEM_END:
            return found, at + 8
        is_sequence, length, value = _header(content, at, tag, explicit)
        if length != UNDEFINED and value + length > end:
            raise UnreadableError("a value ends after its data set does")
        if is_sequence or length == UNDEFINED:
            found[tag], at = _items(content, value, end if length == UNDEFINED else value + length, explicit, depth)
        else:
            found[tag], at = content[value : value + length], value + length
    return found, at


def _header(content: bytes, at: int, tag: int, explicit: bool) -> tuple[bool, int, int]:
    """Whether the element is a sequence, its length, and where its value begins."""
    if not explicit:
        is_sequence = dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"
        return is_sequence, struct.unpack_from("<I", content, at + 4)[0], at + 8
    vr = content[at + 4 : at + 6]
    if vr in LONG_HEADER:
        return vr == b"SQ", struct.unpack_from("<I", content, at + 8)[0], at + 12
    return False, struct.unpack_from("<H", content, at + 6)[0], at + 8


def _items(content: bytes, at: int, end: int, explicit: bool, depth: int) -> tuple[list[Elements], int]:
    items: list[Elements] = []
    while at < end:
        group, element, length = struct.unpack_from("<HHI", content, at)
        tag = group << 16 | element
        if tag == SEQUENCE_END:
            return items, at + 8
        if tag != ITEM:
            raise UnreadableError("a sequence holds something that is no item")
        stop = end if length == UNDEFINED else at + 8 + length
        if stop > end:
            raise UnreadableError("an item ends after its sequence does")
        item, at = _elements(content, at + 8, stop, explicit, depth + 1)
        items.append(item)
    return items, at


def element(tag: int, vr: str, value: bytes, *, explicit: bool) -> bytes:
    """One element, its value padded to even length; what is too long for its header is cut."""
    if len(value) & 1:
        value += b"\0" if vr == "UI" else b" "
    if not explicit:
        return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value
    if vr.encode() in LONG_HEADER:
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value
    value = value[:0xFFFE]
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def item(content: bytes) -> bytes:
    """One item of a sequence."""
    return struct.pack("<HHI", ITEM >> 16, ITEM & 0xFFFF, len(content)) + content


def encoded(vr: str, value: Any, codec: str) -> bytes:
    """A value of the index as the value field of an element; what does not fit its value representation is empty."""
    if isinstance(value, str):
        if vr in BINARY:
            return b""
        return value.encode(codec if vr in IN_CHARACTER_SET else "ascii", "replace")
    if value is None or isinstance(value, Mapping):
        return b""
    several = value if isinstance(value, Sequence) else (value,)
    if vr in BINARY:
        try:
            return struct.pack(f"<{len(several)}{BINARY[vr]}", *several)
        except struct.error:
            return b""
    return b"\\".join(encoded(vr, one if isinstance(one, str) else _number(one), codec) for one in several)


def _number(value: Any) -> str:
    """A number as at most 16 characters, which IS and DS allow (PS3.5 6.2)."""
    text = repr(value) if isinstance(value, float) else str(value)
    return text if len(text) <= 16 else f"{value:.10g}"
