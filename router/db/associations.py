"""Statements on associations: who is connected now and who was. An open one may veto a study's completeness."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from router.db import audit
from router.db.instances import look_again
from router.db.tables import association, instance


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


def closed(
    connection: Connection, id: str, *, ending: Ending, instances: int, studies: Mapping[str, int], at: int
) -> None:
    """It has ended; decide looks at once at the studies that came over it, each of which is an act."""
    for row in connection.execute(select(association).where(association.c.id == id, association.c.closed_at.is_(None))):
        for study_instance_uid, count in studies.items():
            _received(connection, row, study_instance_uid, count, ending)
    connection.execute(
        update(association)
        .where(association.c.id == id, association.c.closed_at.is_(None))
        .values(closed_at=at, ending=ending, instances=instances)
    )
    look_again(connection, studies, at)


def close_all_of(connection: Connection, listener: str, at: int) -> int:
    """Close what a listener that died has left open, with the acts that it had no time to write; how many."""
    left = select(association).where(association.c.listener == listener, association.c.closed_at.is_(None))
    lost = {row.id: row for row in connection.execute(left)}
    if lost:
        counted = (
            select(instance.c.association_id, instance.c.study_instance_uid, func.count().label("instances"))
            .where(instance.c.association_id.in_(lost))
            .group_by(instance.c.association_id, instance.c.study_instance_uid)
        )
        for of in connection.execute(counted):
            _received(connection, lost[of.association_id], of.study_instance_uid, of.instances, Ending.LOST)
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


def _received(connection: Connection, row: Row[Any], study_instance_uid: str, count: int, ending: Ending) -> None:
    who = f"{row.calling_ae_title}@{row.address}"
    audit.write(
        connection, who, "study.received", study_instance_uid, association=row.id, instances=count, ending=str(ending)
    )


def _association(row: Row[Any]) -> Association:
    values = dict(row._mapping)
    ending = values.pop("ending")
    return Association(**values, ending=None if ending is None else Ending(ending))
