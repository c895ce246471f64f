"""What a key of a query asks for, and whether a value is that: the matching of PS3.4 C.2.2.2 as a pure decision.

A key's text becomes a `Match`, or None where every entity matches (universal matching). `router.db.catalogue` writes
the same decisions as SQL; a test holds the two and a third, slow matcher together.

Our choices where the standard leaves one (PS3.4 C.2.2.2.1, C.2.2.2.4):
  - names (PN) match whatever their letter case and accents, each component group for itself, trailing delimiters apart;
  - all other text is case-sensitive, its outer blanks not significant;
  - several values of a key other than a UID match any of them, unless multiple value matching was negotiated;
  - a time stands for the whole span that its precision leaves open, so `1015` matches `101559.5`.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
"""Value representations in which * and ? are wild cards (PS3.4 C.2.2.2.4)."""

ONE_VALUE_VRS = frozenset({"LT", "ST", "UT", "UR"})
"""Value representations in which a backslash is a character like any other (PS3.5 6.2)."""

EMPTY = '""'
"""Two quotation marks ask for entities without a value (PS3.4 C.2.2.2.7)."""

LONGEST_KEY = {"PN": 200, "LT": 10240, "ST": 1024, "UT": 10240, "UR": 10240}
"""Characters of one value of a key, 64 where nothing else is said and UIDs apart; nothing longer is matched."""

FOLDED_RANGES = ((0x41, 0x250), (0x370, 0x530), (0x1E00, 0x2000), (0xFF21, 0xFF5B))
"""Letters whose case and accents are not significant in names: Latin, Greek, Cyrillic and full-width Latin."""


class UnmatchableKeyError(ValueError):
    """A key's text cannot be understood as its value representation demands."""


@dataclass(frozen=True, slots=True)
class Exactly:
    """The text itself, outer blanks apart; "" asks for no value."""

    value: str


@dataclass(frozen=True, slots=True)
class Like:
    """Text with wild cards: * for any characters, ? for one."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Named:
    """A person's name, with or without wild cards, without trailing delimiters; several groups are joined by `=`."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Within:
    """A date, time or date time from `low` to `high`, both included; "" leaves that end open."""

    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Moment:
    """StudyDate and StudyTime read together as one moment, from `low` to `high` (PS3.4 C.2.2.2.5); "" is open."""

    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Number:
    """An integer or decimal text of this canonical form, however it is written."""

    value: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of these; a list of UIDs first of all."""

    matches: tuple["Match", ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Each of these matches one of the entity's values (PS3.4 C.2.2.2.8)."""

    matches: tuple["Match", ...]


@dataclass(frozen=True, slots=True)
class InItem:
    """At least one item of a sequence in which all of these hold (PS3.4 C.2.2.2.6)."""

    keys: tuple[tuple[str, "Match"], ...]


Match = Exactly | Like | Named | Within | Moment | Number | AnyOf | AllOf | InItem


def parse(vr: str, text: str, *, every: bool = False) -> Match | None:
    """What a key of this value representation asks for; None when every entity matches.

    With `every` several values must all be there (negotiated multiple value matching) and wild cards are characters.

    Raises:  UnmatchableKeyError
    Source:  PS3.4 C.2.2.2 (Attribute Matching)
    """
    values = [text] if vr in ONE_VALUE_VRS else text.split("\\")
    values = [value.strip("\0 ") for value in values]
    values = [value for value in values if value]
    longest = LONGEST_KEY.get(vr, 64)
    if any(len(value) > longest for value in values):
        raise UnmatchableKeyError(f"a value of more than {longest} characters")
    if every and len(values) > 1 and vr in WILDCARD_VRS:
        return AllOf(tuple(Named(_trimmed(value)) if vr == "PN" else Exactly(value) for value in values))
    matches = [_single(vr, value) for value in dict.fromkeys(values)]
    wanted = [match for match in matches if match is not None]
    if len(wanted) < len(matches) or not wanted:  # one of the values matches everything
        return None
    return wanted[0] if len(wanted) == 1 else AnyOf(tuple(wanted))


