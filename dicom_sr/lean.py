"""A data set as its bytes, asked in pydicom's way, for the gate: it reads thousands of items and asks little of each.

Explicit VR Little Endian with defined lengths and tags that rise, as our writers do it; whatever is encoded otherwise
is left to pydicom, and so are values whose form is rare. An element is looked at when it is asked for.

Source:  PS3.5 7.1.2 (Explicit VR), 7.5 (Nesting of Data Sets)
"""

import re
import struct
from collections.abc import Iterator, KeysView, Mapping
from io import BytesIO
from typing import Any, cast

from pydicom.charset import convert_encodings
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from pydicom.valuerep import DSfloat

from dicom_sr.elements import tag_of
from dicom_sr.walk import META, STEP

Encoded = tuple[bytes, bytes]
"""VR and value of an element."""

ITEM = b"\xfe\xff\x00\xe0"
CHARACTER_SET = tag_of("SpecificCharacterSet")
DEFAULT = ("iso8859",)
"""Python's codec where SpecificCharacterSet says nothing."""

_HEAD = struct.Struct("<HH2sH").unpack_from
_LENGTH = struct.Struct("<I").unpack_from
_ITEM = struct.Struct("<4sI").unpack_from

WORDS = frozenset({b"AE", b"AS", b"CS", b"DA", b"DT", b"LO", b"SH", b"TM", b"UI"})
"""VRs of short text, several values apart by a backslash."""
TEXTS = frozenset({b"LT", b"ST", b"UT"})
INTEGERS = {b"US": "H", b"UL": "I", b"SS": "h", b"SL": "i"}
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?").fullmatch
PLAIN = frozenset({b"OB", b"OF", b"OW", b"UN"})

SYNTAXES = (str(ExplicitVRLittleEndian), str(RLELossless))
"""Transfer syntaxes of what we write; in both the data set is in Explicit VR Little Endian."""


class UnusualError(Exception):
    """This is not encoded as our writers do it."""


class Lean:
    """One data set; `get`, `in`, `[]`, `keys` and attributes answer as pydicom's do."""

    __slots__ = ("_character_set", "_elements", "_sequences", "file_meta")

    def __init__(self, elements: Mapping[int, Encoded], character_set: tuple[str, ...] = DEFAULT) -> None:
        self._elements = elements
        self._sequences: dict[int, list[Dataset]] | None = None
        if CHARACTER_SET in elements:
            declared = elements[CHARACTER_SET][1].decode("latin-1").strip(" \0").split("\\")
            character_set = tuple(convert_encodings(declared))
        self._character_set = character_set
        self.file_meta: Any = None

    def get(self, keyword: str, default: Any = None) -> Any:
        """The value of an attribute, None where it is empty and no text."""
        tag = tag_of(keyword)
        found = self._elements.get(tag)
        if found is None:
            return default
        vr, value = found
        if vr != b"SQ":
            return self._value(tag, vr, value)
        if self._sequences is None:
            self._sequences = {}
        if tag not in self._sequences:
            self._sequences[tag] = sequence(value, self._character_set)
        return self._sequences[tag]

    def __contains__(self, name: str | int) -> bool:
        return (tag_of(name) if isinstance(name, str) else name) in self._elements

    def __getattr__(self, keyword: str) -> Any:
        if keyword.startswith("_") or keyword not in self:
            raise AttributeError(keyword)
        return self.get(keyword)

    def __getitem__(self, tag: int) -> DataElement:
        raw = self.get_item(tag)
        if raw is None:
            raise KeyError(tag)
        return convert_raw_data_element(raw, encoding=list(self._character_set))

    def keys(self) -> KeysView[int]:
        """The tags, rising."""
        return self._elements.keys()

    def get_item(self, name: str | int) -> RawDataElement | None:
        """The element as it lies in the file, or None."""
        tag = tag_of(name) if isinstance(name, str) else name
        found = self._elements.get(tag)
        if found is None:
            return None
        return RawDataElement(BaseTag(tag), found[0].decode(), len(found[1]), found[1], 0, False, True)

    def decimals(self, keyword: str) -> tuple[float, ...]:
        """The decimal strings of an attribute as numbers; none where it has another VR or a form that is no such."""
        vr, value = self._elements.get(tag_of(keyword), (b"", b""))
        words = value.decode("latin-1").rstrip(" \0").split("\\") if vr == b"DS" else []
        return tuple(map(float, words)) if all(map(DECIMAL, words)) else ()

    def parts(self) -> Iterator[tuple[int, Dataset]]:
        """The elements, each in a data set of its own."""
        for tag, found in self._elements.items():
            yield tag, cast(Dataset, Lean({tag: found}, self._character_set))

    def _value(self, tag: int, vr: bytes, value: bytes) -> Any:
        if vr in WORDS and value.isascii():
            words = value.decode().rstrip(" \0")
            return words.split("\\") if "\\" in words else words
        if vr in TEXTS and value.isascii():
            return value.decode().rstrip(" \0")
        if vr in INTEGERS and value and len(value) % struct.calcsize(INTEGERS[vr]) == 0:
            numbers = struct.unpack(f"<{len(value) // struct.calcsize(INTEGERS[vr])}{INTEGERS[vr]}", value)
            return numbers[0] if len(numbers) == 1 else list(numbers)
        if vr == b"DS" and (decimals := decimals_of(value)):
            return decimals[0] if len(decimals) == 1 else decimals
        return value if vr in PLAIN else self[tag].value


