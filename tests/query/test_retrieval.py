"""What is retrieved is what was named, goes only where it may, and is counted truly, whatever the far side does."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, SegmentationStorage
from pynetdicom import AE, evt
from pynetdicom.presentation import build_role
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from router.domain.query import KEYS, Level, Root
from router.query.identifier import tag_of
from router.query.scu import Peer, PeerRefuses, PeerUnreachable, WrongQuery, get, move
from router.query.status import RetrieveStatus
from tests.query.node import Answering, answering, ct, part10, storing
from tests.servers import free_port

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
"""pynetdicom forgets the socket of a connection that was refused."""

STUDY = {"StudyInstanceUID": "1.2.1"}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Answering]:
    with answering(tmp_path) as made:
        made.hold(*(ct(number=number) for number in range(1, 6)))
        yield made


def peer(node: Answering, calling: str = "FRIEND") -> Peer:
    return Peer(ae_title="ISOCENTER", host="127.0.0.1", port=node.port, calling_ae_title=calling, timeout_s=20)


def responses(
    node: Answering, keys: dict[str, Any], *, root: Root = Root.STUDY, destination: str = "ARCHIVE"
) -> list[Dataset]:
    """Every response to a C-MOVE, as pynetdicom reads it."""
    model = {
        Root.STUDY: StudyRootQueryRetrieveInformationModelMove,
        Root.PATIENT: PatientRootQueryRetrieveInformationModelMove,
    }[root]
    identifier = Dataset()
    for keyword, value in keys.items():
        vr = "CS" if keyword == "QueryRetrieveLevel" else KEYS[keyword].vr
        identifier.add(DataElement(tag_of(keyword), vr, value, validation_mode=IGNORE))
    ae = AE(ae_title="FRIEND")
    ae.add_requested_context(model)
    association = ae.associate("127.0.0.1", node.port)
    said = [status for status, _ in association.send_c_move(identifier, destination, model)]
    association.release()
    return said


def test_a_study_goes_to_its_destination_with_a_count_after_each_object(node: Answering) -> None:
    with storing() as (port, got):
        node.destinations(ARCHIVE=port)
        said = responses(node, {"QueryRetrieveLevel": "STUDY", **STUDY})
    assert len(got) == 5
    assert [status.NumberOfRemainingSuboperations for status in said[:-1]] == [4, 3, 2, 1, 0]
    assert [status.NumberOfCompletedSuboperations for status in said] == [1, 2, 3, 4, 5, 5]
    assert (said[-1].Status, said[-1].NumberOfFailedSuboperations, said[-1].NumberOfWarningSuboperations) == (0, 0, 0)
    assert "NumberOfRemainingSuboperations" not in said[-1]


def test_a_list_of_images_is_moved_and_nothing_beside_it(node: Answering) -> None:
    more = ct(series_uid="1.2.1.7", number=9)
    others = [ct(series_uid="1.2.1.7", number=number) for number in (1, 2)]
    node.hold(more, *others)
    wanted = [others[0].SOPInstanceUID, more.SOPInstanceUID]
    with storing() as (port, got):
        node.destinations(ARCHIVE=port)
        keys = {**STUDY, "SeriesInstanceUID": "1.2.1.7", "SOPInstanceUID": wanted}
        done = move(peer(node), keys, Level.IMAGE, "ARCHIVE")
    assert done.whole
    assert {dataset.SOPInstanceUID for _, dataset in got} == set(wanted)


def test_an_unknown_destination_is_a801_and_nothing_is_sent(node: Answering) -> None:
    with storing() as (port, got):
        node.destinations(OTHER=port)
        with pytest.raises(PeerRefuses, match="A801"):
            move(peer(node), STUDY, Level.STUDY, "ARCHIVE")
    assert not got
    assert not node.audited("study.retrieved")


def test_a_destination_that_is_down_failed_to_take_everything(node: Answering) -> None:
    node.destinations(ARCHIVE=free_port())
    done = move(peer(node), STUDY, Level.STUDY, "ARCHIVE")
    assert done.status == RetrieveStatus.UNABLE_TO_PERFORM_SUB_OPERATIONS
    assert (done.completed, done.failed, len(done.failed_sop_instance_uids)) == (0, 5, 5)
    (row,) = node.audited("retrieval.ended")
    assert (row["completed"], row["failed"], row["remaining"]) == (0, 5, 0)


def scp(answer: Callable[[evt.Event, int], int], classes: tuple[str, ...] = (CTImageStorage,)) -> Any:
    """A Storage SCP that answers the n-th object as it is told."""
    asked: list[int] = []

    def store(event: evt.Event) -> int:
        asked.append(1)
        return answer(event, len(asked))

    ae = AE(ae_title="ARCHIVE")
    for sop_class in classes:
        ae.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    return ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])


@pytest.mark.parametrize(
    ("answers", "status", "counts"),
    [
        ([0, 0, 0xA700, 0, 0], 0xB000, (4, 1, 0)),
        ([0, 0xB000, 0, 0, 0], 0xB000, (4, 0, 1)),
        ([0xC000] * 5, 0xA702, (0, 5, 0)),
    ],
)
def test_refusals_and_warnings_are_counted(
    node: Answering, answers: list[int], status: int, counts: tuple[int, int, int]
) -> None:
    server = scp(lambda event, number: answers[number - 1])
    node.destinations(ARCHIVE=server.server_address[1])
    try:
        done = move(peer(node), STUDY, Level.STUDY, "ARCHIVE")
    finally:
        server.shutdown()
    assert (done.status, done.completed, done.failed, done.warning) == (status, *counts)
    assert len(done.failed_sop_instance_uids) == counts[1]


def test_a_destination_that_dies_in_the_middle_leaves_the_rest_failed(node: Answering) -> None:
    def answer(event: evt.Event, number: int) -> int:
        if number == 3:
            event.assoc.abort()
        return 0

    server = scp(answer)
    node.destinations(ARCHIVE=server.server_address[1])
    try:
        done = move(peer(node), STUDY, Level.STUDY, "ARCHIVE")
    finally:
        server.shutdown()
    assert (done.status, done.completed, done.failed) == (0xB000, 2, 3)


def test_a_destination_that_does_not_take_the_class_failed(node: Answering) -> None:
    with storing(classes=(SegmentationStorage,)) as (port, got):
        node.destinations(ARCHIVE=port)
        done = move(peer(node), STUDY, Level.STUDY, "ARCHIVE")
    assert (done.status, done.failed, got) == (0xA702, 5, [])


def test_a_file_that_the_store_lost_is_a_failed_object_and_the_others_go(node: Answering) -> None:
    lost = next((node.node.store.root / "results").rglob("*.dcm"))
    lost.unlink()
    with storing() as (port, got):
        node.destinations(ARCHIVE=port)
        done = move(peer(node), STUDY, Level.STUDY, "ARCHIVE")
    assert (done.status, done.completed, done.failed, len(got)) == (0xB000, 4, 1, 4)


def test_a_cancelled_move_says_what_remains(node: Answering) -> None:
    node.hold(*(ct(number=number) for number in range(6, 40)))
    model = StudyRootQueryRetrieveInformationModelMove
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", "1.2.1"
    with storing() as (port, got):
        node.destinations(ARCHIVE=port)
        ae = AE(ae_title="FRIEND")
        ae.add_requested_context(model)
        association = ae.associate("127.0.0.1", node.port)
        last = Dataset()
        for number, (status, _) in enumerate(association.send_c_move(identifier, "ARCHIVE", model, msg_id=7)):
            if number == 1:
                association.send_c_cancel(7, query_model=model)
            last = status
        association.release()
    assert last.Status == RetrieveStatus.CANCEL
    assert last.NumberOfRemainingSuboperations > 0
    assert last.NumberOfCompletedSuboperations == len(got)
    assert last.NumberOfCompletedSuboperations + last.NumberOfRemainingSuboperations == 39


def test_what_is_not_held_is_retrieved_as_nothing(node: Answering) -> None:
    node.destinations(ARCHIVE=free_port())
    done = move(peer(node), {"StudyInstanceUID": "9.9"}, Level.STUDY, "ARCHIVE")
    assert (done.status, done.completed, done.failed) == (0, 0, 0)


@pytest.mark.parametrize(
    ("root", "keys"),
    [
        (Root.STUDY, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}),
        (Root.STUDY, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "*"}),
        (Root.STUDY, {"QueryRetrieveLevel": "STUDY", "PatientID": "P1"}),
        (Root.STUDY, {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2.1.1"}),
        (Root.PATIENT, {"QueryRetrieveLevel": "PATIENT", "PatientID": "P*"}),
        (Root.PATIENT, {"QueryRetrieveLevel": "PATIENT", "PatientID": ["P1", "P2"]}),
        (Root.PATIENT, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.1"}),
    ],
)
def test_a_retrieval_that_does_not_name_what_it_wants_gets_nothing(
    node: Answering, root: Root, keys: dict[str, Any]
) -> None:
    with storing() as (port, got):
        node.destinations(ARCHIVE=port)
        (said,) = responses(node, keys, root=root)
    assert said.Status == RetrieveStatus.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS
    assert not got


def test_a_patient_id_of_two_issuers_is_not_one_patient(node: Answering) -> None:
    node.hold(
        ct(patient="X", study_uid="1.3.1", IssuerOfPatientID="NORTH"),
        ct(patient="X", study_uid="1.3.2", IssuerOfPatientID="SOUTH", name="Other^Person"),
    )
    with storing() as (port, got):
        node.destinations(ARCHIVE=port)
        keys = {"QueryRetrieveLevel": "PATIENT", "PatientID": "X"}
        (said,) = responses(node, keys, root=Root.PATIENT)
        assert said.Status == RetrieveStatus.UNABLE_TO_PROCESS
        assert not got
        *_, last = responses(node, keys | {"IssuerOfPatientID": "SOUTH"}, root=Root.PATIENT)
    assert last.Status == 0
    assert [str(dataset.PatientName) for _, dataset in got] == ["Other^Person"]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_c_get_brings_every_object_whole_also_to_those_who_take_implicit_vr_alone(node: Answering, syntax: str) -> None:
    ae = AE(ae_title="FRIEND")
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    ae.add_requested_context(CTImageStorage, syntax)
    got: list[Dataset] = []

    def store(event: evt.Event) -> int:
        got.append(event.dataset)
        return 0

    role = build_role(CTImageStorage, scp_role=True)
    handlers = [(evt.EVT_C_STORE, store)]
    association = ae.associate("127.0.0.1", node.port, ext_neg=[role], evt_handlers=handlers)
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", "1.2.1"
    *_, (last, _) = association.send_c_get(identifier, StudyRootQueryRetrieveInformationModelGet)
    association.release()
    assert (last.Status, last.NumberOfCompletedSuboperations) == (0, 5)
    assert sorted(dataset.InstanceNumber for dataset in got) == [1, 2, 3, 4, 5]
    assert {dataset.PixelData for dataset in got} == {bytes(128)}


def test_c_get_gives_only_what_the_asker_has_offered_to_take(node: Answering) -> None:
    result = ct()
    result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    uid = node.make("1.2.1", "segmentation", result)
    kept: list[bytes] = []

    def keep(meta: Dataset, content: bytes) -> int:
        kept.append(content)
        return 0

    everything = get(peer(node), STUDY, Level.STUDY, keep)
    assert (everything.whole, everything.completed, len(kept)) == (True, 6, 6)
    only = get(peer(node), STUDY, Level.STUDY, keep, sop_classes=[SegmentationStorage])
    assert (only.status, only.completed, only.failed) == (0xB000, 1, 5)
    assert uid not in only.failed_sop_instance_uids


def test_c_get_keeps_the_bytes_of_the_data_set_as_they_lie_in_the_store(node: Answering) -> None:
    one = ct(study_uid="1.4.1")
    node.hold(one)
    kept: list[bytes] = []
    get(peer(node), {"StudyInstanceUID": "1.4.1"}, Level.STUDY, lambda meta, content: kept.append(content) or 0)
    assert part10(one).endswith(kept[0])
    assert len(kept[0]) > 400


def test_our_scu_says_who_does_not_answer_and_what_was_asked_wrongly(node: Answering) -> None:
    nobody = Peer(ae_title="X", host="127.0.0.1", port=free_port(), calling_ae_title="FRIEND", timeout_s=2)
    with pytest.raises(PeerUnreachable):
        move(nobody, STUDY, Level.STUDY, "ARCHIVE")
    with pytest.raises(WrongQuery):
        move(peer(node), {"PatientName": "Doe"}, Level.STUDY, "ARCHIVE")
    with pytest.raises(PeerRefuses, match="0124"):
        move(peer(node, "STRANGER"), STUDY, Level.STUDY, "ARCHIVE")
