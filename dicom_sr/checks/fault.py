"""A fault of an object, with its place, and small ways of looking into data sets that may be anything."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence

from dicom_sr import lean
from dicom_sr.elements import tag_of
from dicom_sr.nouns import Code


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: in which object and attribute, and what; never with a patient's name or number."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none where it is absent."""
    return list(dataset.get(keyword) or ())


def text(dataset: Dataset, keyword: str) -> str:
    """The value as text without padding; "" where it is absent."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The values as numbers; () where they are absent."""
    if isinstance(dataset, lean.Lean) and (plain := dataset.decimals(keyword)):
        return plain
    value = dataset.get(keyword)
    if value is None or value == "":
        return ()
    return tuple(float(part) for part in value) if hasattr(value, "append") else (float(value),)


def code_of(dataset: Dataset, keyword: str) -> Code | None:
    """The single code of a code sequence, or None where there is not exactly one with a value."""
    raw = dataset.get_item(tag_of(keyword))
    if isinstance(raw, RawDataElement) and raw.VR == "SQ" and raw.value:
        character_set = dataset._character_set
        encodings = (character_set,) if isinstance(character_set, str) else tuple(character_set or ("iso8859",))
        return _encoded(bytes(raw.value), raw.is_implicit_VR, raw.is_little_endian, encodings)
    return _single(items(dataset, keyword))


@lru_cache(maxsize=4096)
def _encoded(value: bytes, implicit: bool, little_endian: bool, encodings: tuple[str, ...]) -> Code | None:
    """The same, from bytes: the same few hundred codes come again in every group of a report."""
    if not implicit and little_endian:
        return _single(lean.sequence(value, encodings))
    return _single(list(read_sequence(BytesIO(value), implicit, little_endian, len(value), list(encodings))))


def _single(found: list[Dataset]) -> Code | None:
    if len(found) != 1:
        return None
    value = text(found[0], "CodeValue") or text(found[0], "LongCodeValue")
    scheme, meaning = text(found[0], "CodingSchemeDesignator"), text(found[0], "CodeMeaning")
    return Code(value=value, scheme=scheme, meaning=meaning) if value and scheme and meaning else None


def same(first: Code | None, second: Code | None) -> bool:
    """Whether two codes are one concept; the meaning is for people."""
    if first is None or second is None:
        return first is second
    return (first.scheme, first.value) == (second.scheme, second.value)


def expect(place: str, keyword: str, found: Any, wanted: Any) -> Iterator[Fault]:
    """A fault where the value is another than it must be."""
    if found != wanted:
        yield Fault(f"{place}.{keyword}", f"is {found!r}, must be {wanted!r}")


def one_of(place: str, keyword: str, found: str, allowed: Iterable[str]) -> Iterator[Fault]:
    """A fault where the value is none of the enumerated ones."""
    several = tuple(allowed)
    if found not in several:
        yield Fault(f"{place}.{keyword}", f"is {found!r}, must be one of {', '.join(several)}")


def every(dataset: Dataset, keyword: str, place: str) -> Iterator[tuple[str, Dataset]]:
    """The items of a sequence with their places, numbered from 1."""
    for number, item in enumerate(items(dataset, keyword), start=1):
        yield f"{place}.{keyword}[{number}]", item
