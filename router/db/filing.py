"""How an arriving instance is filed: its own row, and those of its series and study. The door's hot path.

Every statement here is prepared once; `router.db.instances` has all others.
"""

from collections.abc import Container, Sequence
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, Dialect, Insert, Update, case, literal_column, update

from router.db.prepared import Prepared
from router.db.tables import instance, series, study
from router.db.versions import Arrival, Status

DERIVED = "2.25."
"""How every UID begins that we derive (`dicom_sr.uids`)."""

IDENTITY = {
    "patient_id": "PatientID",
    "issuer_of_patient_id": "IssuerOfPatientID",
    "patient_name": "PatientName",
    "patient_birth_date": "PatientBirthDate",
    "patient_sex": "PatientSex",
    "accession_number": "AccessionNumber",
    "study_id": "StudyID",
    "study_date": "StudyDate",
    "study_time": "StudyTime",
    "study_description": "StudyDescription",
    "referring_physician_name": "ReferringPhysicianName",
}
"""Columns of a study and the attributes that they hold."""


def values_of(arrival: Arrival, version: int, status: Status) -> dict[str, Any]:
    return {
        "sop_instance_uid": arrival.sop_instance_uid,
        "version": version,
        "status": status.value,
        "study_instance_uid": arrival.study_instance_uid,
        "series_instance_uid": arrival.series_instance_uid,
        "sop_class_uid": arrival.sop_class_uid,
        "transfer_syntax_uid": arrival.transfer_syntax_uid,
        "instance_number": arrival.text("InstanceNumber"),
        "path": arrival.path,
        "size": arrival.size,
        "pixel_offset": arrival.pixel_offset,
        "pixel_length": arrival.pixel_length,
        "header": to_json(arrival.header).decode(),
        "dataset_digest": arrival.dataset_digest,
        "pixel_digest": arrival.pixel_digest,
        "identity_digest": arrival.identity_digest,
        "ours": arrival.ours,
        "association_id": arrival.association_id,
        "received_at": arrival.received_at,
    }


def record_plain(cursor: Any, dialect: Dialect, arrivals: Sequence[Arrival], filed: Container[tuple[str, str]]) -> bool:
    """As `record_new`, on the driver's cursor and as fast as it goes: within a transaction that the caller has begun.

    `filed` are pairs of series and study whose rows were written not long ago. False when an instance is not new or
    may be ours, or a study is held or gone: then the caller rolls back and takes the long way.
    """
    if any(one.ours or one.sop_instance_uid.startswith(DERIVED) for one in arrivals):
        return False
    if INSERT.run(cursor, dialect, [values_of(one, 1, Status.CURRENT) for one in arrivals]) != len(arrivals):
        return False
    studies = {one.study_instance_uid: one for one in arrivals}
    seen = {(one.series_instance_uid, one.study_instance_uid): one for one in arrivals}
    if all(pair in filed for pair in seen):
        return TOUCH.run(cursor, dialect, [_touched(one) for one in studies.values()]) == len(studies)
    REOPEN.run(cursor, dialect, [_study(one, one.received_at) for one in studies.values()])
    FILE_SERIES.run(cursor, dialect, [_series(one) for one in seen.values()])
    return True


def file(connection: Connection, arrivals: Sequence[Arrival]) -> None:
    """Make or touch the series and studies; objects of our own never re-open a study."""
    last = {one.study_instance_uid: one for one in arrivals if not one.ours}
    first = {one.study_instance_uid: one for one in arrivals if one.ours and one.study_instance_uid not in last}
    if last:
        REOPEN(connection, [_study(one, one.received_at) for one in last.values()])
    if first:
        FILE_STUDY(connection, [_study(one, None) for one in first.values()])
    seen = {(one.series_instance_uid, one.study_instance_uid): one for one in arrivals}
    if seen:
        FILE_SERIES(connection, [_series(one) for one in seen.values()])


def _reopen(insert: Any, values: dict[str, Any]) -> Insert:
    """Insert or touch a study: a held one stays held, an attribute that was empty is filled."""
    statement = insert(study).values(values)
    new = statement.excluded
    return statement.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=[study.c.study_instance_uid],
        set_={
            "state": case((study.c.state == HELD, HELD), else_=RECEIVING),
            "decide_at": case((study.c.state == HELD, study.c.decide_at), else_=new.decide_at),
            "last_instance_at": new.last_instance_at,
            "calling_ae_title": new.calling_ae_title,
            **{name: case((study.c[name] == EMPTY, new[name]), else_=study.c[name]) for name in IDENTITY},
        },
    )


HELD: Any = literal_column("'held'")
RECEIVING: Any = literal_column("'receiving'")
EMPTY: Any = literal_column("''")
INSERT = Prepared(lambda insert, values: insert(instance).values(values).on_conflict_do_nothing())
REOPEN = Prepared(_reopen)
FILE_STUDY = Prepared(lambda insert, values: insert(study).values(values).on_conflict_do_nothing())
FILE_SERIES = Prepared(lambda insert, values: insert(series).values(values).on_conflict_do_nothing())


def _touch_statement(_: Any, values: dict[str, Any]) -> Update:
    """What each further instance does to its study: no indexed identity is written again."""
    return (
        update(study)
        .where(study.c.study_instance_uid == values["of_study"], study.c.state != HELD)
        .values(
            state=RECEIVING,
            decide_at=values["at"],
            last_instance_at=values["at"],
            calling_ae_title=values["sender"],
        )
    )


TOUCH = Prepared(_touch_statement)


def _touched(arrival: Arrival) -> dict[str, Any]:
    return {
        "of_study": arrival.study_instance_uid,
        "at": arrival.received_at,
        "sender": arrival.calling_ae_title,
    }


def _study(arrival: Arrival, decide_at: int | None) -> dict[str, Any]:
    return {
        "study_instance_uid": arrival.study_instance_uid,
        "state": "receiving",
        "generation": 0,
        **{name: arrival.text(keyword) for name, keyword in IDENTITY.items()},
        "calling_ae_title": arrival.calling_ae_title,
        "first_instance_at": arrival.received_at,
        "last_instance_at": arrival.received_at,
        "decide_at": decide_at,
    }


def _series(arrival: Arrival) -> dict[str, Any]:
    return {
        "series_instance_uid": arrival.series_instance_uid,
        "study_instance_uid": arrival.study_instance_uid,
        "modality": arrival.text("Modality"),
        "series_number": arrival.text("SeriesNumber"),
        "series_description": arrival.text("SeriesDescription"),
        "body_part_examined": arrival.text("BodyPartExamined"),
    }