def _single(vr: str, value: str) -> Match | None:
    if value == EMPTY:
        return Exactly("")
    if not value.strip("*"):  # meant so by many senders for every VR
        return None
    if vr == "PN":
        pattern = _trimmed(unicodedata.normalize("NFC", value))
        return Named(pattern) if pattern else None
    if vr in WILDCARD_VRS and ("*" in value or "?" in value):
        return Like(value)
    if vr in ("DA", "TM", "DT"):
        return span(vr, value)
    if vr in ("IS", "DS", "US", "SS", "UL", "SL"):
        return Number(canonical(value))
    return Exactly(value)


def _trimmed(name: str) -> str:
    """A name without the delimiters and blanks at the end of each component group, and without empty last groups."""
    return "=".join(group.rstrip("^ ").lstrip(" ") for group in name.split("=")).rstrip("=")


def span(vr: str, text: str) -> Within:
    """The range that a date, time or date time asks for.

    Raises:  UnmatchableKeyError
    Source:  PS3.4 C.2.2.2.5 (Range Matching)
    """
    text = text.replace(" ", "")
    low, high = (text.split("-", 1) if "-" in text else (text, text)) if vr != "DT" else _date_times(text)
    if not low and not high:
        raise UnmatchableKeyError("a range without an end")
    within = Within(_first(vr, low) if low else "", _last(vr, high) if high else "")
    if within.low and within.high and within.low > within.high:
        raise UnmatchableKeyError("a range that ends before it begins")
    return within


OFFSET = r"(?:[+-](?:0\d|1[0-4])\d\d)?"
DATE_TIME = rf"\d{{4,14}}(?:\.\d{{1,6}})?{OFFSET}"


def _date_times(text: str) -> tuple[str, str]:
    """Both ends of a DT, whose offsets from UTC have a hyphen of their own and are left out of account."""
    found = re.fullmatch(rf"({DATE_TIME})?(-)?({DATE_TIME})?", text)
    if not found or (found[1] and found[3] and not found[2]):
        raise UnmatchableKeyError("no date and time")
    low, dash, high = (part or "" for part in found.groups())
    low, high = (re.sub(r"[+-]\d{4}$", "", part) for part in (low, high))
    return (low, high) if dash else (low or high, low or high)


FORMS = {
    "DA": r"\d{8}",
    "TM": r"\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?",
    "DT": r"\d{4}(?:\d{2}(?:\d{2}(?:\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)?)?)?",
}
LATEST = {"DA": "99991231", "TM": "235959.999999", "DT": "99991231235959.999999"}


def _checked(vr: str, text: str) -> str:
    if vr == "DA":
        text = text.replace(".", "")  # as before 1993 (PS3.5 6.2, VR DA, note)
    elif vr == "TM":
        text = text.replace(":", "")
    if not re.fullmatch(FORMS[vr], text, re.ASCII):
        raise UnmatchableKeyError("no date or time")
    return text


def _first(vr: str, text: str) -> str:
    """The earliest text of that time: a value of less precision begins a unit, so `1015` is not before `101500`."""
    text = _checked(vr, text)
    if vr == "DA":
        return text
    whole, _, fraction = text.partition(".")
    if fraction.strip("0"):
        return f"{whole}.{fraction.rstrip('0')}"
    date, time = (whole[:8], whole[8:]) if vr == "DT" else ("", whole)
    while len(time) > (2 if vr == "TM" else 0) and time.endswith("00"):
        time = time[:-2]
    return date + time


def _last(vr: str, text: str) -> str:
    """The latest text of that time, to the microsecond."""
    text = _checked(vr, text)
    if "." in text:
        return text + "9" * (6 - len(text.partition(".")[2]))
    return text + LATEST[vr][len(text) :]


