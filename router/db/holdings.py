"""What the node holds, as queries and retrievals see it: received instances that are current, and released results.

Of what we made ourselves, those results are there for others that a delivery has released, never a shadow rule's; once
one has come back from an archive it is an instance like any other, and no longer counted here as ours.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    and_,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
)

from router.db.engine import insert_into
from router.db.matching import Columns, condition
from router.db.tables import instance, job, result, result_header, result_set, series, study
from router.domain.job import Lane, State
from router.domain.query import UNIQUE, Query

MODALITIES: Mapping[str, str] = {
    "segmentation": "SEG",
    "label_map": "SEG",
    "fractional": "SEG",
    "parametric_map": "OT",
    "measurement_report": "SR",
    "key_objects": "KO",
    "rejection_note": "KO",
    "presentation_state": "PR",
    "rtstruct": "RTSTRUCT",
}
"""Modality of a result kind whose header nobody has noted."""

CURRENT = instance.c.status == literal_column("'current'")
"""A literal and no parameter: only so do the indices on current instances serve."""

ANY: ColumnElement[int] = literal_column("1")
"""What EXISTS asks for: no column, so that an index alone can answer."""

RELEASED = and_(
    result.c.purged_at.is_(None),
    exists(
        select(ANY)
        .select_from(job)
        .where(
            job.c.lane == literal_column(f"'{Lane.DELIVER}'"),
            job.c.result_set_id == result.c.result_set_id,
            job.c.state.in_([State.QUEUED, State.RUNNING, State.WAITING, State.DONE, State.FAILED]),
        )
    ),
)
"""A result may be found once its delivery was asked for, as long as nobody has held, cancelled or replaced that, and
its file is here."""

STILL_OUT = ~exists(
    select(ANY).select_from(instance).where(CURRENT, instance.c.sop_instance_uid == result.c.sop_instance_uid)
)
"""The result has not come back to us, else it would be found twice."""

STUDY_COLUMNS: Columns = {
    "PatientName": study.c.patient_name,
    "PatientID": study.c.patient_id,
    "IssuerOfPatientID": study.c.issuer_of_patient_id,
    "PatientBirthDate": study.c.patient_birth_date,
    "PatientSex": study.c.patient_sex,
    "StudyInstanceUID": study.c.study_instance_uid,
    "StudyDate": study.c.study_date,
    "StudyTime": study.c.study_time,
    "AccessionNumber": study.c.accession_number,
    "StudyID": study.c.study_id,
    "StudyDescription": study.c.study_description,
    "ReferringPhysicianName": study.c.referring_physician_name,
}
HELD: Columns = {
    **STUDY_COLUMNS,
    "SeriesInstanceUID": series.c.series_instance_uid,
    "Modality": series.c.modality,
    "SeriesNumber": series.c.series_number,
    "SeriesDescription": series.c.series_description,
    "BodyPartExamined": series.c.body_part_examined,
    "SOPInstanceUID": instance.c.sop_instance_uid,
    "SOPClassUID": instance.c.sop_class_uid,
    "InstanceNumber": instance.c.instance_number,
}


def _noted(keyword: str, otherwise: Any = "") -> ColumnElement[str]:
    return func.coalesce(result_header.c.header[keyword].as_string(), otherwise)


MADE: Columns = {
    **STUDY_COLUMNS,
    "SeriesInstanceUID": result.c.series_instance_uid,
    "Modality": _noted("Modality", case(MODALITIES, value=result.c.kind, else_="OT")),
    "SeriesNumber": _noted("SeriesNumber"),
    "SeriesDescription": _noted("SeriesDescription"),
    "BodyPartExamined": _noted("BodyPartExamined"),
    "SOPInstanceUID": result.c.sop_instance_uid,
    "SOPClassUID": result.c.sop_class_uid,
    "InstanceNumber": _noted("InstanceNumber"),
}

MADE_ROWS: FromClause = result.join(result_set, result_set.c.id == result.c.result_set_id).outerjoin(
    result_header, result_header.c.sop_instance_uid == result.c.sop_instance_uid
)
MADE_IN_STUDY: FromClause = MADE_ROWS.join(study, study.c.study_instance_uid == result_set.c.study_instance_uid)
HELD_SERIES: FromClause = series.join(study, study.c.study_instance_uid == series.c.study_instance_uid)
OF_SERIES = and_(
    instance.c.series_instance_uid == series.c.series_instance_uid,
    instance.c.study_instance_uid == series.c.study_instance_uid,
)
HELD_IMAGES: FromClause = instance.join(series, OF_SERIES).join(
    study, study.c.study_instance_uid == instance.c.study_instance_uid
)

OF_OURS: ColumnElement[str] = literal_column("''")

Files = tuple[ColumnElement[str], ColumnElement[str]]
RETRIEVABLE: tuple[tuple[FromClause, Columns, tuple[ColumnElement[bool], ...], Files], ...] = (
    (HELD_IMAGES, HELD, (CURRENT,), (instance.c.path, instance.c.transfer_syntax_uid)),
    (MADE_IN_STUDY, MADE, (RELEASED, STILL_OUT), (result.c.path, OF_OURS)),
)
"""Both kinds of objects: from here, with these columns, under these conditions, in this file of this syntax."""

OF_STUDY = instance.c.study_instance_uid == study.c.study_instance_uid
STUDY_HAS_SOMETHING = or_(
    exists(select(ANY).select_from(instance).where(CURRENT, OF_STUDY)),
    exists(
        select(ANY)
        .select_from(result)
        .join(result_set, result_set.c.id == result.c.result_set_id)
        .where(result_set.c.study_instance_uid == study.c.study_instance_uid, RELEASED)
    ),
)
SERIES_HAS_SOMETHING = exists(select(ANY).select_from(instance).where(CURRENT, OF_SERIES))
MADE_SERIES_IS_NOT_HELD = ~exists(
    select(ANY)
    .select_from(instance)
    .where(
        CURRENT,
        instance.c.series_instance_uid == result.c.series_instance_uid,
        instance.c.study_instance_uid == result_set.c.study_instance_uid,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One object that can be retrieved; `path` is relative to the store. Of what we made ourselves only
    the file says its transfer syntax."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    path: str
    series_instance_uid: str = ""
    transfer_syntax_uid: str = ""


def wanted_by(connection: Connection, query: Query, limit: int) -> list[Holding]:
    """What a retrieval wants, study by study and series by series; at most `limit` objects."""
    names = [name for name in (*UNIQUE.values(), "IssuerOfPatientID") if name in query.conditions]
    found: list[Holding] = []
    for source, columns, where, file in RETRIEVABLE:
        asked = [condition(connection, columns, name, query.conditions[name]) for name in names]
        found += _objects(connection, source, columns, (*where, *asked), file, limit - len(found))
    return found


def of(connection: Connection, sop_instance_uids: Collection[str]) -> dict[str, Holding]:
    """Those of these instances that the node holds as received or has released, by their UIDs."""
    found: dict[str, Holding] = {}
    for source, columns, where, file in RETRIEVABLE:
        asked = columns["SOPInstanceUID"].in_(sop_instance_uids)
        for one in _objects(connection, source, columns, (*where, asked), file, len(sop_instance_uids)):
            found[one.sop_instance_uid] = one
    return found


def _objects(
    connection: Connection,
    source: FromClause,
    columns: Columns,
    where: Iterable[ColumnElement[bool]],
    file: Files,
    limit: int,
) -> list[Holding]:
    wanted = {
        "sop_instance_uid": columns["SOPInstanceUID"],
        "sop_class_uid": columns["SOPClassUID"],
        "study_instance_uid": columns["StudyInstanceUID"],
        "series_instance_uid": columns["SeriesInstanceUID"],
        "path": file[0],
        "transfer_syntax_uid": file[1],
    }
    rows = connection.execute(
        select(*(column.label(name) for name, column in wanted.items()))
        .select_from(source)
        .where(*where)
        .order_by(columns["StudyInstanceUID"], columns["SeriesInstanceUID"], columns["SOPInstanceUID"])
        .limit(limit)
    )
    return [Holding(**row) for row in rows.mappings()]


def issuers_of(connection: Connection, patient_id: str) -> list[str]:
    """Who has issued this PatientID, as far as our studies say; "" where they say nothing."""
    issuer = study.c.issuer_of_patient_id
    return list(connection.scalars(select(issuer).where(study.c.patient_id == patient_id).distinct().order_by(issuer)))


def describe(connection: Connection, sop_instance_uid: str, header: Mapping[str, Any]) -> None:
    """Note what a result's header says (SeriesNumber, SeriesDescription, Modality ...), so that queries can show it."""
    fresh = insert_into(connection, result_header).values(sop_instance_uid=sop_instance_uid, header=dict(header))
    connection.execute(fresh.on_conflict_do_nothing())
