"""Statements on decisions: what each rule said of each series of each generation, with its reasons."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from router.db.tables import decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One rule's answer for one of its pipelines.

    `series_instance_uid` is empty for a study-level rule; `pipeline` where the rule names none; `reasons` is a verdict
    tree as JSON; `inputs` is the digest of what was decided on.
    """

    study_instance_uid: str
    generation: int
    series_instance_uid: str
    rule: str
    revision: int
    fires: bool
    mode: str
    reasons: dict[str, Any]
    pipeline: str
    destinations: list[str]
    job_id: int | None
    decided_at: int
    inputs: str = ""
    id: int | None = None


def add(connection: Connection, made: Decision) -> int:
    """Write a decision and give its id."""
    values = {name: getattr(made, name) for name in Decision.__slots__ if name != "id"}
    return int(connection.execute(insert(decision).values(values).returning(decision.c.id)).scalar_one())


def share(connection: Connection, decision_id: int, job_id: int) -> None:
    """Tie a decision to the run that serves it."""
    connection.execute(update(decision).where(decision.c.id == decision_id).values(job_id=job_id))


def of_study(connection: Connection, study_instance_uid: str, *, generation: int | None = None) -> list[Decision]:
    """Decisions on a study, of all its generations or of one, in the order they were made."""
    statement = select(decision).where(decision.c.study_instance_uid == study_instance_uid)
    if generation is not None:
        statement = statement.where(decision.c.generation == generation)
    return [_decision(row) for row in connection.execute(statement.order_by(decision.c.generation, decision.c.id))]


def studies_by_revision(connection: Connection, since: int) -> dict[int, int]:
    """Revision of the rules -> how many studies it was the last to decide on, of those decided on since then."""
    last = (
        select(decision.c.study_instance_uid, func.max(decision.c.revision).label("revision"))
        .where(decision.c.decided_at >= since)
        .group_by(decision.c.study_instance_uid)
        .subquery()
    )
    rows = connection.execute(select(last.c.revision, func.count()).group_by(last.c.revision))
    return {int(number): int(count) for number, count in rows}


def of_job(connection: Connection, job_id: int) -> list[Decision]:
    """Decisions that share one run: its results go to all their destinations."""
    rows = connection.execute(select(decision).where(decision.c.job_id == job_id).order_by(decision.c.id))
    return [_decision(row) for row in rows]


def _decision(row: Row[Any]) -> Decision:
    return Decision(**row._mapping)
