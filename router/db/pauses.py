"""Statements on the pauses that senders make inside a study."""

from sqlalchemy import Connection, select

from router.db.engine import insert_into
from router.db.tables import pause
from router.domain.pauses import MOST


def note(
    connection: Connection,
    study_instance_uid: str,
    calling_ae_title: str,
    longest: int,
    at: int,
    *,
    longest_in_series: int = 0,
) -> None:
    """Keep the longest pause of a study, and of its series; that of a late instance replaces the one before it."""
    values = {
        "calling_ae_title": calling_ae_title,
        "longest": longest,
        "longest_in_series": longest_in_series,
        "noted_at": at,
    }
    fresh = insert_into(connection, pause).values(study_instance_uid=study_instance_uid, **values)
    connection.execute(fresh.on_conflict_do_update(index_elements=[pause.c.study_instance_uid], set_=values))


def of_sender(connection: Connection, calling_ae_title: str, *, in_series: bool = False) -> list[int]:
    """The longest pauses in a sender's latest studies, or in the series of each, in microseconds."""
    return list(
        connection.execute(
            select(pause.c.longest_in_series if in_series else pause.c.longest)
            .where(pause.c.calling_ae_title == calling_ae_title)
            .order_by(pause.c.noted_at.desc())
            .limit(MOST)
        ).scalars()
    )
