"""Heartbeats: one row a cycle, and the statements that let nothing of its phantom stay."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from router.db.engine import now
from router.db.tables import (
    beat,
    decision,
    findings,
    instance,
    job,
    measurement,
    pause,
    pledge,
    receipt,
    result,
    result_header,
    result_set,
    series,
    study,
)
from router.domain.heartbeat import AE_TITLE, PATIENT_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One cycle. Times are microseconds since 1970 UTC.

    `stage` is the one that was broken, None when all was well or it still goes on; `volume_ml` is what came back.
    """

    study_instance_uid: str
    asked_by: str
    folder: str
    began_at: int
    deadline_at: int
    sent_at: int | None
    ended_at: int | None
    stage: str | None
    what: str | None
    volume_ml: float | None


COLUMNS = [beat.c[name] for name in Beat.__slots__]


def begin(connection: Connection, study_instance_uid: str, *, asked_by: str, folder: Path, deadline_s: float) -> bool:
    """A new cycle, unless one goes on; whether there is one now that was not there."""
    if going_on(connection) is not None:
        return False
    at = now()
    row = {"study_instance_uid": study_instance_uid, "asked_by": asked_by, "folder": str(folder)}
    connection.execute(insert(beat).values(**row, began_at=at, deadline_at=at + round(deadline_s * 1_000_000)))
    return True


def going_on(connection: Connection) -> Beat | None:
    """The cycle that goes on."""
    row = connection.execute(select(*COLUMNS).where(beat.c.ended_at.is_(None)).limit(1)).mappings().first()
    return Beat(**row) if row else None


def list_(connection: Connection, *, limit: int = 20) -> list[Beat]:
    """The last cycles, the newest first."""
    rows = connection.execute(select(*COLUMNS).order_by(beat.c.began_at.desc()).limit(limit))
    return [Beat(**row) for row in rows.mappings()]


def last_good(connection: Connection) -> int | None:
    """When the phantom last came back right."""
    good = beat.c.ended_at.is_not(None) & beat.c.stage.is_(None)
    return connection.execute(
        select(beat.c.ended_at).where(good).order_by(beat.c.began_at.desc()).limit(1)
    ).scalar_one_or_none()


def admit(connection: Connection, study_instance_uid: str, passcode: str) -> None:
    """From now on the sender of this cycle is known by this passcode, and by no earlier one."""
    connection.execute(
        update(beat).where(beat.c.study_instance_uid == study_instance_uid).values(passcode_digest=_digest(passcode))
    )


def is_ours(connection: Connection, passcode: str) -> bool:
    """Whether a caller with this passcode is the sender of the cycle that goes on."""
    known = select(beat.c.study_instance_uid).where(
        beat.c.ended_at.is_(None), beat.c.passcode_digest == _digest(passcode)
    )
    return connection.execute(known).first() is not None


def sent(connection: Connection, study_instance_uid: str) -> None:
    """All slices were taken."""
    connection.execute(update(beat).where(beat.c.study_instance_uid == study_instance_uid).values(sent_at=now()))


def end(
    connection: Connection, study_instance_uid: str, *, stage: str | None, what: str | None, volume_ml: float | None
) -> None:
    """The cycle is over, and nobody is admitted for it any more."""
    connection.execute(
        update(beat)
        .where(beat.c.study_instance_uid == study_instance_uid)
        .values(ended_at=now(), stage=stage, what=what, volume_ml=volume_ml, passcode_digest=None)
    )


def forget(connection: Connection, *, before: int) -> None:
    """Cycles that ended before this time were told long enough."""
    connection.execute(delete(beat).where(beat.c.ended_at < before))


def folder(connection: Connection) -> Path | None:
    """Where phantoms' results go, by the newest cycle; None where there never was one."""
    found = connection.execute(select(beat.c.folder).order_by(beat.c.began_at.desc()).limit(1)).scalar_one_or_none()
    return Path(found) if found else None


def phantoms(connection: Connection) -> list[str]:
    """StudyInstanceUIDs of the phantoms that the node holds."""
    mine = (study.c.patient_id == PATIENT_ID) & (study.c.calling_ae_title == AE_TITLE)
    return list(connection.execute(select(study.c.study_instance_uid).where(mine)).scalars())


def paths_of(connection: Connection, study_instance_uid: str) -> list[str]:
    """Every file of this study in the store: received, found and made."""
    runs = select(job.c.id).where(job.c.study_instance_uid == study_instance_uid)
    sets = select(result_set.c.id).where(result_set.c.study_instance_uid == study_instance_uid)
    received = select(instance.c.path).where(instance.c.study_instance_uid == study_instance_uid)
    return [
        *connection.execute(received).scalars(),
        *connection.execute(select(findings.c.path).where(findings.c.job_id.in_(runs))).scalars(),
        *connection.execute(select(result.c.path).where(result.c.result_set_id.in_(sets))).scalars(),
    ]


def erase(connection: Connection, study_instance_uid: str) -> None:
    """No row of this study is left but the audit's."""
    runs = select(job.c.id).where(job.c.study_instance_uid == study_instance_uid)
    sets = select(result_set.c.id).where(result_set.c.study_instance_uid == study_instance_uid)
    made = select(result.c.sop_instance_uid).where(result.c.result_set_id.in_(sets))
    connection.execute(delete(result_header).where(result_header.c.sop_instance_uid.in_(made)))
    connection.execute(delete(result).where(result.c.result_set_id.in_(sets)))
    for of_run in (receipt, pledge, measurement, findings, result_set):
        connection.execute(delete(of_run).where(of_run.c.job_id.in_(runs)))
    for of_study in (decision, job, instance, series, pause, study):
        connection.execute(delete(of_study).where(of_study.c.study_instance_uid == study_instance_uid))


def _digest(passcode: str) -> str:
    return hashlib.sha256(passcode.encode()).hexdigest()