def moment(date: Within, time: Within) -> Moment:
    """A range of dates and one of times as one range of moments: from the first day's time to the last day's.

    Source:  PS3.4 C.2.2.2.5 (combined date-time matching, as negotiated)
    """
    return Moment(date.low and date.low + time.low, date.high and date.high + (time.high or LATEST["TM"]))


def canonical(number: str) -> str:
    """The shortest text of a number as IS and DS write it; what is no number stays as it is."""
    found = re.fullmatch(r"([+-]?)0*(\d+?)(?:\.(\d*?)0*)?", number.strip(), re.ASCII)
    if not found:
        return number.strip()
    sign, whole, fraction = found[1], found[2], found[3]
    text = f"{whole}.{fraction}" if fraction else whole
    return f"-{text}" if sign == "-" and text != "0" else text


@cache
def letter(character: str) -> str:
    """What a letter is in a name when case and accents are not significant; every other character is itself."""
    if not character.isalpha() or not any(low <= ord(character) < high for low, high in FOLDED_RANGES):
        return character
    base = "".join(part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part))
    folded = base.casefold()
    return folded if len(folded) == 1 else character


@cache
def _families() -> dict[str, str]:
    families: dict[str, str] = {}
    for low, high in FOLDED_RANGES:
        for character in map(chr, range(low, high)):
            if character.isalpha():
                families[letter(character)] = families.get(letter(character), "") + character
    return families


def family(character: str) -> str:
    """All characters that are the same letter as this one in a name."""
    return _families().get(letter(character), character)


def folded(name: str) -> str:
    """A name as it is compared."""
    return "".join(map(letter, name))


def spellings(match: Named) -> tuple[str, ...]:
    """The pattern; where it ends in `^*`, also the name that ends before that delimiter: it would mean nothing."""
    pattern = match.pattern
    if pattern.endswith("*") and pattern.rstrip("*").endswith("^"):
        return pattern, pattern.rstrip("*").rstrip("^")
    return (pattern,)


def name_patterns(match: Named) -> tuple[str, ...]:
    """Patterns of which one must fit a whole name: a key of one group may fit any group of the name."""
    before = ("",) if "=" in match.pattern else ("", "*=")
    return tuple(f"{head}{base}{tail}" for base in spellings(match) for head in before for tail in ("", "=*"))


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    return re.compile(
        "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern), re.DOTALL
    )


def matches(match: Match, value: Any) -> bool:
    """Whether a value, several values or items of a sequence as the index keeps them are what is asked for."""
    if isinstance(match, AnyOf):
        return any(matches(one, value) for one in match.matches)
    if isinstance(match, AllOf):
        return all(matches(one, value) for one in match.matches)
    if isinstance(match, InItem):
        return any(item_matches(match, item) for item in items(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return any(_matches(match, text_of(one)) for one in value or [""])
    return _matches(match, text_of(value))


def item_matches(match: InItem, item: Mapping[str, Any]) -> bool:
    """Whether this item is one of those that are asked for."""
    return all(matches(one, item.get(keyword)) for keyword, one in match.keys)


def items(value: Any) -> Iterable[Mapping[str, Any]]:
    """The items of a sequence; what the index keeps in another form has none."""
    if isinstance(value, Mapping):
        return [value]
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def text_of(value: Any) -> str:
    """A value as text; None and absence are no text."""
    return "" if value is None else str(value)


def _matches(match: Match, text: str) -> bool:
    text = text.strip("\0 ")
    if isinstance(match, Exactly):
        return text == match.value
    if isinstance(match, Like):
        return bool(_expression(match.pattern).fullmatch(text))
    if isinstance(match, Named):
        name = folded(text.rstrip("^= "))
        return any(_expression(folded(pattern)).fullmatch(name) for pattern in name_patterns(match))
    if isinstance(match, Within):
        return bool(text) and text >= match.low and (not match.high or text <= match.high)
    if isinstance(match, Number):
        return canonical(text) == match.value
    raise TypeError(f"{type(match).__name__} is no match of a single value")
