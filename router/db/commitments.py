"""Storage commitment that senders ask of us: kept until the sender has the report, whatever happens in between."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Row, select, update

from router.db.engine import insert_into
from router.db.tables import commitment_request, instance, job, receipt
from router.db.versions import Status
from router.domain.job import Lane


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """One N-ACTION. `requested` are (SOPClassUID, SOPInstanceUID) in their order; times in microseconds since 1970."""

    calling_ae_title: str
    transaction_uid: str
    requested: tuple[tuple[str, str], ...]
    received_at: int
    attempts: int = 0


def add(connection: Connection, request: CommitmentRequest, *, not_before: int) -> bool:
    """Note a request; the same one again is due again. False when its Transaction UID is taken by another."""
    requested = [list(one) for one in request.requested]
    fresh = insert_into(connection, commitment_request).values(
        calling_ae_title=request.calling_ae_title,
        transaction_uid=request.transaction_uid,
        requested=requested,
        received_at=request.received_at,
        not_before=not_before,
    )
    made = fresh.on_conflict_do_nothing().returning(commitment_request.c.transaction_uid)  # PostgreSQL counts no rows
    if connection.execute(made).one_or_none() is not None:
        return True
    known = connection.execute(select(commitment_request).where(*_is(request))).one()
    if known.requested != requested:
        return False
    connection.execute(update(commitment_request).where(*_is(request)).values(not_before=not_before, attempts=0))
    return True


def due(connection: Connection, now: int, *, limit: int = 100) -> list[CommitmentRequest]:
    """Requests whose report is due, the longest waiting first."""
    rows = connection.execute(
        select(commitment_request)
        .where(commitment_request.c.not_before <= now)
        .order_by(commitment_request.c.not_before)
        .limit(limit)
    )
    return [_request(row) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """A received instance that an archive has committed to keep as it lies here; `path` is relative to the store."""

    sop_instance_uid: str
    path: str
    dataset_digest: str


def archived(connection: Connection, sop_instance_uids: Collection[str]) -> list[Archived]:
    """Those of these instances whose current version was forwarded to a destination that has committed to keep it."""
    rows = connection.execute(
        select(instance.c.sop_instance_uid, instance.c.path, instance.c.dataset_digest)
        .join(receipt, receipt.c.sop_instance_uid == instance.c.sop_instance_uid)
        .join(job, job.c.id == receipt.c.job_id)
        .where(
            instance.c.sop_instance_uid.in_(sop_instance_uids),
            instance.c.status == Status.CURRENT,
            instance.c.dataset_digest.is_not(None),
            job.c.lane == Lane.DELIVER,
            job.c.result_set_id.is_(None),
            receipt.c.committed_at.is_not(None),
            receipt.c.sent_at >= instance.c.received_at,
        )
        .distinct()
    )
    return [Archived(**row) for row in rows.mappings()]


def wait(connection: Connection, request: CommitmentRequest, until: int) -> None:
    """The report is not made yet: what it asks for may still come true."""
    changed = update(commitment_request).where(*_is(request), commitment_request.c.not_before.is_not(None))
    connection.execute(changed.values(not_before=until))


def reported(connection: Connection, request: CommitmentRequest) -> None:
    """The sender has its report."""
    connection.execute(update(commitment_request).where(*_is(request)).values(not_before=None))


def postpone(connection: Connection, request: CommitmentRequest, until: int | None) -> None:
    """The report did not get through; None gives it up."""
    changed = update(commitment_request).where(*_is(request), commitment_request.c.not_before.is_not(None))
    connection.execute(changed.values(attempts=commitment_request.c.attempts + 1, not_before=until))


def _is(request: CommitmentRequest) -> tuple[ColumnElement[bool], ...]:
    return (
        commitment_request.c.calling_ae_title == request.calling_ae_title,
        commitment_request.c.transaction_uid == request.transaction_uid,
    )


def _request(row: Row[tuple[object, ...]]) -> CommitmentRequest:
    values = row._mapping
    return CommitmentRequest(
        calling_ae_title=values["calling_ae_title"],
        transaction_uid=values["transaction_uid"],
        requested=tuple((sop_class, uid) for sop_class, uid in values["requested"]),
        received_at=values["received_at"],
        attempts=values["attempts"],
    )
