"""Statements on instances, and on the series and study rows that an arriving instance makes or touches.

Of the versions of one SOPInstanceUID exactly one is `current`; a correction makes it `replaced`, a conflict never
touches it. The index may lose its last rows in a power cut: the start-up scan writes them again from the files.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Connection,
    Dialect,
    Insert,
    Row,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    select,
    update,
)

from router.db.prepared import Prepared
from router.db.tables import instance, result, series, study

DERIVED = "2.25."


class Status(StrEnum):
    """What a version of an instance is. Only `current` ones are read, routed and answered for."""

    CURRENT = "current"
    REPLACED = "replaced"
    CONFLICT = "conflict"
    PURGED = "purged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One instance whose file is durable and that is to be indexed. `header` holds facts (`router.ingest.facts`).

    `pixel_offset` counts from the first byte of the file; `received_at` in microseconds since 1970 UTC.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    pixel_offset: int | None
    pixel_length: int | None
    header: dict[str, Any]
    identity_digest: str
    ours: bool
    association_id: str | None
    calling_ae_title: str
    received_at: int
    dataset_digest: str | None = None
    pixel_digest: str | None = None

    def __repr__(self) -> str:
        return f"Arrival({self.sop_instance_uid})"

    def text(self, keyword: str) -> str:
        """A fact as text, "" when absent; several values as in the file."""
        value = self.header.get(keyword, "")
        return "\\".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One version of an instance as the index knows it; `path` is below the store's root."""

    sop_instance_uid: str
    version: int
    status: Status
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str
    path: str
    size: int
    pixel_offset: int | None
    pixel_length: int | None
    header: dict[str, Any]
    dataset_digest: str | None
    pixel_digest: str | None
    identity_digest: str | None
    ours: bool
    association_id: str | None
    received_at: int

    def __repr__(self) -> str:
        return f"InstanceRow({self.sop_instance_uid}, version {self.version}, {self.status})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """sha256 of one version's data set and of its pixel data's value, in hexadecimal."""

    sop_instance_uid: str
    version: int
    dataset_digest: str
    pixel_digest: str


def record(connection: Connection, arrival: Arrival) -> bool:
    """Index an instance whose UID is new, and its series and study; False when another was there first."""
    return not record_new(connection, [arrival])


def record_new(connection: Connection, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Index instances whose UIDs are new, each UID once; gives those of which another was there first.

    What has the UID of a result of this node is ours, whatever its header has become on the way.
    """
    arrivals = _marked(connection, arrivals)
    written = INSERT(connection, [_values(one, 1, Status.CURRENT) for one in arrivals])
    fresh, late = list(arrivals), list[Arrival]()
    if written != len(arrivals):
        kept = set(connection.execute(select(instance.c.path).where(instance.c.path.in_([o.path for o in arrivals]))))
        late = [one for one in arrivals if (one.path,) not in kept]
        fresh = [one for one in arrivals if (one.path,) in kept]
    _touch(connection, fresh)
    return late


def record_plain(cursor: Any, dialect: Dialect, arrivals: Sequence[Arrival]) -> bool:
    """As `record_new`, on the driver's cursor and as fast as it goes: within a transaction that the caller has begun.

    False when one of them is not new, or may be ours: then the caller rolls back and takes the long way.
    """
    if any(one.ours or one.sop_instance_uid.startswith(DERIVED) for one in arrivals):
        return False
    if INSERT.run(cursor, dialect, [_values(one, 1, Status.CURRENT) for one in arrivals]) != len(arrivals):
        return False
    studies = {one.study_instance_uid: one for one in arrivals}
    REOPEN.run(cursor, dialect, [_study(one, one.received_at) for one in studies.values()])
    seen = {(one.series_instance_uid, one.study_instance_uid): one for one in arrivals}
    FILE_SERIES.run(cursor, dialect, [_series(one) for one in seen.values()])
    return True


