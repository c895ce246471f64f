"""Statements of queries and retrievals: what the node holds, received and made, found from the index alone.

A page is one short transaction and the next begins where it ended (keyset), so a slow peer holds no snapshot open and
memory does not grow with the answer. Received instances that are current are held; of what we made ourselves, those
results are found that a delivery has released (never a shadow rule's), until they come back and are instances as well.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
)

from router.db.engine import insert_into
from router.db.matching import Columns, condition, holds
from router.db.tables import instance, job, result, result_header, result_set, series, study
from router.domain.job import Lane, State
from router.domain.matching import AllOf, Match, Moment, Named, Within, matches
from router.domain.query import KEYS, UNIQUE, Kind, Level, Query, single

Values = dict[str, Any]
"""One match: keyword -> text, list of texts, or what a header says."""

MODALITIES: Mapping[str, str] = {
    "segmentation": "SEG",
    "measurement_report": "SR",
    "key_objects": "KO",
    "presentation_state": "PR",
    "rtstruct": "RTSTRUCT",
}
"""Modality of a result kind whose header nobody has noted."""

CURRENT = instance.c.status == literal_column("'current'")
"""A literal and no parameter: only so do the indices on current instances serve."""

RELEASED = exists(
    select(job.c.id).where(
        job.c.lane == literal_column(f"'{Lane.DELIVER}'"),
        job.c.result_set_id == result.c.result_set_id,
        job.c.state.in_([State.QUEUED, State.RUNNING, State.WAITING, State.DONE, State.FAILED]),
    )
)
"""A result may be found once its delivery was asked for, as long as nobody has held, cancelled or replaced that."""

STILL_OUT = ~exists(select(instance.c.version).where(CURRENT, instance.c.sop_instance_uid == result.c.sop_instance_uid))
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

RETRIEVABLE: tuple[tuple[FromClause, Columns, tuple[ColumnElement[bool], ...], ColumnElement[str]], ...] = (
    (HELD_IMAGES, HELD, (CURRENT,), instance.c.path),
    (MADE_IN_STUDY, MADE, (RELEASED, STILL_OUT), result.c.path),
)
"""Both kinds of objects: from here, with these columns, under these conditions, in this file."""

OF_STUDY = instance.c.study_instance_uid == study.c.study_instance_uid
STUDY_HAS_SOMETHING = or_(
    exists(select(instance.c.version).where(CURRENT, OF_STUDY)),
    exists(
        select(result.c.sop_instance_uid)
        .join(result_set, result_set.c.id == result.c.result_set_id)
        .where(result_set.c.study_instance_uid == study.c.study_instance_uid, RELEASED)
    ),
)
SERIES_HAS_SOMETHING = exists(select(instance.c.version).where(CURRENT, OF_SERIES))
MADE_SERIES_IS_NOT_HELD = ~exists(
    select(instance.c.version).where(
        CURRENT,
        instance.c.series_instance_uid == result.c.series_instance_uid,
        instance.c.study_instance_uid == result_set.c.study_instance_uid,
    )
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go on: in which part of the answer, after which keys; nothing in `after` is the part's beginning."""

    part: int = 0
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One object that can be retrieved; `path` is relative to the store."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One statement's share of an answer. Rows of equal `order` are one match where `grouped`."""

    source: FromClause
    columns: Columns
    where: tuple[ColumnElement[bool], ...]
    order: tuple[ColumnElement[Any], ...]
    header: ColumnElement[Any] | None = None
    grouped: bool = False


@dataclass(slots=True)
class Contents:
    """What one series holds: its modality, and how many instances of each SOP class."""

    modality: str = ""
    classes: Counter[str] = field(default_factory=Counter)


def page(connection: Connection, query: Query, place: Place, limit: int) -> tuple[list[Values], Place | None]:
    """At most `limit` matches from `place` on, and where to go on; None at the end. A page may be empty before that.

    A match holds every column of its level and those above, and what is asked for beyond them.
    """
    parts = _parts(query)
    part = parts[place.part]
    rows = connection.execute(_statement(connection, query, part, place.after, limit)).all()
    found: list[Values] = [dict(zip(part.columns, row, strict=False)) for row in rows]
    if part.header is not None:
        for values, row in zip(found, rows, strict=True):
            values.update(_facts(query, row.header or {}))
        found = [values for values in found if _facts_hold(query, values)]
    if query.level is Level.PATIENT:
        found = _patients(connection, found, count=query.asks(Kind.COUNT))
    elif query.asks(Kind.COUNT, Kind.SET):
        _count(connection, found)
    if len(rows) == limit:
        return found, Place(place.part, tuple(rows[-1][-len(part.order) :]))
    return found, Place(place.part + 1) if place.part + 1 < len(parts) else None


def holdings(connection: Connection, query: Query, limit: int) -> list[Holding]:
    """What a retrieval wants, study by study and series by series; at most `limit` objects."""
    names = [name for name in (*UNIQUE.values(), "IssuerOfPatientID") if name in query.conditions]
    found: list[Holding] = []
    for source, columns, where, path in RETRIEVABLE:
        asked = [condition(connection, columns, name, query.conditions[name]) for name in names]
        found += _objects(connection, source, columns, (*where, *asked), path, limit - len(found))
    return found


