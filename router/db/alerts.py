"""Alerts: what a person should look at, until it is over. One stands at a time for one kind and subject."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, exists, or_, select, text, update

from dicom_sr.problem import Problem
from router.db import audit
from router.db.engine import insert_into, now
from router.db.tables import alert, alert_message
from router.domain.alarms import Words

TELLING = 0x15_0D
"""Advisory lock of PostgreSQL under which alerts are told, since two nodes could both tell them."""


class NoSuchAlert(Problem):
    """No alert of this number stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert; it stands while `ended_at` is None. Times in microseconds since 1970 UTC."""

    id: int
    kind: str
    subject: str
    what: str
    remedy: str
    raised_at: int
    times: int
    ended_at: int | None


def raise_(connection: Connection, kind: str, subject: str, *, what: str, remedy: str) -> None:
    """Let this alert stand, with these words; one that stands already counts one more. It never names a patient."""
    fresh = insert_into(connection, alert).values(
        kind=kind, subject=subject, what=what, remedy=remedy, raised_at=now(), times=1
    )
    connection.execute(
        fresh.on_conflict_do_update(
            index_elements=[alert.c.kind, alert.c.subject],
            index_where=alert.c.ended_at.is_(None),
            set_={"what": what, "remedy": remedy, "times": alert.c.times + 1},
        )
    )


def end(connection: Connection, kind: str, subject: str) -> bool:
    """What it was about is over; whether it stood."""
    standing = and_(alert.c.kind == kind, alert.c.subject == subject, alert.c.ended_at.is_(None))
    return bool(connection.execute(update(alert).where(standing).values(ended_at=now())).rowcount)


def keep(connection: Connection, kind: str, found: Mapping[str, Words]) -> None:
    """Let stand of this kind what was `found`, by subject, and nothing else; what has not changed is not written."""
    standing = stands(connection, kind)
    for subject in standing.keys() - found.keys():
        end(connection, kind, subject)
    for subject, words in found.items():
        if subject not in standing:
            raise_(connection, kind, subject, what=words.what, remedy=words.remedy)
        elif standing[subject] != words:
            same = and_(alert.c.kind == kind, alert.c.subject == subject, alert.c.ended_at.is_(None))
            connection.execute(update(alert).where(same).values(what=words.what, remedy=words.remedy))


def stands(connection: Connection, kind: str) -> dict[str, Words]:
    """What stands of this kind, by subject."""
    rows = connection.execute(
        select(alert.c.subject, alert.c.what, alert.c.remedy).where(alert.c.kind == kind, alert.c.ended_at.is_(None))
    )
    return {row.subject: Words(row.what, row.remedy) for row in rows}


def alone(connection: Connection) -> bool:
    """Whether nobody else tells alerts until this transaction ends; a node on SQLite has one who could."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": TELLING}))


def untold(connection: Connection, channel: str, *, limit: int = 50) -> list[Alert]:
    """Alerts of which this channel does not know yet that they stand, or, where it was told so, that they are over."""

    def told(over: bool) -> Any:
        said = alert_message.c.alert_id == alert.c.id
        return exists().where(said, alert_message.c.channel == channel, alert_message.c.over.is_(over))

    begun = and_(alert.c.ended_at.is_(None), ~told(False))
    over = and_(alert.c.ended_at.is_not(None), told(False), ~told(True))
    statement = select(alert).where(or_(begun, over)).order_by(alert.c.id).limit(limit)
    return [Alert(**row) for row in connection.execute(statement).mappings()]


def told(connection: Connection, channel: str, these: Iterable[Alert]) -> None:
    """This channel knows of these alerts as they are here."""
    rows = [
        {"alert_id": one.id, "channel": channel, "over": one.ended_at is not None, "sent_at": now()} for one in these
    ]
    if rows:
        connection.execute(insert_into(connection, alert_message).values(rows).on_conflict_do_nothing())


def end_one(connection: Connection, alert_id: int, *, who: str, why: str = "") -> None:
    """A person says that it is over.

    Raises:  NoSuchAlert
    """
    standing = and_(alert.c.id == alert_id, alert.c.ended_at.is_(None))
    if not connection.execute(update(alert).where(standing).values(ended_at=now())).rowcount:
        raise NoSuchAlert(f"no alert {alert_id} stands", remedy="See `isocenter alerts list`")
    audit.write(connection, who, "alert.ended", alert=alert_id, why=why)


def list_(connection: Connection, *, ended: bool = False, limit: int = 100) -> list[Alert]:
    """Alerts that stand, or with `ended` also those that are over, the newest first."""
    statement = select(alert).order_by(alert.c.raised_at.desc(), alert.c.id.desc()).limit(limit)
    if not ended:
        statement = statement.where(alert.c.ended_at.is_(None))
    return [Alert(**row) for row in connection.execute(statement).mappings()]
