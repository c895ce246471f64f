"""Statements on destinations that do not answer: their deliveries wait together, and go on together."""

from sqlalchemy import ColumnElement, Connection, and_, select, update

from router.db.engine import clock
from router.db.jobs import SECOND
from router.db.tables import job
from router.domain.job import Lane, State

UNREACHABLE = "Unreachable"
"""What `problem` says of a delivery whose destination did not answer at all."""


def keep_waiting(connection: Connection, destination: str, *, wait_s: float) -> None:
    """Nothing is delivered to this destination before `wait_s` are over."""
    later = clock(connection) + round(wait_s * SECOND)
    connection.execute(update(job).where(_queued_for(destination), job.c.not_before < later).values(not_before=later))


def go_on(connection: Connection, destination: str) -> int:
    """What waits for this destination to answer is due now; how many deliveries that are."""
    held_up = job.c.problem.is_(None) | (job.c.problem == UNREACHABLE)
    moved = connection.execute(
        update(job).where(_queued_for(destination), held_up).values(not_before=clock(connection))
    )
    return int(moved.rowcount)


def unreachable(connection: Connection) -> list[str]:
    """Destinations that did not answer when they were last tried, and for which deliveries wait."""
    rows = connection.execute(
        select(job.c.destination)
        .where(job.c.lane == Lane.DELIVER, job.c.state == State.QUEUED, job.c.problem == UNREACHABLE)
        .distinct()
        .order_by(job.c.destination)
    )
    return list(rows.scalars())


def _queued_for(destination: str) -> ColumnElement[bool]:
    return and_(job.c.lane == Lane.DELIVER, job.c.destination == destination, job.c.state == State.QUEUED)
