"""Alerts: what a person should look at, until it is over. One stands at a time for one kind and subject."""

from dataclasses import dataclass

from sqlalchemy import Connection, and_, select, update

from dicom_sr.problem import Problem
from router.db.engine import insert_into, now
from router.db.tables import alert


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


def end_one(connection: Connection, alert_id: int) -> None:
    """A person says that it is over.

    Raises:  NoSuchAlert
    """
    standing = and_(alert.c.id == alert_id, alert.c.ended_at.is_(None))
    if not connection.execute(update(alert).where(standing).values(ended_at=now())).rowcount:
        raise NoSuchAlert(f"no alert {alert_id} stands", remedy="See `isocenter alerts list`")


def standing(connection: Connection, kind: str) -> list[str]:
    """Subjects of which an alert of this kind stands."""
    return list(connection.scalars(select(alert.c.subject).where(alert.c.kind == kind, alert.c.ended_at.is_(None))))


def list_(connection: Connection, *, ended: bool = False, limit: int = 100) -> list[Alert]:
    """Alerts that stand, or with `ended` also those that are over, the newest first."""
    statement = select(alert).order_by(alert.c.raised_at.desc(), alert.c.id.desc()).limit(limit)
    if not ended:
        statement = statement.where(alert.c.ended_at.is_(None))
    return [Alert(**row) for row in connection.execute(statement).mappings()]
