"""Storage commitment that we have asked of destinations: each request by its TransactionUID, and what was reported.

The report may come to another process and at any moment, also before the delivery has been parked. Whoever writes
locks the delivery's row first, so that either the report wakes it or the delivery sees the report.
"""

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy import delete as delete_from

from router.db import jobs
from router.db.engine import now
from router.db.tables import job, pledge
from router.domain.delivery import Commitment


def add(connection: Connection, transaction_uid: str, job_id: int) -> None:
    """A request is about to be made for this delivery."""
    connection.execute(insert(pledge).values(transaction_uid=transaction_uid, job_id=job_id, asked_at=now()))


def withdraw(connection: Connection, transaction_uid: str) -> None:
    """The request was not taken."""
    connection.execute(delete_from(pledge).where(pledge.c.transaction_uid == transaction_uid))


def report(connection: Connection, said: Commitment) -> int | None:
    """Note what a destination reports, and wake the delivery that waits for it; its job, or None when nobody asked.

    The first report counts; the same again changes nothing.
    """
    asked = select(pledge.c.job_id).where(pledge.c.transaction_uid == said.transaction_uid)
    job_id = connection.scalar(asked)
    if job_id is None:
        return None
    jobs.lock(connection, job_id)
    connection.execute(
        update(pledge)
        .where(pledge.c.transaction_uid == said.transaction_uid, pledge.c.committed.is_(None))
        .values(committed=sorted(said.committed), failed=dict(said.failed))
    )
    jobs.wake(connection, job_id)
    return int(job_id)


def unsettled(connection: Connection, job_id: int) -> list[Commitment]:
    """Reports of which the delivery has not taken note, the oldest request first."""
    rows = connection.execute(
        select(pledge)
        .where(pledge.c.job_id == job_id, pledge.c.committed.is_not(None), ~pledge.c.settled)
        .order_by(pledge.c.asked_at)
    )
    return [
        Commitment(transaction_uid=row.transaction_uid, committed=frozenset(row.committed), failed=row.failed or {})
        for row in rows
    ]


def settle(connection: Connection, transaction_uid: str) -> None:
    """The delivery has taken note of this report."""
    connection.execute(update(pledge).where(pledge.c.transaction_uid == transaction_uid).values(settled=True))


def unanswered(connection: Connection, job_id: int) -> int:
    """How many requests for this delivery nobody has reported on."""
    silent = select(func.count()).where(pledge.c.job_id == job_id, pledge.c.committed.is_(None))
    return int(connection.execute(silent).scalar_one())


def heard(connection: Connection, destination: str) -> bool:
    """Whether this destination has ever reported on a request of ours."""
    reported = (
        select(pledge.c.job_id)
        .join(job, job.c.id == pledge.c.job_id)
        .where(job.c.destination == destination, pledge.c.committed.is_not(None))
    )
    return connection.execute(reported.limit(1)).first() is not None
