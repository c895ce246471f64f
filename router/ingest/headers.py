"""What the door reads from a data set as it passes: routing facts, and where the pixels lie.

The walker serves explicit VR little endian (compressed or not); pydicom serves everything else, and what the walker
does not understand. A test holds them to the same answer on every real file. Enhanced multi-frame objects give their
geometry from the shared functional groups, else from those of the first frame.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from mmap import mmap
from typing import BinaryIO, cast

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from router.ingest.facts import FRAME_WANTED, ITEM_WANTED, WANTED, Facts, decode
from router.ingest.quiet import MALFORMED, quietly
from router.ingest.walker import (
    FRAME_GROUPS,
    MAX_DEPTH,
    MAX_VALUE,
    PIXEL_TAGS,
    SHORT,
    UNDEFINED,
    Bytes,
    IncompleteError,
    NotParseable,
    UnusualError,
    Walk,
    too_deep,
)

MAX_ELEMENT = 64 << 20
"""Bytes of one element, pixels apart, that pydicom may read into memory."""
MAX_INFLATED = 64 << 20
"""Bytes that are inflated of a deflated data set; a longer one is not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Facts of one data set. The pixels' offset counts from the first byte given; encapsulated ones have no length."""

    facts: Facts
    pixel_offset: int | None = None
    pixel_length: int | None = None

    def text(self, keyword: str) -> str:
        """The fact as one text, several values joined by a backslash as in the file; "" when absent."""
        value = self.facts.get(keyword, "")
        if isinstance(value, str):
            return value
        return "\\".join(map(str, value)) if isinstance(value, list) else str(value)


def read(data: Bytes, transfer_syntax_uid: str, *, start: int = 0) -> Header:
    """The header of a whole data set, which begins at `start` of the bytes and goes on to their end.

    Raises:  NotParseable
    """
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        return replace(deflated(data, start)[0], pixel_offset=None, pixel_length=None)
    if transfer_syntax_uid not in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        try:
            return walk(data, start=start)
        except UnusualError:
            pass
        except IncompleteError as error:
            raise _not_parseable() from error
    return by_pydicom(data, transfer_syntax_uid, start=start)


def deflated(data: Bytes, start: int) -> tuple[Header, bytes]:
    """The header of a deflated data set, and its inflated bytes, from whose first the pixels' offset counts.

    Raises:  NotParseable
    """
    inflated = _inflated(data, start)
    return read(inflated, ExplicitVRLittleEndian), inflated


def walk(data: Bytes, *, start: int = 0) -> Header:
    """The header of a whole explicit VR little endian data set, read from its bytes alone.

    Raises:  UnusualError (pydicom may understand it), IncompleteError, NotParseable
    """
    walk = Walk(data, start)
    walk.run()
    return header_of(walk)


def beginning(data: Bytes) -> Walk | None:
    """The walk up to native pixels over the first bytes of an explicit VR little endian data set, if they suffice."""
    walk = Walk(data)
    try:
        walk.run(whole=False)
    except (UnusualError, IncompleteError, NotParseable):
        return None
    return None if walk.pixel_offset is None or walk.pixel_length is None else walk


def header_of(walk: Walk, *, at: int = 0) -> Header:
    """What was found on a walk over bytes that lie at `at` in their file."""
    facts = decode(walk.found, walk.items, walk.frames, "<")
    offset = None if walk.pixel_offset is None else walk.pixel_offset + at
    return Header(facts=facts, pixel_offset=offset, pixel_length=walk.pixel_length)


