"""What a person tells a job: each a move of its row with the audit row that says who told it, and why."""

from typing import Any, Protocol

from sqlalchemy import Connection

from router.db import audit, jobs
from router.db.engine import clock
from router.db.tables import job
from router.domain.job import Event, Job, after


class Command(Protocol):
    """What a person may tell a job, and why; the job as it is then, or the number of the new one.

    Raises:  UnknownJob, IllegalMove
    """

    def __call__(self, connection: Connection, job_id: int, *, who: str, why: str) -> Job | int:
        """Do it."""


def hold(connection: Connection, job_id: int, *, who: str, why: str = "") -> Job:
    """A person keeps a queued job from being claimed.

    Raises:  UnknownJob, IllegalMove
    """
    return _command(connection, Event.HOLD, job_id, who, why=why, reason=why or "held by a person")


def release(connection: Connection, job_id: int, *, who: str, why: str = "") -> Job:
    """A person lets a held job go on.

    Raises:  UnknownJob, IllegalMove
    """
    return _command(connection, Event.RELEASE, job_id, who, why=why, reason=None, not_before=clock(connection))


def cancel(connection: Connection, job_id: int, *, who: str, why: str = "") -> Job:
    """A person ends a job, also one that runs: its worker learns it at the next heartbeat.

    Raises:  UnknownJob, IllegalMove
    """
    return _command(
        connection,
        Event.CANCEL,
        job_id,
        who,
        why=why,
        **jobs.REST,
        reason=why or "cancelled by a person",
        problem=None,
        finished_at=clock(connection),
    )


def revive(connection: Connection, job_id: int, *, who: str, why: str = "") -> Job:
    """A person gives a failed job all its attempts again.

    Raises:  UnknownJob, IllegalMove
    """
    return _command(
        connection,
        Event.REVIVE,
        job_id,
        who,
        why=why,
        attempt=0,
        not_before=clock(connection),
        finished_at=None,
        outcome=None,
    )


def rerun(connection: Connection, job_id: int, *, who: str, why: str = "") -> int:
    """A new job like this one, with the next `run` number, so that its objects get their own UIDs.

    Raises:  UnknownJob
    """
    old = jobs.existing(connection, job_id)
    made = jobs.add_rerun(connection, old)
    audit.write(connection, who, "job.rerun", old.study_instance_uid, job=job_id, new_job=made, why=why)
    return made


def _command(connection: Connection, event: Event, job_id: int, who: str, *, why: str = "", **values: Any) -> Job:
    """A person's move, with its audit row, where their reason stands."""
    moved = jobs.move(connection, event, job.c.id == job_id, **values)
    if not moved:
        after(jobs.existing(connection, job_id).state, event)  # raises, and says what the job can do instead
        return _command(connection, event, job_id, who, why=why, **values)  # it moved between the two statements
    audit.write(connection, who, f"job.{event}", moved[0].study_instance_uid, job=job_id, why=why)
    return moved[0]
