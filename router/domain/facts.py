"""Facts of a series: what all its instances say together, and not one file of them.

An instance's header is JSON: keyword -> value, list of values, list of items (a sequence), or null. A fact is looked
up at the top level, then in the shared, then in the per-frame functional groups; a sequence's attributes are reached
by a path (`RequestAttributesSequence.ScheduledProcedureStepDescription`). By itself it is its codes as "value:scheme",
or how many items it has where they are no codes.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Scalar = str | int | float | bool
Header = Mapping[str, Any]

MOST_VALUES = 64
"""Distinct values kept of one fact; numbers beyond that keep their range, texts their first ones."""

SHARED = "SharedFunctionalGroupsSequence."
PER_FRAME = "PerFrameFunctionalGroupsSequence."


class Spread(StrEnum):
    """How a fact varies over the instances of a series."""

    ABSENT = "absent"
    CONSTANT = "constant"
    SET = "set"
    RANGE = "range"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One keyword over all instances.

    `values` are distinct, in the order in which they were met; a multi-valued attribute gives each of its values.
    `lowest` and `highest` span all numbers, also those that `values` had no room for. `missing` counts the instances
    without it, `origin` says where it was found.
    """

    keyword: str
    values: tuple[Scalar, ...] = ()
    spread: Spread = Spread.ABSENT
    lowest: float | None = None
    highest: float | None = None
    missing: int = 0
    origin: str = "nowhere"
    _text: str | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The fact as a person reads it; written once, however many rules show it."""
        if self._text is None:
            object.__setattr__(self, "_text", self._written())
        return self._text or ""

    def _written(self) -> str:
        if self.spread is Spread.ABSENT:
            return "absent"
        if self.spread is Spread.RANGE:
            return f"{self.lowest:g} to {self.highest:g}"
        return ", ".join(map(_word, self.values))

    def as_json(self) -> dict[str, Any]:
        """The fact as the database keeps it."""
        kept: dict[str, Any] = {"values": list(self.values), "spread": str(self.spread), "origin": self.origin}
        if self.lowest is not None:
            kept |= {"lowest": self.lowest, "highest": self.highest}
        return kept | ({"missing": self.missing} if self.missing else {})


Facts = Mapping[str, Fact]


def restore(kept: Mapping[str, Any]) -> dict[str, Fact]:
    """Facts as they were, from the JSON that the database kept of them."""
    return {keyword: restored(keyword, one) for keyword, one in kept.items()}


def restored(keyword: str, kept: Mapping[str, Any]) -> Fact:
    """One fact as it was."""
    return Fact(
        keyword=keyword,
        values=tuple(kept["values"]),
        spread=Spread(kept["spread"]),
        lowest=kept.get("lowest"),
        highest=kept.get("highest"),
        missing=kept.get("missing", 0),
        origin=kept["origin"],
    )


def aggregate(headers: Iterable[Header]) -> dict[str, Fact]:
    """What these instances say together; keywords that no instance has a value for are left out."""
    counted = 0
    values: dict[str, dict[Scalar, None]] = {}
    seen_in: dict[str, int] = {}
    origins: dict[str, set[str]] = {}
    for header in headers:
        counted += 1
        for keyword, (found, origin) in flatten(header).items():
            values.setdefault(keyword, {}).update(dict.fromkeys(found))
            seen_in[keyword] = seen_in.get(keyword, 0) + 1
            origins.setdefault(keyword, set()).add(origin)
    return {
        keyword: _fact(keyword, tuple(found), counted - seen_in[keyword], counted, origins[keyword])
        for keyword, found in values.items()
    }


def union(facts: Iterable[Facts], *, only: Collection[str] | None = None) -> dict[str, Fact]:
    """What several series say together: the facts of their study, or `only` these of them."""
    parts = list(facts)
    merged: dict[str, dict[Scalar, None]] = {}
    for part in parts:
        for keyword in part if only is None else only:
            fact = part.get(keyword)
            if fact is None:
                continue
            merged.setdefault(keyword, {}).update(dict.fromkeys(fact.values))
    return {
        keyword: _spanned(
            _fact(keyword, tuple(values), 0, len(parts), {f"{len(parts)} series"}),
            [part[keyword] for part in parts if keyword in part],
        )
        for keyword, values in merged.items()
    }


def derived(keyword: str, value: Scalar | Iterable[Scalar] | None, origin: str) -> Fact:
    """A fact that was worked out and stands in no header."""
    values = () if value is None else (value,) if isinstance(value, Scalar) else tuple(dict.fromkeys(value))
    return _fact(keyword, values, 0, 0, {origin})


def number(value: Scalar) -> float | None:
    """The number that a value is, also when it stands as text (a DS or IS); None when it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if value == value else None


