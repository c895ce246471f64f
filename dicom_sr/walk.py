"""Element by element through the header of a Part 10 file, by hand: pydicom's parser costs fifteen times as much, and a
series has hundreds of files. Whatever is unusual is left to pydicom, so nothing is guessed here.

Knows Explicit and Implicit VR Little Endian, sequences of defined and undefined length, and encapsulated pixel data.
"""

import os
import struct
from pathlib import Path
from typing import NamedTuple

from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.valuerep import VR

UNDEFINED = 0xFFFFFFFF
"""The length of a value that ends where its delimiter stands (PS3.5 7.1.1)."""

_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
STEP = {str(vr).encode(): 12 if str(vr) in _LONG else 8 for vr in VR if len(str(vr)) == 2}
"""Bytes from an element to its value in Explicit VR, by VR (PS3.5 7.1.2)."""

_EXPLICIT = struct.Struct("<I2sH").unpack_from
_IMPLICIT = struct.Struct("<II").unpack_from
_LENGTH = struct.Struct("<I").unpack_from

FIRST_READ = 8192
"""Bytes read at first; most CT headers are shorter."""
LARGEST_HEADER = 1 << 22
"""Beyond this pydicom may look for the pixels."""


def as_word(tag: int) -> int:
    """A tag as the little endian number that its four bytes make in a file: element before group."""
    return (tag & 0xFFFF) << 16 | tag >> 16


def words(keywords: tuple[str, ...]) -> dict[int, str]:
    """Keywords by the words that stand for them in a file."""
    return {as_word(tag_for_keyword(keyword) or 0): keyword for keyword in keywords}


class Wanted:
    """The attributes a walk is for, and what it has learned on its way.

    In the short form of Explicit VR the first eight bytes of an element say how long it is, and the same few hundred
    such heads come again in every slice: `hops` keeps, by head, the keyword if it is wanted and the value's length.
    """

    KEPT = 20_000

    def __init__(self, keywords: tuple[str, ...]) -> None:
        self.names = words(keywords)
        self.hops: dict[bytes, tuple[str | None, int]] = {}

    def remember(self, head: bytes, name: str | None, length: int) -> None:
        """Keep what this head says; a hostile sender cannot make the memory grow."""
        if len(self.hops) >= self.KEPT:
            self.hops.clear()
        self.hops[head] = (name, length)


class UnusualError(Exception):
    """This file is not one that is walked by hand."""


class Walked(NamedTuple):
    """What a walk finds: raw values by keyword, and the pixel data's word, offset and length, all 0 without it."""

    values: dict[str, bytes]
    transfer_syntax_uid: str
    pixel_word: int
    pixel_offset: int
    pixel_length: int
    size: int


ITEM, ITEM_END, SEQUENCE_END = as_word(0xFFFEE000), as_word(0xFFFEE00D), as_word(0xFFFEE0DD)
"""Item, Item Delimitation and Sequence Delimitation have no keyword (PS3.5 7.5)."""