def _marked(connection: Connection, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
    """Our results among them known by their UIDs; every UID that we derive begins alike (`dicom_sr.uids`)."""
    candidates = [one.sop_instance_uid for one in arrivals if one.sop_instance_uid.startswith(DERIVED) and not one.ours]
    if not candidates:
        return arrivals
    query = select(result.c.sop_instance_uid).where(result.c.sop_instance_uid.in_(candidates))
    made = set(connection.execute(query).scalars())
    return [replace(one, ours=True) if one.sop_instance_uid in made else one for one in arrivals]


def record_correction(connection: Connection, arrival: Arrival) -> int:
    """Make this the current version: same pixels, newer identity or encoding. Gives its number."""
    connection.execute(
        update(instance)
        .where(instance.c.sop_instance_uid == arrival.sop_instance_uid, instance.c.status == Status.CURRENT)
        .values(status=Status.REPLACED)
    )
    version = _next_version(connection, arrival.sop_instance_uid)
    INSERT(connection, [_values(arrival, version, Status.CURRENT)])
    _touch(connection, [arrival])
    _identify(connection, arrival)
    _reopen_left(connection, arrival)
    return version


def record_conflict(connection: Connection, arrival: Arrival) -> int:
    """Keep other pixels under a known UID apart: neither series nor study learns of them. Gives the version."""
    version = _next_version(connection, arrival.sop_instance_uid)
    INSERT(connection, [_values(arrival, version, Status.CONFLICT)])
    return version


def restore(connection: Connection, version: int, arrival: Arrival, status: Status) -> None:
    """The file of this version was gone and has come again: it lies elsewhere now."""
    values = {**_values(arrival, version, status), "header": arrival.header}
    key = {name: values.pop(name) for name in ("sop_instance_uid", "version")}
    connection.execute(
        update(instance)
        .where(instance.c.sop_instance_uid == key["sop_instance_uid"], instance.c.version == key["version"])
        .values(values)
    )
    if status is Status.CURRENT:
        _touch(connection, [arrival])


def versions(connection: Connection, sop_instance_uid: str) -> list[InstanceRow]:
    """All versions of one instance, the newest first."""
    rows = connection.execute(
        select(instance).where(instance.c.sop_instance_uid == sop_instance_uid).order_by(instance.c.version.desc())
    )
    return [_row(row) for row in rows]


def of_series(connection: Connection, study_instance_uid: str, series_instance_uid: str) -> list[InstanceRow]:
    """What the series consists of: current versions that others made, in the order in which they arrived."""
    rows = connection.execute(
        select(instance)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.series_instance_uid == series_instance_uid,
            instance.c.status == Status.CURRENT,
            instance.c.ours.is_(False),
        )
        .order_by(instance.c.received_at, instance.c.sop_instance_uid)
    )
    return [_row(row) for row in rows]


def of_study(connection: Connection, study_instance_uid: str) -> list[InstanceRow]:
    """Current versions of all instances of the study that others made."""
    rows = connection.execute(
        select(instance)
        .where(
            instance.c.study_instance_uid == study_instance_uid,
            instance.c.status == Status.CURRENT,
            instance.c.ours.is_(False),
        )
        .order_by(instance.c.received_at, instance.c.sop_instance_uid)
    )
    return [_row(row) for row in rows]


def conflicts_of(connection: Connection, study_instance_uid: str) -> list[InstanceRow]:
    """Versions that were kept apart because their pixels differ from those first received."""
    rows = connection.execute(
        select(instance).where(
            instance.c.study_instance_uid == study_instance_uid, instance.c.status == Status.CONFLICT
        )
    )
    return [_row(row) for row in rows]


def undigested(connection: Connection, *, limit: int = 64) -> list[InstanceRow]:
    """Versions whose digests nobody has computed yet, the longest waiting first."""
    rows = connection.execute(
        select(instance)
        .where(instance.c.dataset_digest.is_(None), instance.c.status != Status.PURGED)
        .order_by(instance.c.received_at)
        .limit(limit)
    )
    return [_row(row) for row in rows]


