"""The node as an SCP of queries, commitment and performed procedure steps, put before pynetdicom's service classes.

`take_over` wraps the one method by which an association serves a request; whatever is not ours goes on to it as before.
"""

import socket
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE, N_ACTION, N_CREATE, N_SET
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from router.db import audit
from router.db.commitments import CommitmentRequest
from router.db.engine import writing
from router.domain.audit import Outcome
from router.domain.query import Root
from router.node import Node
from router.query import commitment, mpps, reports, retrieve
from router.query.commitment import Proof
from router.query.exchange import Exchange, PeerGone
from router.query.find import find
from router.query.identifier import Granted
from router.query.peers import caller_of, permission
from router.query.proof import archived
from router.query.rights import Denied, Service
from router.query.status import CommitmentStatus, FindStatus

log = structlog.get_logger()

ROOTS: Mapping[str, Root] = {
    PatientRootQueryRetrieveInformationModelFind: Root.PATIENT,
    PatientRootQueryRetrieveInformationModelMove: Root.PATIENT,
    PatientRootQueryRetrieveInformationModelGet: Root.PATIENT,
    StudyRootQueryRetrieveInformationModelFind: Root.STUDY,
    StudyRootQueryRetrieveInformationModelMove: Root.STUDY,
    StudyRootQueryRetrieveInformationModelGet: Root.STUDY,
}
"""Information model of each SOP class of ours."""

SERVICES = {C_FIND: Service.QUERY, C_MOVE: Service.RETRIEVE, C_GET: Service.RETRIEVE}


def contexts() -> list[PresentationContext]:
    """What an association may be negotiated for, beside storage. A C-GET also wants the storage contexts accepted with
    the roles turned round: give them `scu_role=True, scp_role=True`."""
    syntaxes = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    made = [build_context(sop_class, syntaxes) for sop_class in ROOTS]
    commit = build_context(StorageCommitmentPushModel, syntaxes)
    commit.scu_role = commit.scp_role = True
    return [*made, commit, build_context(ModalityPerformedProcedureStep, syntaxes)]


def handlers(node: Node, prove: Proof = archived) -> list[tuple[Any, ...]]:
    """What to bind to a server's events, so that its associations answer queries."""
    return [
        (evt.EVT_ESTABLISHED, take_over, [node, prove]),
        (evt.EVT_SOP_EXTENDED, negotiate),
        (evt.EVT_N_EVENT_REPORT, reports.told, [node]),
    ]


def negotiate(event: evt.Event) -> dict[str, bytes]:
    """What we grant of the options that were asked for each SOP class (PS3.4 C.5.1.1, C.5.2.1)."""
    return {uid: Granted.of(asked).answer(asked) for uid, asked in event.app_info.items() if uid in ROOTS}


def take_over(event: evt.Event, node: Node, prove: Proof = archived) -> None:
    """From now on this association's queries, retrievals, commitment requests and procedure steps are ours."""
    association: Association = event.assoc
    connection: socket.socket = association.dul.socket.socket
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else every last match waits 40 ms for an ACK
    otherwise: Callable[[Any, int], None] = association._serve_request
    association._serve_request = partial(serve, association, node, prove, otherwise)


def serve(
    association: Association,
    node: Node,
    prove: Proof,
    otherwise: Callable[[Any, int], None],
    message: Any,
    context_id: int,
) -> None:
    """Serve one request, or leave it to pynetdicom."""
    context = association._accepted_cx.get(context_id)
    syntax = str(context.abstract_syntax) if context is not None else ""
    is_ours = (
        (type(message) in SERVICES and syntax in ROOTS)
        or (isinstance(message, N_ACTION) and syntax == StorageCommitmentPushModel)
        or (isinstance(message, N_CREATE | N_SET) and syntax == ModalityPerformedProcedureStep)
    )
    if not is_ours or not message.is_valid_request:
        otherwise(message, context_id)
        return
    association.dimse.cancel_req = {}
    association._is_paused = True  # a sub-operation's answer is ours to take off the queue
    try:
        if isinstance(message, N_CREATE | N_SET):
            mpps.serve(association, node, message, context_id)
        elif isinstance(message, N_ACTION):
            _commit(association, node, prove, message, context_id)
        else:
            _answer(association, node, message, context_id, ROOTS[syntax])
    except PeerGone as problem:
        log.info("query.peer_gone", why=problem.what)
    finally:
        association._is_paused = False
        association.dimse.cancel_req = {}


