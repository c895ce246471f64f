"""The matching of `router.domain.matching` as SQL, in the words of SQLite and of PostgreSQL."""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, false, func, or_

from router.domain.matching import (
    AllOf,
    AnyOf,
    Exactly,
    InItem,
    Like,
    Match,
    Moment,
    Named,
    Number,
    Within,
    family,
    name_patterns,
    spellings,
)

Columns = Mapping[str, ColumnElement[Any]]
"""Keyword -> where its value stands."""


def condition(connection: Connection, columns: Columns, keyword: str, match: Match) -> ColumnElement[bool]:
    """Whether the column of this keyword holds what is asked for."""
    if isinstance(match, Moment):
        return _moment(connection, columns["StudyDate"], columns["StudyTime"], match)
    return holds(connection, columns[keyword], match)


def holds(connection: Connection, column: ColumnElement[Any], match: Match) -> ColumnElement[bool]:
    """Whether this column holds what is asked for."""
    if isinstance(match, AnyOf):
        values = [one.value for one in match.matches if isinstance(one, Exactly)]
        others = [holds(connection, column, one) for one in match.matches if not isinstance(one, Exactly)]
        return or_(column.in_(values), *others) if values else or_(*others)
    if isinstance(match, Exactly | Number):
        return column == match.value
    if isinstance(match, Like):
        return _like(connection, column, match.pattern)
    if isinstance(match, Named):
        return _named(connection, column, match)
    if isinstance(match, Within):
        return _within(connection, column, match.low, match.high)
    if isinstance(match, AllOf):  # of an attribute with one value, several different values ask for nothing
        return and_(*(holds(connection, column, one) for one in match.matches))
    if isinstance(match, InItem):  # no column is a sequence
        return false()
    raise TypeError(f"{type(match).__name__} is no match of a column")


def _moment(
    connection: Connection, date: ColumnElement[str], time: ColumnElement[str], match: Moment
) -> ColumnElement[bool]:
    """The days first, since they have an index."""
    return and_(
        _within(connection, date, match.low[:8], match.high[:8]),
        _within(connection, date.concat(time), match.low, match.high),
    )


def _within(connection: Connection, column: ColumnElement[str], low: str, high: str) -> ColumnElement[bool]:
    if _postgresql(connection):
        column = column.collate("C")
    ends = [column >= low if low else column != ""]
    return and_(*ends, *([column <= high] if high else []))


def _like(connection: Connection, column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    if _postgresql(connection):
        escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
        return column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")
    return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))


def _named(connection: Connection, column: ColumnElement[str], match: Named) -> ColumnElement[bool]:
    """What `name_patterns` says, asked so that a name which begins otherwise costs one look."""
    trimmed = func.rtrim(column, "^= ")
    ways: list[ColumnElement[bool]] = []
    for spelling in spellings(match):
        if spelling.endswith("*"):
            ways.append(_fits(connection, column, spelling))
        else:
            whole = or_(_fits(connection, trimmed, spelling), _fits(connection, trimmed, f"{spelling}=*"))
            ways.append(and_(_fits(connection, column, f"{spelling}*"), whole))
    if "=" not in match.pattern:
        position = func.strpos if _postgresql(connection) else func.instr
        later = [pattern for pattern in name_patterns(match) if pattern.startswith("*=")]
        ways.append(and_(position(column, "=") > 0, or_(*(_fits(connection, trimmed, one) for one in later))))
    return or_(*ways)


def _fits(connection: Connection, column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """The pattern with every letter spelt as all letters that it stands for."""
    if _postgresql(connection):
        parts = {"*": ".*", "?": "."}
        return column.op("~", is_comparison=True)(
            f"^(?:{''.join(parts.get(one) or _class(one) or re.escape(one) for one in pattern)})$"
        )
    glob = "".join(_class(one) or one.replace("[", "[[]") for one in pattern)
    return column.op("GLOB", is_comparison=True)(glob)


def _class(character: str) -> str:
    letters = family(character)
    return f"[{letters}]" if len(letters) > 1 else ""


def _postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"
