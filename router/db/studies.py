"""Statements on studies and series. Ingest writes their rows as instances arrive; here they are decided and shown."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection, Row, Text, cast, exists, func, or_, select, update

from dicom_sr.problem import Problem
from router.db import audit
from router.db.tables import instance, series, study
from router.domain import heartbeat
from router.domain.facts import Fact, restored
from router.domain.study import Patient, Series, Study, StudyState

ORDERS = ("study_description", "state", "patient_id", "study_date", "calling_ae_title", "last_instance_at")
"""What lists of studies are sorted by."""


class UnknownStudy(Problem):
    """The node knows no study by this name."""

    exit_code = 2


class NotHeld(Problem):
    """A study was to be released that nobody holds."""

    exit_code = 2


def due(connection: Connection, now: int, *, limit: int = 500) -> list[Study]:
    """Studies that decide should look at by now, the longest waiting first."""
    rows = connection.execute(
        select(study)
        .where(study.c.state == StudyState.RECEIVING, study.c.decide_at <= now)
        .order_by(study.c.decide_at, study.c.study_instance_uid)
        .limit(limit)
    )
    return [_study(row) for row in rows]


def next_decide_at(connection: Connection) -> int | None:
    """The earliest time at which some study wants to be looked at, or None when none waits."""
    earliest: int | None = connection.execute(
        select(func.min(study.c.decide_at)).where(study.c.state == StudyState.RECEIVING)
    ).scalar_one()
    return earliest


def lock(connection: Connection, study_instance_uid: str) -> Study | None:
    """The study for this transaction alone; None when it is unknown or another process decides on it right now.

    SQLite ignores the lock clause; there `writing` holds the whole database's write lock.
    """
    row = connection.execute(
        select(study).where(study.c.study_instance_uid == study_instance_uid).with_for_update(skip_locked=True)
    ).one_or_none()
    return _study(row) if row is not None else None


def postpone(connection: Connection, seen: Study, until: int) -> bool:
    """Look at the study again at `until`; False when it has changed since it was seen, and must be looked at anew."""
    moved = connection.execute(
        update(study)
        .where(
            study.c.study_instance_uid == seen.study_instance_uid,
            study.c.state == StudyState.RECEIVING,
            study.c.last_instance_at == seen.last_instance_at,
            study.c.decide_at == seen.decide_at,
        )
        .values(decide_at=until)
    )
    return bool(moved.rowcount)


def complete(connection: Connection, study_instance_uid: str, *, now: int, witnesses: dict[str, Any]) -> int:
    """Make the study complete and give its new generation."""
    completed = connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid)
        .values(
            state=StudyState.COMPLETE,
            generation=study.c.generation + 1,
            completed_at=now,
            completed_after=now - study.c.last_instance_at,
            witnesses=witnesses,
            decide_at=None,
            held_reason=None,
            announced=None,
        )
        .returning(study.c.generation)
    )
    return int(completed.scalar_one())


def settle(connection: Connection, study_instance_uid: str) -> None:
    """Back to complete without a new generation: what arrived changed nothing that is read or decided."""
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid)
        .values(state=StudyState.COMPLETE, decide_at=None, held_reason=None, announced=None)
    )


def announce(connection: Connection, study_instance_uid: str, announced: dict[str, Any], now: int) -> None:
    """Keep what was said of how many instances there should be, and look at the study again."""
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid, study.c.state == StudyState.RECEIVING)
        .values(announced=announced, decide_at=now)
    )


def hold(connection: Connection, study_instance_uid: str, reason: str) -> None:
    """Keep the study for a person; it is not routed. The reason names no patient."""
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid)
        .values(state=StudyState.HELD, decide_at=None, held_reason=reason)
    )


def release(connection: Connection, study_instance_uid: str, now: int) -> bool:
    """A person lets a held study go on: decide looks at it again, now. False when it is not held.

    Its reason stays until decide has settled it, so that none of its jobs starts before.
    """
    moved = connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid, study.c.state == StudyState.HELD)
        .values(state=StudyState.RECEIVING, decide_at=now)
    )
    return bool(moved.rowcount)


def attend(connection: Connection, study_instance_uid: str, what: str) -> None:
    """Ask a person to look at the study; what was asked before stays. The text names no patient."""
    before = func.coalesce(study.c.attention + "; ", "")
    connection.execute(
        update(study).where(study.c.study_instance_uid == study_instance_uid).values(attention=before + what)
    )


def attended(connection: Connection, study_instance_uid: str) -> bool:
    """A person has looked at it. False when there was nothing to look at."""
    moved = connection.execute(
        update(study)
        .where(study.c.study_instance_uid == study_instance_uid, study.c.attention.is_not(None))
        .values(attention=None)
    )
    return bool(moved.rowcount)


def find(connection: Connection, study_instance_uid: str) -> Study | None:
    """The study of this UID, or None."""
    row = connection.execute(select(study).where(study.c.study_instance_uid == study_instance_uid)).one_or_none()
    return _study(row) if row is not None else None


def search(connection: Connection, word: str) -> list[Study]:
    """Studies whose StudyInstanceUID, AccessionNumber or PatientID is this word, newest first.

    One that is held may be of several patients or orders: it is found by what any of its instances says.

    Raises:  UnknownStudy, without repeating the word: it may be a patient's
    """
    columns = (study.c.study_instance_uid, study.c.accession_number, study.c.patient_id)
    said = (instance.c.header[keyword].as_string() == word for keyword in ("AccessionNumber", "PatientID"))
    mixed = (
        select(instance.c.study_instance_uid)
        .join(study, study.c.study_instance_uid == instance.c.study_instance_uid)
        .where(study.c.held_reason.is_not(None), or_(*said))
    )
    wanted = or_(*(column == word for column in columns), study.c.study_instance_uid.in_(mixed))
    rows = connection.execute(select(study).where(wanted).order_by(study.c.last_instance_at.desc())).all()
    if not rows or not word:
        raise UnknownStudy(
            "no study here has that StudyInstanceUID, AccessionNumber or PatientID",
            remedy="`isocenter studies list` shows what arrived, `isocenter sources seen` who was turned away",
        )
    return [_study(row) for row in rows]


def list_(
    connection: Connection,
    *,
    state: StudyState | None = None,
    search: str = "",
    attention: bool = False,
    sort: str = "-last_instance_at",
    limit: int = 100,
    offset: int = 0,
) -> list[Study]:
    """Studies in the order of `sort`, one of ORDERS, with a minus from the last to the first.

    `search` is as in `count`; with `attention` those that a person should look at.
    """
    statement = select(study).where(*_wanted(state, search))
    by = sort.removeprefix("-")
    first = [study.c[by].desc() if sort.startswith("-") else study.c[by].asc()]
    if by != "last_instance_at":
        first.append(study.c.last_instance_at.desc())
    statement = statement.order_by(*first, study.c.study_instance_uid)
    if attention:
        statement = statement.where(study.c.attention.is_not(None))
    return [_study(row) for row in connection.execute(statement.limit(limit).offset(offset))]


def count(connection: Connection, *, state: StudyState | None = None, search: str = "") -> int:
    """How many studies there are whose UID, PatientID, AccessionNumber, description or sender begins with `search`."""
    return int(connection.execute(select(func.count()).select_from(study).where(*_wanted(state, search))).scalar_one())


def _wanted(state: StudyState | None, search: str) -> list[ColumnElement[bool]]:
    wanted = [] if state is None else [study.c.state == state]
    if search:
        columns = (study.c.study_instance_uid, study.c.patient_id, study.c.accession_number,
                   study.c.study_description, study.c.calling_ae_title)  # fmt: skip
        wanted.append(or_(*(column.istartswith(search, autoescape=True) for column in columns)))
    return wanted


def held_by(connection: Connection, study_instance_uid: str, *, who: str, reason: str) -> None:
    """A person keeps a study from being routed.

    Raises:  UnknownStudy
    """
    _existing(connection, study_instance_uid)
    hold(connection, study_instance_uid, reason)
    audit.write(connection, who, "study.held", study_instance_uid, why=reason)


def released_by(connection: Connection, study_instance_uid: str, now: int, *, who: str, reason: str) -> None:
    """A person lets a held study go on; decide looks at it again, now.

    Raises:  UnknownStudy, NotHeld
    """
    _existing(connection, study_instance_uid)
    if not release(connection, study_instance_uid, now):
        raise NotHeld(f"study {study_instance_uid} is not held", remedy="Nothing is to be done")
    audit.write(connection, who, "study.released", study_instance_uid, why=reason)


def _existing(connection: Connection, study_instance_uid: str) -> None:
    if find(connection, study_instance_uid) is None:
        raise UnknownStudy(
            "no study here has that StudyInstanceUID", remedy="`isocenter why` finds it by accession number or patient"
        )


def series_of(connection: Connection, study_instance_uid: str) -> list[Series]:
    """The study's series, in the order of their numbers."""
    rows = connection.execute(select(series).where(series.c.study_instance_uid == study_instance_uid))
    return sorted((_series(row) for row in rows), key=lambda one: (_number(one.series_number), one.series_instance_uid))


