"""The queue: one table, every move of a row through `router.domain.job.LIFE`, each function one statement or two.

A move repeats the states it may start from in its WHERE, and a worker's move also its fencing token (id, worker,
attempt): no row changed means that someone else moved the job, which is a lost race and not an error.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, and_, case, cast, exists, func, or_, select, true, update

from dicom_sr.problem import Problem
from router.db.engine import clock, insert_into
from router.db.tables import beat, breaker, job, result_set, study
from router.domain.delivery import NOTE_TO
from router.domain.job import Event, Job, Lane, Outcome, State, before, target
from router.domain.rules import Priority

SECOND = 1_000_000
AGEING = 600 * SECOND
"""One point of priority is worth this wait: a routine job overtakes a stat job that came 6 h 40 min after it."""

CLAIMS = 0x15_0C
"""Advisory lock of PostgreSQL under which jobs with a group are claimed, since two claims could both count to one."""

HALFWAY = (job.c.created_at + job.c.deadline) // 2
WAITED = cast(job.c.priority, BigInteger) * AGEING + job.c.not_before
PRESSED = Priority.STAT * AGEING + HALFWAY
"""What jobs are ordered by, the lowest first; PRESSED is NULL for a job without a deadline."""

REST = {"worker": None, "lease_until": None}
"""What every job that nobody works on has."""


class UnknownJob(Problem):
    """No job has this number."""


def add_inference(
    connection: Connection,
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    generation: int,
    pixels_digest: str,
    identity_digest: str = "",
    pipeline: str,
    pipeline_version: str,
    weights_digest: str | None,
    settings: dict[str, Any],
    settings_digest: str,
    priority: int,
    max_attempts: int,
    run: int = 0,
    completeness: str | None = None,
    instances: int | None = None,
    deadline: int | None = None,
) -> tuple[int, bool]:
    """The one inference job of (pixels, identity, pipeline, version, settings, run), and whether this call made it.

    A job that waits already is made as urgent as the most urgent of those who want it, its deadline as early.
    """
    number, made = _add(
        connection,
        {
            "lane": Lane.INFER,
            "pixels_digest": pixels_digest,
            "identity_digest": identity_digest,
            "pipeline": pipeline,
            "pipeline_version": pipeline_version,
            "settings_digest": settings_digest,
            "run": run,
        },
        study_instance_uid=study_instance_uid,
        series_instance_uid=series_instance_uid,
        generation=generation,
        weights_digest=weights_digest,
        settings=settings,
        priority=priority,
        max_attempts=max_attempts,
        completeness=completeness,
        instances=instances,
        deadline=deadline,
    )
    if not made:
        waiting = and_(job.c.id == number, job.c.state.in_((State.QUEUED, State.HELD)))
        connection.execute(update(job).where(waiting, job.c.priority > priority).values(priority=priority))
        if deadline is not None:
            later = or_(job.c.deadline.is_(None), job.c.deadline > deadline)
            connection.execute(update(job).where(waiting, later).values(deadline=deadline))
    return number, made


def add_delivery(
    connection: Connection,
    *,
    study_instance_uid: str,
    generation: int,
    result_set_id: int,
    destination: str,
    priority: int,
    max_attempts: int,
    run: int = 0,
) -> tuple[int, bool]:
    """The one delivery of this result set to this destination, and whether this call made it."""
    return _add(
        connection,
        {"lane": Lane.DELIVER, "result_set_id": result_set_id, "destination": destination, "run": run},
        study_instance_uid=study_instance_uid,
        generation=generation,
        priority=priority,
        max_attempts=max_attempts,
    )


def add_forward(
    connection: Connection,
    *,
    study_instance_uid: str,
    generation: int,
    destination: str,
    priority: int,
    max_attempts: int,
    run: int = 0,
) -> tuple[int, bool]:
    """The one job that sends this generation of the study itself to this destination, and whether this call made it.

    One that waits for an earlier generation is superseded: this one sends all that is missing.
    """
    same = {
        "lane": Lane.DELIVER,
        "result_set_id": None,
        "study_instance_uid": study_instance_uid,
        "destination": destination,
    }
    number, made = _add(
        connection,
        {**same, "generation": generation, "run": run},
        priority=priority,
        max_attempts=max_attempts,
    )
    if made:
        earlier = and_(_equal(same), job.c.generation < generation, job.c.state != State.RUNNING)
        reason = "the study has changed since; a newer job sends it"
        move(connection, Event.SUPERSEDE, earlier, **REST, reason=reason, finished_at=clock(connection))
    return number, made


def add_build(
    connection: Connection, of: Job, *, profile: str, max_attempts: int, priority: int | None = None
) -> tuple[int, bool]:
    """The one job that builds the findings of this inference job in this profile, and whether this call made it."""
    return _add(
        connection,
        {"lane": Lane.BUILD, "findings_job_id": of.id, "profile": profile, "run": 0},
        study_instance_uid=of.study_instance_uid,
        series_instance_uid=of.series_instance_uid,
        generation=of.generation,
        priority=of.priority if priority is None else priority,
        max_attempts=max_attempts,
    )


def add_rerun(connection: Connection, old: Job) -> int:
    """A job like this one with the next `run` number, or the one that someone asked for at the same moment."""
    kept = ("priority", "study_instance_uid", "series_instance_uid", "generation", "weights_digest", "settings",
            "max_attempts", "completeness", "instances")  # fmt: skip
    same = _work(old)
    last = connection.execute(select(func.max(job.c.run)).where(_equal(same))).scalar_one()
    values = {name: getattr(old, name) for name in kept if name not in same}
    return _add(connection, {**same, "run": last + 1}, **values)[0]


def builds_of(connection: Connection, inference_job_id: int) -> list[Job]:
    """The jobs that build this run's findings in further profiles, oldest first."""
    found = select(job).where(job.c.lane == Lane.BUILD, job.c.findings_job_id == inference_job_id).order_by(job.c.id)
    return [_job(row) for row in connection.execute(found).mappings()]


