"""Storage Commitment: what is not proven is never called committed, and the sender hears so, if need be later."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from sqlalchemy import update

from router.db import instances, jobs, receipts
from router.db.commitments import CommitmentRequest
from router.db.engine import now, reading, writing
from router.db.holdings import Holding
from router.db.tables import commitment_request, instance
from router.domain.delivery import Receipt, Verdict
from router.ingest import part10
from router.node import Node
from router.query import report_due
from router.query.commitment import judge
from router.query.status import CommitmentStatus, FailureReason
from tests.conftest import until
from tests.query.node import RIGHTS, Answering, answering, ct
from tests.servers import free_port

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


def everything_is_proven(node: Node, calling_ae_title: str, holdings: Sequence[Holding]) -> Collection[str]:
    return [one.sop_instance_uid for one in holdings]


@dataclass
class Sender:
    """A modality that asks for commitment and takes reports."""

    heard: list[tuple[int, Dataset]] = field(default_factory=list)
    roles: list[Any] = field(default_factory=list)
    answer: int = 0x0000
    sent: list[Any] = field(default_factory=list)
    """PDUs that have left."""
    sent_when_heard: int = 0

    def report(self, event: evt.Event) -> tuple[int, None]:
        self.sent_when_heard = len(self.sent)
        self.heard.append((event.event_type, event.event_information))
        return self.answer, None

    def handlers(self) -> list[Any]:
        return [(evt.EVT_N_EVENT_REPORT, self.report), (evt.EVT_PDU_SENT, lambda event: self.sent.append(event.pdu))]

    def ask(
        self, node: Answering, transaction: str, *references: tuple[str, str], wait_s: float = 60, **changes: Any
    ) -> int:
        """The status of the N-ACTION; the association is held open until a report came, or the time is over."""
        ae = AE(ae_title="FRIEND")
        ae.add_requested_context(StorageCommitmentPushModel)
        association = ae.associate("127.0.0.1", node.port, evt_handlers=self.handlers())
        assert association.is_established
        information = Dataset()
        information.TransactionUID = transaction
        information.ReferencedSOPSequence = [reference(*one) for one in references]
        before = len(self.heard)
        wanted = {"action_type": 1, "instance_uid": StorageCommitmentPushModelInstance} | changes
        status, _ = association.send_n_action(
            information, wanted["action_type"], StorageCommitmentPushModel, wanted["instance_uid"]
        )
        if status.Status == 0x0000 and wait_s:
            until(lambda: len(self.heard) > before, deadline_s=wait_s, what="the report")
            until(lambda: len(self.sent) > self.sent_when_heard, what="our answer: a release would overtake it")
        association.release()
        return int(status.Status)

    @contextmanager
    def listening(self, *, takes_scp_role: bool = True) -> Iterator[int]:
        """Its own door, where reports may arrive."""
        ae = AE(ae_title="FRIEND")
        context = {"scu_role": True, "scp_role": True} if takes_scp_role else {}
        ae.add_supported_context(StorageCommitmentPushModel, **context)

        def requested(event: evt.Event) -> None:
            self.roles.append(dict(event.assoc.requestor.role_selection))

        handlers = [*self.handlers(), (evt.EVT_REQUESTED, requested)]
        server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def reference(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item


def waiting(node: Answering) -> list[Any]:
    with reading(node.node.engine) as connection:
        return list(connection.execute(commitment_request.select()))


@pytest.fixture(params=[True, False], ids=["proof", "no proof"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Answering]:
    arguments = [everything_is_proven] if request.param else []
    with answering(tmp_path, *arguments) as made:
        yield made


def test_only_what_is_held_under_its_class_and_proven_is_committed() -> None:
    held = {
        uid: Holding(sop_instance_uid=uid, sop_class_uid=str(CTImageStorage), study_instance_uid="1", path=uid)
        for uid in ("1.1", "1.2", "1.3")
    }
    asked = (("1.1", CTImageStorage), ("1.2", CTImageStorage), ("1.3", MRImageStorage), ("1.4", CTImageStorage))
    request = CommitmentRequest(
        calling_ae_title="A",
        transaction_uid="9",
        requested=tuple((str(sop_class), uid) for uid, sop_class in asked),
        received_at=0,
    )
    report = judge(request, held, {"1.1", "1.3", "1.4"})
    assert [uid for _, uid in report.committed] == ["1.1"]
    assert [(uid, reason) for (_, uid), reason in report.failed] == [
        ("1.2", FailureReason.NO_SUCH_OBJECT_INSTANCE),
        ("1.3", FailureReason.CLASS_INSTANCE_CONFLICT),
        ("1.4", FailureReason.NO_SUCH_OBJECT_INSTANCE),
    ]


def test_a_sender_hears_on_the_association_on_which_it_asked(node: Answering, request: pytest.FixtureRequest) -> None:
    proven = request.node.callspec.params["node"]
    one = ct()
    node.hold(one)
    sender, transaction = Sender(), generate_uid()
    assert sender.ask(node, transaction, (CTImageStorage, one.SOPInstanceUID)) == 0x0000
    ((event_type, report),) = sender.heard
    assert report.TransactionUID == transaction
    if proven:
        assert event_type == 1
        assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [one.SOPInstanceUID]
        assert "FailedSOPSequence" not in report
    else:
        assert event_type == 2
        (failed,) = report.FailedSOPSequence
        assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (one.SOPInstanceUID, 0x0112)
        assert "ReferencedSOPSequence" not in report
    until(lambda: waiting(node)[0].not_before is None, what="the row of a report that was heard")
    assert node.audited("commitment.reported")


PROMISE = {"ae_title": "FRIEND", "addresses": ["127.0.0.1"], "services": RIGHTS, "commits": "archived"}


def keep(node: Answering, one: FileDataset, *, committed: bool = True) -> Path:
    """As if this instance had been digested, and forwarded to an archive that has committed to keep it; its file."""
    uid = one.SOPInstanceUID
    with writing(node.node.engine) as connection:
        (row,) = instances.versions(connection, uid)
        path = node.node.store.path(row.path)
        content = path.read_bytes()
        digest = hashlib.sha256(content[part10.dataset_offset(content) :]).hexdigest()
        connection.execute(update(instance).where(instance.c.sop_instance_uid == uid).values(dataset_digest=digest))
        job_id, _ = jobs.add_forward(
            connection,
            study_instance_uid=one.StudyInstanceUID,
            generation=1,
            destination="archive",
            priority=50,
            max_attempts=1,
        )
        receipts.write(connection, job_id, Receipt(sop_instance_uid=uid, verdict=Verdict.ACCEPTED, status=0))
        if committed:
            receipts.commit(connection, job_id, [uid])
    return path


def test_committed_is_what_an_archive_keeps_and_what_still_lies_here_as_it_came(tmp_path: Path) -> None:
    whole, damaged, gone, elsewhere_only_sent, here_alone = (ct(number=number) for number in range(1, 6))
    asked = [(str(CTImageStorage), str(one.SOPInstanceUID)) for one in (whole, damaged, gone, elsewhere_only_sent)]
    asked.append((str(CTImageStorage), str(here_alone.SOPInstanceUID)))
    sender = Sender()
    with answering(tmp_path) as node:
        node.hold(whole, damaged, gone, elsewhere_only_sent, here_alone)
        keep(node, whole)
        file = keep(node, damaged)
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        keep(node, gone).unlink()
        keep(node, elsewhere_only_sent, committed=False)
        sender.ask(node, "1.2.1", *asked)
        node.sources(PROMISE)
        sender.ask(node, "1.2.2", *asked)
    (_, without), (_, promised) = sender.heard
    assert len(without.FailedSOPSequence) == 5
    assert [one.ReferencedSOPInstanceUID for one in promised.ReferencedSOPSequence] == [whole.SOPInstanceUID]
    assert {one.FailureReason for one in promised.FailedSOPSequence} == {0x0112}


def test_a_correction_that_the_archive_does_not_have_is_not_committed(tmp_path: Path) -> None:
    one, sender = ct(), Sender()
    with answering(tmp_path) as node:
        node.hold(one)
        node.sources(PROMISE)
        keep(node, one)
        with writing(node.node.engine) as connection:  # the version here came after what the archive was sent
            connection.execute(update(instance).values(received_at=now() + 60_000_000))
        sender.ask(node, "1.2.1", (CTImageStorage, one.SOPInstanceUID))
    assert [event_type for event_type, _ in sender.heard] == [2]


def test_a_sender_that_can_be_called_hears_when_the_archive_has_committed(tmp_path: Path) -> None:
    sender, one = Sender(), ct()
    with answering(tmp_path) as node, sender.listening() as port:
        node.hold(one)
        node.sources(PROMISE)
        node.destinations(FRIEND=port)
        before = now()
        assert sender.ask(node, "1.2.3", (CTImageStorage, one.SOPInstanceUID), wait_s=0) == 0x0000
        until(lambda: waiting(node)[0].not_before > before + 25_000_000, what="the request waits")
        keep(node, one)
        with writing(node.node.engine) as connection:
            connection.execute(update(commitment_request).values(not_before=0))
        assert report_due(node.node) == 1
    assert [event_type for event_type, _ in sender.heard] == [1]


@pytest.mark.parametrize("takes_scp_role", [True, False])
def test_a_sender_whose_address_is_known_is_called(tmp_path: Path, takes_scp_role: bool) -> None:
    sender, one = Sender(), ct()
    with answering(tmp_path, everything_is_proven) as node, sender.listening(takes_scp_role=takes_scp_role) as port:
        node.hold(one)
        node.destinations(FRIEND=port)
        assert sender.ask(node, "1.2.3", (CTImageStorage, one.SOPInstanceUID), wait_s=0) == 0x0000
        until(lambda: sender.heard, what="the report")
        until(lambda: waiting(node)[0].not_before is None, what="the row of a report that was heard")
    (roles,) = sender.roles
    assert (roles[StorageCommitmentPushModel].scu_role, roles[StorageCommitmentPushModel].scp_role) == (False, True)
    assert [event_type for event_type, _ in sender.heard] == [1]


def test_a_sender_that_was_away_hears_later(tmp_path: Path) -> None:
    sender, one = Sender(), ct()
    with answering(tmp_path) as node:
        node.hold(one)
        node.destinations(FRIEND=free_port())
        assert sender.ask(node, "1.2.3", (CTImageStorage, one.SOPInstanceUID), wait_s=0) == 0x0000
        until(lambda: waiting(node)[0].attempts == 1, what="the first attempt")
        assert report_due(node.node) == 0  # not yet
        with sender.listening() as port:
            node.destinations(FRIEND=port)
            with writing(node.node.engine) as connection:
                connection.execute(update(commitment_request).values(not_before=0))
            assert report_due(node.node) == 1
        assert report_due(node.node) == 0
    assert [report.FailedSOPSequence[0].FailureReason for _, report in sender.heard] == [0x0112]


def test_a_report_that_is_refused_is_not_heard(tmp_path: Path) -> None:
    sender = Sender(answer=0x0110)
    with answering(tmp_path) as node:
        assert sender.ask(node, "1.2.3", (CTImageStorage, "1.1")) == 0x0000
        until(lambda: waiting(node)[0].attempts == 1, what="the refusal")
        assert waiting(node)[0].not_before is not None


def test_without_the_right_nobody_gets_a_promise(tmp_path: Path) -> None:
    sender = Sender()
    with answering(tmp_path, everything_is_proven) as node:
        rights = [right for right in RIGHTS if right != "commit"]
        node.sources({"ae_title": "FRIEND", "addresses": ["127.0.0.1"], "services": rights})
        status = sender.ask(node, "1.2.3", (CTImageStorage, "1.1"))
        assert not waiting(node)
        assert node.audited("commit.denied")
    assert status == CommitmentStatus.REFUSED_NOT_AUTHORIZED
    assert not sender.heard


def test_the_same_request_again_is_reported_again_and_another_under_its_uid_is_refused(tmp_path: Path) -> None:
    sender = Sender()
    with answering(tmp_path) as node:
        assert sender.ask(node, "1.2.3", (CTImageStorage, "1.1")) == 0x0000
        assert sender.ask(node, "1.2.3", (CTImageStorage, "1.1")) == 0x0000
        until(lambda: len(sender.heard) == 2, what="the second report")
        assert sender.ask(node, "1.2.3", (CTImageStorage, "1.2")) == CommitmentStatus.DUPLICATE_TRANSACTION_UID


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action_type": 2}, CommitmentStatus.NO_SUCH_ACTION),
        ({"instance_uid": "1.2.3.4"}, CommitmentStatus.NO_SUCH_SOP_INSTANCE),
    ],
)
def test_what_is_asked_wrongly_is_refused(tmp_path: Path, changes: dict[str, Any], status: int) -> None:
    with answering(tmp_path) as node:
        assert Sender().ask(node, "1.2.3", (CTImageStorage, "1.1"), **changes) == status
        assert Sender().ask(node, "1.2.4") == CommitmentStatus.INVALID_ARGUMENT_VALUE
        assert not waiting(node)


def test_role_selection_of_the_asker_changes_nothing(tmp_path: Path) -> None:
    heard = Sender()
    with answering(tmp_path) as node:
        ae = AE(ae_title="FRIEND")
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scu_role=True)
        association = ae.associate("127.0.0.1", node.port, ext_neg=[role], evt_handlers=heard.handlers())
        information = Dataset()
        information.TransactionUID = "1.2.3"
        information.ReferencedSOPSequence = [reference(CTImageStorage, "1.1")]
        status, _ = association.send_n_action(
            information, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        until(lambda: heard.heard, what="the report")
        association.release()
    assert status.Status == 0x0000
