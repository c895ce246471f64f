"""Result sets, their objects and the measured numbers: written once, in the transaction that finishes their job."""

from collections.abc import Iterable

from sqlalchemy import Connection, and_, func, insert, select, update

from dicom_sr.problem import Problem
from router.db.engine import insert_into, now
from router.db.tables import job, measurement, receipt, result, result_set, series
from router.domain.delivery import MeasurementRow, Result, ResultSet
from router.domain.job import Lane


class OtherBytes(Problem):
    """An object was built anew under a UID that is taken, and its bytes differ (a derived UID left something out)."""


def add_set(connection: Connection, *, job_id: int, profile: str, study_instance_uid: str, generation: int) -> int:
    """The id of this job's result set for destinations of this profile; a repeat gives the id that it has."""
    fresh = insert_into(connection, result_set).values(
        job_id=job_id,
        profile=profile,
        study_instance_uid=study_instance_uid,
        generation=generation,
        built_at=now(),
    )
    made = connection.scalar(fresh.on_conflict_do_nothing().returning(result_set.c.id))
    return int(
        made
        if made is not None
        else connection.execute(
            select(result_set.c.id).where(result_set.c.job_id == job_id, result_set.c.profile == profile)
        ).scalar_one()
    )


def add(connection: Connection, produced: Result) -> None:
    """Note one object of a set; the same bytes again change nothing, but that its file is here.

    Raises:  OtherBytes
    """
    row = {name: getattr(produced, name) for name in Result.__slots__}
    fresh = insert_into(connection, result).values(row).on_conflict_do_nothing()
    if connection.scalar(fresh.returning(result.c.sop_instance_uid)) is not None:
        return
    kept = connection.execute(
        select(result.c.digest).where(result.c.sop_instance_uid == produced.sop_instance_uid)
    ).scalar_one()
    if kept == produced.digest:
        connection.execute(
            update(result).where(result.c.sop_instance_uid == produced.sop_instance_uid).values(purged_at=None)
        )
    else:
        raise OtherBytes(
            f"{produced.kind} {produced.sop_instance_uid} was built a second time with other bytes",
            remedy="Nothing was sent. Keep the files and report this as a fault of Isocenter; a re-run gets new UIDs",
        )


def sets_of_job(connection: Connection, job_id: int) -> list[ResultSet]:
    """All result sets that a job gave."""
    rows = connection.execute(select(result_set).where(result_set.c.job_id == job_id).order_by(result_set.c.id))
    return [ResultSet(**row) for row in rows.mappings()]


def delivered_of(connection: Connection, job_id: int, *, profile: str | None = None) -> list[tuple[str, Result]]:
    """Objects that a run gave and some destination has taken, each with that destination, in the order of sending."""
    of_profile = [] if profile is None else [result_set.c.profile == profile]
    rows = connection.execute(
        select(job.c.destination, result)
        .join(result_set, result_set.c.id == result.c.result_set_id)
        .join(job, and_(job.c.result_set_id == result_set.c.id, job.c.lane == Lane.DELIVER))
        .join(receipt, and_(receipt.c.job_id == job.c.id, receipt.c.sop_instance_uid == result.c.sop_instance_uid))
        .where(result_set.c.job_id == job_id, receipt.c.accepted, *of_profile)
        .order_by(job.c.id, result.c.ordinal)
    )
    names = [column.name for column in result.c]
    return [(row.destination, Result(**{name: row._mapping[name] for name in names})) for row in rows]


def find_set(connection: Connection, result_set_id: int) -> ResultSet | None:
    """The result set of this id."""
    row = connection.execute(select(result_set).where(result_set.c.id == result_set_id)).mappings().first()
    return ResultSet(**row) if row else None


def of_set(connection: Connection, result_set_id: int) -> list[Result]:
    """The objects of a set in the order of sending."""
    rows = connection.execute(select(result).where(result.c.result_set_id == result_set_id).order_by(result.c.ordinal))
    return [Result(**row) for row in rows.mappings()]


def after(connection: Connection, sop_instance_uid: str, limit: int) -> list[Result]:
    """The next objects that should have a file, in the order of their UIDs."""
    statement = select(result).where(result.c.sop_instance_uid > sop_instance_uid, result.c.purged_at.is_(None))
    rows = connection.execute(statement.order_by(result.c.sop_instance_uid).limit(limit))
    return [Result(**row) for row in rows.mappings()]


def count(connection: Connection) -> int:
    """How many objects were made and should have a file."""
    return int(connection.scalar(select(func.count()).where(result.c.purged_at.is_(None))) or 0)


def is_ours(connection: Connection, sop_instance_uid: str) -> bool:
    """Whether this node has made the object of this UID."""
    found = select(result.c.sop_instance_uid).where(result.c.sop_instance_uid == sop_instance_uid)
    return connection.scalar(found) is not None


def foreign_series_numbers(connection: Connection, study_instance_uid: str) -> frozenset[int]:
    """SeriesNumbers in use in a study by series that this node has not made."""
    own = select(result.c.series_instance_uid)
    texts = connection.execute(
        select(series.c.series_number).where(
            series.c.study_instance_uid == study_instance_uid, series.c.series_instance_uid.not_in(own)
        )
    ).scalars()
    return frozenset(int(text) for text in texts if text.strip().isdecimal())


def add_measurements(connection: Connection, job_id: int, rows: Iterable[MeasurementRow]) -> None:
    """Note the numbers that a job found, for lists; the objects remain the record."""
    values = [
        {
            "job_id": job_id,
            "ordinal": row.ordinal,
            "label": row.label,
            "name": row.name,
            "value": row.value,
            "unit": row.unit,
            "remark": row.remark,
        }
        for row in rows
    ]
    if values:
        connection.execute(insert(measurement), values)


def measurements_of(connection: Connection, job_id: int) -> list[MeasurementRow]:
    """The numbers that a job found."""
    columns = [column for column in measurement.c if column is not measurement.c.job_id]
    rows = connection.execute(select(*columns).where(measurement.c.job_id == job_id).order_by(measurement.c.ordinal))
    return [MeasurementRow(**row) for row in rows.mappings()]
