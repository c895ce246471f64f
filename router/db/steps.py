"""Performed procedure steps that modalities have told us of: one row for each study that a step serves."""

from sqlalchemy import Connection, Row, select, update

from router.db.engine import insert_into
from router.db.tables import performed_step
from router.domain.procedure_step import PerformedStep, StepState


def add(connection: Connection, step: PerformedStep, *, calling_ae_title: str, at: int) -> bool:
    """Keep a new step; False when its UID is taken."""
    if find(connection, step.sop_instance_uid) is not None:
        return False
    rows = [
        {
            "sop_instance_uid": step.sop_instance_uid,
            "study_instance_uid": uid,
            "calling_ae_title": calling_ae_title,
            "state": step.state,
            "series": dict(step.series),
            "received_at": at,
        }
        for uid in step.study_instance_uids
    ]
    fresh = insert_into(connection, performed_step).values(rows).on_conflict_do_nothing()
    return len(connection.execute(fresh.returning(performed_step.c.study_instance_uid)).all()) == len(rows)


def change(connection: Connection, step: PerformedStep, *, at: int) -> bool:
    """Keep what a step has become; False when it was over already, and may change no more."""
    changed = connection.execute(
        update(performed_step)
        .where(
            performed_step.c.sop_instance_uid == step.sop_instance_uid,
            performed_step.c.state == StepState.IN_PROGRESS,
        )
        .values(state=step.state, series=dict(step.series), received_at=at)
    )
    return bool(changed.rowcount)


def find(connection: Connection, sop_instance_uid: str) -> PerformedStep | None:
    """The step of this UID."""
    rows = connection.execute(
        select(performed_step)
        .where(performed_step.c.sop_instance_uid == sop_instance_uid)
        .order_by(performed_step.c.study_instance_uid)
    ).all()
    return _step(rows[0], tuple(row.study_instance_uid for row in rows)) if rows else None


def of_study(connection: Connection, study_instance_uid: str) -> list[PerformedStep]:
    """Steps that serve this study."""
    rows = connection.execute(
        select(performed_step)
        .where(performed_step.c.study_instance_uid == study_instance_uid)
        .order_by(performed_step.c.sop_instance_uid)
    )
    return [_step(row, (study_instance_uid,)) for row in rows]


def _step(row: Row[tuple[object, ...]], studies: tuple[str, ...]) -> PerformedStep:
    values = row._mapping
    return PerformedStep(
        sop_instance_uid=values["sop_instance_uid"],
        state=StepState(values["state"]),
        study_instance_uids=studies,
        series={uid: tuple(made) for uid, made in values["series"].items()},
    )
