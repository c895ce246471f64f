"""Statements on what pipelines have come to: how long runs took, why they refused, how results are distributed."""

from collections import defaultdict
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from router.db.jobs import SECOND
from router.db.tables import beat, job, measurement, study
from router.domain.job import Lane, Outcome, State
from router.domain.spread import Spread, spread

MOST = 50_000
"""Numbers that are read at most, the newest."""


def took(connection: Connection, since: int) -> dict[str, Spread]:
    """Seconds that the runs of each pipeline took which ended since then."""
    rows = connection.execute(
        select(job.c.pipeline, (job.c.finished_at - job.c.started_at))
        .where(
            job.c.lane == Lane.INFER, job.c.state == State.DONE, job.c.finished_at >= since,
            job.c.started_at.is_not(None),
        )
        .order_by(job.c.finished_at.desc())
        .limit(MOST)
    )  # fmt: skip
    values = defaultdict(list)
    for pipeline, lasted in rows:
        values[str(pipeline)].append(lasted / SECOND)
    found = {pipeline: spread(several) for pipeline, several in values.items()}
    return {pipeline: one for pipeline, one in found.items() if one is not None}


def refusals(connection: Connection, since: int) -> dict[str, list[tuple[str, int]]]:
    """Why runs of each pipeline have refused since then, and how often, the most frequent first."""
    count = func.count()
    rows = connection.execute(
        select(job.c.pipeline, job.c.reason, count)
        .where(job.c.lane == Lane.INFER, job.c.outcome == Outcome.REFUSED, job.c.finished_at >= since)
        .group_by(job.c.pipeline, job.c.reason)
        .order_by(count.desc())
    )
    found = defaultdict(list)
    for pipeline, reason, number in rows:
        found[str(pipeline)].append((str(reason or "no reason"), int(number)))
    return dict(found)


def distributions(connection: Connection, since: int) -> dict[str, dict[tuple[str, str], dict[str, Spread]]]:
    """How the results of each pipeline are distributed since then, by (what, unit) and then by month and by sender.

    The heartbeat's are none of them.
    """
    rows = connection.execute(
        select(
            job.c.pipeline, measurement.c.label, measurement.c.name, measurement.c.unit, measurement.c.value,
            job.c.finished_at, study.c.calling_ae_title,
        )
        .join(job, job.c.id == measurement.c.job_id)
        .join(study, study.c.study_instance_uid == job.c.study_instance_uid)
        .where(
            job.c.finished_at >= since, job.c.state == State.DONE, measurement.c.value.is_not(None),
            job.c.study_instance_uid.not_in(select(beat.c.study_instance_uid)),
        )
        .order_by(job.c.finished_at.desc())
        .limit(MOST)
    )  # fmt: skip
    values: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for pipeline, label, name, unit, value, at, sender in rows:
        month = datetime.fromtimestamp(at / SECOND, UTC).strftime("%Y-%m")
        for group in (f"in {month}", f"from {sender}"):
            values[pipeline, f"{label}, {name}", unit, group].append(float(value))
    found: dict[str, dict[tuple[str, str], dict[str, Spread]]] = defaultdict(lambda: defaultdict(dict))
    for (pipeline, what, unit, group), several in sorted(values.items()):
        one = spread(several)
        if one is not None:
            found[pipeline][what, unit][group] = one
    return {pipeline: dict(several) for pipeline, several in found.items()}
