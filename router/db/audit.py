"""The audit: acts on patient data, each written in the transaction of the act; read, sealed, and who they are about.

A patient is a random key here. Whom it stands for says one row of a table of its own, which `forget` erases while the
rows of the chain stay as they are.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, bindparam, delete, func, insert, select, text, update

from router.db.engine import insert_into, now
from router.db.tables import audit, audit_patient, audit_seal, study
from router.domain.audit import EVENTS, Act, Outcome, Row, Seal
from router.domain.study import Patient

SEALING = 0x15_05EA
"""Advisory lock of PostgreSQL under which seals are made, one after the other."""


def write(
    connection: Connection,
    who: str,
    act: str,
    study_instance_uid: str | None = None,
    *,
    job: int | None = None,
    outcome: Outcome = Outcome.DONE,
    **detail: Any,
) -> None:
    """Note that `who` did `act`, one of `router.domain.audit.EVENTS`; `detail` is JSON and never names a patient.

    Whom the act is about is found by the study.
    """
    connection.execute(
        insert(audit).values(
            at=now(),
            who=who,
            act=act,
            outcome=outcome,
            study_instance_uid=study_instance_uid,
            job_id=job,
            patient_key=None if study_instance_uid is None else _key_of(connection, study_instance_uid),
            detail=detail,
        )
    )


def _key_of(connection: Connection, study_instance_uid: str) -> str | None:
    """The key of the study's patient, made at the first act; None for a study that has no patient or is unknown."""
    columns = (study.c.patient_id, study.c.issuer_of_patient_id, study.c.patient_name)
    whose = connection.execute(select(*columns).where(study.c.study_instance_uid == study_instance_uid)).one_or_none()
    if whose is None or not (whose.patient_id or whose.patient_name):
        return None
    same = select(audit_patient.c.key).where(
        audit_patient.c.patient_id == whose.patient_id,
        audit_patient.c.issuer_of_patient_id == whose.issuer_of_patient_id,
    )
    known = connection.scalar(same)
    if known is None:
        fresh = insert_into(connection, audit_patient).values(key=uuid4().hex, **whose._mapping)
        connection.execute(fresh.on_conflict_do_nothing())
        known = connection.scalar(same)
    return str(known)


def patients(connection: Connection, keys: Sequence[str]) -> dict[str, Patient]:
    """Whom these keys stand for, as far as they are not forgotten."""
    found = connection.execute(select(audit_patient).where(audit_patient.c.key.in_(keys)))
    return {
        row.key: Patient(
            patient_id=row.patient_id, issuer_of_patient_id=row.issuer_of_patient_id, patient_name=row.patient_name
        )
        for row in found
    }


def keys_of(connection: Connection, patient_id: str, issuer: str | None = None) -> list[str]:
    """The keys of a patient: of every issuer, where none is given."""
    statement = select(audit_patient.c.key).where(audit_patient.c.patient_id == patient_id)
    if issuer is not None:
        statement = statement.where(audit_patient.c.issuer_of_patient_id == issuer)
    return list(connection.scalars(statement))


def erase(connection: Connection, keys: Sequence[str]) -> int:
    """Nobody can tell any more whom these keys stand for; how many could be told before."""
    return int(connection.execute(delete(audit_patient).where(audit_patient.c.key.in_(keys))).rowcount)


def list_(
    connection: Connection,
    *,
    study_instance_uid: str | None = None,
    job_id: int | None = None,
    keys: Sequence[str] | None = None,
    act: Act | None = None,
    since: int | None = None,
    before: int | None = None,
    limit: int | None = 100,
) -> list[Row]:
    """The newest rows that match, the oldest of them first."""
    statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if study_instance_uid is not None:
        statement = statement.where(audit.c.study_instance_uid == study_instance_uid)
    if job_id is not None:
        statement = statement.where(audit.c.job_id == job_id)
    if keys is not None:
        statement = statement.where(audit.c.patient_key.in_(keys))
    if act is not None:
        statement = statement.where(audit.c.act.in_([event for event, of in EVENTS.items() if of is act]))
    if since is not None:
        statement = statement.where(audit.c.at >= since)
    if before is not None:
        statement = statement.where(audit.c.id < before)
    return [_row(row) for row in connection.execute(statement).mappings()][::-1]


def after(connection: Connection, row_id: int, limit: int) -> list[Row]:
    """The next rows in the order of their numbers."""
    rows = connection.execute(select(audit).where(audit.c.id > row_id).order_by(audit.c.id).limit(limit))
    return [_row(row) for row in rows.mappings()]


def unsealed(connection: Connection, limit: int) -> list[Row]:
    """Rows that no seal holds yet, for whoever seals them in this transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SEALING})
    rows = connection.execute(select(audit).where(audit.c.seal.is_(None)).order_by(audit.c.id).limit(limit))
    return [_row(row) for row in rows.mappings()]


def count_unsealed(connection: Connection, before: int) -> int:
    """How many rows from before this time no seal holds."""
    statement = select(func.count()).select_from(audit).where(audit.c.seal.is_(None), audit.c.at < before)
    return int(connection.scalar(statement) or 0)


def last_seal(connection: Connection) -> Seal | None:
    """The newest link of the chain."""
    row = connection.execute(select(*SEAL).order_by(audit_seal.c.number.desc()).limit(1)).mappings().first()
    return Seal(**row) if row else None


def add_seal(connection: Connection, made: Seal, macs: dict[int, str]) -> None:
    """Write a link, and in each of its rows that it is in it."""
    values = {name: getattr(made, name) for name in Seal.__slots__}
    connection.execute(insert(audit_seal).values(values))
    rows = [{"of": row_id, "by": made.number, "own": mac} for row_id, mac in macs.items()]
    connection.execute(
        update(audit).where(audit.c.id == bindparam("of")).values(seal=bindparam("by"), mac=bindparam("own")), rows
    )


def links(connection: Connection) -> Iterator[tuple[Seal, list[Row]]]:
    """Every link of the chain with its rows, the oldest first."""
    for found in connection.execute(select(*SEAL).order_by(audit_seal.c.number)).mappings().all():
        rows = connection.execute(select(audit).where(audit.c.seal == found["number"]).order_by(audit.c.id)).mappings()
        yield Seal(**found), [_row(row) for row in rows]


def orphans(connection: Connection) -> list[int]:
    """Seals that rows say they are in, and that are not there."""
    known = select(audit_seal.c.number)
    named = select(audit.c.seal).where(audit.c.seal.is_not(None), audit.c.seal.not_in(known)).distinct()
    return sorted(connection.scalars(named))


def count_links(connection: Connection) -> int:
    """How many links the chain has."""
    return int(connection.scalar(select(func.count()).select_from(audit_seal)) or 0)


def unsent(connection: Connection) -> list[Seal]:
    """Links whose head has not left the machine yet, the oldest first."""
    rows = connection.execute(select(*SEAL).where(audit_seal.c.sent_at.is_(None)).order_by(audit_seal.c.number))
    return [Seal(**row) for row in rows.mappings()]


def sent(connection: Connection, number: int) -> None:
    """The heads up to this one have left the machine."""
    gone = update(audit_seal).where(audit_seal.c.number <= number, audit_seal.c.sent_at.is_(None))
    connection.execute(gone.values(sent_at=now()))


SEAL = (audit_seal.c.number, audit_seal.c.at, audit_seal.c.rows, audit_seal.c.mac)


def _row(row: Any) -> Row:
    return Row(**{**row, "outcome": Outcome(row["outcome"])})
