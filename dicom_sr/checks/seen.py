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
from typing import Any, Protocol, cast

import numpy as np
import pydicom
from imagecodecs import dicomrle_decode
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import RLELossless

from dicom_sr import codes, lean, pixels
from dicom_sr.checks.fault import Fault, code_of, every, items, same, text
from dicom_sr.checks.framed import Framed, FrameOf, Group, Grouping, parts
from dicom_sr.elements import tag_of
from dicom_sr.kinds import Built, Order
from dicom_sr.nouns import Code, Volume
from dicom_sr.source import SourceSeries

PIXELS = struct.pack("<HH", tag_of("PixelData") >> 16, tag_of("PixelData") & 0xFFFF)
ENDED = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
"""Sequence Delimitation Item, behind the last fragment."""

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
    def framed(self) -> Framed:
        """Its frames with what each says of itself, what all share included."""
        common: dict[str, Any] = {}
        for group in self.shared:
            common |= group.said
        raw = self.dataset.get_item("PerFrameFunctionalGroupsSequence")
        if isinstance(raw, RawDataElement) and raw.value and not raw.is_implicit_VR and raw.is_little_endian:
            try:
                return Grouping(common).of(bytes(raw.value))
            except (struct.error, lean.UnusualError):
                pass  # pydicom reads what is encoded otherwise
        listed = [tuple(parts(item)) for item in items(self.dataset, "PerFrameFunctionalGroupsSequence")]
        frames = []
        for groups in listed:
            said = dict(common)
            for group in groups:
                said |= group.said
            frames.append(FrameOf(**said))
        distinct = tuple((index, group) for index, groups in enumerate(listed, start=1) for group in groups)
        return Framed(tuple(frames), distinct, listed[0] if listed else ())

    @property
    def frames(self) -> tuple[FrameOf, ...]:
        """What each frame says of itself."""
        return self.framed.frames

    @property
    def for_all(self) -> tuple[Group, ...]:
        """Functional groups that all frames share, and those of the first."""
        return (*self.shared, *self.framed.first)

    @cached_property
    def shared(self) -> tuple[Group, ...]:
        """Functional groups that all frames share."""
        return tuple(part for item in items(self.dataset, "SharedFunctionalGroupsSequence")[:1] for part in parts(item))


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


def read(built: Built) -> Seen:
    """A built object, read back from its bytes; native pixels are not copied.

    Raises:  InvalidDicomError, ValueError, EOFError, KeyError, NotImplementedError
    """
    try:
        header, at = lean.header_of(built.head, tag_of("PixelData"))
        if at == len(built.head) and not built.pixels:
            return Seen(cast(Dataset, header), built.kind, ours=True)
        pixels_ = _native(built, at) or _fragments(built.head, at)
        if pixels_ is not None:
            return Seen(cast(Dataset, header), built.kind, pixels_, ours=True)
    except (struct.error, lean.UnusualError):
        pass  # pydicom reads what is encoded otherwise
    dataset = pydicom.dcmread(BytesIO(built.part10))
    return Seen(dataset, built.kind, dataset.get("PixelData") or b"", ours=True)


def _native(built: Built, at: int) -> memoryview | None:
    """The value of the last element, which begins here, when it is native Pixel Data."""
    head = built.head
    if head[at : at + 4] != PIXELS or head[at + 4 : at + 6] not in (b"OB", b"OW"):
        return None
    (length,) = struct.unpack_from("<I", head, at + 8)
    value = memoryview(built.pixels) if built.pixels and at + 12 == len(head) else memoryview(head)[at + 12 :]
    return value if len(value) == length else None


def _fragments(part10: bytes, at: int) -> bytes | None:
    """The same of encapsulated Pixel Data, without the delimiter (PS3.5 A.4)."""
    undefined = struct.pack("<4s2sHI", PIXELS, b"OB", 0, 0xFFFFFFFF)
    if part10[at : at + 12] != undefined or part10[-8:] != ENDED:
        return None
    return part10[at + 12 : -8]