PIXELS = words(("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
SYNTAX = as_word(tag_for_keyword("TransferSyntaxUID") or 0)
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
"""Deflated Image Frame Compression (PS3.5 8.2.16, PS3.6 table A-1), which pydicom does not know yet."""

KNOWN = frozenset([*map(str, uid.AllTransferSyntaxes), DEFLATED_FRAMES])

META = 0x0002
"""Group of the File Meta Information (PS3.10 7.1)."""


def walk(path: Path, wanted: Wanted) -> Walked:
    """The wanted values of a file and the place of its pixels.

    Raises:  UnusualError, OSError
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size, reach = os.fstat(descriptor).st_size, FIRST_READ
        while True:
            try:
                return walked(os.pread(descriptor, reach, 0), size, wanted)
            except struct.error:
                if reach >= min(size, LARGEST_HEADER):
                    raise UnusualError("cut short") from None
                reach *= 8
    finally:
        os.close(descriptor)


def walked(buffer: bytes, size: int, wanted: Wanted) -> Walked:
    """The walk over the first bytes of a file of this size.

    Raises:  UnusualError, struct.error when the bytes do not reach
    """
    if buffer[128:132] != b"DICM":
        raise UnusualError("no preamble")
    at, syntax = 132, ""
    while True:
        word, vr, length = _EXPLICIT(buffer, at)
        if word & 0xFFFF != META:
            break
        step = STEP.get(vr, 0)
        if step == 12:
            length = _LENGTH(buffer, at + 8)[0]
        at += step or 8
        if word == SYNTAX:
            syntax = buffer[at : at + length].decode("latin-1").rstrip("\0 ")
        at += length
    if syntax == uid.ImplicitVRLittleEndian:
        return implicit(buffer, at, size, wanted, syntax)
    if syntax in (uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian) or syntax not in KNOWN:
        raise UnusualError(syntax)
    return explicit(buffer, at, size, wanted, syntax)


def explicit(buffer: bytes, at: int, size: int, wanted: Wanted, syntax: str) -> Walked:
    """The walk over a data set in Explicit VR Little Endian from this offset on."""
    values: dict[str, bytes] = {}
    hop_of = wanted.hops.get
    while at < size:
        hop = hop_of(buffer[at : at + 8])
        if hop is not None:
            name, length = hop
            at += 8
        else:
            word, vr, length = _EXPLICIT(buffer, at)
            step, name = STEP.get(vr), wanted.names.get(word)
            if step == 8:
                wanted.remember(buffer[at : at + 8], name, length)
                at += 8
            elif step == 12:
                (length,) = _LENGTH(buffer, at + 8)
                at += 12
                if word in PIXELS:
                    return Walked(values, syntax, word, at, length, size)
                if length == UNDEFINED:
                    if name is not None:
                        values[name] = b""
                    at = past_items(buffer, at, vr == b"UN")
                    continue
            else:
                raise UnusualError(f"VR {vr!r}")
        if name is not None:
            values[name] = buffer[at : at + length]
        at += length
    return ended(buffer, at, size, values, syntax)


def implicit(buffer: bytes, at: int, size: int, wanted: Wanted, syntax: str) -> Walked:
    """The walk over a data set in Implicit VR Little Endian from this offset on."""
    values: dict[str, bytes] = {}
    name_of = wanted.names.get
    while at < size:
        word, length = _IMPLICIT(buffer, at)
        at += 8
        if word in PIXELS:
            return Walked(values, syntax, word, at, length, size)
        name = name_of(word)
        if length == UNDEFINED:
            if name is not None:
                values[name] = b""
            at = past_items(buffer, at, True)
            continue
        if name is not None:
            values[name] = buffer[at : at + length]
        at += length
    return ended(buffer, at, size, values, syntax)


def ended(buffer: bytes, at: int, size: int, values: dict[str, bytes], syntax: str) -> Walked:
    """A walk that met no pixel data before the end of its file.

    Raises:  UnusualError, struct.error when the bytes do not reach
    """
    if at != size:
        raise UnusualError("cut short")
    if at > len(buffer):
        raise struct.error
    return Walked(values, syntax, 0, 0, 0, size)


def past_items(buffer: bytes, at: int, is_implicit: bool) -> int:
    """Offset behind a sequence of undefined length whose first item stands here (PS3.5 7.5.2)."""
    while True:
        word, length = _IMPLICIT(buffer, at)
        at += 8
        if word == SEQUENCE_END:
            return at
        if word != ITEM:
            raise UnusualError("no item where one should stand")
        at = past_elements(buffer, at, is_implicit) if length == UNDEFINED else at + length


def past_elements(buffer: bytes, at: int, is_implicit: bool) -> int:
    """Offset behind an item of undefined length whose first element stands here."""
    while True:
        word, vr, length = _EXPLICIT(buffer, at)
        if word == ITEM_END:
            return at + 8
        if is_implicit:
            (length,) = _LENGTH(buffer, at + 4)
            at += 8
        elif STEP.get(vr) == 12:
            (length,) = _LENGTH(buffer, at + 8)
            at += 12
        elif vr in STEP:
            at += 8
        else:
            raise UnusualError(f"VR {vr!r}")
        at = past_items(buffer, at, is_implicit or vr == b"UN") if length == UNDEFINED else at + length
