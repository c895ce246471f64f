"""Frames of a multi-frame object as its functional groups describe them: each encoded group is read once.

Source:  PS3.3 C.7.6.16 (Multi-frame Functional Groups)
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from pydicom.dataset import Dataset

from dicom_sr import lean
from dicom_sr.checks.fault import items, numbers, text
from dicom_sr.elements import element, tag_of

INDICES = struct.pack("<HH2s", tag_of("DimensionIndexValues") >> 16, tag_of("DimensionIndexValues") & 0xFFFF, b"UL")
NUMBERED = element("ReferencedSegmentNumber", 0)[:-2]
"""What stands before the number of a frame's segment."""
NUMBER = struct.Struct("<H").unpack_from
ELEMENT = struct.Struct("<4x2sxxI").unpack_from
"""VR and length of an element with a long header."""

Reference = tuple[str, str, tuple[float, ...]]
"""SOP Class, SOP Instance and frame numbers of a referenced image."""


class FrameOf(NamedTuple):
    """What one frame says of itself; None or () where it does not. `sources` are its derivation's source images."""

    number: int | None = None
    indices: tuple[float, ...] = ()
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    sources: tuple[Reference, ...] = ()
    tile: tuple[float, ...] = ()
    """Row and column of a tile's corner in its whole slide, () elsewhere."""


@dataclass(slots=True, eq=False)
class Group:
    """One functional group of a frame: an element in a data set of its own, and what it says that the gate looks at."""

    dataset: Dataset
    said: dict[str, Any]
    encoded: bytes = b""
    """As it lies in the file, where it was read from there."""


@dataclass(frozen=True, slots=True, eq=False)
class Framed:
    """The frames of an object, and their functional groups: equal ones once, with the number of the first that has it.

    Groups that differ in their dimension indices alone count as one.
    """

    frames: tuple[FrameOf, ...]
    distinct: tuple[tuple[int, Group], ...]
    first: tuple[Group, ...]
    """Those of the first frame."""


class Grouping:
    """Reads functional groups, Explicit VR Little Endian, every length defined: each encoded group once.

    Where all else is as in an earlier frame, only the dimension indices and the segment's number are read anew, and of
    Frame Content only the indices where all before them is as in an earlier frame.
    """

    def __init__(self, common: dict[str, Any]) -> None:
        self.common = common
        self.known: dict[bytes, Group] = {}
        self.distinct: list[tuple[int, Group]] = []
        self.places: dict[tuple[Group, ...], FrameOf] = {}
        """Frames without number and indices, by the groups that are about anything else."""
        self.head, self.size = b"", -1
        """Bytes of Frame Content before its indices, which end it, and of all of it."""
        self.numbers: dict[bytes, set[int]] = {}
        """Segment numbers that were met, by the bytes before them in their group."""
        self.alike: dict[tuple[int, int, int], dict[bytes, tuple[FrameOf, set[int]]]] = {}
        """Frames by the bytes that are neither indices nor number; by where those two lie, and by their length."""

    def of(self, encoded: bytes) -> Framed:
        """The frames in this value of PerFrameFunctionalGroupsSequence.

        Raises:  lean.UnusualError, struct.error
        """
        at, end = 0, len(encoded)
        frames: list[FrameOf] = []
        item = struct.Struct("<4sI").unpack_from
        while at < end:
            word, length = item(encoded, at)
            at += 8
            if word != lean.ITEM or at + length > end:  # an undefined length reaches beyond the end, too
                raise lean.UnusualError
            frame = self._again(encoded, at, length) or self._frame(encoded, at, at + length, len(frames) + 1)
            frames.append(frame)
            at += length
        first = lean.lean_items(encoded[: 8 + item(encoded, 0)[1]])[0]
        return Framed(tuple(frames), tuple(self.distinct), tuple(_group(part) for _, part in first.parts()))

    def _again(self, encoded: bytes, at: int, length: int) -> FrameOf | None:
        """A frame that differs from an earlier one in its indices and its number alone."""
        for (indices, number, whole), alike in self.alike.items():
            if whole != length:
                continue
            rest = encoded[at : at + indices] + encoded[at + indices + self.wide : at + number]
            found = alike.get(rest + encoded[at + number + 2 : at + length])
            if found is not None and (mine := NUMBER(encoded, at + number)[0]) in found[1]:
                return FrameOf(mine, self.values(encoded, at + indices), *found[0][2:])
        return None

    def _frame(self, encoded: bytes, start: int, stop: int, index: int) -> FrameOf:
        number: int | None = self.common.get("number")
        indices: tuple[float, ...] = ()
        place: tuple[Group, ...] = ()
        at, at_indices, at_number, numbers = start, 0, 0, set[int]()
        while at < stop:
            vr, size = ELEMENT(encoded, at)
            size += 12
            if vr != b"SQ" or at + size > stop:
                raise lean.UnusualError
            if size == self.size and encoded.startswith(self.head, at):
                at_indices = at + len(self.head)
                indices = self.values(encoded, at_indices)
                at += size
                continue
            bytes_ = encoded[at : at + size]
            at += size
            group = self.known.get(bytes_)
            if group is None:
                group = self.known[bytes_] = _group(_parsed(bytes_), bytes_)
                self.distinct.append((index, group))
                self._learn(group)
            said = group.said
            if "indices" in said:
                indices = said["indices"]
            elif "number" in said:
                number = said["number"]
                if bytes_[-10:-2] == NUMBERED:
                    at_number, numbers = at - 2, self.numbers.setdefault(bytes_[:-2], set())
            else:
                place = (*place, group)
        base = self.places.get(place)
        if base is None:
            merged = dict(self.common)
            for group in place:
                merged |= group.said
            base = self.places[place] = FrameOf(**merged)
        if at_indices and at_number > at_indices and number is not None:
            numbers.add(number)
            rest = encoded[start:at_indices] + encoded[at_indices + self.wide : at_number]
            rest += encoded[at_number + 2 : stop]
            self.alike.setdefault((at_indices - start, at_number - start, stop - start), {})[rest] = base, numbers
        return FrameOf(number, indices, *base[2:])

    def _learn(self, group: Group) -> None:
        """How to read further groups that differ from this one in their dimension indices alone."""
        at = group.encoded.find(INDICES)
        values = group.said.get("indices", ())
        if at >= 0 and values and group.encoded[at + 8 :] == struct.pack(f"<{len(values)}I", *map(int, values)):
            self.head, self.size, self.wide = group.encoded[: at + 8], len(group.encoded), 4 * len(values)
            self.values = struct.Struct(f"<{len(values)}I").unpack_from
            self.alike.clear()


