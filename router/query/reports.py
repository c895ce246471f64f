"""Storage Commitment that we have asked for: a destination's N-EVENT-REPORT, on an association of its own to our door.

Role selection, with which a destination says that it is the SCP although it calls, is granted and not needed. A report
is known by its TransactionUID, in the database: whichever process asked, and whichever hears.

Source:  PS3.4 J.3.3 (Notifications), PS3.7 10.3.1 (N-EVENT-REPORT)
"""

import time
from struct import unpack

import structlog
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel

from router.db import pledges
from router.db.engine import writing
from router.domain.delivery import Commitment
from router.domain.job import Lane
from router.node import Node
from router.query.elements import Elements, UnreadableError, read
from router.query.identifier import tag_of
from router.query.peers import caller_of
from router.query.rights import Caller
from router.query.status import CommitmentStatus

log = structlog.get_logger()

ESTABLISHED_S = 5.0
"""The longest wait for an association to count as established; one that has ended meanwhile needs no answer."""

FULL_REPORT = (1, 2)
"""Event Type IDs: all committed, and failures exist (PS3.4 J.3.3.1)."""


def told(event: evt.Event, node: Node) -> tuple[int, None]:
    """The answer to a destination's N-EVENT-REPORT, once what it says is committed.

    pynetdicom serves these in a thread of their own as soon as they come, perhaps before the association counts as
    established: so this is one of its handlers, and `service.take_over` knows nothing of it.
    """
    try:
        status = hear(node, caller_of(event.assoc), event)
    except Exception:  # listener handler: one request must not end the others
        log.exception("commitment.not_heard")
        status = CommitmentStatus.PROCESSING_FAILURE
    let_establish(event.assoc)
    return int(status), None


def let_establish(association: Association) -> None:
    """Wait until the association counts as established: before, pynetdicom drops the answer without a word.

    Its own thread says so right after the peer was accepted, but may come late to it on a busy machine.
    """
    until = time.monotonic() + ESTABLISHED_S
    while not (association.is_established or association.is_aborted) and time.monotonic() < until:
        time.sleep(0.001)


def hear(node: Node, caller: Caller, event: evt.Event) -> CommitmentStatus:
    """Note what a destination reports, and wake the delivery that waits for it."""
    message = event.request
    if event.context.abstract_syntax != StorageCommitmentPushModel or message.EventTypeID not in FULL_REPORT:
        return CommitmentStatus.NO_SUCH_EVENT_TYPE
    content = message.EventInformation.getvalue() if message.EventInformation else b""
    try:
        said = commitment(read(content, explicit=event.context.transfer_syntax == ExplicitVRLittleEndian))
    except UnreadableError:
        return CommitmentStatus.INVALID_ARGUMENT_VALUE
    with writing(node.engine) as connection:
        job_id = pledges.report(connection, said)
    known = {"caller": f"{caller.calling_ae_title}@{caller.address}", "transaction": said.transaction_uid}
    if job_id is None:
        log.warning("commitment.unknown", **known)
        return CommitmentStatus.PROCESSING_FAILURE
    node.bell.ring(Lane.DELIVER)
    log.info("commitment.heard", job=job_id, committed=len(said.committed), failed=len(said.failed), **known)
    return CommitmentStatus.SUCCESS


def commitment(elements: Elements) -> Commitment:
    """The report in Event Information.

    Raises:  UnreadableError
    """
    return Commitment(
        transaction_uid=_uid(elements, "TransactionUID"),
        committed=frozenset(_uid(one, "ReferencedSOPInstanceUID") for one in _items(elements, "ReferencedSOPSequence")),
        failed={_uid(one, "ReferencedSOPInstanceUID"): _reason(one) for one in _items(elements, "FailedSOPSequence")},
    )


def _items(elements: Elements, keyword: str) -> list[Elements]:
    items = elements.get(tag_of(keyword))
    return items if isinstance(items, list) else []


def _uid(elements: Elements, keyword: str) -> str:
    value = elements.get(tag_of(keyword), b"")
    return value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else ""


def _reason(elements: Elements) -> int:
    """The FailureReason; where a peer leaves it out, that processing failed."""
    value = elements.get(tag_of("FailureReason"), b"")
    return int(unpack("<H", value)[0]) if isinstance(value, bytes) and len(value) == 2 else 0x0110
