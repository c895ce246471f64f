"""The script of a result object: how our text is encoded in it, and how the source's values are copied into it.

Copies are the bytes that the source holds. Only where our own text needs a character that the source's character set
lacks is the object written in UTF-8, and its copies are decoded and encoded anew.

Source:  PS3.3 C.12.1.1.2 (Specific Character Set), PS3.5 6.1
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.charset import convert_encodings, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicom_sr.elements import BINARY, IN_CHARACTER_SET, Elements, encoded, framed, tag_of

UNICODE = "ISO_IR 192"

ESCAPE = re.compile("\x1b[\x20-\x2f]+[\x30-\x7e]")
"""A change of code elements (ISO 2022); pydicom leaves those of GB 2312 in the text."""

PLAIN = {(term,) for term in python_encoding if term.startswith("ISO_IR 1")} - {("ISO_IR 13",)}
PLAIN |= {("ISO_IR 203",), ("ISO_IR 192",), ("GB18030",), ("GBK",)}
"""Character sets without code extensions in which our own text may go beyond ASCII."""

Terms = tuple[str, ...]
"""Defined terms of SpecificCharacterSet; () for the default repertoire, which is ASCII."""


def terms(dataset: Dataset) -> Terms:
    """The data set's own SpecificCharacterSet."""
    value = dataset.get("SpecificCharacterSet")
    if not value:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(term) for term in value)


@dataclass(frozen=True, slots=True)
class Script:
    """What one object is written in. Called with text, it gives the bytes of that text.

    Raises:  UnicodeEncodeError for text that `source` cannot say, while `unicode` is not set
    """

    source: Terms
    unicode: bool = False

    def __call__(self, text: str) -> bytes:
        """Our text, encoded. Beyond ASCII, character sets with code extensions give way to UTF-8."""
        if self.unicode:
            return text.encode()
        codec = python_encoding.get(self.source[0], "ascii") if len(self.source) == 1 else "ascii"
        return text.encode(codec if self.source[:1] in PLAIN else "ascii")

    def copied(self, dataset: Dataset, keywords: Iterable[str]) -> Elements:
        """These attributes of the source, as it holds them; absent ones are left out."""
        return dict(self._each(dataset, [BaseTag(tag_of(keyword)) for keyword in keywords], self.source))

    def _each(self, dataset: Dataset, tags: Iterable[BaseTag], inherited: Terms) -> Iterator[tuple[int, bytes]]:
        for tag in tags:
            if tag in dataset:
                yield int(tag), self._copy(dataset, tag, inherited)

    def _copy(self, dataset: Dataset, tag: BaseTag, inherited: Terms) -> bytes:
        """One element, encoded anew only where it must be: sequences, byte order, and text in another script."""
        raw = dataset.get_item(tag)
        vr = vr_of(tag, raw)
        if vr == "SQ":
            items = [self._item(part, inherited) for part in dataset[tag].value or ()]
            return framed(tag, vr, encoded(vr, items, str.encode))
        if vr in BINARY or vr == "AT":
            return framed(tag, vr, encoded(vr, plain(dataset[tag].value), str.encode))
        if self.unicode and vr in IN_CHARACTER_SET:
            return framed(tag, vr, decoded(dataset, tag).encode())
        return framed(tag, vr, as_read(raw, inherited))

    def _item(self, part: Dataset, inherited: Terms) -> Elements:
        tags = [tag for tag in part.keys() if not (self.unicode and tag == tag_of("SpecificCharacterSet"))]  # noqa: SIM118
        return dict(self._each(part, tags, terms(part) or inherited))


def vr_of(tag: BaseTag, raw: DataElement | RawDataElement | Any) -> str:
    """The VR that the dictionary knows, else the one that the element came with."""
    try:
        known = str(dictionary_VR(tag))
    except KeyError:
        known = "or"
    return str(raw.VR or "UN") if "or" in known else known


def as_read(raw: DataElement | RawDataElement | Any, character_set: Terms) -> bytes:
    """The value as bytes: those of the file while pydicom has not converted them, else the same text again."""
    if isinstance(raw, RawDataElement):
        return bytes(raw.value or b"")
    value = plain(raw.value)
    several = value if isinstance(value, list) else [value]
    return b"\\".join(_again(part, character_set) for part in several if part is not None)


def _again(part: Any, character_set: Terms) -> bytes:
    """One value that pydicom has converted, as the bytes it was made from."""
    if isinstance(part, bytes):
        return part
    original = getattr(part, "original_string", None)
    if isinstance(original, bytes):
        return original
    text = original if isinstance(original, str) else str(part)
    if text.isascii():
        return text.encode()
    if hasattr(part, "components") and len(character_set) > 1:
        return bytes(part.encode(convert_encodings(list(character_set))))
    codec = python_encoding.get(character_set[0], "latin-1") if character_set else "latin-1"
    return text.encode("latin-1" if codec == "iso8859" else codec, "replace")


def decoded(dataset: Dataset, tag: BaseTag) -> str:
    """Text of the source; a byte that its character set does not know is replaced, never a reason to fail."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = plain(dataset[tag].value)
        several = value if isinstance(value, list) else [value]
        text = "\\".join(str(part) for part in several if part is not None).rstrip(" \0")
        return ESCAPE.sub("", text)


def plain(value: Any) -> Any:
    """Several values as a list, one as it is."""
    return list(value) if hasattr(value, "append") else value