def _parsed(encoded: bytes) -> Dataset:
    return cast(Dataset, lean.Lean(lean.elements_of(encoded, 0, len(encoded))[0]))


def _group(part: Dataset, encoded: bytes = b"") -> Group:
    return Group(part, _said(part), encoded)


def parts(item: Dataset) -> Iterator[Group]:
    """The item's elements, each in a data set of its own."""
    if isinstance(item, lean.Lean):
        yield from (_group(part) for _, part in item.parts())
        return
    for group in item:
        part = Dataset()
        part.add(group)
        yield _group(part)


def _said(group: Dataset) -> dict[str, Any]:
    """What a functional group says that the gate looks at."""
    said: dict[str, Any] = {}
    for tag in group.keys():  # noqa: SIM118 (not a mapping)
        name, says = SAID.get(int(tag), ("", None))
        found = items(group, name) if says else []
        if says and found:
            said |= says(found)
    return said


def _first(name: str, keyword: str) -> Callable[[list[Dataset]], dict[str, Any]]:
    """The numbers of this attribute in the first item, under this name."""
    return lambda found: {name: numbers(found[0], keyword)}


def _tile(found: list[Dataset]) -> dict[str, Any]:
    named = ("RowPositionInTotalImagePixelMatrix", "ColumnPositionInTotalImagePixelMatrix")
    return {"tile": tuple(number for name in named for number in numbers(found[0], name))}


def _sources(found: list[Dataset]) -> dict[str, Any]:
    return {
        "sources": tuple(
            (
                text(image, "ReferencedSOPClassUID"),
                text(image, "ReferencedSOPInstanceUID"),
                numbers(image, "ReferencedFrameNumber"),
            )
            for part in found
            for image in items(part, "SourceImageSequence")
        )
    }


SAID: dict[int, tuple[str, Callable[[list[Dataset]], dict[str, Any]]]] = {
    tag_of(name): (name, says)
    for name, says in {
        "SegmentIdentificationSequence": lambda found: {"number": found[0].get("ReferencedSegmentNumber")},
        "FrameContentSequence": _first("indices", "DimensionIndexValues"),
        "PlanePositionSequence": _first("position", "ImagePositionPatient"),
        "PlaneOrientationSequence": _first("orientation", "ImageOrientationPatient"),
        "PlanePositionSlideSequence": _tile,
        "DerivationImageSequence": _sources,
    }.items()
}
"""What is read of the items of each functional group."""
