"""How the header of the last object was laid out: the next slice of a series most often differs in nothing but values.

Its elements then lie where they lay, with the same lengths, so that two calls of `struct` give all that a walk would.
Every byte that is not the value of a first-level element is compared; where one differs the walker reads.
"""

import struct
from collections import deque
from collections.abc import Iterator

from router.ingest import text
from router.ingest.facts import CHARACTER_SET, WANTED, Facts, fact_of, tag_of
from router.ingest.headers import Header, beginning, header_of
from router.ingest.walker import Bytes, Walk

FIXED_VALUES = frozenset({CHARACTER_SET, tag_of("RequestedProcedureDescription")})
"""Values on which it depends how others are read."""
LONGEST = 16384
"""Bytes of a header that is worth remembering."""
REMEMBERED = 4
"""Layouts of one association: decimal strings of a series come in few lengths."""
PATIENCE = 16
"""Headers without one known layout after which an association is not worth the effort."""

Piece = tuple[bool, int | None, int]
"""Part of a header: must its bytes be the same; the tag of the value that it is, if that is a fact; its size."""


class Layout:
    """Where everything lies in one header, and what it said there."""

    __slots__ = ("encodings", "facts", "fixed", "length", "same", "tags", "values", "wanted")

    def __init__(self, walk: Walk, facts: Facts) -> None:
        pieces = list(_pieces(walk))
        self.fixed = struct.Struct("<" + "".join(f"{size}{'s' if fixed else 'x'}" for fixed, _, size in pieces))
        self.wanted = struct.Struct("<" + "".join(f"{size}{'x' if tag is None else 's'}" for _, tag, size in pieces))
        self.tags = [tag for _, tag, _ in pieces if tag is not None]
        self.same = self.fixed.unpack_from(walk.data)
        self.values = self.wanted.unpack_from(walk.data)
        self.length = walk.pixel_length
        self.encodings = text.encodings_of(walk.found.get(CHARACTER_SET, b""))
        self.facts = facts

    def read(self, data: Bytes, *, at: int) -> Header | None:
        """What the walker would say of a header that is laid out like this one; None where it is not.

        `at` is where these bytes lie in the file.
        """
        if len(data) < self.fixed.size or self.fixed.unpack_from(data) != self.same:
            return None
        facts = dict(self.facts)
        for tag, value, known in zip(self.tags, self.wanted.unpack_from(data), self.values, strict=True):
            if value != known:
                facts[WANTED[tag][0]] = fact_of(tag, value, self.encodings, "<")
        return Header(facts=facts, pixel_offset=at + self.fixed.size, pixel_length=self.length)


class Series:
    """Reads the headers of one association's objects, by their layout where that is known."""

    __slots__ = ("layouts", "missed")

    def __init__(self) -> None:
        self.layouts: deque[Layout] = deque(maxlen=REMEMBERED)
        self.missed = 0

    def begins(self, data: Bytes, *, at: int) -> Header | None:
        """The header from the first bytes of an explicit VR little endian data set with native pixels, if they suffice.

        `at` is where these bytes lie in the file, so that the pixels' offset counts from its first byte.
        """
        for number, layout in enumerate(self.layouts):
            header = layout.read(data, at=at)
            if header is not None:
                if number:
                    self.layouts.remove(layout)
                    self.layouts.appendleft(layout)
                self.missed = 0
                return header
        walk = beginning(data)
        if walk is None:
            return None
        header = header_of(walk, at=at)
        if self.missed < PATIENCE:
            self.missed += 1
            self._remember(walk, header.facts)
        return header

    def _remember(self, walk: Walk, facts: Facts) -> None:
        """Keep the layout where each fact is one value: of no functional group, of no element that is there twice."""
        if walk.frames or (walk.pixel_offset or 0) > LONGEST:
            return
        layout = Layout(walk, facts)
        if len(set(layout.tags)) == len(layout.tags):
            self.layouts.appendleft(layout)


def _pieces(walk: Walk) -> Iterator[Piece]:
    """The whole header up to the first byte of the pixels, which has been walked, piece by piece."""
    at = 0
    for tag, begin, end, is_sequence in walk.elements():
        if is_sequence or tag in FIXED_VALUES:
            yield True, None, end - at
        else:
            yield True, None, begin - at
            yield False, tag if tag in walk.found else None, end - begin
        at = end
    yield True, None, (walk.pixel_offset or at) - at
