"""Pipelines that kill their processes: how often in a row, and which are paused, by a third death or by a person."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from router.db import alerts, audit
from router.db.engine import clock, insert_into
from router.db.tables import breaker

DIED = "ProcessDied"
"""What `problem` says of a run whose process was killed or has crashed."""

DEATHS = 3
"""After so many in a row, on different studies, a pipeline is paused."""

ALERT = "pipeline.paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """A pipeline of which no job starts. `at` is in microseconds since 1970 UTC."""

    pipeline: str
    at: int
    who: str
    why: str

    @property
    def sentence(self) -> str:
        """What people are told of a job that waits for it."""
        return f"{self.pipeline} is paused: {self.why}. It waits for `isocenter pipelines resume {self.pipeline}`"


def died(connection: Connection, pipeline: str, study_instance_uid: str) -> Paused | None:
    """A run on this study has killed its process; the pause, where that was one too many."""
    row = connection.execute(select(breaker).where(breaker.c.pipeline == pipeline).with_for_update()).first()
    studies = sorted({*(row.deaths if row else ()), study_instance_uid})
    fresh = insert_into(connection, breaker).values(pipeline=pipeline, deaths=studies)
    connection.execute(fresh.on_conflict_do_update(index_elements=[breaker.c.pipeline], set_={"deaths": studies}))
    if len(studies) < DEATHS or (row is not None and row.paused_at is not None):
        return None
    why = f"its process died on {len(studies)} studies in a row"
    audit.write(connection, "infer", "pipeline.paused", pipeline=pipeline, why=why)
    return _pause(connection, pipeline, who="infer", why=why)


def survived(connection: Connection, pipeline: str) -> None:
    """A run has come to its end: the deaths before it were not in a row with what comes."""
    connection.execute(delete(breaker).where(breaker.c.pipeline == pipeline, breaker.c.paused_at.is_(None)))


def pause(connection: Connection, pipeline: str, *, who: str, why: str) -> None:
    """A person lets no job of this pipeline start."""
    audit.write(connection, who, "pipeline.paused", pipeline=pipeline, why=why)
    _pause(connection, pipeline, who=who, why=why or "a person has paused it")


def resume(connection: Connection, pipeline: str, *, who: str) -> bool:
    """A person lets its jobs start again, with no death counted; whether it was paused."""
    gone = connection.execute(
        delete(breaker).where(breaker.c.pipeline == pipeline, breaker.c.paused_at.is_not(None))
    ).rowcount
    if gone:
        audit.write(connection, who, "pipeline.resumed", pipeline=pipeline)
    alerts.end(connection, ALERT, pipeline)
    return bool(gone)


def paused(connection: Connection) -> dict[str, Paused]:
    """All that are paused, by name."""
    rows = connection.execute(select(breaker).where(breaker.c.paused_at.is_not(None)))
    return {
        row.pipeline: Paused(pipeline=row.pipeline, at=row.paused_at, who=row.paused_by, why=row.why) for row in rows
    }


def _pause(connection: Connection, pipeline: str, *, who: str, why: str) -> Paused:
    made = Paused(pipeline=pipeline, at=clock(connection), who=who, why=why)
    fresh = insert_into(connection, breaker).values(pipeline=pipeline, deaths=[])
    connection.execute(fresh.on_conflict_do_nothing())
    connection.execute(
        update(breaker).where(breaker.c.pipeline == pipeline).values(paused_at=made.at, paused_by=who, why=why)
    )
    alerts.raise_(
        connection,
        ALERT,
        pipeline,
        what=f"{pipeline} is paused: {why}",
        remedy=f"Find out why (`isocenter jobs list --lane infer`), then `isocenter pipelines resume {pipeline}`",
    )
    return made
