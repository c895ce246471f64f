"""One object as the gate looks at it: read once, its pixels left where they lie, its frames and content tree once each.

Ten thousand frames repeat the same few hundred functional groups, so each encoded group is read once however many
frames bear it; whatever is encoded in an unusual way is left to pydicom.

Source:  PS3.3 C.7.6.16 (Multi-frame Functional Groups), C.17.3 (SR Document Content); PS3.5 7.5 (Nesting of Data Sets)
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from typing import Any, Protocol

import numpy as np
import pydicom
from imagecodecs import dicomrle_decode
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.filereader import read_dataset
from pydicom.uid import RLELossless

from dicom_sr import codes, pixels
from dicom_sr.checks.fault import Fault, code_of, every, items, numbers, same, text
from dicom_sr.elements import tag_of
from dicom_sr.kinds import Built, Order
from dicom_sr.nouns import Code, Volume
from dicom_sr.source import SourceSeries

ITEM = b"\xfe\xff\x00\xe0"
INDICES = struct.pack("<HH2s", tag_of("DimensionIndexValues") >> 16, tag_of("DimensionIndexValues") & 0xFFFF, b"UL")
PIXELS = struct.pack("<HH", tag_of("PixelData") >> 16, tag_of("PixelData") & 0xFFFF)

VALUES = {
    "TEXT": "TextValue",
    "CODE": "ConceptCodeSequence",
    "UIDREF": "UID",
    "NUM": "MeasuredValueSequence",
    "IMAGE": "ReferencedSOPSequence",
    "COMPOSITE": "ReferencedSOPSequence",
    "WAVEFORM": "ReferencedSOPSequence",
    "CONTAINER": "ContinuityOfContent",
    "SCOORD": "GraphicData",
    "SCOORD3D": "GraphicData",
    "TCOORD": "TemporalRangeType",
    "PNAME": "PersonName",
    "DATETIME": "DateTime",
    "DATE": "Date",
    "TIME": "Time",
}
"""The attribute that holds each value type's value (PS3.3 C.17.3.2)."""

