"""Modality Performed Procedure Step, as a modality tells it to us: N-CREATE when it begins, N-SET until it is over.

We keep what completeness needs of it: which studies it serves, whether it is over, and which instances it has made. A
step is stored before it is answered, so what we have said Success to is known after any crash.

Source:  PS3.4 F.7 (Modality Performed Procedure Step SOP Class), PS3.3 C.4.13-C.4.15
"""

from typing import Any

import structlog
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_CREATE
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from router.db import audit, instances, steps
from router.db.engine import now, reading, writing
from router.domain.procedure_step import PerformedStep, StepState
from router.node import Node
from router.query.elements import Elements, UnreadableError, read
from router.query.identifier import tag_of
from router.query.peers import caller_of, permission
from router.query.rights import Denied, Service
from router.query.status import StepStatus

log = structlog.get_logger()

NO_LONGER = "Performed Procedure Step Object may no longer be updated"
NO_LONGER_ID = 0xA710
"""Error Comment and Error ID of an N-SET on a step that is over (PS3.4 F.7.2.2.4)."""

MADE = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")
MOST_INSTANCES = 100_000
LONGEST_UID = 128


class Wrong(Exception):  # noqa: N818 - it never leaves this module: an answer, not a Problem
    """A message that is refused, with the status and the comment that say so."""

    def __init__(self, status: StepStatus, comment: str, error_id: int | None = None) -> None:
        super().__init__(comment)
        self.status, self.comment, self.error_id = status, comment, error_id


def serve(association: Association, node: Node, message: Any, context_id: int) -> None:
    """Answer an N-CREATE or N-SET, whatever happens; afterwards wake decide."""
    explicit = association._accepted_cx[context_id].transfer_syntax[0] == ExplicitVRLittleEndian
    step: PerformedStep | None = None
    try:
        step = keep(node, association, message, explicit=explicit)
        why = None
    except Wrong as wrong:
        why = wrong
        log.warning("step.refused", status=wrong.status.name, why=wrong.comment)
    except Exception:  # listener handler: one request must not end the others
        log.exception("step.failed")
        why = Wrong(StepStatus.PROCESSING_FAILURE, "see this node's log")
    association.dimse.send_msg(answer(message, why), context_id)
    if step is not None:
        node.bell.ring("decide")


def keep(node: Node, association: Association, message: Any, *, explicit: bool) -> PerformedStep:
    """Store what is told; its row is committed then.

    Raises:  Wrong
    """
    caller = caller_of(association)
    name = f"{caller.calling_ae_title}@{caller.address}"
    allowed = permission(node, caller, Service.MPPS)
    if isinstance(allowed, Denied):
        with writing(node.engine) as connection:
            audit.write(connection, name, f"{Service.MPPS}.denied", why=allowed.reason)
        raise Wrong(StepStatus.REFUSED_NOT_AUTHORIZED, allowed.reason)
    given = message.AttributeList if isinstance(message, N_CREATE) else message.ModificationList
    try:
        elements = read(given.getvalue() if given else b"", explicit=explicit)
    except UnreadableError as error:
        raise Wrong(StepStatus.PROCESSING_FAILURE, str(error)) from None
    if isinstance(message, N_CREATE):
        step = begun(str(message.AffectedSOPInstanceUID or ""), elements)
    else:
        step = changed(node, str(message.RequestedSOPInstanceUID or ""), elements)
    at = now()
    with writing(node.engine) as connection:
        if isinstance(message, N_CREATE):
            if not steps.add(connection, step, calling_ae_title=caller.calling_ae_title, at=at):
                raise Wrong(StepStatus.DUPLICATE_SOP_INSTANCE, "this step was begun before")
        elif not steps.change(connection, step, at=at):
            raise Wrong(StepStatus.PROCESSING_FAILURE, NO_LONGER, NO_LONGER_ID)
        instances.look_again(connection, step.study_instance_uids, at)
        audit.write(connection, name, f"step.{step.state.lower().replace(' ', '_')}", step.study_instance_uids[0])
    log.info("step.told", step=step.sop_instance_uid, state=str(step.state), series=len(step.series))
    return step


