"""The same data set in Implicit VR Little Endian, which every DICOM node must take; no value is decoded on the way.

An explicit data set is rewritten element by element: only element headers change (and the order of bytes, where it
was big endian), so the oddest value survives. Compressed pixels are decompressed first; nothing is ever compressed, and
no UID changes.

Source:  PS3.5 7.1 (Data Elements), 7.3 (Byte Ordering), 7.5 (Nesting of Data Sets), 10.1 (Default Transfer Syntax)
"""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_sr.problem import Problem

UNDEFINED = 0xFFFFFFFF
ITEM = (0xFFFE, 0xE000)
ITEM_END = (0xFFFE, 0xE00D)
SEQUENCE_END = (0xFFFE, 0xE0DD)
LONG_HEADER = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
WORD = {b"AT": 2, b"OW": 2, b"SS": 2, b"US": 2, b"FL": 4, b"OF": 4, b"OL": 4, b"SL": 4, b"UL": 4}
WORD |= {b"FD": 8, b"OD": 8, b"OV": 8, b"SV": 8, b"UV": 8}
"""Bytes of the words that a value of this VR consists of; one where it is not here (PS3.5 7.3)."""


class CannotTranscode(Problem):
    """The data set cannot be written in Implicit VR Little Endian."""


def to_implicit(part10: bytes, offset: int, transfer_syntax_uid: str) -> bytes:
    """The data set that begins at `offset` of this file, without File Meta Information, Implicit VR Little Endian.

    Raises:  CannotTranscode
    """
    syntax = UID(transfer_syntax_uid)
    if syntax == ImplicitVRLittleEndian:
        return part10[offset:]
    try:
        if syntax == DeflatedExplicitVRLittleEndian:
            return Explicit(view=memoryview(zlib.decompress(part10[offset:], -zlib.MAX_WBITS))).as_implicit()
        if syntax in (ExplicitVRLittleEndian, ExplicitVRBigEndian):
            order = "<" if syntax == ExplicitVRLittleEndian else ">"
            return Explicit(view=memoryview(part10)[offset:], order=order).as_implicit()
        return Explicit(view=memoryview(decompressed(part10))).as_implicit()
    except (struct.error, ValueError, zlib.error, NotImplementedError, RuntimeError, AttributeError) as error:
        raise CannotTranscode(
            f"the data set cannot be written in Implicit VR Little Endian ({type(error).__name__})",
            remedy="Let the far side accept the transfer syntax that the object has",
        ) from error


def decompressed(part10: bytes) -> bytes:
    """The data set of this file with its pixels native, Explicit VR Little Endian."""
    dataset = dcmread(BytesIO(part10))
    dataset.decompress(generate_instance_uid=False)
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = False, True
    write_dataset(out, dataset)
    return bytes(out.getvalue())


@dataclass(frozen=True, slots=True, kw_only=True)
class Explicit:
    """A whole data set in explicit VR, its bytes in this order."""

    view: memoryview
    order: str = "<"

    def as_implicit(self) -> bytes:
        """All of it, Implicit VR Little Endian."""
        content, end = self.elements(0, len(self.view))
        if end != len(self.view):
            raise ValueError("the data set ends before its bytes do")
        return content

    def elements(self, at: int, end: int) -> tuple[bytes, int]:
        """The elements from `at` to `end`, or to an item's delimiter, and where reading stopped."""
        parts: list[bytes] = []
        while at < end:
            tag = self.tag(at)
            if tag == ITEM_END:
                return b"".join(parts), at + 8
            vr, length, value = self.header(at)
            if length != UNDEFINED and value + length > end:
                raise ValueError("a value ends after its data set does")
            if vr == b"SQ":
                stop = end if length == UNDEFINED else value + length
                content, at = self.items(value, stop)
            elif length == UNDEFINED:  # VR UN: its content is implicit already (PS3.5 6.2.2)
                at = self.after_implicit_items(value)
                content = bytes(self.view[value : at - 8])
            else:
                content, at = self.value(vr, value, length), value + length
            if tag[1] != 0:  # group lengths would be wrong now, and are retired (PS3.5 7.2)
                parts += (struct.pack("<HHI", *tag, len(content)), content)
        return b"".join(parts), at

    def tag(self, at: int) -> tuple[int, int]:
        """Group and element number at `at`."""
        group, element = struct.unpack_from(f"{self.order}HH", self.view, at)
        return group, element

    def long(self, at: int) -> int:
        """The length of four bytes at `at`."""
        (length,) = struct.unpack_from(f"{self.order}I", self.view, at)
        return int(length)

    def header(self, at: int) -> tuple[bytes, int, int]:
        """VR, length and place of the value of the element at `at`."""
        vr = bytes(self.view[at + 4 : at + 6])
        if vr in LONG_HEADER:
            return vr, self.long(at + 8), at + 12
        (length,) = struct.unpack_from(f"{self.order}H", self.view, at + 6)
        return vr, length, at + 8

    def value(self, vr: bytes, at: int, length: int) -> bytes:
        """The value field, little endian."""
        content = bytes(self.view[at : at + length])
        if self.order == "<" or vr not in WORD:
            return content
        return np.frombuffer(content, f">u{WORD[vr]}").astype(f"<u{WORD[vr]}").tobytes()

    def items(self, at: int, end: int) -> tuple[bytes, int]:
        """The items of a sequence, each rewritten with its length, and where the sequence stops."""
        parts: list[bytes] = []
        while at < end:
            tag, length = self.tag(at), self.long(at + 4)
            if tag == SEQUENCE_END:
                return b"".join(parts), at + 8
            if tag != ITEM:
                raise ValueError("a sequence holds something that is no item")
            content, at = self.elements(at + 8, end if length == UNDEFINED else at + 8 + length)
            parts += (struct.pack("<HHI", *ITEM, len(content)), content)
        return b"".join(parts), at

    def after_implicit_items(self, at: int) -> int:
        """Where the implicit sequence whose items begin at `at` has ended, its delimiter included."""
        while True:
            tag, length = self.tag(at), self.long(at + 4)
            if tag == SEQUENCE_END:
                return at + 8
            at = self.after_implicit_elements(at + 8) if length == UNDEFINED else at + 8 + length

    def after_implicit_elements(self, at: int) -> int:
        """Where the implicit item whose elements begin at `at` has ended, its delimiter included."""
        while True:
            tag, length = self.tag(at), self.long(at + 4)
            if tag == ITEM_END:
                return at + 8
            at = self.after_implicit_items(at + 8) if length == UNDEFINED else at + 8 + length