def by_pydicom(data: Bytes, transfer_syntax_uid: str, *, start: int = 0) -> Header:
    """The header as pydicom reads it, for every transfer syntax but the deflated one.

    Raises:  NotParseable
    """
    implicit = transfer_syntax_uid == ImplicitVRLittleEndian
    little = transfer_syntax_uid != ExplicitVRBigEndian
    pixels: list[tuple[str | None, int]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if int(tag) in PIXEL_TAGS:
            pixels.append((vr, length))
        return bool(pixels)

    file = _file(data, start)
    try:
        with quietly() as complaints:
            dataset = read_dataset(file, implicit, little, stop_when=at_pixels, defer_size=MAX_ELEMENT)
            found = {tag: value for tag, value in _values(dataset, len(data)) if tag in WANTED}
            items, frames = _items(dataset), _frames(dataset)
    except MALFORMED as error:
        raise _not_parseable() from error
    offset = length = None
    if pixels:
        vr, size = pixels[0]
        offset = file.tell() + (8 if implicit or (vr or "").encode() in SHORT else 12)
        length = None if size == UNDEFINED else size
        if offset + (length or 0) > len(data):
            raise _not_parseable()
    if not found or any(CUT_OFF in complaint for complaint in complaints) or _is_cut_off(dataset, data, pixels):
        raise _not_parseable()
    facts = decode(found, items, frames, "<" if little else ">")
    return Header(facts=facts, pixel_offset=offset, pixel_length=length)


CUT_OFF = "End of file"
"""How pydicom begins what it says about a sequence without an end."""


def _values(dataset: Dataset, size: int) -> Iterator[tuple[int, bytes]]:
    """Tag and value as in the file of every element whose value is a short one.

    Raises:  NotParseable, where a value ends beyond the `size` bytes that there are
    """
    for element in dataset.values():
        if not isinstance(element, RawDataElement) or element.length == UNDEFINED:
            continue
        if element.value_tell + element.length > size:
            raise _not_parseable()
        if element.value is not None and element.length <= MAX_VALUE:
            yield int(element.tag), element.value
        elif element.length == 0:
            yield int(element.tag), b""


def _is_cut_off(dataset: Dataset, data: Bytes, pixels: Sequence[object]) -> bool:
    """Whether the data set ends in the beginning of an element; a few bytes of padding are none."""
    elements = list(dataset.values())
    if pixels or not elements or not isinstance(elements[-1], RawDataElement):
        return False
    return any(bytes(data[elements[-1].value_tell + elements[-1].length :]))


def _items(dataset: Dataset) -> dict[int, list[dict[int, bytes]]]:
    return {
        top: [{tag: value for tag, value in _raw(item) if tag in wanted} for item in items]
        for top, wanted in ITEM_WANTED.items()
        if (items := _sequence(dataset, top))
    }


def _frames(dataset: Dataset) -> dict[int, bytes]:
    """What the functional groups say, the shared ones first."""
    found: dict[int, bytes] = {}
    for group in sorted(FRAME_GROUPS):
        for item in _sequence(dataset, group)[:1]:
            _look_into(item, found, 1)
    return found


def _look_into(item: Dataset, found: dict[int, bytes], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise too_deep()
    values = dict(_raw(item))
    for tag in sorted(map(int, item.keys())):
        if tag in FRAME_WANTED and tag in values:
            found.setdefault(tag, values[tag])
        for inner in _sequence(item, tag):
            _look_into(inner, found, depth + 1)


def _raw(item: Dataset) -> Iterator[tuple[int, bytes]]:
    """Elements of an item; inside sequences an offset counts from somewhere else, so it is not checked."""
    for element in item.values():
        if isinstance(element, RawDataElement) and element.length <= MAX_VALUE:
            yield int(element.tag), element.value or b""


def _sequence(dataset: Dataset, tag: int) -> Sequence[Dataset]:
    """The items of a sequence; none where the element is absent or no sequence."""
    element = dataset.get_item(tag)
    if element is None:
        return ()
    vr = element.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else None)
    return dataset[tag].value or () if vr == "SQ" else ()


def _inflated(data: Bytes, start: int) -> bytes:
    """The beginning of a deflated data set, as far as a header may reach: a bomb does not go off.

    Raises:  NotParseable
    """
    try:
        with memoryview(data) as view, view[start:] as deflated:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, MAX_INFLATED)
    except zlib.error as error:
        raise _not_parseable() from error


def _file(data: Bytes, start: int) -> BinaryIO:
    file = cast(BinaryIO, data) if isinstance(data, mmap) else BytesIO(data)
    file.seek(start)
    return file


def _not_parseable() -> NotParseable:
    return NotParseable(
        "the data set is truncated, or is not what its transfer syntax says",
        remedy="Send the object again; if it stays so, its file at the sender is damaged",
    )
