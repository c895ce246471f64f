"""A walk over the bytes of an explicit VR little endian data set: 70 elements in some 20 microseconds.

It checks the structure on its way (every length within its parent, sequences to a bounded depth) and keeps what
`facts` wants. Where the bytes are not as they should be it gives up, and pydicom may try.
"""

import struct
from collections.abc import Iterator
from mmap import mmap

from pydicom.tag import ItemDelimiterTag, ItemTag, SequenceDelimiterTag

from dicom_sr.problem import Problem
from router.ingest.facts import FRAME_WANTED, ITEM_WANTED, WANTED, tag_of

Bytes = bytes | bytearray | memoryview | mmap

PIXEL_TAGS = frozenset(map(tag_of, ("FloatPixelData", "DoubleFloatPixelData", "PixelData")))
FRAME_GROUPS = frozenset(map(tag_of, ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")))
ITEM, SEQUENCE_END = int(ItemTag), int(SequenceDelimiterTag)
ITEM_END = struct.pack("<HH", ItemDelimiterTag.group, ItemDelimiterTag.element)
UNDEFINED = 0xFFFFFFFF

MAX_DEPTH = 32
"""Sequences within sequences; clinical objects have about ten levels."""
MAX_VALUE = 65536
"""Bytes of one value that is kept as a fact; longer ones are no header."""

LONG = frozenset(vr.encode() for vr in ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
SHORT = frozenset(
    vr.encode()
    for vr in ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST")
) | {b"TM", b"UI", b"UL", b"US"}

_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_LENGTH = struct.Struct("<I").unpack_from
_DELIMITER = struct.Struct("<HHI").unpack_from


class NotParseable(Problem):
    """Bytes that are no data set in the transfer syntax under which they came."""


class UnusualError(Exception):
    """Not for the walker; pydicom may understand it."""


class IncompleteError(Exception):
    """The bytes end before an element does."""


class Walk:
    """One pass over the elements of a data set; sequences are entered, to a bounded depth, and left behind."""

    __slots__ = ("data", "end", "found", "frames", "items", "pixel_length", "pixel_offset", "start")

    def __init__(self, data: Bytes, start: int = 0) -> None:
        self.data = data
        self.start = start
        self.end = len(data)
        self.found: dict[int, bytes] = {}
        self.items: dict[int, list[dict[int, bytes]]] = {}
        self.frames: dict[int, bytes] = {}
        self.pixel_offset: int | None = None
        self.pixel_length: int | None = None

    def run(self, *, whole: bool = True) -> None:
        """Walk up to the pixel data; with `whole` over it, too, and to the end where there is none.

        Raises:  UnusualError, IncompleteError, NotParseable
        """
        data, end, found = self.data, self.end, self.found
        at = self.start
        while at + 8 <= end:  # the inside of this loop is what a header costs: short elements take no call
            group, element, vr, size = _EXPLICIT(data, at)
            tag = group << 16 | element
            if vr in SHORT:
                at += 8
                if at + size > end:
                    raise IncompleteError
                if tag in WANTED:
                    found[tag] = bytes(data[at : at + size])
                at += size
                continue
            tag, vr, size, at = self._element(at)
            if tag in PIXEL_TAGS:
                self.pixel_offset, self.pixel_length = at, None if size == UNDEFINED else size
                if whole:
                    self._check_pixels(at, size)
                break
            at = self._sequence(at, size, 1, tag) if vr == b"SQ" else self._long(tag, size, at)
        if not (found and (self.pixel_offset or (whole and at == end))):
            raise IncompleteError

    def elements(self) -> Iterator[tuple[int, int, int, bool]]:
        """Tag, where the value begins and ends, and whether it is a sequence, of each first-level element that was
        walked over; the pixel data is not among them."""
        at = self.start
        while at < (self.pixel_offset or self.end):
            tag, vr, size, begin = self._element(at)
            if tag in PIXEL_TAGS:
                return
            at = self._sequence(begin, size, 1, 0) if vr == b"SQ" else begin + size
            yield tag, begin, at, vr == b"SQ"

    def _long(self, tag: int, size: int, at: int) -> int:
        """Where the value of an element with a 32 bit length ends."""
        if size == UNDEFINED:
            raise UnusualError  # UN is implicit VR inside then (PS3.5 6.2.2)
        if at + size > self.end:
            raise IncompleteError
        if tag in WANTED and size <= MAX_VALUE:
            self.found[tag] = bytes(self.data[at : at + size])
        return at + size

    def _check_pixels(self, at: int, size: int) -> None:
        """That the pixel data is all there; what follows it is of no interest."""
        if size == UNDEFINED:
            self._fragments(at)
        elif at + size > self.end:
            raise IncompleteError

    def _element(self, at: int) -> tuple[int, bytes, int, int]:
        """Tag, VR and length of the element at `at`, and where its value begins."""
        try:
            group, element, vr, size = _EXPLICIT(self.data, at)
            if vr in SHORT:
                return group << 16 | element, vr, size, at + 8
            if vr in LONG:
                return group << 16 | element, vr, _LENGTH(self.data, at + 8)[0], at + 12
        except struct.error:
            raise IncompleteError from None
        raise UnusualError

    def _sequence(self, at: int, size: int, depth: int, top: int) -> int:
        """Walk the items of a sequence, to where it ends; `top` is the first-level sequence that we look into, or 0."""
        if depth > MAX_DEPTH:
            raise too_deep()
        end = self.end if size == UNDEFINED else at + size
        if end > self.end:
            raise IncompleteError
        ordinal = 0
        while at < end:
            tag, at, length = self._delimiter(at)
            if tag == SEQUENCE_END and size == UNDEFINED:
                return at
            if tag != ITEM:
                raise UnusualError
            looked_into = top in ITEM_WANTED or (top in FRAME_GROUPS and (depth > 1 or ordinal == 0))
            if depth == 1 and top in ITEM_WANTED:
                self.items.setdefault(top, []).append({})
            at = self._item(at, length, depth, top if looked_into else 0)
            ordinal += 1
        if size == UNDEFINED:
            raise IncompleteError
        if at != end:
            raise UnusualError
        return at

    def _item(self, at: int, size: int, depth: int, top: int) -> int:
        """Walk one item's elements, to where it ends."""
        end = self.end if size == UNDEFINED else at + size
        if end > self.end:
            raise IncompleteError
        while at < end:
            if size == UNDEFINED and self.data[at : at + 4] == ITEM_END:
                return at + 8
            tag, vr, length, at = self._element(at)
            if vr == b"SQ":
                at = self._sequence(at, length, depth + 1, top)
                continue
            if length == UNDEFINED:
                if vr == b"UN":
                    raise UnusualError
                at = self._fragments(at)
                continue
            if at + length > end:
                raise IncompleteError if at + length > self.end else UnusualError
            if top and length <= MAX_VALUE:
                self._notice(top, tag, depth, at, length)
            at += length
        if size == UNDEFINED:
            raise IncompleteError
        return at

    def _notice(self, top: int, tag: int, depth: int, at: int, length: int) -> None:
        """Keep what an item of a sequence that we look into says."""
        if top in ITEM_WANTED:
            if depth == 1 and tag in ITEM_WANTED[top]:
                self.items[top][-1][tag] = bytes(self.data[at : at + length])
        elif tag in FRAME_WANTED:
            self.frames.setdefault(tag, bytes(self.data[at : at + length]))

    def _fragments(self, at: int) -> int:
        """Where encapsulated pixel data ends; an absent delimiter at the very end is forgiven."""
        while at < self.end:
            tag, at, length = self._delimiter(at)
            if tag == SEQUENCE_END:
                return at
            if tag != ITEM:
                raise UnusualError
            if at + length > self.end:
                raise IncompleteError
            at += length
        return at

    def _delimiter(self, at: int) -> tuple[int, int, int]:
        try:
            group, element, length = _DELIMITER(self.data, at)
        except struct.error:
            raise IncompleteError from None
        return group << 16 | element, at + 8, length


def too_deep() -> NotParseable:
    """The refusal of a data set that would exhaust whoever reads it."""
    return NotParseable(
        f"sequences are nested more than {MAX_DEPTH} deep", remedy="Ask the sender's vendor what this object is"
    )
