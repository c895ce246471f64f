"""Rules, sources and destinations as numbered revisions: the highest number of a kind is in force."""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, text

from dicom_sr.problem import Problem
from router.db.engine import now
from router.db.tables import revision


class UnknownRevision(Problem):
    """No revision of this kind has this number."""

    exit_code = 2


class Kind(StrEnum):
    """What is kept in numbered revisions."""

    RULES = "rules"
    SOURCES = "sources"
    DESTINATIONS = "destinations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One numbered revision. `body` is the list of its entries as JSON, `created_at` in microseconds since 1970 UTC."""

    kind: Kind
    number: int
    body: Any
    author: str
    note: str
    created_at: int


def add(
    connection: Connection, kind: Kind, body: Any, *, author: str, note: str = "", at: int | None = None
) -> Revision:
    """Make this body the revision in force. The caller has checked it (`router.rulebook`)."""
    if connection.dialect.name == "postgresql":  # on SQLite this transaction holds the write lock already
        connection.execute(text("LOCK TABLE revision IN SHARE ROW EXCLUSIVE MODE"))
    highest = connection.execute(select(func.max(revision.c.number)).where(revision.c.kind == kind)).scalar_one()
    made = Revision(
        kind=Kind(kind),
        number=(highest or 0) + 1,
        body=body,
        author=author,
        note=note,
        created_at=now() if at is None else at,
    )
    connection.execute(insert(revision).values({name: getattr(made, name) for name in Revision.__slots__}))
    return made


def current(connection: Connection, kind: Kind) -> Revision:
    """The revision in force.

    Raises:  UnknownRevision, when nothing of this kind was ever imported
    """
    row = connection.execute(
        select(revision).where(revision.c.kind == kind).order_by(revision.c.number.desc()).limit(1)
    ).one_or_none()
    if row is None:
        raise UnknownRevision(
            f"this database has no {kind} yet", remedy="`isocenter init` writes the first ones; so does an import"
        )
    return _revision(row)


def find(connection: Connection, kind: Kind, number: int) -> Revision:
    """The revision with this number.

    Raises:  UnknownRevision
    """
    row = connection.execute(select(revision).where(revision.c.kind == kind, revision.c.number == number)).one_or_none()
    if row is None:
        raise UnknownRevision(
            f"there is no revision {number} of {kind}", remedy=f"`isocenter {kind} history` shows them"
        )
    return _revision(row)


def list_(connection: Connection, kind: Kind) -> list[Revision]:
    """All revisions of a kind, the newest first."""
    rows = connection.execute(select(revision).where(revision.c.kind == kind).order_by(revision.c.number.desc()))
    return [_revision(row) for row in rows]


def digest(body: Any) -> str:
    """Digest of a body: the same for the same content, however it was written down."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _revision(row: Row[Any]) -> Revision:
    return Revision(**{**row._mapping, "kind": Kind(row.kind)})