def _answer(association: Association, node: Node, message: Any, context_id: int, root: Root) -> None:
    """Answer a C-FIND, C-MOVE or C-GET, whatever happens."""
    exchange = Exchange(association, context_id, message)
    service = SERVICES[type(message)]
    granted = Granted.of(association.requestor.sop_class_extended.get(exchange.sop_class_uid, b""))
    try:
        allowed = permission(node, caller_of(association), service)
        if isinstance(allowed, Denied):
            _deny(node, exchange.caller, service, allowed)
            exchange.refuse(FindStatus.REFUSED_NOT_AUTHORIZED, allowed.reason)
        elif isinstance(message, C_FIND):
            find(node, exchange, root, granted)
        elif isinstance(message, C_MOVE):
            retrieve.move(node, exchange, root, granted, str(message.MoveDestination))
        else:
            retrieve.get(node, exchange, root, granted)
    except PeerGone:
        raise
    except Exception:  # listener handler: one request must not end the others
        log.exception("query.failed", caller=exchange.caller, service=str(service))
        exchange.refuse(FindStatus.UNABLE_TO_PROCESS, "see this node's log")


def _deny(node: Node, caller: str, service: Service, denied: Denied) -> None:
    log.warning("query.denied", caller=caller, service=str(service), why=denied.reason)
    with writing(node.engine) as connection:
        audit.write(connection, caller, f"{service}.denied", outcome=Outcome.REFUSED, why=denied.reason)


def _commit(association: Association, node: Node, prove: Proof, message: N_ACTION, context_id: int) -> None:
    """Answer the N-ACTION, then report: at once, and by a thread of its own where the sender is called back."""
    request: CommitmentRequest | None = None
    calls_back = False
    try:
        status, request = _asked(association, node, message, context_id)
        calls_back = request is not None and commitment.calls_back(node, request)
    except Exception:  # listener handler: one request must not end the others
        log.exception("commitment.failed")
        status = CommitmentStatus.PROCESSING_FAILURE
    response = N_ACTION()
    response.MessageIDBeingRespondedTo = message.MessageID
    response.AffectedSOPClassUID = message.RequestedSOPClassUID
    response.AffectedSOPInstanceUID = message.RequestedSOPInstanceUID
    response.Status = int(status)
    association.dimse.send_msg(response, context_id)
    if request is None:
        return
    if calls_back:
        threading.Thread(target=_report, args=(node, request, prove, None), daemon=True).start()
    else:
        _report(node, request, prove, (association, context_id))


def _asked(
    association: Association, node: Node, message: N_ACTION, context_id: int
) -> tuple[CommitmentStatus, CommitmentRequest | None]:
    caller = caller_of(association)
    name = f"{caller.calling_ae_title}@{caller.address}"
    allowed = permission(node, caller, Service.COMMIT)
    if isinstance(allowed, Denied):
        _deny(node, name, Service.COMMIT, allowed)
        return CommitmentStatus.REFUSED_NOT_AUTHORIZED, None
    explicit = association._accepted_cx[context_id].transfer_syntax[0] == ExplicitVRLittleEndian
    return commitment.accept(node, name, caller.calling_ae_title, message, explicit=explicit)


def _report(node: Node, request: CommitmentRequest, prove: Proof, here: tuple[Association, int] | None) -> None:
    try:
        commitment.report(node, request, prove, here)
    except Exception:  # listener handler: the request stays due, the timetable reports later
        log.exception("commitment.report_failed", transaction=request.transaction_uid)
