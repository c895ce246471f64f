"""Statements for those who look on: whether anything has changed, what is going on, and what waits for a person."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, select

from router.db.tables import association, decision, job, study
from router.domain.job import Lane, Outcome, State
from router.domain.study import StudyState

GOING_ON = (State.QUEUED, State.RUNNING, State.WAITING, State.HELD)
MOST = 2000
"""Rows of each kind that are followed at once."""

JOB = (
    job.c.id, job.c.lane, job.c.state, job.c.outcome, job.c.phase, job.c.fraction, job.c.attempt, job.c.pipeline,
    job.c.destination, job.c.study_instance_uid, job.c.reason,
)  # fmt: skip
STUDY = (study.c.study_instance_uid, study.c.state, study.c.generation, study.c.last_instance_at)


@dataclass(frozen=True, slots=True)
class Glance:
    """What is going on: jobs by number and studies by UID, each with what a follower is told of it."""

    jobs: dict[int, dict[str, Any]]
    studies: dict[str, dict[str, Any]]
    newest_job: int


def mark(connection: Connection) -> object:
    """A value that is another one whenever somebody else has committed since; cheap enough to be asked all the time.

    SQLite's is one of this very connection, so it has to be asked on the same one.
    """
    if connection.dialect.name == "postgresql":
        return connection.execute(select(func.pg_current_snapshot())).scalar_one()
    return connection.exec_driver_sql("PRAGMA data_version").scalar_one()


def glance(connection: Connection, before: Glance | None = None) -> Glance:
    """What is going on now, and how that has ended which was going on `before`."""
    newest = int(connection.execute(select(func.max(job.c.id))).scalar_one() or 0)
    followed: ColumnElement[bool] = job.c.state.in_(GOING_ON)
    if before is not None:
        ended = [number for number, one in before.jobs.items() if one["state"] in GOING_ON]
        followed = or_(followed, job.c.id.in_(ended), job.c.id > before.newest_job)
    jobs = connection.execute(select(*JOB).where(followed).order_by(job.c.id.desc()).limit(MOST)).mappings()
    open_: ColumnElement[bool] = study.c.decide_at.is_not(None)
    if before is not None:
        were = [uid for uid, one in before.studies.items() if one["state"] == StudyState.RECEIVING]
        newest_at = max((one["last_instance_at"] for one in before.studies.values()), default=0)
        open_ = or_(open_, study.c.study_instance_uid.in_(were), study.c.last_instance_at > newest_at)
    order = study.c.last_instance_at.desc()
    studies = connection.execute(select(*STUDY).where(open_).order_by(order).limit(MOST)).mappings()
    return Glance(
        jobs={row["id"]: dict(row) for row in jobs},
        studies={row["study_instance_uid"]: dict(row) for row in studies},
        newest_job=newest,
    )


def lanes(connection: Connection) -> dict[Lane, dict[State, int]]:
    """How many jobs of each lane are in each state."""
    counted = connection.execute(select(job.c.lane, job.c.state, func.count()).group_by(job.c.lane, job.c.state))
    found: dict[Lane, dict[State, int]] = {lane: {} for lane in Lane}
    for lane, state, count in counted:
        found[Lane(lane)][State(state)] = count
    return found


def studies_by_state(connection: Connection) -> dict[StudyState, int]:
    """How many studies are in each state."""
    counted = connection.execute(select(study.c.state, func.count()).group_by(study.c.state))
    found = dict.fromkeys(StudyState, 0)
    for state, count in counted:
        found[StudyState(state)] = count
    return found


def open_associations(connection: Connection) -> int:
    """How many senders are connected now."""
    statement = select(func.count()).select_from(association).where(association.c.closed_at.is_(None))
    return int(connection.execute(statement).scalar_one())


def hits(connection: Connection, since: int) -> dict[str, int]:
    """How often each rule has fired since then."""
    counted = connection.execute(
        select(decision.c.rule, func.count())
        .where(decision.c.fires, decision.c.decided_at >= since)
        .group_by(decision.c.rule)
    )
    return {rule: int(count) for rule, count in counted}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a rule came to in shadow. `ended` are outcomes (or states) of its runs, `refusals` reasons with counts."""

    studies: int
    fired: int
    ended: dict[str, int]
    refusals: dict[str, int]
    sends_to: tuple[str, ...]


def in_shadow(connection: Connection, rule: str, since: int) -> Trial:
    """What this rule has done in shadow since then; a run that decisions share is counted once."""
    wanted = (decision.c.rule == rule, decision.c.mode == "shadow", decision.c.fires, decision.c.decided_at >= since)
    fired, studies = connection.execute(
        select(func.count(), func.count(decision.c.study_instance_uid.distinct())).where(*wanted)
    ).one()
    runs = select(decision.c.job_id).where(*wanted, decision.c.job_id.is_not(None)).distinct()
    counted = connection.execute(
        select(job.c.state, job.c.outcome, job.c.reason, func.count())
        .where(job.c.id.in_(runs))
        .group_by(job.c.state, job.c.outcome, job.c.reason)
    )
    ended: dict[str, int] = {}
    refusals: dict[str, int] = {}
    for state, outcome, reason, count in counted:
        name = str(outcome or state)
        ended[name] = ended.get(name, 0) + count
        if reason and name in (Outcome.REFUSED, State.FAILED):
            refusals[reason] = refusals.get(reason, 0) + count
    last = select(decision.c.destinations).where(*wanted).order_by(decision.c.id.desc()).limit(1)
    return Trial(
        studies=int(studies),
        fired=int(fired),
        ended=ended,
        refusals=dict(sorted(refusals.items(), key=lambda one: -one[1])[:5]),
        sends_to=tuple(connection.execute(last).scalar_one_or_none() or ()),
    )


def runs(connection: Connection) -> dict[str, dict[str, int]]:
    """How often each pipeline has come to which outcome, or has failed."""
    counted = connection.execute(
        select(job.c.pipeline, job.c.state, job.c.outcome, func.count())
        .where(job.c.lane == Lane.INFER)
        .group_by(job.c.pipeline, job.c.state, job.c.outcome)
    )
    found: dict[str, dict[str, int]] = {}
    for pipeline, state, outcome, count in counted:
        ended = found.setdefault(str(pipeline), {})
        ended[outcome or state] = ended.get(outcome or state, 0) + count
    return found


def deliveries(connection: Connection) -> dict[str, dict[str, int]]:
    """How many deliveries to each destination are in which state."""
    counted = connection.execute(
        select(job.c.destination, job.c.state, func.count())
        .where(job.c.lane == Lane.DELIVER)
        .group_by(job.c.destination, job.c.state)
    )
    found: dict[str, dict[str, int]] = {}
    for destination, state, count in counted:
        found.setdefault(str(destination), {})[state] = count
    return found
