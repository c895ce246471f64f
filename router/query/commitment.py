"""Storage Commitment, asked of us: an N-ACTION is noted and answered, its report follows by N-EVENT-REPORT.

A sender that is also a configured destination gets the report on an association of our own, in the SCP role, again and
again until it has it; any other gets it on the association on which it asked. What is not proven is never called
committed, it is reported as 0112. What counts as proof is said in `query.proof`; by default nothing is.

Source:  PS3.4 J.3 (Storage Commitment Push Model), PS3.7 D.3.3.4 (SCP/SCU Role Selection)
"""

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from struct import pack

import structlog
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.presentation import build_context, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from router.db import audit, commitments, holdings
from router.db.commitments import CommitmentRequest
from router.db.engine import now, reading, writing
from router.db.holdings import Holding
from router.destinations import dicom
from router.domain.audit import Outcome
from router.domain.retry import wait_s
from router.node import Node
from router.query.elements import Elements, UnreadableError, element, item, read
from router.query.identifier import tag_of
from router.query.peers import destination_of
from router.query.proof import archived, promised
from router.query.status import CommitmentStatus, FailureReason
from router.requestor import steady
from router.tls import client_context

log = structlog.get_logger()

Proof = Callable[[Node, str, Sequence[Holding]], Collection[str]]
"""Of these objects that the node holds, the SOPInstanceUIDs of those that it can prove to keep, to this AE title."""

REQUEST_STORAGE_COMMITMENT = 1
"""Action Type ID (PS3.4 J.3.2.1)."""
ALL_COMMITTED, FAILURES_EXIST = 1, 2
"""Event Type IDs (PS3.4 J.3.3.1)."""
MOST_REFERENCES = 10_000
FIRST_RETRY_S, LONGEST_RETRY_S, MOST_ATTEMPTS = 30.0, 3600.0, 20
PATIENCE_S = 3600.0
"""How long a sender that can be called waits for its report while its archive has not committed."""
ANSWER_S = 10.0
"""How long the sender may take to answer a report."""
GLANCE_S = 0.005