def held(connection: Connection, sop_instance_uids: Collection[str]) -> dict[str, Holding]:
    """Those of these instances that the node holds as received or has released, by their UIDs."""
    found: dict[str, Holding] = {}
    for source, columns, where, path in RETRIEVABLE:
        asked = columns["SOPInstanceUID"].in_(sop_instance_uids)
        for one in _objects(connection, source, columns, (*where, asked), path, len(sop_instance_uids)):
            found[one.sop_instance_uid] = one
    return found


def _objects(
    connection: Connection,
    source: FromClause,
    columns: Columns,
    where: Iterable[ColumnElement[bool]],
    path: ColumnElement[str],
    limit: int,
) -> list[Holding]:
    wanted = {
        "sop_instance_uid": columns["SOPInstanceUID"],
        "sop_class_uid": columns["SOPClassUID"],
        "study_instance_uid": columns["StudyInstanceUID"],
        "path": path,
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


def contents(connection: Connection, studies: Iterable[str]) -> dict[str, dict[str, Contents]]:
    """What each of these studies holds, by study and series."""
    wanted = sorted(set(studies))
    found: dict[str, dict[str, Contents]] = {uid: {} for uid in wanted}
    keys = (instance.c.study_instance_uid, instance.c.series_instance_uid, instance.c.sop_class_uid)
    counted = select(*keys, func.count()).where(CURRENT, keys[0].in_(wanted)).group_by(*keys)
    for study_uid, series_uid, sop_class, count in connection.execute(counted):
        found[study_uid].setdefault(series_uid, Contents()).classes[sop_class] += count
    described = select(series.c.study_instance_uid, series.c.series_instance_uid, series.c.modality)
    for study_uid, series_uid, modality in connection.execute(described.where(series.c.study_instance_uid.in_(wanted))):
        if series_uid in found[study_uid]:
            found[study_uid][series_uid].modality = modality
    made_keys = (result_set.c.study_instance_uid, result.c.series_instance_uid)
    made = select(*made_keys, result.c.sop_class_uid, MADE["Modality"]).select_from(MADE_ROWS)
    for study_uid, series_uid, sop_class, modality in connection.execute(
        made.where(made_keys[0].in_(wanted), RELEASED, STILL_OUT)
    ):
        one = found[study_uid].setdefault(series_uid, Contents(modality=modality))
        one.classes[sop_class] += 1
    return found


def _parts(query: Query) -> tuple[Part, ...]:
    """What a query of this level goes through: what was received, then what was made and is not back yet."""
    columns = {name: column for name, column in HELD.items() if KEYS[name].level <= query.level}
    made = {name: column for name, column in MADE.items() if KEYS[name].level <= query.level}
    by_series = ("StudyInstanceUID", "SeriesInstanceUID")
    if query.level is Level.PATIENT:
        names = ("PatientID", "IssuerOfPatientID")
        keys = {name: columns[name] for name in names}
        where = (STUDY_HAS_SOMETHING, study.c.patient_id != "")
        return (Part(source=study, columns=keys, where=where, order=tuple(keys.values()), grouped=True),)
    if query.level is Level.STUDY:
        order = tuple(columns[name] for name in _way(query))
        header = _header_if_asked(query, OF_STUDY)
        return (Part(source=study, columns=columns, where=(STUDY_HAS_SOMETHING,), order=order, header=header),)
    if query.level is Level.SERIES:
        header = _header_if_asked(query, OF_SERIES)
        received = Part(
            source=HELD_SERIES,
            columns=columns,
            where=(SERIES_HAS_SOMETHING,),
            order=tuple(columns[name] for name in by_series),
            header=header,
        )
        order = tuple(made[name] for name in by_series)
        where = (RELEASED, MADE_SERIES_IS_NOT_HELD)
        return received, Part(source=MADE_IN_STUDY, columns=made, where=where, order=order, grouped=True)
    asked = bool(query.facts) or query.asks(Kind.FACT)
    return (
        Part(
            source=HELD_IMAGES,
            columns=columns,
            where=(CURRENT,),
            order=(columns["SOPInstanceUID"],),
            header=instance.c.header if asked else None,
        ),
        Part(
            source=MADE_IN_STUDY,
            columns=made,
            where=(RELEASED, STILL_OUT),
            order=(made["SOPInstanceUID"],),
            header=result_header.c.header if asked else None,
        ),
    )


def _header_if_asked(query: Query, of_it: ColumnElement[bool]) -> ColumnElement[Any] | None:
    """The header of any one instance: facts of a series or study are the same in all of its instances."""
    if not query.facts and not query.asks(Kind.FACT):
        return None
    return select(instance.c.header).where(CURRENT, of_it).limit(1).scalar_subquery()


def _way(query: Query) -> tuple[str, ...]:
    """In what order studies are gone through: that of the index which leaves the fewest to look at."""
    asked = query.conditions
    if "StudyInstanceUID" in asked:
        return ("StudyInstanceUID",)
    if single(asked.get("AccessionNumber")):
        return "AccessionNumber", "StudyInstanceUID"
    if single(asked.get("PatientID")):
        return "PatientID", "IssuerOfPatientID", "StudyInstanceUID"
    if isinstance(asked.get("StudyDate"), Within | Moment):
        return "StudyDate", "StudyInstanceUID"
    if isinstance(asked.get("PatientName"), Named):
        return "PatientName", "StudyInstanceUID"
    return "PatientID", "IssuerOfPatientID", "StudyInstanceUID"


def _statement(connection: Connection, query: Query, part: Part, after: tuple[str, ...], limit: int) -> Select[Any]:
    keys = {id(column) for column in part.order}
    columns = [
        (func.min(column) if part.grouped and id(column) not in keys else column).label(name)
        for name, column in part.columns.items()
    ]
    header = [] if part.header is None else [part.header.label("header")]
    order = [column.label(f"order_{number}") for number, column in enumerate(part.order)]
    statement = select(*columns, *header, *order).select_from(part.source).where(*part.where)
    available = HELD if part.source is study else part.columns
    for name, match in query.conditions.items():
        if KEYS[name].kind is Kind.COLUMN:
            statement = statement.where(condition(connection, available, name, match))
        elif KEYS[name].kind is Kind.SET:
            statement = statement.where(_in_study(connection, name, match))
    if after:
        statement = statement.where(tuple_(*part.order) > tuple_(*after))
    if part.grouped:
        statement = statement.group_by(*part.order)
    return statement.order_by(*part.order).limit(limit)


def _in_study(connection: Connection, name: str, match: Match) -> ColumnElement[bool]:
    """Whether something in the study has this modality or SOP class; several values that must all be there, each."""
    if isinstance(match, AllOf):
        return and_(*(_in_study(connection, name, one) for one in match.matches))
    if name == "ModalitiesInStudy":
        received = select(series.c.modality).where(
            series.c.study_instance_uid == study.c.study_instance_uid,
            SERIES_HAS_SOMETHING,
            holds(connection, series.c.modality, match),
        )
        made = MADE["Modality"]
    else:
        received = select(instance.c.version).where(
            CURRENT, OF_STUDY, holds(connection, instance.c.sop_class_uid, match)
        )
        made = result.c.sop_class_uid
    own = select(result.c.sop_instance_uid).select_from(MADE_ROWS)
    own = own.where(result_set.c.study_instance_uid == study.c.study_instance_uid, RELEASED)
    return or_(exists(received), exists(own.where(holds(connection, made, match))))


def _facts(query: Query, header: Mapping[str, Any]) -> Values:
    return {
        name: header.get(name, "")
        for name in {*query.wanted, *query.facts}
        if name in KEYS and KEYS[name].kind is Kind.FACT and KEYS[name].level <= query.level
    }


def _facts_hold(query: Query, values: Values) -> bool:
    return all(matches(match, values.get(name)) for name, match in query.facts.items())


def _patients(connection: Connection, found: list[Values], *, count: bool) -> list[Values]:
    """The same patients with their attributes as their newest studies have them, and their totals."""
    keys = [(values["PatientID"], values["IssuerOfPatientID"]) for values in found]
    columns = {name: column for name, column in STUDY_COLUMNS.items() if KEYS[name].level is Level.PATIENT}
    rows = connection.execute(
        select(study.c.study_instance_uid, *columns.values())
        .where(tuple_(study.c.patient_id, study.c.issuer_of_patient_id).in_(keys), STUDY_HAS_SOMETHING)
        .order_by(study.c.last_instance_at)
    ).all()
    patients: dict[tuple[str, str], Values] = {}
    studies: dict[tuple[str, str], list[str]] = {}
    for uid, *row in rows:
        values = dict(zip(columns, row, strict=True))
        key = values["PatientID"], values["IssuerOfPatientID"]
        patients[key] = values
        studies.setdefault(key, []).append(uid)
    if count:
        inside = contents(connection, (row[0] for row in rows))
        for key, values in patients.items():
            below = [one for uid in studies[key] for one in inside[uid].values()]
            values["NumberOfPatientRelatedStudies"] = str(len(studies[key]))
            values["NumberOfPatientRelatedSeries"] = str(len(below))
            values["NumberOfPatientRelatedInstances"] = str(sum(one.classes.total() for one in below))
    return [patients[key] for key in keys if key in patients]


def _count(connection: Connection, found: list[Values]) -> None:
    """Give each match what lies below it."""
    inside = contents(connection, (values["StudyInstanceUID"] for values in found))
    for values in found:
        below = inside[values["StudyInstanceUID"]]
        classes = sum((one.classes for one in below.values()), Counter[str]())
        values["ModalitiesInStudy"] = sorted({one.modality for one in below.values() if one.modality})
        values["SOPClassesInStudy"] = sorted(classes)
        values["NumberOfStudyRelatedSeries"] = str(len(below))
        values["NumberOfStudyRelatedInstances"] = str(classes.total())
        if own := below.get(values.get("SeriesInstanceUID", "")):
            values["NumberOfSeriesRelatedInstances"] = str(own.classes.total())
