"""Statements of queries: what the node holds, received and made, found from the index alone.

A page is one short transaction and the next begins where it ended (keyset), so a slow peer holds no snapshot open and
memory does not grow with the answer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    and_,
    exists,
    func,
    or_,
    select,
    tuple_,
)

from router.db.holdings import (
    ANY,
    CURRENT,
    HELD,
    HELD_IMAGES,
    HELD_SERIES,
    MADE,
    MADE_IN_STUDY,
    MADE_ROWS,
    MADE_SERIES_IS_NOT_HELD,
    OF_SERIES,
    OF_STUDY,
    RELEASED,
    SERIES_HAS_SOMETHING,
    STILL_OUT,
    STUDY_COLUMNS,
    STUDY_HAS_SOMETHING,
)
from router.db.matching import Columns, condition, holds
from router.db.tables import instance, result, result_header, result_set, series, study
from router.domain.matching import AllOf, Match, Moment, Named, Within, family, matches
from router.domain.query import KEYS, Kind, Level, Query, single

Values = dict[str, Any]
"""One match: keyword -> text, list of texts, or what a header says."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go on: in which part of the answer, after which keys; nothing in `after` is the part's beginning."""

    part: int = 0
    after: tuple[str, ...] = ()


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
    parts = _parts(connection, query)
    part, rows = parts[place.part], _rows(connection, query, parts[place.part], place.after, limit)
    while not rows and place.part + 1 < len(parts):
        place = Place(place.part + 1)
        part, rows = parts[place.part], _rows(connection, query, parts[place.part], (), limit)
    if part is None:
        return [], None
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


def _rows(
    connection: Connection, query: Query, part: Part | None, after: tuple[str, ...], limit: int
) -> Sequence[Row[Any]]:
    return connection.execute(_statement(connection, query, part, after, limit)).all() if part else []


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


def _parts(connection: Connection, query: Query) -> tuple[Part | None, ...]:
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
        whole = Part(
            source=study,
            columns=columns,
            where=(STUDY_HAS_SOMETHING,),
            order=order,
            header=_header_if_asked(query, OF_STUDY),
        )
        initials = _initials(query) if connection.dialect.name == "sqlite" and order[0] is study.c.patient_name else ""
        return _by_initial(connection, whole, initials) if initials else (whole,)
    if query.level is Level.SERIES:
        header = _header_if_asked(query, OF_SERIES)
        received = Part(
            source=HELD_SERIES,
            columns=columns,
            where=(SERIES_HAS_SOMETHING,),
            order=(series.c.study_instance_uid, series.c.series_instance_uid),
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


def _initials(query: Query) -> str:
    """The characters with which names may begin that the query asks for; "" where that is not known."""
    match = query.conditions.get("PatientName")
    first = match.pattern[:1] if isinstance(match, Named) and "=" not in match.pattern else ""
    return family(first) if first.isalpha() else ""


def _by_initial(connection: Connection, whole: Part, initials: str) -> tuple[Part | None, ...]:
    """A search for a name, initial by initial, so that the index leads to the names instead of past all the others.

    An initial that no name has is None. Names in which another component group may fit come last. SQLite compares by
    code point, so a range is an initial.
    """
    name = study.c.patient_name
    ranges = [(name >= one, name < chr(ord(one) + 1)) for one in sorted(initials)]
    known = connection.execute(select(*(exists(select(name).where(*limits)) for limits in ranges))).one()
    others = (func.instr(name, "=") > 0, func.substr(name, 1, 1).not_in(list(initials)))
    return tuple(
        replace(whole, where=(*whole.where, *limits)) if there else None
        for limits, there in zip((*ranges, others), (*known, True), strict=True)
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
        received = (
            select(ANY)
            .select_from(series)
            .where(
                series.c.study_instance_uid == study.c.study_instance_uid,
                SERIES_HAS_SOMETHING,
                holds(connection, series.c.modality, match),
            )
        )
        made = MADE["Modality"]
    else:
        received = (
            select(ANY)
            .select_from(instance)
            .where(CURRENT, OF_STUDY, holds(connection, instance.c.sop_class_uid, match))
        )
        made = result.c.sop_class_uid
    own = select(ANY).select_from(MADE_ROWS)
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
