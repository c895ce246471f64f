"""Statements on what is late, and on how results are distributed, for those who watch."""

from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select

from router.db.tables import beat, decision, job, measurement, result_set
from router.domain.alarms import Late
from router.domain.job import Lane, Outcome, State
from router.domain.rules import Priority

GONE = (State.DONE, State.CANCELLED, State.SUPERSEDED)
"""States from which nothing is expected any more."""


def stat_waiting(connection: Connection, *, since_before: int) -> list[Late]:
    """Urgent runs that nobody has begun, and that could have been begun before this."""
    late = and_(
        job.c.lane == Lane.INFER,
        job.c.state == State.QUEUED,
        job.c.priority <= Priority.STAT,
        job.c.attempt == 0,
        job.c.not_before <= since_before,
    )
    return _late(connection, late, job.c.not_before)


def no_result(connection: Connection, *, at: int) -> list[Late]:
    """Runs that a rule in mode `on` wanted by a time that is over, and of which not everything is where it belongs.

    A run that has refused its series has said so: that is an answer.
    """
    wanted = exists().where(decision.c.job_id == job.c.id, decision.c.fires, decision.c.mode == "on")
    delivery = job.alias("delivery")
    on_its_way = exists(
        select(delivery.c.id)
        .join(result_set, result_set.c.id == delivery.c.result_set_id)
        .where(result_set.c.job_id == job.c.id, delivery.c.lane == Lane.DELIVER, delivery.c.state.not_in(GONE))
    )
    open_ = or_(job.c.state.not_in(GONE), and_(job.c.outcome == Outcome.RESULT, on_its_way))
    return _late(connection, and_(job.c.lane == Lane.INFER, job.c.deadline < at, open_, wanted), job.c.deadline)


def _late(connection: Connection, late: ColumnElement[bool], since: ColumnElement[int]) -> list[Late]:
    """Of each pipeline the job that is latest, and how many are late."""
    order = func.row_number().over(partition_by=job.c.pipeline, order_by=(since, job.c.id))
    ranked = select(
        job.c.pipeline,
        job.c.id.label("job_id"),
        job.c.study_instance_uid,
        since.label("since"),
        func.count().over(partition_by=job.c.pipeline).label("count"),
        order.label("place"),
    ).where(late)
    ranks = ranked.subquery()
    rows = connection.execute(select(ranks).where(ranks.c.place == 1).order_by(ranks.c.pipeline)).mappings()
    return [Late(**{name: row[name] for name in Late.__slots__}) for row in rows]


def measured(
    connection: Connection, *, since: int, until: int
) -> Iterator[tuple[tuple[str, str, str, str], Sequence[float]]]:
    """All values that were measured in this time by (pipeline, label, name, unit); the heartbeat's are none."""
    keys = (job.c.pipeline, measurement.c.label, measurement.c.name, measurement.c.unit)
    rows = connection.execute(
        select(*keys, measurement.c.value)
        .join(job, job.c.id == measurement.c.job_id)
        .where(
            job.c.finished_at >= since,
            job.c.finished_at < until,
            job.c.state == State.DONE,
            job.c.study_instance_uid.not_in(select(beat.c.study_instance_uid)),
            measurement.c.value.is_not(None),
        )
        .order_by(*keys)
    )
    key: tuple[str, str, str, str] | None = None
    values: list[float] = []
    for row in rows:
        if tuple(row[:4]) != key:
            if key is not None:
                yield key, values
            key, values = (row[0], row[1], row[2], row[3]), []
        values.append(float(row[4]))
    if key is not None:
        yield key, values
