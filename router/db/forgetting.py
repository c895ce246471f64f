"""Statements that erase who a patient was: every column that may name one, and nothing that counts or routes."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select, update

from router.db.filing import IDENTITY
from router.db.tables import decision, instance, job, receipt, result, result_header, result_set, series, study
from router.db.versions import Status
from router.domain.job import State
from router.domain.study import StudyState

UNFINISHED = (State.QUEUED, State.RUNNING, State.WAITING, State.HELD)


def studies_of(connection: Connection, patient_id: str, issuer: str | None) -> list[str]:
    """StudyInstanceUIDs of a patient's studies."""
    statement = select(study.c.study_instance_uid).where(study.c.patient_id == patient_id)
    if issuer is not None:
        statement = statement.where(study.c.issuer_of_patient_id == issuer)
    return list(connection.scalars(statement.order_by(study.c.study_instance_uid)))


def unfinished(connection: Connection, studies: Sequence[str]) -> list[str]:
    """Those of these studies that are still arriving, or that a job is still to work on."""
    arriving = select(study.c.study_instance_uid).where(
        study.c.study_instance_uid.in_(studies), study.c.state == StudyState.RECEIVING, study.c.decide_at.is_not(None)
    )
    worked_on = select(job.c.study_instance_uid).where(
        job.c.study_instance_uid.in_(studies), job.c.state.in_(UNFINISHED)
    )
    return sorted({*connection.scalars(arriving), *connection.scalars(worked_on)})


def paths_of(connection: Connection, studies: Sequence[str]) -> list[str]:
    """Every file of these studies, received or produced."""
    received = select(instance.c.path).where(instance.c.study_instance_uid.in_(studies))
    made = (
        select(result.c.path)
        .join(result_set, result_set.c.id == result.c.result_set_id)
        .where(result_set.c.study_instance_uid.in_(studies))
    )
    return [*connection.scalars(received.where(instance.c.status != Status.PURGED)), *connection.scalars(made)]


def blank(connection: Connection, studies: Sequence[str]) -> None:
    """Nothing in the database tells any more whose these studies were; their rows count as before."""
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid.in_(studies))
        .values({**dict.fromkeys(IDENTITY, ""), "witnesses": None, "held_reason": None})
    )
    connection.execute(
        update(series)
        .where(series.c.study_instance_uid.in_(studies))
        .values(series_description="", facts=None, facts_generation=None)
    )
    connection.execute(
        update(instance)
        .where(instance.c.study_instance_uid.in_(studies))
        .values(header={}, status=Status.PURGED, dataset_digest="", pixel_digest="", identity_digest="")
    )
    connection.execute(update(decision).where(decision.c.study_instance_uid.in_(studies)).values(reasons={}))
    of_them = select(job.c.id).where(job.c.study_instance_uid.in_(studies))
    connection.execute(update(receipt).where(receipt.c.job_id.in_(of_them)).values(detail=""))
    connection.execute(
        update(job).where(job.c.study_instance_uid.in_(studies), job.c.reason.is_not(None)).values(reason="forgotten")
    )
    made = (
        select(result.c.sop_instance_uid)
        .join(result_set, result_set.c.id == result.c.result_set_id)
        .where(result_set.c.study_instance_uid.in_(studies))
    )
    connection.execute(delete(result_header).where(result_header.c.sop_instance_uid.in_(made)))
