"""Statements on the pauses that senders make inside a study."""

from sqlalchemy import Connection, select

from router.db.engine import insert_into
from router.db.tables import pause
from router.domain.pauses import MOST


def note(connection: Connection, study_instance_uid: str, calling_ae_title: str, longest: int, at: int) -> None:
    """Keep the longest pause of a study; that of a late instance replaces the one before it."""
    fresh = insert_into(connection, pause).values(
        study_instance_uid=study_instance_uid, calling_ae_title=calling_ae_title, longest=longest, noted_at=at
    )
    connection.execute(
        fresh.on_conflict_do_update(
            index_elements=[pause.c.study_instance_uid],
            set_={"calling_ae_title": calling_ae_title, "longest": longest, "noted_at": at},
        )
    )


def of_sender(connection: Connection, calling_ae_title: str) -> list[int]:
    """The longest pauses of a sender's latest studies, in microseconds."""
    return list(
        connection.execute(
            select(pause.c.longest)
            .where(pause.c.calling_ae_title == calling_ae_title)
            .order_by(pause.c.noted_at.desc())
            .limit(MOST)
        ).scalars()
    )
