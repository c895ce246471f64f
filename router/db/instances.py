"""Statements on instances, and on the series and study rows that an arriving instance makes or touches.

Of the versions of one SOPInstanceUID exactly one is `current`; a correction makes it `replaced`, a conflict never
touches it. The index may lose its last rows in a power cut: the start-up scan writes them again from the files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    bindparam,
    case,
    delete,
    func,
    select,
    update,
)

from router.db.filing import DERIVED, HELD, IDENTITY, INSERT, RECEIVING, file, values_of
from router.db.tables import instance, result, study
from router.db.versions import Arrival as Arrival  # whoever asks for instances has their nouns from here, too
from router.db.versions import Digests as Digests
from router.db.versions import InstanceRow as InstanceRow
from router.db.versions import Status as Status


def record(connection: Connection, arrival: Arrival) -> bool:
    """Index an instance whose UID is new, and its series and study; False when another was there first."""
    return not record_new(connection, [arrival])


def record_new(connection: Connection, arrivals: Sequence[Arrival]) -> list[Arrival]:
    """Index instances whose UIDs are new, each UID once; gives those of which another was there first.

    What has the UID of a result of this node is ours, whatever its header has become on the way.
    """
    arrivals = _marked(connection, arrivals)
    written = INSERT(connection, [values_of(one, 1, Status.CURRENT) for one in arrivals])
    fresh, late = list(arrivals), list[Arrival]()
    if written != len(arrivals):
        kept = set(connection.execute(select(instance.c.path).where(instance.c.path.in_([o.path for o in arrivals]))))
        late = [one for one in arrivals if (one.path,) not in kept]
        fresh = [one for one in arrivals if (one.path,) in kept]
    file(connection, fresh)
    return late


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
    INSERT(connection, [values_of(arrival, version, Status.CURRENT)])
    file(connection, [arrival])
    _identify(connection, arrival)
    _reopen_left(connection, arrival)
    return version


def record_conflict(connection: Connection, arrival: Arrival) -> int:
    """Keep other pixels under a known UID apart: neither series nor study learns of them. Gives the version."""
    version = _next_version(connection, arrival.sop_instance_uid)
    INSERT(connection, [values_of(arrival, version, Status.CONFLICT)])
    return version


def restore(connection: Connection, version: int, arrival: Arrival, status: Status) -> None:
    """The file of this version was gone and has come again: it lies elsewhere now."""
    values = {**values_of(arrival, version, status), "header": arrival.header}
    key = {name: values.pop(name) for name in ("sop_instance_uid", "version")}
    connection.execute(
        update(instance)
        .where(instance.c.sop_instance_uid == key["sop_instance_uid"], instance.c.version == key["version"])
        .values(values)
    )
    if status is Status.CURRENT:
        file(connection, [arrival])


def versions(connection: Connection, sop_instance_uid: str, *, lock: bool = False) -> list[InstanceRow]:
    """All versions of one instance, the newest first; with `lock` nobody purges them before this transaction ends."""
    statement = select(instance).where(instance.c.sop_instance_uid == sop_instance_uid)
    rows = connection.execute((statement.with_for_update() if lock else statement).order_by(instance.c.version.desc()))
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


def _identify(connection: Connection, arrival: Arrival) -> None:
    """Results carry the newest identity, so the study does."""
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid == arrival.study_instance_uid)
        .values({name: arrival.text(keyword) for name, keyword in IDENTITY.items()})
    )


def _reopen_left(connection: Connection, arrival: Arrival) -> None:
    """Other studies that a version of this instance was in have lost it: decide looks at what is left of them.

    Losing one counts like getting one, so that a whole study that is moved is looked at when all of it has gone.
    """
    left = select(instance.c.study_instance_uid).where(
        instance.c.sop_instance_uid == arrival.sop_instance_uid,
        instance.c.study_instance_uid != arrival.study_instance_uid,
        instance.c.status == Status.REPLACED,
    )
    connection.execute(
        update(study)
        .where(study.c.study_instance_uid.in_(left), study.c.state != HELD)
        .values(state="receiving", decide_at=arrival.received_at, last_instance_at=arrival.received_at)
    )


def emptied_series(connection: Connection, study_instance_uid: str) -> list[str]:
    """Series all of whose images were moved to another series or study; what was purged has not been moved."""
    here = func.count(case((instance.c.status.in_((Status.CURRENT, Status.PURGED)), 1)))
    moved = func.count(case((instance.c.status == Status.REPLACED, 1)))
    rows = connection.execute(
        select(instance.c.series_instance_uid)
        .where(instance.c.study_instance_uid == study_instance_uid, instance.c.ours.is_(False))
        .group_by(instance.c.series_instance_uid)
        .having(here == 0, moved > 0)
        .order_by(instance.c.series_instance_uid)
    )
    return list(rows.scalars())


def _next_version(connection: Connection, sop_instance_uid: str) -> int:
    highest = connection.execute(
        select(func.max(instance.c.version)).where(instance.c.sop_instance_uid == sop_instance_uid)
    ).scalar_one()
    return (highest or 0) + 1


def _row(row: Row[Any]) -> InstanceRow:
    values = dict(row._mapping)
    return InstanceRow(**{**values, "status": Status(values["status"])})
