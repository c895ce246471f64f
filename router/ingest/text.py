"""Text of DICOM attributes as Unicode, without a complaint: what cannot be decoded is replaced, never refused.

pydicom warns or raises on a character set that a device has misspelt; a receiver must go on.
"""

import re
from functools import lru_cache

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

DEFAULT = "latin_1"
"""ISO_IR 6 is ASCII; devices that send no character set send Latin-1 all the same."""

RESET = re.compile(rb"([\\^=\r\n\f\t])")
"""Delimiters after which the first character set is in force again (PS3.5 6.1.2.5.3)."""

OWN_ESCAPES = frozenset({"iso2022_jp", "iso2022_jp_2"})
"""Encodings of which Python's codec wants to see the escape sequence; for all others it is taken off."""

ESCAPED = re.compile(rb"(?=\x1b)")


@lru_cache(maxsize=256)
def encodings_of(specific_character_set: bytes) -> tuple[str, ...]:
    """Python encodings for a SpecificCharacterSet as it lies in the file; the first is the one in force at first."""
    terms = [term.strip().strip("\0") for term in specific_character_set.decode("latin_1").split("\\")]
    names = tuple(python_encoding.get(_tidy(term), DEFAULT) for term in terms) or (DEFAULT,)
    return tuple(DEFAULT if name == "iso8859" else name for name in names)


def _tidy(term: str) -> str:
    """A defined term from what devices write: ISO-IR 100, ISO IR 100, iso_ir_100."""
    if term in python_encoding:
        return term
    number = term.upper().replace("-", " ").replace("_", " ").split()
    if number[:2] == ["ISO", "IR"] and len(number) == 3:
        return f"ISO_IR {number[2]}"
    if number[:3] == ["ISO", "2022", "IR"] and len(number) == 4:
        return f"ISO 2022 IR {number[3]}"
    return term


def decode(value: bytes, encodings: tuple[str, ...]) -> str:
    """The text of a value in these encodings.

    Source:  PS3.5 6.1.2.5 (Code Extension Techniques)
    """
    if b"\x1b" not in value:
        return _decode(value, encodings[0])
    return "".join(_decode_piece(piece, encodings[0]) for piece in ESCAPED.split(value))


def _decode_piece(piece: bytes, first: str) -> str:
    """What stands between two escape sequences; a delimiter brings the first character set back."""
    for code, encoding in CODES_TO_ENCODINGS.items():
        if piece.startswith(code):
            if encoding in OWN_ESCAPES:
                return _decode(piece, encoding)
            escaped, *rest = RESET.split(piece[len(code) :], maxsplit=1)
            return _decode(escaped, encoding) + "".join(_decode(one, first) for one in rest)
    return _decode(piece, first)


def _decode(value: bytes, encoding: str) -> str:
    try:
        return value.decode(encoding, "replace")
    except LookupError:  # a codec that this Python lacks
        return value.decode(DEFAULT, "replace")