def begun(sop_instance_uid: str, elements: Elements) -> PerformedStep:
    """The step of an N-CREATE.

    Raises:  Wrong
    """
    if not sop_instance_uid or len(sop_instance_uid) > LONGEST_UID:
        raise Wrong(StepStatus.MISSING_ATTRIBUTE, "an N-CREATE gives the step's SOP Instance UID")
    if state(elements) is not StepState.IN_PROGRESS:
        raise Wrong(StepStatus.INVALID_ATTRIBUTE_VALUE, "a step is begun with the status IN PROGRESS")
    studies = [uid(item, "StudyInstanceUID") for item in items(elements, "ScheduledStepAttributesSequence")]
    if not studies or not all(studies):
        raise Wrong(StepStatus.MISSING_ATTRIBUTE, "StudyInstanceUID in ScheduledStepAttributesSequence")
    return PerformedStep(
        sop_instance_uid=sop_instance_uid,
        state=StepState.IN_PROGRESS,
        study_instance_uids=tuple(sorted(set(studies))),
        series=made(elements) or {},
    )


def changed(node: Node, sop_instance_uid: str, elements: Elements) -> PerformedStep:
    """The step that an N-SET makes of one that is known; what it does not name stays as it is.

    Raises:  Wrong
    """
    with reading(node.engine) as connection:
        known = steps.find(connection, sop_instance_uid)
    if known is None:
        raise Wrong(StepStatus.NO_SUCH_SOP_INSTANCE, "no step was begun under this UID")
    if known.is_over:
        raise Wrong(StepStatus.PROCESSING_FAILURE, NO_LONGER, NO_LONGER_ID)
    series = made(elements)
    return PerformedStep(
        sop_instance_uid=sop_instance_uid,
        state=state(elements) or known.state,
        study_instance_uids=known.study_instance_uids,
        series=known.series if series is None else series,
    )


def state(elements: Elements) -> StepState | None:
    """Performed Procedure Step Status; None where it is not given.

    Raises:  Wrong
    """
    text = uid(elements, "PerformedProcedureStepStatus")
    try:
        return StepState(text) if text else None
    except ValueError:
        raise Wrong(StepStatus.INVALID_ATTRIBUTE_VALUE, "PerformedProcedureStepStatus has no such value") from None


def made(elements: Elements) -> dict[str, tuple[str, ...]] | None:
    """Instances by series; None where the message says nothing of them.

    Raises:  Wrong
    """
    if tag_of("PerformedSeriesSequence") not in elements:
        return None
    found: dict[str, tuple[str, ...]] = {}
    for series in items(elements, "PerformedSeriesSequence"):
        name = uid(series, "SeriesInstanceUID")
        uids = [uid(one, "ReferencedSOPInstanceUID") for sequence in MADE for one in items(series, sequence)]
        if name:
            found[name] = (*found.get(name, ()), *(one for one in uids if one))
    if sum(map(len, found.values())) > MOST_INSTANCES:
        raise Wrong(StepStatus.RESOURCE_LIMITATION, f"more than {MOST_INSTANCES} instances in one step")
    return found


def items(elements: Elements, keyword: str) -> list[Elements]:
    """Items of a sequence, none when it is absent or no sequence."""
    value = elements.get(tag_of(keyword))
    return value if isinstance(value, list) else []


def uid(elements: Elements, keyword: str) -> str:
    """A value as ASCII text, "" when absent."""
    value = elements.get(tag_of(keyword), b"")
    return value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else ""


def answer(message: Any, wrong: Wrong | None) -> Any:
    """The response."""
    response = type(message)()
    response.MessageIDBeingRespondedTo = message.MessageID
    response.AffectedSOPClassUID = ModalityPerformedProcedureStep
    response.AffectedSOPInstanceUID = (
        message.AffectedSOPInstanceUID if isinstance(message, N_CREATE) else message.RequestedSOPInstanceUID
    )
    response.Status = int(wrong.status if wrong else StepStatus.SUCCESS)
    if wrong is not None:
        response.ErrorComment = wrong.comment[:64]
        if wrong.error_id is not None:
            response.ErrorID = wrong.error_id
    return response
