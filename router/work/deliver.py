"""Role `deliver`: each result set to each of its destinations, in order, the report last, until all of it is there.

An answer is written down the moment it comes, so after a failure or a kill only what is missing is sent again; what was
taken but not written down is sent once more as the same bytes under the same UID.
"""

import threading
from collections.abc import Iterator
from contextlib import closing

import structlog
from sqlalchemy import Connection

from dicom_sr.problem import Problem
from router import destinations, rulebook
from router.db import audit, receipts, results, revisions
from router.db.engine import reading, writing
from router.destinations import Context, Destination
from router.domain.delivery import Outgoing, Receipt, Verdict, name_of
from router.domain.job import Job, Lane, Outcome
from router.node import Node
from router.work.loop import Ending, InHand, Loop

log = structlog.get_logger()

LEASE_S = 60.0
SLOTS = 8
"""Destinations that are served at once; each gets one delivery at a time."""


class NotTaken(Problem):
    """The far side has not taken an instance; it may later."""

    retryable = True


class Refused(Problem):
    """The far side refuses an instance, and will refuse it again."""


class NoSuchDestination(Problem):
    """The destination of a delivery is not among the destinations in force."""


class NothingToSend(Problem):
    """A delivery without objects: its result set is gone."""


def serve(node: Node, stop: threading.Event) -> None:
    """Deliver until `stop` is set; what is on its way then arrives first."""
    settings = node.settings.delivery
    Loop(
        node=node,
        lane=Lane.DELIVER,
        work=lambda hand: deliver(node, hand),
        lease_s=LEASE_S,
        retry_first_s=settings.retry_first_s,
        retry_cap_s=settings.retry_cap_s,
        slots=SLOTS,
    ).serve(stop)


def deliver(node: Node, hand: InHand) -> Ending:
    """Send what the destination does not have yet.

    Raises:  Unreachable, Rejected, NotTaken, Refused, NoSuchDestination, Lost
    """
    job = hand.job
    with reading(node.engine) as connection:
        destination = find(connection, job)
        objects = results.of_set(connection, job.result_set_id or 0)
        there = receipts.accepted(connection, job.id)
    if not objects:
        raise NothingToSend(f"result set {job.result_set_id} has no objects", remedy="Re-run its inference job")
    kinds = {item.sop_instance_uid: item.kind for item in objects}
    outgoing = [
        Outgoing(
            sop_class_uid=item.sop_class_uid, sop_instance_uid=item.sop_instance_uid, path=node.store.path(item.path)
        )
        for item in objects
        if item.sop_instance_uid not in there
    ]
    for number, receipt in enumerate(sent(node, destination, outgoing), start=len(there) + 1):
        with writing(node.engine) as connection:
            receipts.write(connection, job.id, receipt)
        log.info(
            "instance.sent",
            instance=receipt.sop_instance_uid,
            status=None if receipt.status is None else name_of(receipt.status),
            verdict=receipt.verdict,
        )
        judge(receipt, kinds[receipt.sop_instance_uid], destination, missing=len(objects) - number + 1)
        hand.progress("sending", number / len(objects))
    return Ending(outcome=Outcome.DELIVERED, record=lambda connection: note(connection, job, len(objects)))


def find(connection: Connection, job: Job) -> Destination:
    """The destination of a delivery, as the revision in force has it.

    Raises:  NoSuchDestination
    """
    body = revisions.current(connection, revisions.Kind.DESTINATIONS).body
    for destination in rulebook.destinations(body):
        if destination.name == job.destination:
            return destination
    raise NoSuchDestination(
        f"there is no destination {job.destination} any more",
        remedy=f"Import destinations that have it, then `isocenter jobs retry {job.id}`",
    )


def sent(node: Node, destination: Destination, outgoing: list[Outgoing]) -> Iterator[Receipt]:
    """Answers of the destination, as they come."""
    if not outgoing:
        return
    settings = node.settings
    context = Context(
        calling_ae_title=settings.delivery.calling_ae_title or settings.ae_title, timeout_s=settings.delivery.timeout_s
    )
    kind = destinations.find(destination.kind)
    with closing(kind.send(destination, outgoing, context)) as answers:
        yield from answers


def judge(receipt: Receipt, kind: str, destination: Destination, *, missing: int) -> None:
    """Go on after an instance that was taken; later ones may reference it, so without it none is sent.

    Raises:  NotTaken, Refused
    """
    if receipt.verdict is Verdict.ACCEPTED:
        return
    said = f"destination {destination.name} did not take {kind} {receipt.sop_instance_uid}: {receipt.detail}"
    half = f"; {missing} of the result set are not there"
    if receipt.verdict is Verdict.LATER:
        raise NotTaken(said + half, remedy="The delivery goes on by itself")
    raise Refused(said + half, remedy="Put it right there, or give it a profile without this kind; then retry the job")


def note(connection: Connection, job: Job, number: int) -> None:
    """One audit row a delivery."""
    audit.write(
        connection,
        "deliver",
        "results.sent",
        job.study_instance_uid,
        job=job.id,
        destination=job.destination,
        instances=number,
    )
