"""What each destination answered for each instance: only what is missing is sent again."""

from sqlalchemy import Connection, select

from router.db.engine import insert_into, now
from router.db.tables import receipt
from router.domain.delivery import Receipt, Verdict


def write(connection: Connection, job_id: int, answer: Receipt) -> None:
    """Note this answer; it replaces the answer to an earlier attempt."""
    answered = {
        "status": answer.status,
        "accepted": answer.verdict is Verdict.ACCEPTED,
        "detail": answer.detail,
        "sent_at": now(),
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


def of_job(connection: Connection, job_id: int) -> list[dict[str, object]]:
    """All answers to one delivery, for lists: uid, status, accepted, detail, sent_at, attempts."""
    columns = [column for column in receipt.c if column is not receipt.c.job_id]
    rows = connection.execute(select(*columns).where(receipt.c.job_id == job_id).order_by(receipt.c.sent_at))
    return [dict(row) for row in rows.mappings()]
