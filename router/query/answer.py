"""An answer's identifier as bytes, made by a plan that is laid once for a query.

Text leaves as ASCII where that suffices, else in the character set that the request was written in, else in UTF-8
(ISO_IR 192). It is never opened, decoded or looked up again: the index has all of it.
"""

from collections.abc import Mapping
from typing import Any

from pydicom.datadict import dictionary_VR

from router.domain.matching import InItem, item_matches, items
from router.domain.query import KEYS, UNIQUE
from router.query.elements import IN_CHARACTER_SET, element, encoded, item
from router.query.identifier import CHARACTER_SET, Request, tag_of

UTF_8 = ("ISO_IR 192", "utf-8")
BASIC = ("", "ascii")


class Answer:
    """Writes matches of one query. `retrieve_ae_title` is where they can be had."""

    def __init__(self, request: Request, *, explicit: bool, retrieve_ae_title: str) -> None:
        self.query = query = request.query
        self.explicit = explicit
        self.character_sets = tuple(one for one in (request.character_set, UTF_8) if one)
        unique = [UNIQUE[level] for level in query.root.levels if level <= query.level]
        keywords = {"QueryRetrieveLevel", "RetrieveAETitle", *unique, *query.wanted} - {"SpecificCharacterSet"}
        self.plan = sorted((tag_of(keyword), _vr(keyword), keyword) for keyword in keywords)
        self.same: Mapping[str, str] = {
            "QueryRetrieveLevel": query.level.name,
            "RetrieveAETitle": retrieve_ae_title,
            "InstanceAvailability": "ONLINE",
        }

    def identifier(self, values: Mapping[str, Any]) -> bytes:
        """The identifier of one match."""
        term, codec = self._character_set(values)
        parts = [element(CHARACTER_SET, "CS", term.encode("ascii"), explicit=self.explicit)] if term else []
        for tag, vr, keyword in self.plan:
            value = self.same.get(keyword) or values.get(keyword, "")
            if keyword in self.query.unsupported:
                value = ""
            content = self._items(keyword, value, codec) if vr == "SQ" else encoded(vr, value, codec)
            parts.append(element(tag, vr, content, explicit=self.explicit))
        return b"".join(parts)

    def _character_set(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """The first character set that has every character of this match."""
        words = "".join(_words(values.get(keyword)) for _, vr, keyword in self.plan if vr in WITH_TEXT)
        if words.isascii():
            return BASIC
        return next((one for one in self.character_sets if _can_write(one[1], words)), UTF_8)

    def _items(self, keyword: str, value: Any, codec: str) -> bytes:
        """The items that match, each with the keys that were asked for; all of their keys when none was."""
        match = self.query.conditions.get(keyword)
        found = [one for one in items(value) if not isinstance(match, InItem) or item_matches(match, one)]
        inner = self.query.wanted.get(keyword, ())
        return b"".join(item(self._item(one, inner or tuple(one), codec)) for one in found)

    def _item(self, one: Mapping[str, Any], keywords: tuple[str, ...], codec: str) -> bytes:
        plan = sorted((tag_of(keyword), _vr(keyword), keyword) for keyword in keywords)
        return b"".join(
            element(tag, vr, encoded(vr, one.get(keyword, ""), codec), explicit=self.explicit)
            for tag, vr, keyword in plan
            if vr != "SQ"
        )


WITH_TEXT = IN_CHARACTER_SET | {"SQ"}


def _vr(keyword: str) -> str:
    return KEYS[keyword].vr if keyword in KEYS else str(dictionary_VR(tag_of(keyword)))[:2]


def _words(value: Any) -> str:
    """All text in a value."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "".join(map(_words, value.values()))
    return "".join(map(_words, value)) if isinstance(value, list) else ""


def _can_write(codec: str, words: str) -> bool:
    try:
        words.encode(codec)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