def set_digests(connection: Connection, digests: Iterable[Digests]) -> None:
    """Write digests where there are none; a pixel digest that is there stays: a correction has that of its origin."""
    rows = [
        {"of": one.sop_instance_uid, "of_version": one.version, "whole": one.dataset_digest, "pixels": one.pixel_digest}
        for one in digests
    ]
    if rows:
        connection.execute(SET_DIGESTS, rows)


SET_DIGESTS = (
    update(instance)
    .where(
        instance.c.sop_instance_uid == bindparam("of"),
        instance.c.version == bindparam("of_version"),
        instance.c.dataset_digest.is_(None),
    )
    .values(dataset_digest=bindparam("whole"), pixel_digest=func.coalesce(instance.c.pixel_digest, bindparam("pixels")))
)


def look_again(connection: Connection, study_instance_uids: Iterable[str], at: int) -> None:
    """Ask decide to look at these studies, as far as they wait for it; one of our own objects alone does not."""
    connection.execute(
        update(study)
        .where(
            study.c.study_instance_uid.in_(list(study_instance_uids)),
            study.c.state == RECEIVING,
            study.c.decide_at.is_not(None),
        )
        .values(decide_at=at)
    )


def in_folder(connection: Connection, folder: str) -> dict[str, int]:
    """Path and size of every version whose file should lie in this folder of the store."""
    rows = connection.execute(
        select(instance.c.path, instance.c.size).where(
            instance.c.path >= f"{folder}/", instance.c.path < f"{folder}0", instance.c.status != Status.PURGED
        )
    )
    return {row.path: row.size for row in rows}


def mark_lost(connection: Connection, paths: Sequence[str]) -> None:
    """The files of these versions are gone: the instance is stored again when it comes again."""
    connection.execute(update(instance).where(instance.c.path.in_(paths)).values(status=Status.PURGED))


def forget(connection: Connection, path: str) -> None:
    """Remove the row of a file that was never acknowledged."""
    connection.execute(delete(instance).where(instance.c.path == path))


def _values(arrival: Arrival, version: int, status: Status) -> dict[str, Any]:
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
        "header": json.dumps(arrival.header),
        "dataset_digest": arrival.dataset_digest,
        "pixel_digest": arrival.pixel_digest,
        "identity_digest": arrival.identity_digest,
        "ours": arrival.ours,
        "association_id": arrival.association_id,
        "received_at": arrival.received_at,
    }


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


def _touch(connection: Connection, arrivals: Sequence[Arrival]) -> None:
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


def _identify(connection: Connection, arrival: Arrival) -> None:
    """Results carry the newest identity, so the study does."""
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == arrival.study_instance_uid)
        .values({name: arrival.text(keyword) for name, keyword in IDENTITY.items()})
    )


def _reopen_left(connection: Connection, arrival: Arrival) -> None:
    """Other studies that a version of this instance was in have lost it: decide looks at what is left of them."""
    mine = instance.alias()
    left = (
        select(instance.c.study_instance_uid)
        .join(mine, mine.c.study_instance_uid == instance.c.study_instance_uid)
        .where(
            mine.c.sop_instance_uid == arrival.sop_instance_uid,
            instance.c.study_instance_uid != arrival.study_instance_uid,
            instance.c.status == Status.CURRENT,
        )
    )
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid.in_(left), study.c.state != HELD)
        .values(state="receiving", decide_at=arrival.received_at)
    )


def _next_version(connection: Connection, sop_instance_uid: str) -> int:
    highest = connection.execute(
        select(func.max(instance.c.version)).where(instance.c.sop_instance_uid == sop_instance_uid)
    ).scalar_one()
    return (highest or 0) + 1


def _row(row: Row[Any]) -> InstanceRow:
    values = dict(row._mapping)
    return InstanceRow(**{**values, "status": Status(values["status"])})
