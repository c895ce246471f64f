"""Statements on associations: who is connected now and who was. An open one may veto a study's completeness."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from router.db.instances import look_again
from router.db.tables import association


class Ending(StrEnum):
    """How an association ended; `lost` means that the connection or our process was gone."""

    RELEASE = "release"
    ABORT = "abort"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One association, open while `closed_at` is None. Times in microseconds since 1970 UTC."""

    id: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    listener: str
    opened_at: int
    closed_at: int | None = None
    ending: Ending | None = None
    instances: int = 0


def opened(connection: Connection, association_opened: Association) -> None:
    """An association was accepted."""
    values = {name: getattr(association_opened, name) for name in Association.__slots__}
    connection.execute(insert(association).values(values))


def closed(connection: Connection, id: str, *, ending: Ending, instances: int, studies: Iterable[str], at: int) -> None:
    """It has ended; decide looks at once at the studies that came over it."""
    connection.execute(
        update(association)
        .where(association.c.id == id, association.c.closed_at.is_(None))
        .values(closed_at=at, ending=ending, instances=instances)
    )
    look_again(connection, studies, at)


def close_all_of(connection: Connection, listener: str, at: int) -> int:
    """Close what a listener that died has left open; how many."""
    return int(
        connection.execute(
            update(association)
            .where(association.c.listener == listener, association.c.closed_at.is_(None))
            .values(closed_at=at, ending=Ending.LOST)
        ).rowcount
    )


def open_of(connection: Connection, calling_ae_title: str) -> list[Association]:
    """Associations of one sender that are open now."""
    rows = connection.execute(
        select(association).where(association.c.calling_ae_title == calling_ae_title, association.c.closed_at.is_(None))
    )
    return [_association(row) for row in rows]


def open_now(connection: Connection) -> list[Association]:
    """All associations that are open now, the oldest first."""
    rows = connection.execute(
        select(association).where(association.c.closed_at.is_(None)).order_by(association.c.opened_at)
    )
    return [_association(row) for row in rows]


def _association(row: Row[Any]) -> Association:
    values = dict(row._mapping)
    ending = values.pop("ending")
    return Association(**values, ending=None if ending is None else Ending(ending))
