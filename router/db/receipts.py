"""What each destination answered for each instance: only what is missing is sent again."""

from collections.abc import Collection

from sqlalchemy import Connection, func, select, update

from router.db.engine import insert_into, now
from router.db.tables import instance, job, receipt, result
from router.db.versions import Status
from router.domain.delivery import Receipt, Standing, Verdict, standing
from router.domain.job import Job, Lane


def write(connection: Connection, job_id: int, answer: Receipt) -> None:
    """Note this answer; it replaces the answer to an earlier attempt."""
    answered = {
        "status": answer.status,
        "accepted": answer.verdict is Verdict.ACCEPTED,
        "detail": answer.detail,
        "sent_at": now(),
        "committed_at": None,
    }
    fresh = insert_into(connection, receipt).values(
        job_id=job_id, sop_instance_uid=answer.sop_instance_uid, attempts=1, **answered
    )
    connection.execute(
        fresh.on_conflict_do_update(
            index_elements=[receipt.c.job_id, receipt.c.sop_instance_uid],
            set_={**answered, "attempts": receipt.c.attempts + 1},
        )
    )


def accepted(connection: Connection, job_id: int) -> frozenset[str]:
    """SOPInstanceUIDs that the destination of this job has taken."""
    rows = connection.execute(select(receipt.c.sop_instance_uid).where(receipt.c.job_id == job_id, receipt.c.accepted))
    return frozenset(rows.scalars())


def commit(connection: Connection, job_id: int, sop_instance_uids: Collection[str]) -> None:
    """The destination has promised to keep these."""
    mine = (receipt.c.job_id == job_id, receipt.c.sop_instance_uid.in_(sop_instance_uids))
    connection.execute(update(receipt).where(*mine).values(accepted=True, committed_at=now()))


def committed(connection: Connection, job_id: int) -> frozenset[str]:
    """SOPInstanceUIDs that the destination of this job has promised to keep."""
    mine = (receipt.c.job_id == job_id, receipt.c.committed_at.is_not(None))
    return frozenset(connection.execute(select(receipt.c.sop_instance_uid).where(*mine)).scalars())


def inherit(connection: Connection, forward: Job) -> None:
    """Enter in the ledger of a job that forwards a study what earlier ones of it have brought there.

    What has been corrected since counts as never sent.
    """
    earlier = connection.execute(
        select(receipt)
        .join(job, job.c.id == receipt.c.job_id)
        .join(instance, instance.c.sop_instance_uid == receipt.c.sop_instance_uid)
        .where(
            job.c.lane == Lane.DELIVER,
            job.c.result_set_id.is_(None),
            job.c.study_instance_uid == forward.study_instance_uid,
            job.c.destination == forward.destination,
            job.c.id != forward.id,
            instance.c.status == Status.CURRENT,
            receipt.c.accepted,
            receipt.c.sent_at >= instance.c.received_at,
        )
        .order_by(receipt.c.sent_at.desc())
    )
    for row in earlier.mappings().all():
        fresh = insert_into(connection, receipt).values({**row, "job_id": forward.id})
        connection.execute(fresh.on_conflict_do_nothing())


def standing_of(connection: Connection, delivery: Job) -> Standing:
    """How much of its set the destination of this delivery has."""
    objects = select(func.count()).where(result.c.result_set_id == delivery.result_set_id)
    if delivery.is_forward:
        objects = select(func.count()).where(
            instance.c.study_instance_uid == delivery.study_instance_uid,
            instance.c.status == Status.CURRENT,
            instance.c.ours.is_(False),
        )
    return standing(
        objects=int(connection.execute(objects).scalar_one()),
        accepted=len(accepted(connection, delivery.id)),
        committed=len(committed(connection, delivery.id)),
    )


def of_job(connection: Connection, job_id: int) -> list[dict[str, object]]:
    """All answers to one delivery, for lists: uid, status, accepted, detail, sent_at, attempts, committed_at."""
    columns = [column for column in receipt.c if column is not receipt.c.job_id]
    rows = connection.execute(select(*columns).where(receipt.c.job_id == job_id).order_by(receipt.c.sent_at))
    return [dict(row) for row in rows.mappings()]
