"""Storage Commitment as SCU: the request, and its report where that comes on the same association.

Most archives report on an association of their own, to our listener (`router.query.reports`).

Source:  PS3.4 J.3 (Storage Commitment Push Model)
"""

from collections.abc import Sequence
from queue import Empty, SimpleQueue

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from router.destinations import Awaited, CannotCommit, Context, Interrupted, Rejected, Unheard
from router.destinations._node import Settings, associated
from router.domain.delivery import Commitment, Outgoing, name_of

REQUEST_STORAGE_COMMITMENT = 1
"""Action Type ID (PS3.4 J.3.2.1)."""

LINGER_S = 0.5
"""How long the association is kept for a report on it."""


MOST_UNANSWERED = 3
"""Requests without a report after which an archive is read back instead, where commitment is not required."""

STRANGER_S = 300.0
"""The longest wait for the first report ever of an archive that may be read back; perhaps it cannot call us at all."""


def commit(
    settings: Settings,
    outgoing: Sequence[Outgoing],
    transaction_uid: str,
    context: Context,
    *,
    unanswered: int = 0,
    heard: bool = True,
) -> Commitment | Awaited:
    """Ask by N-ACTION; the report where it comes on the same association and soon.

    Raises:  Unheard, CannotCommit, Unreachable, Rejected
    """
    where = f"destination {settings.name}: {settings.ae_title}"
    if settings.commitment == "never":
        raise CannotCommit(f"{where} is not to be asked to commit", remedy="Set its commitment to ask")
    if settings.commitment == "ask" and unanswered >= MOST_UNANSWERED:
        raise CannotCommit(
            f"{where} takes requests for storage commitment and never reports", remedy="See whether it can call us"
        )
    stranger = settings.commitment == "ask" and not heard
    if stranger and unanswered:
        raise Unheard(f"{where} has never reported to us", remedy="See whether it can call us; it is read back now")
    try:
        answer = ask(settings, outgoing, transaction_uid, context, where)
        if stranger and isinstance(answer, Awaited):
            return Awaited(wait_s=min(answer.wait_s, STRANGER_S))
        return answer
    except CannotCommit as problem:
        if settings.commitment == "require":
            raise Rejected(problem.what, remedy="Put that right there, or set its commitment to ask") from None
        raise


def ask(
    settings: Settings, outgoing: Sequence[Outgoing], transaction_uid: str, context: Context, where: str
) -> Commitment | Awaited:
    """One N-ACTION, and a moment for its report.

    Raises:  CannotCommit, Unreachable, Rejected
    """
    reports: SimpleQueue[Commitment] = SimpleQueue()

    def hear(event: evt.Event) -> tuple[int, None]:
        said = commitment(event.event_information)
        if said.transaction_uid != transaction_uid:
            return 0x0110, None
        reports.put(said)
        return 0x0000, None

    handlers = [(evt.EVT_N_EVENT_REPORT, hear)]
    with associated(settings, [build_context(StorageCommitmentPushModel)], context, handlers) as association:
        if not association.is_established:
            raise CannotCommit(f"{where} does not take storage commitment", remedy="It is read back, where it can be")
        status, _ = association.send_n_action(
            references(outgoing, transaction_uid),
            REQUEST_STORAGE_COMMITMENT,
            StorageCommitmentPushModel,
            StorageCommitmentPushModelInstance,
        )
        if "Status" not in status:
            raise Interrupted(
                f"{where} ended the association when it was asked to commit, or did not answer in time",
                remedy="Ask its administrator what its log says; the delivery goes on by itself",
            )
        if status.Status != 0x0000:
            raise CannotCommit(
                f"{where} answers {name_of(status.Status)} when it is asked to commit",
                remedy="Make our AE title, address and port known there, so that it can report to us",
            )
        try:
            return reports.get(timeout=LINGER_S)
        except Empty:
            return Awaited(wait_s=settings.commitment_deadline_s)


def references(outgoing: Sequence[Outgoing], transaction_uid: str) -> Dataset:
    """Action Information (PS3.4 J.3.2.1.1)."""
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    items = []
    for one in outgoing:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
        items.append(item)
    asked.ReferencedSOPSequence = items
    return asked


def commitment(information: Dataset) -> Commitment:
    """The report in Event Information (PS3.4 J.3.3.1)."""
    return Commitment(
        transaction_uid=str(information.get("TransactionUID", "")),
        committed=frozenset(str(one.ReferencedSOPInstanceUID) for one in information.get("ReferencedSOPSequence", ())),
        failed={
            str(one.ReferencedSOPInstanceUID): int(one.get("FailureReason", 0x0110))
            for one in information.get("FailedSOPSequence", ())
        },
    )