Reference = tuple[str, str, tuple[float, ...]]
"""SOP Class, SOP Instance and frame numbers of a referenced image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameOf:
    """What one frame says of itself; None or () where it does not. `sources` are its derivation's source images."""

    number: int | None
    indices: tuple[float, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    sources: tuple[Reference, ...]
    tile: tuple[float, ...]
    """Row and column of a tile's corner in its whole slide, () elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One functional group of a frame: an element in a data set of its own, and what it says that the gate looks at.

    Groups that differ in their dimension indices alone share the data set of the first of them.
    """

    dataset: Dataset
    said: dict[str, Any]
    encoded: bytes = b""
    """As it lies in the file, where it was read from there."""


@dataclass(slots=True, eq=False)
class Item:
    """A content item with its place; its children likewise."""

    place: str
    dataset: Dataset
    children: list["Item"] = field(default_factory=list)
    name: Code | None = None
    """Its concept name."""
    value_type: str = ""
    """TEXT, CODE, NUM and so on."""

    def all(self) -> Iterator["Item"]:
        """This item and all below it."""
        yield self
        for child in self.children:
            yield from child.all()

    def of(self, name: str) -> list["Item"]:
        """Children of this concept name in `codes.csv`."""
        wanted = codes.find(name)
        return [child for child in self.children if same(child.name, wanted)]

    def words(self, name: str) -> list[str]:
        """Texts, UIDs and code meanings of the children of this name."""
        return [child.words_of for child in self.of(name)]

    @property
    def words_of(self) -> str:
        """Its value as text: a code's meaning, a text, a UID."""
        coded = code_of(self.dataset, "ConceptCodeSequence")
        return coded.meaning if coded else text(self.dataset, VALUES.get(self.value_type, "TextValue"))


def tree(dataset: Dataset, place: str) -> Item:
    """The content tree of a report."""
    children = [tree(child, where) for where, child in every(dataset, "ContentSequence", place)]
    return Item(place, dataset, children, code_of(dataset, "ConceptNameCodeSequence"), text(dataset, "ValueType"))


@dataclass(eq=False)
class Seen:
    """A data set with its place in words, and its native pixels as they lie in its file."""

    dataset: Dataset
    place: str
    pixels: bytes | memoryview = b""
    ours: bool = False

    @cached_property
    def sop_class(self) -> str:
        """What kind of object it is."""
        return text(self.dataset, "SOPClassUID")

    @cached_property
    def run_lengths(self) -> NDArray[Any] | None:
        """Stored values of RLE pixels, flat; None where they are compressed otherwise or are not what is announced.

        imagecodecs is a hundred times as fast as pydicom.
        """
        dataset = self.dataset
        if dataset.file_meta.get("TransferSyntaxUID") != RLELossless:
            return None
        count, size = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows) * int(dataset.Columns)
        wide = np.dtype(f"<u{int(dataset.BitsAllocated) // 8}")
        try:
            frames = list(generate_frames(bytes(self.pixels), number_of_frames=count))
            planes = [np.frombuffer(dicomrle_decode(frame, wide), wide, size) for frame in frames]
        except (RuntimeError, ValueError, struct.error):
            return None
        return np.concatenate(planes) if len(planes) == count else None

    @cached_property
    def root(self) -> Item:
        """Its content tree."""
        return tree(self.dataset, self.place)

    @cached_property
    def groups(self) -> tuple[tuple["Group", ...], ...]:
        """Functional groups of each frame; equal ones are one object."""
        raw = self.dataset.get_item("PerFrameFunctionalGroupsSequence")
        if isinstance(raw, RawDataElement) and raw.value and not raw.is_implicit_VR and raw.is_little_endian:
            try:
                return tuple(_grouped(bytes(raw.value)))
            except (struct.error, _UnusualError):
                pass  # pydicom reads what is encoded otherwise
        return tuple(tuple(_parts(item)) for item in items(self.dataset, "PerFrameFunctionalGroupsSequence"))

    @cached_property
    def shared(self) -> tuple["Group", ...]:
        """Functional groups that all frames share."""
        return tuple(
            part for item in items(self.dataset, "SharedFunctionalGroupsSequence")[:1] for part in _parts(item)
        )

    @cached_property
    def frames(self) -> tuple[FrameOf, ...]:
        """What each frame says of itself, what all share included."""
        common: dict[str, Any] = {}
        for group in self.shared:
            common |= group.said
        made = []
        for frame in self.groups:
            said = dict(common)
            for group in frame:
                said.update(group.said)
            get = said.get
            made.append(
                FrameOf(
                    number=get("number"),
                    indices=get("indices", ()),
                    position=get("position", ()),
                    orientation=get("orientation", ()),
                    sources=get("sources", ()),
                    tile=get("tile", ()),
                )
            )
        return tuple(made)


@dataclass(frozen=True, eq=False)
class Around:
    """What is at hand beside an object: its source, the other objects, and the order that all were made for."""

    source: SourceSeries | None = None
    objects: Sequence[Seen] = ()
    order: Order | None = None
    images: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Further images by SOPInstanceUID: their class and series."""

    @cached_property
    def known(self) -> dict[str, tuple[str, str]]:
        """Class and series of all instances that may be referred to."""
        found = dict(self.images)
        if self.source is not None:
            series = self.source.acquisition.series_instance_uid
            found |= {plane.sop_instance_uid: (plane.sop_class_uid, series) for plane in self.source.planes}
        for one in self.objects:
            dataset = one.dataset
            found[text(dataset, "SOPInstanceUID")] = one.sop_class, text(dataset, "SeriesInstanceUID")
        return found

    @cached_property
    def rejected(self) -> dict[str, tuple[str, str]]:
        """Class and series of the earlier objects that the order's set is to reject."""
        earlier = self.order.supersedes if self.order is not None else None
        objects = earlier.rejected if earlier is not None else ()
        return {one.sop_instance_uid: (one.sop_class_uid, one.series_instance_uid) for one in objects}

    @cached_property
    def volume(self) -> Volume | None:
        """The source's voxels."""
        return None if self.source is None else pixels.load(self.source)


class Checks(Protocol):
    """What a module of this folder exports when it knows a kind of object."""

    SOP_CLASSES: frozenset[str]
    TYPE_1: tuple[str, ...]
    TYPE_2: tuple[str, ...]

    def alone(self, seen: Seen) -> Iterator[Fault]:
        """What must hold of the object in itself, whoever made it."""
        ...

    def beside(self, seen: Seen, around: Around) -> Iterator[Fault]:
        """What must hold of it beside its source and the other objects; with an order, that it says what was found."""
        ...


