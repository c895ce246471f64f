"""Statements of retention: what is held and how far it is, which files a study has, and that they are gone."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, func, literal, or_, select, update

from router.db.tables import findings, instance, job, result, result_set, series, study
from router.db.versions import Status
from router.domain.job import Lane, Outcome, State
from router.domain.retention import Held
from router.domain.study import StudyState

OPEN = (State.QUEUED, State.RUNNING, State.WAITING, State.HELD, State.FAILED)
"""What may still need the pixels; a person ends a failed job for good by cancelling it."""


def held(connection: Connection, *, only: str | None = None) -> list[Held]:
    """Every study that has files as received, and how far it is."""
    sizes = (
        select(instance.c.study_instance_uid.label("study"), func.sum(instance.c.size).label("size"))
        .where(instance.c.status != Status.PURGED)
        .group_by(instance.c.study_instance_uid)
        .subquery()
    )
    statement = _standing(sizes.c.size).join(sizes, sizes.c.study == study.c.study_instance_uid)
    return _held(connection, statement, only)


def made(connection: Connection, *, before: int, only: str | None = None) -> list[Held]:
    """Studies without a new image since `before` of which results or findings are here, and how far they are.

    The size of these files is not known.
    """
    objects = (
        select(result.c.sop_instance_uid)
        .join(result_set, result_set.c.id == result.c.result_set_id)
        .where(result_set.c.study_instance_uid == study.c.study_instance_uid, result.c.purged_at.is_(None))
    )
    found = (
        select(findings.c.job_id)
        .join(job, job.c.id == findings.c.job_id)
        .where(job.c.study_instance_uid == study.c.study_instance_uid)
    )
    statement = _standing(literal(0)).where(study.c.last_instance_at < before, or_(objects.exists(), found.exists()))
    return _held(connection, statement, only)


def _standing(size: ColumnElement[Any]) -> Select[Any]:
    """How far each study is."""
    unfinished = select(func.count()).where(
        job.c.study_instance_uid == study.c.study_instance_uid, job.c.state.in_(OPEN)
    )
    delivered = select(func.max(job.c.finished_at)).where(
        job.c.study_instance_uid == study.c.study_instance_uid,
        job.c.lane == Lane.DELIVER,
        job.c.state == State.DONE,
        job.c.outcome == Outcome.DELIVERED,
    )
    return select(
        study.c.study_instance_uid,
        study.c.state,
        study.c.decide_at,
        study.c.last_instance_at,
        size.label("size"),
        unfinished.scalar_subquery().label("unfinished"),
        delivered.scalar_subquery().label("delivered_at"),
    )


def _held(connection: Connection, statement: Select[Any], only: str | None) -> list[Held]:
    if only is not None:
        statement = statement.where(study.c.study_instance_uid == only)
    return [
        Held(
            study_instance_uid=row.study_instance_uid,
            size=int(row.size),
            last_instance_at=row.last_instance_at,
            arriving=row.state == StudyState.HELD or (row.state == StudyState.RECEIVING and row.decide_at is not None),
            unfinished=row.unfinished,
            delivered_at=row.delivered_at,
        )
        for row in connection.execute(statement)
    ]


def files(connection: Connection, study_instance_uid: str, limit: int) -> list[str]:
    """Paths of files that the study has, whatever version they are, for whoever removes them in this transaction."""
    rows = connection.scalars(
        select(instance.c.path)
        .where(instance.c.study_instance_uid == study_instance_uid, instance.c.status != Status.PURGED)
        .order_by(instance.c.path)
        .limit(limit)
        .with_for_update()
    )
    return list(rows)


def gone(connection: Connection, paths: Sequence[str]) -> None:
    """The files of these versions are gone; what comes again is stored again."""
    connection.execute(update(instance).where(instance.c.path.in_(paths)).values(status=Status.PURGED))


def made_files(connection: Connection, study_instance_uid: str) -> list[str]:
    """Paths of the results and findings of a study that no other study's findings share."""
    sets = select(result_set.c.id).where(result_set.c.study_instance_uid == study_instance_uid)
    runs = select(job.c.id).where(job.c.study_instance_uid == study_instance_uid)
    shared = select(findings.c.path).where(findings.c.job_id.not_in(runs))
    results = select(result.c.path).where(result.c.result_set_id.in_(sets), result.c.purged_at.is_(None))
    kept = select(findings.c.path).where(findings.c.job_id.in_(runs), findings.c.path.not_in(shared))
    return sorted({*connection.scalars(results), *connection.scalars(kept)})


def made_gone(connection: Connection, study_instance_uid: str, at: int) -> None:
    """The files of a study's results are gone; what was made, and measured, stays known."""
    sets = select(result_set.c.id).where(result_set.c.study_instance_uid == study_instance_uid)
    runs = select(job.c.id).where(job.c.study_instance_uid == study_instance_uid)
    connection.execute(
        update(result).where(result.c.result_set_id.in_(sets), result.c.purged_at.is_(None)).values(purged_at=at)
    )
    connection.execute(delete(findings).where(findings.c.job_id.in_(runs)))


def forget_facts(connection: Connection, before: int) -> int:
    """Facts of studies that came before this time, and of which no file is left, are not kept; of how many series."""
    kept = select(instance.c.study_instance_uid).where(instance.c.status != Status.PURGED)
    old = select(study.c.study_instance_uid).where(
        and_(study.c.last_instance_at < before, study.c.study_instance_uid.not_in(kept))
    )
    stale = and_(series.c.study_instance_uid.in_(old), series.c.facts.is_not(None))
    return int(connection.execute(update(series).where(stale).values(facts=None, facts_generation=None)).rowcount)


def stored(connection: Connection, after: tuple[str, int], limit: int) -> list[tuple[str, int]]:
    """The next keys (SOPInstanceUID, version) of what should have a file."""
    uid, version = after
    rows = connection.execute(
        select(instance.c.sop_instance_uid, instance.c.version)
        .where(
            instance.c.status != Status.PURGED,
            (instance.c.sop_instance_uid > uid)
            | ((instance.c.sop_instance_uid == uid) & (instance.c.version > version)),
        )
        .order_by(instance.c.sop_instance_uid, instance.c.version)
        .limit(limit)
    )
    return [(row.sop_instance_uid, row.version) for row in rows]


def count_stored(connection: Connection) -> int:
    """How many received files there should be."""
    return int(
        connection.scalar(select(func.count()).select_from(instance).where(instance.c.status != Status.PURGED)) or 0
    )