Reference = tuple[str, str]
"""SOPClassUID and SOPInstanceUID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is said of each reference."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, FailureReason], ...]


def judge(request: CommitmentRequest, held: Mapping[str, Holding], proven: Collection[str]) -> Report:
    """Committed only what is held under the same SOP class and proven.

    Source:  PS3.4 J.3.3.1.2, PS3.3 C.14.1.1 (Failure Reason)
    """
    committed, failed = [], []
    for sop_class, uid in request.requested:
        if uid not in held:
            failed.append(((sop_class, uid), FailureReason.NO_SUCH_OBJECT_INSTANCE))
        elif held[uid].sop_class_uid != sop_class:
            failed.append(((sop_class, uid), FailureReason.CLASS_INSTANCE_CONFLICT))
        elif uid not in proven:
            failed.append(((sop_class, uid), FailureReason.NO_SUCH_OBJECT_INSTANCE))
        else:
            committed.append((sop_class, uid))
    return Report(transaction_uid=request.transaction_uid, committed=tuple(committed), failed=tuple(failed))


def accept(
    node: Node, caller: str, calling_ae_title: str, message: N_ACTION, *, explicit: bool
) -> tuple[CommitmentStatus, CommitmentRequest | None]:
    """The answer to an N-ACTION, and what is to be reported on; its row is committed by then."""
    if message.RequestedSOPInstanceUID != StorageCommitmentPushModelInstance:
        return CommitmentStatus.NO_SUCH_SOP_INSTANCE, None
    if message.ActionTypeID != REQUEST_STORAGE_COMMITMENT:
        return CommitmentStatus.NO_SUCH_ACTION, None
    content = message.ActionInformation.getvalue() if message.ActionInformation else b""
    try:
        elements = read(content, explicit=explicit)
    except UnreadableError:
        return CommitmentStatus.INVALID_ARGUMENT_VALUE, None
    transaction_uid, requested = _uid(elements, "TransactionUID"), _references(elements)
    if not transaction_uid or not requested or len(requested) > MOST_REFERENCES:
        return CommitmentStatus.INVALID_ARGUMENT_VALUE, None
    request = CommitmentRequest(
        calling_ae_title=calling_ae_title, transaction_uid=transaction_uid, requested=requested, received_at=now()
    )
    with writing(node.engine) as connection:
        if not commitments.add(connection, request, not_before=now() + int(FIRST_RETRY_S * 1e6)):
            return CommitmentStatus.DUPLICATE_TRANSACTION_UID, None
        audit.write(connection, caller, "commitment.requested", transaction=transaction_uid, instances=len(requested))
    return CommitmentStatus.SUCCESS, request


def report(node: Node, request: CommitmentRequest, prove: Proof, here: tuple[Association, int] | None = None) -> bool:
    """Tell the sender, on an association of our own where its address is known, else `here`; whether it has heard."""
    uids = [uid for _, uid in request.requested]
    with reading(node.engine) as connection:
        held = holdings.of(connection, uids)
    told = judge(request, held, prove(node, request.calling_ae_title, list(held.values())))
    settings = destination_of(node, request.calling_ae_title)
    if settings is not None and may_come_true(node, request, told, held):
        with writing(node.engine) as connection:
            commitments.wait(connection, request, now() + int(FIRST_RETRY_S * 1e6))
        return False
    if settings is not None:
        heard = _call(node, settings, told)
    else:
        heard = here is not None and _notify(*here, told, node.settings.ae_title)
    with writing(node.engine) as connection:
        if heard:
            commitments.reported(connection, request)
        else:
            commitments.postpone(connection, request, _next_attempt(request))
        audit.write(
            connection,
            request.calling_ae_title,
            "commitment.reported" if heard else "commitment.not_reported",
            outcome=Outcome.DONE if heard else Outcome.FAILED,
            transaction=request.transaction_uid,
            committed=len(told.committed),
            failed=len(told.failed),
        )
    return heard


def may_come_true(node: Node, request: CommitmentRequest, told: Report, held: Collection[str]) -> bool:
    """Whether what is not proven yet may be soon: it lies here, and its archive has had little time to commit."""
    waiting = any(uid in held for (_, uid), reason in told.failed if reason is FailureReason.NO_SUCH_OBJECT_INSTANCE)
    is_young = now() - request.received_at < PATIENCE_S * 1e6
    return waiting and is_young and promised(node, request.calling_ae_title)


def calls_back(node: Node, request: CommitmentRequest) -> bool:
    """Whether the sender's address is known, so that the report goes there."""
    return destination_of(node, request.calling_ae_title) is not None


def report_due(node: Node, prove: Proof = archived) -> int:
    """Tell those who have not heard yet; how many have now. For the timetable."""
    with reading(node.engine) as connection:
        waiting = commitments.due(connection, now())
    return sum(report(node, request, prove) for request in waiting)


def _next_attempt(request: CommitmentRequest) -> int | None:
    attempt = request.attempts + 1
    if attempt >= MOST_ATTEMPTS:
        log.error("commitment.given_up", source=request.calling_ae_title, transaction=request.transaction_uid)
        return None
    wait = wait_s(attempt, first_s=FIRST_RETRY_S, cap_s=LONGEST_RETRY_S, chance=random.random())
    return now() + int(wait * 1e6)


def _uid(elements: Elements, keyword: str) -> str:
    value = elements.get(tag_of(keyword), b"")
    return value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else ""


def _references(elements: Elements) -> tuple[Reference, ...]:
    items = elements.get(tag_of("ReferencedSOPSequence"))
    found = [
        (_uid(one, "ReferencedSOPClassUID"), _uid(one, "ReferencedSOPInstanceUID"))
        for one in (items if isinstance(items, list) else [])
    ]
    return tuple(found) if all(uid for _, uid in found) else ()