def move(connection: Connection, event: Event, which: ColumnElement[bool], **values: Any) -> list[Job]:
    """The jobs that made this move."""
    moved = connection.execute(
        update(job).where(which, job.c.state.in_(before(event))).values(state=target(event), **values).returning(job)
    )
    return [_job(row) for row in moved.mappings()]


def claim(
    connection: Connection,
    lane: Lane,
    worker: str,
    lease_s: float,
    *,
    off_peak: bool = True,
    at_once: Mapping[str, int] = MappingProxyType({}),
    least_urgent: int | None = None,
) -> Job | None:
    """Hand the most urgent due job of a lane to one worker, exactly once.

    No job of a held study starts, none of a paused pipeline, nor one of a pipeline of which as many run as `at_once`
    allows; none that is less urgent than `least_urgent`, where that is given (a low number is urgent).
    A destination gets as many deliveries at a time as `at_once` says, else one; and those of one study one
    after the other.

    A job with a deadline counts like a stat job that came halfway to it. Unless it is `off_peak`, off-peak inference
    waits; from halfway to its deadline on it does not.
    """
    if connection.dialect.name == "postgresql" and (lane is Lane.DELIVER or at_once):
        connection.execute(select(func.pg_advisory_xact_lock(CLAIMS)))
    at = clock(connection)
    stopped = select(breaker.c.pipeline).where(breaker.c.paused_at.is_not(None))
    held = select(study.c.study_instance_uid).where(study.c.held_reason.is_not(None))
    full = _full(connection, at_once) if lane is Lane.INFER and at_once else ()
    busy = _busy(connection, at_once) if lane is Lane.DELIVER else ()
    alone = _no_other_of_its_study() if lane is Lane.DELIVER and at_once else true()
    due = (
        select(job.c.id)
        .where(job.c.lane == lane, job.c.state.in_(before(Event.CLAIM)), job.c.not_before <= at)
        .where(job.c.study_instance_uid.not_in(held))
        .where(true() if least_urgent is None else job.c.priority <= least_urgent)
        .where(or_(job.c.destination.is_(None), and_(job.c.destination.not_in(busy), alone)))
        .where(or_(job.c.pipeline.is_(None), and_(job.c.pipeline.not_in(stopped), job.c.pipeline.not_in(full))))
        .where(or_(job.c.lane != Lane.INFER, job.c.priority < Priority.OFF_PEAK, true() if off_peak else at >= HALFWAY))
        .order_by(case((PRESSED < WAITED, PRESSED), else_=WAITED), job.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    rows = move(
        connection,
        Event.CLAIM,
        job.c.id == due.scalar_subquery(),
        worker=worker,
        lease_until=at + round(lease_s * SECOND),
        attempt=job.c.attempt + 1,
        started_at=at,
        phase=None,
        fraction=None,
    )
    return rows[0] if rows else None


def _full(connection: Connection, at_once: Mapping[str, int]) -> list[str]:
    """Pipelines of which as many jobs run as are allowed."""
    running = connection.execute(
        select(job.c.pipeline, func.count())
        .where(job.c.lane == Lane.INFER, job.c.state == State.RUNNING, job.c.pipeline.in_(list(at_once)))
        .group_by(job.c.pipeline)
    )
    return [name for name, number in running if number >= at_once[name]]


def _busy(connection: Connection, at_once: Mapping[str, int]) -> list[str]:
    """Destinations that get as many deliveries as are allowed."""
    running = connection.execute(
        select(job.c.destination, func.count())
        .where(job.c.lane == Lane.DELIVER, job.c.state == State.RUNNING, job.c.destination.is_not(None))
        .group_by(job.c.destination)
    )
    return [name for name, number in running if number >= at_once.get(name, 1)]


def _no_other_of_its_study() -> ColumnElement[bool]:
    """That no delivery of the same study to the same destination runs."""
    other = job.alias()
    return ~exists().where(
        and_(other.c.lane == Lane.DELIVER, other.c.state == State.RUNNING, other.c.destination == job.c.destination),
        other.c.study_instance_uid == job.c.study_instance_uid,
    )


def heartbeat(
    connection: Connection, held: Job, lease_s: float, *, phase: str | None = None, fraction: float | None = None
) -> bool:
    """Whether the job is still this worker's; then its lease begins anew and its progress is noted."""
    changed = connection.execute(
        update(job)
        .where(_fence(held), job.c.state == State.RUNNING)
        .values(lease_until=clock(connection) + round(lease_s * SECOND), phase=phase, fraction=fraction)
    )
    return changed.rowcount == 1


def finish(connection: Connection, held: Job, outcome: Outcome, *, reason: str | None = None) -> bool:
    """The job is done and came to this; False when it is no longer this worker's."""
    return bool(
        move(
            connection,
            Event.FINISH,
            _fence(held),
            **REST,
            outcome=outcome,
            reason=reason,
            problem=None,
            fraction=1.0,
            finished_at=clock(connection),
        )
    )


def retry(
    connection: Connection, held: Job, *, wait_s: float, reason: str, problem: str, attempt: int | None = None
) -> bool:
    """The job goes back to the queue, to be claimed after `wait_s`; False when it is no longer this worker's.

    `attempt` is what the attempts spent are set to, where this one does not count.
    """
    later = clock(connection) + round(wait_s * SECOND)
    spent = held.attempt if attempt is None else attempt
    return bool(
        move(
            connection,
            Event.RETRY,
            _fence(held),
            **REST,
            not_before=later,
            reason=reason,
            problem=problem,
            attempt=spent,
        )
    )


def park(connection: Connection, held: Job, *, wait_s: float, reason: str) -> bool:
    """The job waits for the far side's word, at most `wait_s`; False when it is no longer this worker's."""
    later = clock(connection) + round(wait_s * SECOND)
    return bool(move(connection, Event.PARK, _fence(held), **REST, not_before=later, reason=reason, problem=None))


def wake(connection: Connection, job_id: int) -> bool:
    """The far side's word has come: the job is due at once and has spent no attempt; False when it does not wait."""
    return bool(
        move(
            connection,
            Event.RETRY,
            and_(job.c.id == job_id, job.c.state == State.WAITING),
            not_before=clock(connection),
            reason=None,
            attempt=job.c.attempt - 1,
        )
    )


def wake_overdue(connection: Connection) -> list[Job]:
    """Jobs for which the far side's word has not come in time: due again."""
    at = clock(connection)
    overdue = and_(job.c.state == State.WAITING, job.c.not_before <= at)
    return move(connection, Event.RETRY, overdue, reason="the far side has not answered in time", problem="NoWord")


def set_aside(connection: Connection, held: Job, *, reason: str, problem: str) -> bool:
    """The job waits for a person, and is held for this reason; False when it is no longer this worker's."""
    why = {"reason": reason, "problem": problem}
    if not move(connection, Event.RETRY, _fence(held), **REST, **why):
        return False
    return bool(move(connection, Event.HOLD, job.c.id == held.id, **why))


def give_up(connection: Connection, held: Job, *, reason: str, problem: str) -> bool:
    """The job has failed for this reason; False when it is no longer this worker's."""
    return bool(
        move(
            connection,
            Event.GIVE_UP,
            _fence(held),
            **REST,
            reason=reason,
            problem=problem,
            finished_at=clock(connection),
        )
    )


def lose_leases(connection: Connection, *, gone: Collection[str] = ()) -> list[Job]:
    """Jobs whose worker has fallen silent or is known to be gone: queued again, or failed after the last attempt."""
    at = clock(connection)
    silent = or_(job.c.lease_until < at, job.c.worker.in_(gone))
    reason = "the worker fell silent (killed, crashed or out of memory) during the last of its attempts"
    failed = move(
        connection,
        Event.GIVE_UP,
        and_(silent, job.c.attempt >= job.c.max_attempts),
        **REST,
        reason=reason,
        problem="LeaseLost",
        finished_at=at,
    )
    queued = move(
        connection,
        Event.LEASE_LOST,
        and_(silent, job.c.attempt < job.c.max_attempts),
        **REST,
        not_before=at,
        reason="the worker fell silent during an attempt",
        problem="LeaseLost",
    )
    return failed + queued


def overtaken(connection: Connection, held: Job, *, reason: str) -> bool:
    """Its worker found that newer inputs have taken this job's place; False when it is no longer this worker's."""
    at = clock(connection)
    return bool(move(connection, Event.SUPERSEDE, _fence(held), **REST, reason=reason, finished_at=at))


def supersede(
    connection: Connection,
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    keep: Collection[int],
    reason: str = "the series has changed since; a newer job reads it",
) -> list[Job]:
    """Unfinished inference on this series that is not among the jobs to `keep` is superseded by newer inputs."""
    stale = and_(
        job.c.lane == Lane.INFER,
        job.c.study_instance_uid == study_instance_uid,
        job.c.series_instance_uid == series_instance_uid,
        job.c.id.not_in(keep),
    )
    return move(connection, Event.SUPERSEDE, stale, **REST, reason=reason, finished_at=clock(connection))


def turn_stale(
    connection: Connection, *, study_instance_uid: str, series_instance_uid: str, fresh: Collection[int]
) -> list[Job]:
    """Runs on this series that are not among the `fresh` read what it no longer is; those that were not stale before.

    What follows of them and has not ended, builds and deliveries, is superseded, but for notes that reject what was
    sent of them. One that is fresh again is stale no more.
    """
    runs = and_(
        job.c.lane == Lane.INFER,
        job.c.study_instance_uid == study_instance_uid,
        job.c.series_instance_uid == series_instance_uid,
    )
    connection.execute(update(job).where(runs, job.c.id.in_(fresh)).values(stale_at=None))
    at = clock(connection)
    turned = connection.execute(
        update(job).where(runs, job.c.id.not_in(fresh), job.c.stale_at.is_(None)).values(stale_at=at).returning(job)
    ).mappings()
    found = sorted((_job(row) for row in turned), key=lambda one: one.id)
    stale = select(job.c.id).where(runs, job.c.id.not_in(fresh))
    of_results = result_set.c.profile.not_like(f"{NOTE_TO}%")
    sets = select(result_set.c.id).where(result_set.c.job_id.in_(stale), of_results)
    follow = or_(
        and_(job.c.lane == Lane.DELIVER, job.c.result_set_id.in_(sets)),
        and_(job.c.lane == Lane.BUILD, job.c.findings_job_id.in_(stale), job.c.profile.not_like(f"{NOTE_TO}%")),
    )
    move(connection, Event.SUPERSEDE, follow, **REST, reason="newer results take its place", finished_at=at)
    return found


def keep_for_person(connection: Connection, job_id: int, *, reason: str) -> bool:
    """A rule lets this queued job wait for a person; False when it is not queued (any more)."""
    return bool(move(connection, Event.HOLD, job.c.id == job_id, reason=reason))


def on_same_images(connection: Connection, one: Job) -> list[Job]:
    """Earlier inference of this work on the same images where they were before: in other series or studies, newest
    first."""
    names = ("pixels_digest", "pipeline", "settings_digest")
    elsewhere = or_(
        job.c.study_instance_uid != one.study_instance_uid, job.c.series_instance_uid != one.series_instance_uid
    )
    found = select(job).where(
        job.c.lane == Lane.INFER, job.c.id < one.id, elsewhere, *(job.c[name] == getattr(one, name) for name in names)
    )
    return [_job(row) for row in connection.execute(found.order_by(job.c.id.desc())).mappings()]


def find(connection: Connection, job_id: int) -> Job | None:
    """The job of this number."""
    row = connection.execute(select(job).where(job.c.id == job_id)).mappings().first()
    return _job(row) if row else None


def existing(connection: Connection, job_id: int) -> Job:
    """The job of this number.

    Raises:  UnknownJob
    """
    found = find(connection, job_id)
    if found is None:
        raise UnknownJob(f"there is no job {job_id}", remedy="See `isocenter jobs list`")
    return found


def list_(
    connection: Connection,
    *,
    state: State | None = None,
    lane: Lane | None = None,
    study_instance_uid: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[Job]:
    """The newest jobs first; with `before` those with smaller numbers, so that a page begins where one has ended."""
    wanted = {"state": state, "lane": lane, "study_instance_uid": study_instance_uid}
    conditions = [job.c[name] == value for name, value in wanted.items() if value is not None]
    if before is not None:
        conditions.append(job.c.id < before)
    rows = connection.execute(select(job).where(*conditions).order_by(job.c.id.desc()).limit(limit))
    return [_job(row) for row in rows.mappings()]


def durations(connection: Connection, *, most: int = 1000) -> dict[str, list[int]]:
    """How long the last inference jobs that are done took, in microseconds, by pipeline."""
    rows = connection.execute(
        select(job.c.pipeline, job.c.finished_at - job.c.started_at)
        .where(job.c.lane == Lane.INFER, job.c.state == State.DONE, job.c.started_at.is_not(None))
        .where(job.c.study_instance_uid.not_in(select(beat.c.study_instance_uid)))
        .order_by(job.c.id.desc())
        .limit(most)
    )
    found: dict[str, list[int]] = {}
    for pipeline, took in rows:
        found.setdefault(str(pipeline), []).append(int(took))
    return found


def earlier_in_study(connection: Connection, one: Job) -> int:
    """How many inference jobs of its study were made before this one; the same whenever it is asked."""
    earlier = select(func.count()).where(
        job.c.lane == Lane.INFER, job.c.study_instance_uid == one.study_instance_uid, job.c.id < one.id
    )
    return int(connection.execute(earlier).scalar_one())


def lock(connection: Connection, job_id: int) -> Job:
    """The job, which nobody else moves or locks until this transaction ends (SQLite: it has the only write lock).

    Raises:  UnknownJob
    """
    connection.execute(select(job.c.id).where(job.c.id == job_id).with_for_update())
    return existing(connection, job_id)


def runs_of(connection: Connection, like: Job) -> list[Job]:
    """This job and all its re-runs, oldest first."""
    return [
        _job(row) for row in connection.execute(select(job).where(_equal(_work(like))).order_by(job.c.run)).mappings()
    ]


def next_due(connection: Connection, lane: Lane, *, after: int) -> int | None:
    """When the earliest queued job of a lane may be claimed that could not be claimed before `after`."""
    waits = and_(job.c.lane == lane, job.c.state.in_(before(Event.CLAIM)), job.c.not_before > after)
    earliest: int | None = connection.scalar(select(func.min(job.c.not_before)).where(waits))
    return earliest


def _work(one: Job) -> dict[str, Any]:
    """What makes two jobs the same work, whatever the run."""
    names = ["lane", "pixels_digest", "identity_digest", "pipeline", "pipeline_version", "settings_digest",
             "result_set_id", "destination", "findings_job_id", "profile"]  # fmt: skip
    if one.is_forward:
        names += ["study_instance_uid", "generation"]
    return {name: getattr(one, name) for name in names}


def _equal(key: Mapping[str, Any]) -> ColumnElement[bool]:
    return and_(*(job.c[name].is_not_distinct_from(value) for name, value in key.items()))


def _add(connection: Connection, key: Mapping[str, Any], **values: Any) -> tuple[int, bool]:
    """The one job of this key, which a unique index of the table covers, and whether this call queued it."""
    at = clock(connection)
    fresh = insert_into(connection, job).values(state=State.QUEUED, not_before=at, created_at=at, **key, **values)
    made = connection.scalar(fresh.on_conflict_do_nothing().returning(job.c.id))
    if made is not None:
        return int(made), True
    return int(connection.execute(select(job.c.id).where(_equal(key))).scalar_one()), False


def _fence(held: Job) -> ColumnElement[bool]:
    return and_(job.c.id == held.id, job.c.worker == held.worker, job.c.attempt == held.attempt)


def _job(row: Mapping[Any, Any]) -> Job:
    values = dict(row)
    values["lane"], values["state"] = Lane(values["lane"]), State(values["state"])
    values["outcome"] = None if values["outcome"] is None else Outcome(values["outcome"])
    return Job(**values)
