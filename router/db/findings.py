"""Kept findings: one row a run, written before anything is built from it."""

from dataclasses import dataclass

from sqlalchemy import Connection, and_, select

from router.db.engine import insert_into, now
from router.db.tables import findings, job
from router.domain.job import Job, Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Where the findings of a run lie, and what objects say of the run beside them."""

    job_id: int
    path: str
    digest: str
    title: str
    research: bool
    completeness: str


def keep(connection: Connection, kept: Kept) -> None:
    """Note where a run's findings lie; findings kept anew take the place of damaged ones."""
    values = {name: getattr(kept, name) for name in Kept.__slots__} | {"kept_at": now()}
    connection.execute(
        insert_into(connection, findings)
        .values(values)
        .on_conflict_do_update(index_elements=["job_id"], set_={name: values[name] for name in ("path", "digest")})
    )


def find(connection: Connection, job_id: int) -> Kept | None:
    """The kept findings of this inference job."""
    columns = [findings.c[name] for name in Kept.__slots__]
    row = connection.execute(select(*columns).where(findings.c.job_id == job_id)).mappings().first()
    return Kept(**row) if row else None


def of_same_work(connection: Connection, one: Job) -> Kept | None:
    """The kept findings of this inference job, or of another that has done the same work under another identity."""
    names = ("pixels_digest", "pipeline", "pipeline_version", "weights_digest", "settings_digest", "run")
    same = and_(job.c.lane == Lane.INFER, *(job.c[name].is_not_distinct_from(getattr(one, name)) for name in names))
    columns = [findings.c[name] for name in Kept.__slots__]
    found = select(*columns).join(job, job.c.id == findings.c.job_id).where(same)
    row = connection.execute(found.order_by(job.c.id != one.id, job.c.id).limit(1)).mappings().first()
    return Kept(**row) if row else None