def complete_series(
    connection: Connection,
    study_instance_uid: str,
    series_instance_uid: str,
    *,
    facts: dict[str, Any],
    witnesses: dict[str, Any],
    generation: int,
    now: int,
) -> None:
    """What the series was when rules were asked about it, and how it was known to be complete."""
    connection.execute(
        update(series)
        .where(
            series.c.study_instance_uid == study_instance_uid,
            series.c.series_instance_uid == series_instance_uid,
        )
        .values(facts=facts, facts_generation=generation, witnesses=witnesses, completed_at=now)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """A study that was complete, and these facts of each of its series."""

    study_instance_uid: str
    series: dict[str, dict[str, Fact]]


def past(connection: Connection, since: int, keywords: Collection[str]) -> Iterator[Past]:
    """Studies that became complete since then, purged ones among them while their facts are kept.

    The database takes these keywords out of what it keeps of a series, which is ten times as much; and what is written
    alike, as most facts of most series are, is read once.
    """
    names = sorted(keywords)
    read = {name: dict[str | None, Fact | None]({None: None, "null": None}) for name in names}

    def fact(keyword: str, text: str | None) -> Fact | None:
        known = read[keyword]
        if text not in known:
            known[text] = restored(keyword, from_json(text or "null"))
        return known[text]

    rows = connection.execution_options(yield_per=2000).execute(
        select(
            study.c.study_instance_uid,
            series.c.series_instance_uid,
            *(cast(series.c.facts[name], Text).label(f"fact_{place}") for place, name in enumerate(names)),
        )
        .join(series, series.c.study_instance_uid == study.c.study_instance_uid)
        .where(
            study.c.completed_at >= since,
            series.c.facts_generation.is_not(None),
            study.c.calling_ae_title != heartbeat.AE_TITLE,
        )
        .order_by(study.c.study_instance_uid)
    )
    for uid, found in groupby(rows, key=lambda row: str(row[0])):
        series_facts: dict[str, dict[str, Fact]] = {}
        for row in found:
            made = ((name, fact(name, text)) for name, text in zip(names, row[2:], strict=True))
            series_facts[row[1]] = {name: one for name, one in made if one is not None}
        yield Past(study_instance_uid=uid, series=series_facts)


def other_studies_with(connection: Connection, study_instance_uid: str, series_instance_uids: list[str]) -> list[str]:
    """Series of this study that have current instances in another study, too: none may be routed."""
    here = exists().where(
        instance.c.study_instance_uid == series.c.study_instance_uid,
        instance.c.series_instance_uid == series.c.series_instance_uid,
        instance.c.status == "current",
        instance.c.ours.is_(False),
    )
    found = (
        select(series.c.series_instance_uid)
        .where(
            series.c.series_instance_uid.in_(series_instance_uids),
            series.c.study_instance_uid != study_instance_uid,
            here,
        )
        .distinct()
        .order_by(series.c.series_instance_uid)
    )
    return list(connection.execute(found).scalars())


def _number(text: str) -> int:
    return int(text) if text.strip().lstrip("+-").isdecimal() else 0


def _study(row: Row[Any]) -> Study:
    values = row._mapping
    patient = Patient(**{name: values[name] for name in Patient.__slots__})
    kept = {name: values[name] for name in Study.__slots__ if name != "patient"}
    return Study(**{**kept, "state": StudyState(kept["state"])}, patient=patient)


def _series(row: Row[Any]) -> Series:
    return Series(**row._mapping)