def decimals_of(value: bytes) -> list[DSfloat]:
    """Decimal strings that have the form that they must have; none where one has not (PS3.5 6.2)."""
    words = value.decode("latin-1").rstrip(" \0").split("\\")
    if not all(DECIMAL(word) for word in words):
        return []
    return [DSfloat(word, validation_mode=IGNORE) for word in words]


def sequence(value: bytes, character_set: tuple[str, ...] = DEFAULT) -> list[Dataset]:
    """The items of a sequence's value, lean where they can be."""
    try:
        return [cast(Dataset, one) for one in lean_items(value, character_set)]
    except (struct.error, UnusualError):
        return list(read_sequence(BytesIO(value), False, True, len(value), list(character_set)))


def lean_items(value: bytes, character_set: tuple[str, ...] = DEFAULT) -> list[Lean]:
    """The same.

    Raises:  UnusualError, struct.error
    """
    at, end, made = 0, len(value), []
    while at < end:
        word, length = _ITEM(value, at)
        at += 8
        if word != ITEM or at + length > end:  # an undefined length reaches beyond the end, too
            raise UnusualError
        made.append(Lean(elements_of(value, at, at + length)[0], character_set))
        at += length
    return made


def elements_of(encoded: bytes, at: int, end: int, until: int = 1 << 32) -> tuple[dict[int, Encoded], int]:
    """VR and value of each element from here to the end or to the tag `until`, and the offset where that is.

    Raises:  UnusualError, struct.error
    """
    found: dict[int, Encoded] = {}
    before = 0
    while at < end:
        group, number, vr, length = _HEAD(encoded, at)
        tag, step = group << 16 | number, STEP.get(vr)
        if tag >= until:
            break
        if step == 12:
            (length,) = _LENGTH(encoded, at + 8)
        elif step is None:
            raise UnusualError
        at += step
        if tag <= before or length & 1 or at + length > end:
            raise UnusualError
        found[tag] = vr, encoded[at : at + length]
        at, before = at + length, tag
    return found, at


def header_of(part10: bytes, until: int) -> tuple[Lean, int]:
    """The data set of a Part 10 file before this tag, with its File Meta Information, and the offset where it ends.

    Raises:  UnusualError, struct.error
    """
    if part10[128:132] != b"DICM":
        raise UnusualError
    found, at = elements_of(part10, 132, len(part10), until)
    meta = Lean({tag: value for tag, value in found.items() if tag >> 16 == META})
    if meta.get("TransferSyntaxUID") not in SYNTAXES:
        raise UnusualError
    header = Lean({tag: value for tag, value in found.items() if tag >> 16 != META})
    header.file_meta = meta
    return header, at