def flatten(header: Header) -> dict[str, tuple[tuple[Scalar, ...], str]]:
    """Keyword or path -> (values, where they were found), for every attribute of one header that has a value."""
    flat: dict[str, tuple[tuple[Scalar, ...], str]] = {}
    nested: dict[str, list[Scalar]] = {}
    for keyword, value in header.items():
        if value is None or value == "" or value == []:
            continue
        if isinstance(value, Mapping) or (isinstance(value, list) and isinstance(value[0], Mapping)):
            for path, scalar in _walk(keyword, value):
                nested.setdefault(path, []).append(scalar)
        else:
            scalars = tuple(_scalars(value))
            if scalars:
                flat[keyword] = (scalars, "header")
    for origin, prefix in (("shared functional groups", SHARED), ("per-frame functional groups", PER_FRAME)):
        for path, found in nested.items():
            if path.startswith(prefix):
                flat.setdefault(path.rpartition(".")[2], (tuple(dict.fromkeys(found)), origin))
    for path, found in nested.items():
        if not path.startswith((SHARED, PER_FRAME)):
            flat.setdefault(path, (tuple(dict.fromkeys(found)), "sequence"))
    return flat


def _walk(path: str, value: Any) -> Iterator[tuple[str, Scalar]]:
    items = [value] if isinstance(value, Mapping) else value
    coded = any(item.get("CodeValue") for item in items)
    if not coded:
        yield path, len(items)
    for item in items:
        if item.get("CodeValue"):
            yield path, f"{item['CodeValue']}:{item.get('CodingSchemeDesignator') or ''}"
        for keyword, inner in item.items():
            if isinstance(inner, Mapping) or (isinstance(inner, list) and inner and isinstance(inner[0], Mapping)):
                yield from _walk(f"{path}.{keyword}", inner)
            elif inner is not None:
                for scalar in _scalars(inner):
                    yield f"{path}.{keyword}", scalar


def _scalars(value: Any) -> Iterator[Scalar]:
    """Each single value, texts without their outer blanks; empty values of a multi-valued attribute say nothing."""
    if isinstance(value, str):
        stripped = value.strip(" \x00")
        if stripped:
            yield stripped
    elif isinstance(value, Scalar):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _scalars(one)


def _fact(keyword: str, values: tuple[Scalar, ...], missing: int, counted: int, origins: set[str]) -> Fact:
    if not values:
        return Fact(keyword=keyword, missing=missing)
    numbers = [found for found in map(number, values) if found is not None]
    numeric = len(numbers) == len(values)
    if len(values) == 1:
        spread = Spread.CONSTANT
    else:
        spread = Spread.RANGE if numeric and len(values) > 3 else Spread.SET
    where = " and ".join(sorted(origins))
    return Fact(
        keyword=keyword,
        values=values[:MOST_VALUES],
        spread=spread,
        lowest=min(numbers) if numeric else None,
        highest=max(numbers) if numeric else None,
        missing=missing,
        origin=f"{where}, {counted - missing} of {counted} instances" if missing else where,
    )


def _spanned(fact: Fact, parts: list[Fact]) -> Fact:
    """The union with the span of its parts, whose values may have been cut."""
    lows = [part.lowest for part in parts if part.lowest is not None]
    highs = [part.highest for part in parts if part.highest is not None]
    if len(lows) < len(parts):
        return fact
    return Fact(
        keyword=fact.keyword,
        values=fact.values,
        spread=Spread.RANGE if any(part.spread is Spread.RANGE for part in parts) else fact.spread,
        lowest=min(lows),
        highest=max(highs),
        missing=fact.missing,
        origin=fact.origin,
    )


def _word(value: Scalar) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