def _call(node: Node, settings: dicom.Settings, told: Report) -> bool:
    """Report on an association of our own; a peer that does not know role selection gets it all the same."""
    ae = AE(ae_title=settings.calling_ae_title or node.settings.ae_title)
    timeout_s = node.settings.delivery.timeout_s
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = timeout_s
    association = ae.associate(
        settings.host,
        settings.port,
        contexts=[build_context(StorageCommitmentPushModel, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])],
        ae_title=settings.ae_title,
        ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        tls_args=(client_context(node.settings.tls), settings.host) if settings.tls else None,
    )
    association = steady(association)
    if not association.is_established:
        return False
    try:
        accepted = association.accepted_contexts
        return bool(accepted) and _notify(association, accepted[0].context_id, told, node.settings.ae_title)
    finally:
        association.release()


def _notify(association: Association, context_id: int, told: Report, retrieve_ae_title: str) -> bool:
    """Send the N-EVENT-REPORT; whether the sender has confirmed it."""
    explicit = association._accepted_cx[context_id].transfer_syntax[0] == ExplicitVRLittleEndian
    request = N_EVENT_REPORT()
    request.MessageID = 1
    request.AffectedSOPClassUID = StorageCommitmentPushModel
    request.AffectedSOPInstanceUID = StorageCommitmentPushModelInstance
    request.EventTypeID = FAILURES_EXIST if told.failed else ALL_COMMITTED
    request.EventInformation = BytesIO(_information(told, retrieve_ae_title, explicit=explicit))
    association._reactor_checkpoint.clear()
    while association.is_alive() and not association._is_paused:
        time.sleep(0.0001)
    try:
        association.dimse.send_msg(request, context_id)
        return _confirmed(association)
    finally:
        association._reactor_checkpoint.set()


def _confirmed(association: Association) -> bool:
    """Whether the answer is Success; requests that come before it are kept for later."""
    queue, acse = association.dimse.msg_queue, association.acse
    others = []
    deadline = time.monotonic() + ANSWER_S
    try:
        while time.monotonic() < deadline and association.is_established:
            context_id, message = association.dimse.get_msg(block=False)
            if isinstance(message, N_EVENT_REPORT) and message.MessageIDBeingRespondedTo is not None:
                return bool(message.Status == CommitmentStatus.SUCCESS)
            if message is not None:
                others.append((context_id, message))
            elif acse.is_aborted() or acse.is_release_requested():
                return False
            else:
                time.sleep(GLANCE_S)
        return False
    finally:
        for one in others:
            queue.put(one)


def _information(told: Report, retrieve_ae_title: str, *, explicit: bool) -> bytes:
    """Event Information, every UID in the form in which it came (PS3.4 J.3.3.1.1)."""
    committed = b"".join(item(_reference(one, explicit=explicit)) for one in told.committed)
    failed = b"".join(
        item(_reference(one, explicit=explicit) + _element("FailureReason", "US", pack("<H", reason), explicit))
        for one, reason in told.failed
    )
    return b"".join(
        (
            _element("RetrieveAETitle", "AE", retrieve_ae_title.encode("ascii"), explicit),
            _element("TransactionUID", "UI", told.transaction_uid.encode("ascii", "replace"), explicit),
            _element("FailedSOPSequence", "SQ", failed, explicit) if failed else b"",
            _element("ReferencedSOPSequence", "SQ", committed, explicit) if committed else b"",
        )
    )


def _reference(reference: Reference, *, explicit: bool) -> bytes:
    sop_class, uid = (part.encode("ascii", "replace") for part in reference)
    return _element("ReferencedSOPClassUID", "UI", sop_class, explicit) + _element(
        "ReferencedSOPInstanceUID", "UI", uid, explicit
    )


def _element(keyword: str, vr: str, value: bytes, explicit: bool) -> bytes:
    return element(tag_of(keyword), vr, value, explicit=explicit)
