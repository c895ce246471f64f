"""The DICOM JSON Model: values of the index and headers of files.

What a header says is passed on as far as JSON can say it: a value that is not what its value representation demands is
left empty, and never stops the rest. Large binary values are named by an address where they can be had.

Source:  PS3.18 annex F (DICOM JSON Model)
"""

import base64
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_sr.problem import Problem
from router.db.holdings import Holding
from router.domain.matching import ONE_VALUE_VRS
from router.ingest.quiet import MALFORMED
from router.query.elements import UNDEFINED
from router.query.identifier import tag_of

Json = dict[str, Any]
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
NUMBERS: Mapping[str, type[int] | type[float]] = {
    **dict.fromkeys(("IS", "SL", "SS", "SV", "UL", "US", "UV"), int),
    **dict.fromkeys(("DS", "FD", "FL"), float),
}
LONGEST_INLINE = 1024
"""Bytes of a binary value that still stands among the others."""
LONGEST_READ = 1 << 16
"""Bytes of a value that is read at once with its header; a longer one stays in the file until it is wanted."""
UTF_8 = "ISO_IR 192"
CHARACTER_SET = tag_of("SpecificCharacterSet")
PIXELS = frozenset(map(tag_of, ("PixelData", "FloatPixelData", "DoubleFloatPixelData")))


class UnreadableObject(Problem):
    """A file of the store is not the DICOM object that the index says."""


def name_of(tag: int) -> str:
    """A tag as JSON names it."""
    return f"{tag:08X}"


def element(vr: str, value: Any) -> Json:
    """An element with a value of the index: text, a number, or a list of them; sequences are lists of items."""
    if vr == "SQ":
        items = [_item(one) for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
        return _with_value(vr, items)
    if isinstance(value, str):
        values: Sequence[Any] = [value] if vr in ONE_VALUE_VRS or not value else value.split("\\")
    else:
        values = value if isinstance(value, list | tuple) else [value]
    return _with_value(vr, [_single(vr, one) for one in values])


def _item(one: Mapping[str, Any]) -> Json:
    return {
        name_of(tag_of(keyword)): element(str(dictionary_VR(tag_of(keyword)))[:2], value)
        for keyword, value in one.items()
    }


def _single(vr: str, value: Any) -> Any:
    """One value, None where it is none."""
    if value is None or value == "":
        return None
    if vr in NUMBERS:
        return _number(NUMBERS[vr], value)
    text = str(value).rstrip("\0 ") if vr == "UI" else str(value)
    return _name(text) if vr == "PN" else text or None


def _number(kind: type[int] | type[float], value: Any) -> int | float | None:
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _name(text: str) -> Json | None:
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
    return {group: words for group, words in groups if words} or None


def _with_value(vr: str, values: list[Any]) -> Json:
    """Values that are none stand as null, so that the others keep their places; none at all is no value."""
    return {"vr": vr, "Value": values} if any(one is not None for one in values) else {"vr": vr}


def read(file: BinaryIO) -> Dataset:
    """The header of an open file, up to its pixels, where the file's position is afterwards.

    Raises:  UnreadableObject, OSError
    """
    try:
        return dcmread(file, stop_before_pixels=True, defer_size=None if isinstance(file, BytesIO) else LONGEST_READ)
    except (*MALFORMED, InvalidDicomError) as error:
        if isinstance(error, OSError):
            raise
        raise UnreadableObject(
            f"a file of the store cannot be read ({type(error).__name__})", remedy="Run `isocenter verify`"
        ) from error


def header(file: BinaryIO, address: Callable[[int], str]) -> bytes:
    """The header of an open file as JSON; `address` says where the value of a tag can be had.

    Raises:  UnreadableObject, OSError
    """
    dataset = read(file)
    said = _dataset(dataset, address)
    if dataset.get_item(CHARACTER_SET) is not None:
        said[name_of(CHARACTER_SET)] = {"vr": "CS", "Value": [UTF_8]}
    pixels = pixels_at(file, dataset)
    if pixels is not None:
        said[name_of(pixels.tag)] = {"vr": pixels.vr, "BulkDataURI": address(pixels.tag)}
    return json.dumps(said, allow_nan=False, separators=(",", ":")).encode()


def uids(one: Holding) -> bytes:
    """What is known of an object whose file cannot be read."""
    known = {
        "SOPClassUID": one.sop_class_uid,
        "SOPInstanceUID": one.sop_instance_uid,
        "StudyInstanceUID": one.study_instance_uid,
        "SeriesInstanceUID": one.series_instance_uid,
    }
    return json.dumps({name_of(tag_of(keyword)): element("UI", uid) for keyword, uid in known.items()}).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelElement:
    """Where the pixels of an open file lie; `length` is None where they are encapsulated. `vr` is as written, or OW."""

    tag: int
    vr: str
    offset: int
    length: int | None


def pixels_at(file: BinaryIO, dataset: Dataset) -> PixelElement | None:
    """The pixel element at which reading has stopped; None where there is none.

    Raises:  OSError
    """
    start = file.tell()
    head = file.read(12)
    implicit, little_endian = dataset.original_encoding
    order = "<" if little_endian is not False else ">"
    if len(head) < 12:
        return None
    group, number = struct.unpack_from(f"{order}HH", head)
    if (tag := group << 16 | number) not in PIXELS:
        return None
    (length,) = struct.unpack_from(f"{order}I", head, 4 if implicit else 8)
    vr = "OW" if implicit else head[4:6].decode("latin_1")
    offset = start + (8 if implicit else 12)
    return PixelElement(tag=tag, vr=vr, offset=offset, length=None if length == UNDEFINED else length)


def _dataset(dataset: Dataset, address: Callable[[int], str] | None) -> Json:
    """Every element but group lengths, which mean nothing outside their file."""
    said: Json = {}
    for tag in sorted(dataset.keys()):
        if tag.element == 0:
            continue
        raw = dataset.get_item(tag)
        vr = vr_of(raw)
        if address is not None and vr in BINARY and _length_of(raw) > LONGEST_INLINE:
            said[name_of(tag)] = {"vr": vr, "BulkDataURI": address(int(tag))}
            continue
        try:
            said[name_of(tag)] = _element(dataset[tag])
        except MALFORMED:
            said[name_of(tag)] = {"vr": vr or "UN"}
    return said


def vr_of(raw: DataElement | RawDataElement | None) -> str:
    """The value representation of an element that need not have been read; looked up where it was implicit."""
    vr = getattr(raw, "VR", None)
    if vr is None and raw is not None:
        try:
            vr = dictionary_VR(raw.tag)
        except KeyError:
            vr = "UN"
    vr = str(vr or "")
    return "OW" if vr == "OB or OW" else vr[:2]


def _length_of(raw: DataElement | RawDataElement | None) -> int:
    if isinstance(raw, RawDataElement):
        return int(raw.length)
    value = raw.value if raw is not None else None
    return len(value) if isinstance(value, bytes) else 0


def _element(found: DataElement) -> Json:
    vr = "OW" if found.VR == "OB or OW" else str(found.VR)[:2]
    if vr == "SQ":
        return _with_value(vr, [_dataset(item, None) for item in found.value])
    value = found.value
    if isinstance(value, bytes):
        return {"vr": vr, "InlineBinary": base64.b64encode(value).decode()} if value else {"vr": vr}
    several = found.VM > 1 and not isinstance(value, str)
    values = list(value) if several else [value]
    if vr == "AT":
        return _with_value(vr, [name_of(int(one)) for one in values if one is not None])
    return _with_value(vr, [_single(vr, one) for one in values])