class _UnusualError(Exception):
    """This is not encoded as writers do it."""


def read(built: Built) -> Seen:
    """A built object, read back from its bytes; native pixels are not copied.

    Raises:  InvalidDicomError, ValueError, EOFError, KeyError, NotImplementedError
    """
    source = BytesIO(built.part10)
    dataset = pydicom.dcmread(source, stop_before_pixels=True)
    at, whole = source.tell(), memoryview(built.part10)
    head = bytes(whole[at : at + 12])
    if len(head) == 12 and head[:4] == PIXELS and head[4:6] in (b"OB", b"OW"):
        length = struct.unpack("<I", head[8:])[0]
        if at + 12 + length == len(whole):
            return Seen(dataset, built.kind, whole[at + 12 :], ours=True)
    dataset = pydicom.dcmread(BytesIO(built.part10))
    return Seen(dataset, built.kind, dataset.get("PixelData") or b"", ours=True)


def _grouped(encoded: bytes) -> Iterator[tuple[Group, ...]]:
    """The functional groups of each item, Explicit VR Little Endian, every length defined."""
    known: dict[bytes, Group] = {}
    at, end = 0, len(encoded)
    item, element = struct.Struct("<4sI").unpack_from, struct.Struct("<4x2sxxI").unpack_from
    while at < end:
        word, length = item(encoded, at)
        at += 8
        stop, found = at + length, []
        if word != ITEM or stop > end:  # an undefined length reaches beyond the end, too
            raise _UnusualError
        while at < stop:
            vr, size = element(encoded, at)
            if vr != b"SQ" or at + 12 + size > stop:
                raise _UnusualError
            bytes_ = encoded[at : at + 12 + size]
            at += 12 + size
            group = known.get(bytes_)
            if group is None:
                group = known[bytes_] = _read(bytes_, known)
            found.append(group)
        yield tuple(found)


def _read(encoded: bytes, known: dict[bytes, Group]) -> Group:
    """One functional group; of those that differ in their dimension indices alone, only these are read."""
    at = encoded.find(INDICES)
    if at < 0:
        return _group(read_dataset(BytesIO(encoded), False, True), encoded)
    (length,) = struct.unpack_from("<H", encoded, at + 6)
    start, stop = at + 8, at + 8 + length
    values = struct.unpack_from(f"<{length // 4}I", encoded, start)
    pattern = b"".join((encoded[:start], bytes(length), encoded[stop:]))
    if pattern not in known:
        first = known[pattern] = _group(read_dataset(BytesIO(encoded), False, True))
        if first.said.get("indices") != values:
            raise _UnusualError  # the bytes that look like indices are something else
        return first
    return Group(known[pattern].dataset, {**known[pattern].said, "indices": values})


def _group(part: Dataset, encoded: bytes = b"") -> Group:
    return Group(part, _said(part), encoded)


def _parts(item: Dataset) -> Iterator[Group]:
    """The item's elements, each in a data set of its own."""
    for element in item:
        part = Dataset()
        part.add(element)
        yield _group(part)


def _said(group: Dataset) -> dict[str, Any]:
    """What a functional group says that the gate looks at."""
    said: dict[str, Any] = {}
    for identified in items(group, "SegmentIdentificationSequence")[:1]:
        said["number"] = identified.get("ReferencedSegmentNumber")
    for content in items(group, "FrameContentSequence")[:1]:
        said["indices"] = numbers(content, "DimensionIndexValues")
    for placed in items(group, "PlanePositionSequence")[:1]:
        said["position"] = numbers(placed, "ImagePositionPatient")
    for turned in items(group, "PlaneOrientationSequence")[:1]:
        said["orientation"] = numbers(turned, "ImageOrientationPatient")
    for tiled in items(group, "PlanePositionSlideSequence")[:1]:
        named = ("RowPositionInTotalImagePixelMatrix", "ColumnPositionInTotalImagePixelMatrix")
        said["tile"] = tuple(number for name in named for number in numbers(tiled, name))
    derived = items(group, "DerivationImageSequence")
    if derived:
        said["sources"] = tuple(
            (
                text(image, "ReferencedSOPClassUID"),
                text(image, "ReferencedSOPInstanceUID"),
                numbers(image, "ReferencedFrameNumber"),
            )
            for part in derived
            for image in items(part, "SourceImageSequence")
        )
    return said
