"""Statements for measuring: what has ended since a time, and what stands open; none reads more than that.

The heartbeat's phantom is not measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from router.db.engine import clock
from router.db.tables import alert, job, result_set, study
from router.domain.heartbeat import AE_TITLE
from router.domain.job import Lane, State
from router.domain.study import StudyState

NOT_OVER = (State.QUEUED, State.RUNNING, State.WAITING, State.HELD, State.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A job that has ended. Times are microseconds since 1970 UTC.

    `pipeline` is, of a build or a delivery, that of the run behind it; `ordered_at` is when that run was ordered, which
    is when its series or study was complete.
    """

    id: int
    lane: Lane
    state: State
    outcome: str | None
    problem: str | None
    source: str | None
    pipeline: str | None
    destination: str | None
    created_at: int
    started_at: int | None
    finished_at: int
    ordered_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A study that was completed; how long after its last instance, in microseconds."""

    study_instance_uid: str
    generation: int
    source: str
    completed_at: int
    completed_after: int


def ended(connection: Connection, since: int) -> Iterator[Ended]:
    """Jobs that ended at this time or later."""
    run = job.alias("run")
    rows = connection.execute(
        select(
            job.c.id,
            job.c.lane,
            job.c.state,
            job.c.outcome,
            job.c.problem,
            study.c.calling_ae_title.label("source"),
            func.coalesce(job.c.pipeline, run.c.pipeline).label("pipeline"),
            job.c.destination,
            job.c.created_at,
            job.c.started_at,
            job.c.finished_at,
            run.c.created_at.label("ordered_at"),
        )
        .outerjoin(study, study.c.study_instance_uid == job.c.study_instance_uid)
        .outerjoin(result_set, result_set.c.id == job.c.result_set_id)
        .outerjoin(run, run.c.id == func.coalesce(result_set.c.job_id, job.c.findings_job_id))
        .where(job.c.finished_at >= since, func.coalesce(study.c.calling_ae_title, "") != AE_TITLE)
    )
    for row in rows.mappings():
        yield Ended(**{**row, "lane": Lane(row["lane"]), "state": State(row["state"])})


def completed(connection: Connection, since: int) -> Iterator[Completed]:
    """Studies whose last completion was at this time or later."""
    rows = connection.execute(
        select(
            study.c.study_instance_uid,
            study.c.generation,
            study.c.calling_ae_title.label("source"),
            study.c.completed_at,
            study.c.completed_after,
        ).where(
            study.c.completed_at >= since,
            study.c.completed_after.is_not(None),
            study.c.calling_ae_title != AE_TITLE,
        )
    )
    for row in rows.mappings():
        yield Completed(**row)


def open_jobs(connection: Connection) -> list[tuple[str, str, int]]:
    """Lane, state and number of jobs that are not over, and of those that failed."""
    rows = connection.execute(
        select(job.c.lane, job.c.state, func.count())
        .where(job.c.state.in_(NOT_OVER))
        .group_by(job.c.lane, job.c.state)
        .order_by(job.c.lane, job.c.state)
    )
    return [(lane, state, number) for lane, state, number in rows]


def open_studies(connection: Connection) -> list[tuple[str, int]]:
    """State and number of studies that are not complete."""
    rows = connection.execute(
        select(study.c.state, func.count()).where(study.c.state != StudyState.COMPLETE).group_by(study.c.state)
    )
    return [(state, number) for state, number in rows]


def retrying(connection: Connection) -> list[tuple[str, str, int]]:
    """Lane, problem and number of jobs that wait for another attempt."""
    rows = connection.execute(
        select(job.c.lane, job.c.problem, func.count())
        .where(job.c.state == State.QUEUED, job.c.problem.is_not(None))
        .group_by(job.c.lane, job.c.problem)
        .order_by(job.c.lane, job.c.problem)
    )
    return [(lane, problem, number) for lane, problem, number in rows]


def longest_due(connection: Connection) -> list[tuple[str, float]]:
    """Lane, and seconds for which its oldest queued job has been due."""
    at = clock(connection)
    rows = connection.execute(
        select(job.c.lane, func.min(job.c.not_before)).where(job.c.state == State.QUEUED).group_by(job.c.lane)
    )
    return [(lane, max(0, at - due) / 1e6) for lane, due in rows]


def standing_alerts(connection: Connection) -> list[tuple[str, int]]:
    """Kind and number of alerts that stand."""
    rows = connection.execute(
        select(alert.c.kind, func.count())
        .where(alert.c.ended_at.is_(None))
        .group_by(alert.c.kind)
        .order_by(alert.c.kind)
    )
    return [(kind, number) for kind, number in rows]
