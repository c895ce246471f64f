"""A request's identifier, understood: bytes in, a `Query` or a refusal out.

Source:  PS3.4 C.4.1.1.3.1 (Request Identifier Structure), C.6 (Information Models)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from router.domain.matching import InItem, Match, UnmatchableKeyError, Within, moment, parse
from router.domain.query import ABOUT_THE_ANSWER, KEYS, IdentifierDoesNotMatch, Kind, Level, Query, Root
from router.ingest import text
from router.query.elements import IN_CHARACTER_SET, Elements, UnreadableError, read

MOST_UIDS = 10_000
"""Values of one key; both databases take so many parameters in a statement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What extended negotiation has agreed on for a SOP class (PS3.4 C.5.1.1, C.5.2.1)."""

    relational: bool = False
    moments: bool = False
    every_value: bool = False

    @classmethod
    def of(cls, application_information: bytes) -> "Granted":
        """What we grant of what was asked: all that we can do."""
        asked = application_information.ljust(7, b"\0")
        return cls(relational=asked[0] == 1, moments=asked[1] == 1, every_value=asked[6] == 1)

    def answer(self, application_information: bytes) -> bytes:
        """Our application information, as long as the one that was asked: no fuzzy names, no time zones, and empty
        values matched always."""
        answer = bytes((self.relational, self.moments, 0, 0, 0, 1, self.every_value))
        return answer[: len(application_information)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A query and the character set that its sender has shown to know, as (defined term, Python encoding)."""

    query: Query
    character_set: tuple[str, str] | None


def tag_of(keyword: str) -> int:
    """The tag of a keyword of the standard.

    Raises:  LookupError
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(keyword)
    return int(tag)


CHARACTER_SET = tag_of("SpecificCharacterSet")


def understand(content: bytes, *, explicit: bool, root: Root, granted: Granted) -> Request:
    """The query that these bytes are. Whether its keys suffice is `router.domain.query`'s to check.

    Raises:  IdentifierDoesNotMatch
    """
    try:
        elements = read(content, explicit=explicit)
    except UnreadableError as error:
        raise IdentifierDoesNotMatch(
            f"the identifier cannot be read: {error}", remedy="Send a data set in the agreed transfer syntax"
        ) from None
    return understood(elements, root=root, granted=granted)


def understood(elements: Elements, *, root: Root, granted: Granted) -> Request:
    """The query that these elements are, from wherever they came: C-FIND and QIDO-RS ask alike.

    Raises:  IdentifierDoesNotMatch
    """
    named = dict(_named(elements))
    level = _level(named)
    encodings = _encodings(elements)
    conditions: dict[str, Match] = {}
    wanted: dict[str, tuple[str, ...]] = {}
    for keyword, value in named.items():
        if keyword == "SpecificCharacterSet":
            continue
        wanted[keyword] = tuple(name for name, _ in _named(value[0])) if isinstance(value, list) and value else ()
        if _supported(keyword, level) and KEYS[keyword].kind is not Kind.COUNT:
            match = _match(keyword, value, encodings, granted)
            if match is not None:
                conditions[keyword] = match
    date, time = conditions.get("StudyDate"), conditions.get("StudyTime")
    if granted.moments and isinstance(date, Within) and isinstance(time, Within):
        conditions["StudyDate"] = moment(date, time)
        del conditions["StudyTime"]
    query = Query(
        root=root,
        level=level,
        conditions=conditions,
        wanted=wanted,
        unsupported=frozenset(name for name in wanted if name not in ABOUT_THE_ANSWER and not _supported(name, level)),
    )
    return Request(query=query, character_set=_character_set(elements))


def _named(elements: Elements) -> Iterator[tuple[str, bytes | list[Elements]]]:
    """The elements whose tags the standard names; private ones and group lengths say nothing to us."""
    for tag, value in elements.items():
        keyword = keyword_for_tag(tag)
        if keyword and tag & 0xFFFF:
            yield keyword, value


def _level(named: Mapping[str, bytes | list[Elements]]) -> Level:
    value = named.get("QueryRetrieveLevel", b"")
    name = value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else ""
    if name not in Level.__members__:
        raise IdentifierDoesNotMatch(
            "QueryRetrieveLevel is missing or none of PATIENT, STUDY, SERIES, IMAGE", remedy="Send one of them"
        )
    return Level[name]


def _supported(keyword: str, level: Level) -> bool:
    """Whether the index has this key at this level; a patient's totals are for the patient level alone."""
    key = KEYS.get(keyword)
    if key is None or key.level > level:
        return False
    return not (key.kind is Kind.COUNT and key.level is Level.PATIENT and level is not Level.PATIENT)


def _match(keyword: str, value: bytes | list[Elements], encodings: tuple[str, ...], granted: Granted) -> Match | None:
    """What this key asks for.

    Raises:  IdentifierDoesNotMatch
    """
    vr = KEYS[keyword].vr if keyword in KEYS else str(dictionary_VR(tag_of(keyword)))
    if isinstance(value, list):
        return _in_item(value, encodings, granted) if vr == "SQ" else None
    if vr == "SQ":
        return None
    words = text.decode(value, encodings) if vr in IN_CHARACTER_SET else value.decode("latin_1")
    if words.count("\\") >= MOST_UIDS:
        raise IdentifierDoesNotMatch(f"{keyword}: more than {MOST_UIDS} values", remedy="Ask in several requests")
    several = keyword in KEYS and KEYS[keyword].kind is Kind.SET
    try:
        return parse(vr, words, every=granted.every_value and several)
    except UnmatchableKeyError as error:
        raise IdentifierDoesNotMatch(f"{keyword}: {error}", remedy="See PS3.4 C.2.2.2") from None


def _in_item(items: list[Elements], encodings: tuple[str, ...], granted: Granted) -> InItem | None:
    """What the one item of a sequence asks for (PS3.4 C.2.2.2.6)."""
    keys = []
    for keyword, value in _named(items[0]) if items else ():
        match = _match(keyword, value, encodings, granted)
        if match is not None:
            keys.append((keyword, match))
    return InItem(tuple(keys)) if keys else None


def _encodings(elements: Elements) -> tuple[str, ...]:
    value = elements.get(CHARACTER_SET, b"")
    return text.encodings_of(value if isinstance(value, bytes) else b"")


def _character_set(elements: Elements) -> tuple[str, str] | None:
    """The one character set that the sender uses, where it needs no code extension to be written."""
    value = elements.get(CHARACTER_SET, b"")
    term = value.decode("latin_1").strip("\0 ") if isinstance(value, bytes) else ""
    if not term or "\\" in term or term.startswith("ISO 2022"):
        return None
    return term, _encodings(elements)[0]
