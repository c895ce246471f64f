"""A real SCP in a thread that answers as it is told, and keeps what it took."""

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Comprehensive3DSRStorage,
    CTImageStorage,
    SegmentationStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from tests.conftest import until

CLASSES = (str(CTImageStorage), str(SegmentationStorage), str(Comprehensive3DSRStorage))
Answer = Callable[[Any], int]


@dataclass
class Archive:
    """What the SCP has; `answers` are given one after the other, then Success for ever."""

    port: int = 0
    answers: list[int | Answer] = field(default_factory=list)
    opened: int = 0
    """TCP connections so far."""
    asked: list[str] = field(default_factory=list)
    """SOPInstanceUID of every C-STORE request, refused ones included."""
    kept: dict[str, bytes] = field(default_factory=dict)
    """Encoded data sets by SOPInstanceUID."""
    syntaxes: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    """SOPInstanceUIDs that came again with other bytes."""
    forgets: bool = False
    """Says Success and keeps nothing."""
    blind: int = 0
    """So many C-FIND requests are answered as if nothing were there."""
    found: int = 0
    """C-FIND requests so far."""
    reports_to: int | None = None
    """Port of loopback to which storage commitment is reported; None reports on the association that asked."""
    silent: int = 0
    """So many requests for commitment are taken and never reported on."""
    refusal: int = 0x0000
    """What an N-ACTION is answered."""
    reasons: dict[int, int] = field(default_factory=dict)
    """FailureReason of the instance that was taken as the n-th, for what it is asked to commit to first."""
    transactions: list[str] = field(default_factory=list)
    """TransactionUIDs of the requests so far."""
    answered: list[int] = field(default_factory=list)
    """What we were answered to our reports."""
    takes_role: bool = True
    """Whether it reports with role selection."""

    def connected(self, _: evt.Event) -> None:
        self.opened += 1

    def store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.asked.append(uid)
        answer = self.answers.pop(0) if self.answers else 0x0000
        status = answer(event) if callable(answer) else answer
        if not self.forgets and (status == 0x0000 or status & 0xF000 == 0xB000):
            content = event.request.DataSet.getvalue()
            if self.kept.setdefault(uid, content) != content:
                self.changed.append(uid)
            self.syntaxes[uid] = str(event.context.transfer_syntax)
        return status

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.found += 1
        query = event.identifier
        keys = {element.keyword for element in query} - {"QueryRetrieveLevel"}
        for uid in list(self.kept) if self.found > self.blind else ():
            one = self.dataset(uid)
            if all(query[key].value in ("", None, one.get(key)) for key in keys):
                answer = Dataset()
                answer.QueryRetrieveLevel = query.QueryRetrieveLevel
                for key in keys:
                    setattr(answer, key, one.get(key))
                yield 0xFF00, answer

    def action(self, event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        self.transactions.append(str(asked.TransactionUID))
        if self.refusal or self.silent >= len(self.transactions):
            return self.refusal, None
        threading.Thread(target=self.report, args=(event.assoc, self.information(asked))).start()
        return 0x0000, None

    def information(self, asked: Dataset) -> Dataset:
        """What it commits to: what it has, but for those that it is to fail."""
        told = Dataset()
        told.TransactionUID = asked.TransactionUID
        told.ReferencedSOPSequence, told.FailedSOPSequence = [], []
        order = list(dict.fromkeys(self.asked))
        for one in asked.ReferencedSOPSequence:
            uid = str(one.ReferencedSOPInstanceUID)
            reason = self.reasons.pop(order.index(uid), None) or (None if uid in self.kept else 0x0112)
            if reason is None:
                told.ReferencedSOPSequence.append(one)
            else:
                one.FailureReason = reason
                told.FailedSOPSequence.append(one)
        for keyword in ("ReferencedSOPSequence", "FailedSOPSequence"):
            if not told[keyword].value:
                del told[keyword]
        return told

    def report(self, asker: Association, told: Dataset) -> None:
        """Tell, on the association that asked or on one of our own."""
        event_type = 2 if "FailedSOPSequence" in told else 1
        model, instance = StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        if self.reports_to is None:
            status, _ = asker.send_n_event_report(told, event_type, model, instance)
            self.answered.append(int(status.Status))
            return
        ae = AE(ae_title="ARCHIVE")
        ae.add_requested_context(model)
        roles = [build_role(model, scp_role=True)] if self.takes_role else []
        association = ae.associate("127.0.0.1", self.reports_to, ae_title="ISOCENTER", ext_neg=roles)
        assert association.is_established
        if self.takes_role:
            status, _ = association.send_n_event_report(told, event_type, model, instance)
            self.answered.append(int(status.Status))
        else:
            self.answered.append(plainly(association, told, event_type))
        association.release()

    def dataset(self, uid: str) -> Dataset:
        implicit = self.syntaxes[uid] == ImplicitVRLittleEndian
        return read_dataset(BytesIO(self.kept[uid]), is_implicit_VR=implicit, is_little_endian=True)


def plainly(association: Association, told: Dataset, event_type: int) -> int:
    """An N-EVENT-REPORT without role selection, which pynetdicom itself refuses to send."""
    request = N_EVENT_REPORT()
    request.MessageID, request.EventTypeID = 7, event_type
    request.AffectedSOPClassUID = StorageCommitmentPushModel
    request.AffectedSOPInstanceUID = StorageCommitmentPushModelInstance
    context = association.accepted_contexts[0]
    implicit = context.transfer_syntax[0] == ImplicitVRLittleEndian
    request.EventInformation = BytesIO(encode(told, implicit, True) or b"")
    association._reactor_checkpoint.clear()
    until(lambda: association._is_paused, what="the reactor's pause")
    association.dimse.send_msg(request, context.context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return int(answer.Status)


def aborts(event: evt.Event) -> int:
    """An answer that is none: the association is aborted."""
    event.assoc.abort()
    return 0xC000


@contextmanager
def archive(
    *,
    classes: Sequence[str] = CLASSES,
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    title: str = "ARCHIVE",
    port: int = 0,
    require_calling: Sequence[str] = (),
    state: Archive | None = None,
    finds: bool = False,
    commits: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Archive]:
    """An archive on a free port of loopback."""
    held = state or Archive()
    ae = AE(ae_title=title)
    for abstract in classes:
        ae.add_supported_context(abstract, list(syntaxes))
    ae.add_supported_context(Verification)
    if finds:
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    if commits:
        ae.add_supported_context(StorageCommitmentPushModel)
    ae.require_calling_aet = list(require_calling)
    ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = 10
    handlers = [
        (evt.EVT_C_STORE, held.store),
        (evt.EVT_C_FIND, held.find),
        (evt.EVT_N_ACTION, held.action),
        (evt.EVT_CONN_OPEN, held.connected),
    ]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls)
    held.port = server.server_address[1]
    try:
        yield held
    finally:
        server.shutdown()
