"""Statements on callers that were turned away, for `isocenter sources seen`."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from router.db.engine import insert_into
from router.db.tables import caller

KEPT = 1000
"""Callers that are remembered; the longest silent ones are forgotten, so that a scanner of ports fills no disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One AE at one address that was turned away, how often, and why the last time."""

    calling_ae_title: str
    address: str
    first_seen_at: int
    last_seen_at: int
    attempts: int
    reason: str


def turned_away(connection: Connection, calling_ae_title: str, address: str, reason: str, at: int) -> None:
    """An association was rejected."""
    connection.execute(
        insert_into(connection, caller)
        .values(
            calling_ae_title=calling_ae_title,
            address=address,
            first_seen_at=at,
            last_seen_at=at,
            attempts=1,
            reason=reason,
        )
        .on_conflict_do_update(
            index_elements=[caller.c.calling_ae_title, caller.c.address],
            set_={"last_seen_at": at, "attempts": caller.c.attempts + 1, "reason": reason},
        )
    )
    if connection.execute(select(func.count()).select_from(caller)).scalar_one() > KEPT:
        oldest = select(func.min(caller.c.last_seen_at)).scalar_subquery()
        connection.execute(delete(caller).where(caller.c.last_seen_at == oldest))


def seen(connection: Connection) -> list[Caller]:
    """Who was turned away, the last one first."""
    rows = connection.execute(select(caller).order_by(caller.c.last_seen_at.desc(), caller.c.calling_ae_title))
    return [Caller(**row._mapping) for row in rows]


def forget(connection: Connection, calling_ae_title: str, address: str) -> None:
    """Strike a caller off the list: it was accepted as a source."""
    connection.execute(delete(caller).where(caller.c.calling_ae_title == calling_ae_title, caller.c.address == address))
