"""A peer that does not read, aborts or vanishes costs nothing that lasts, and nobody else anything."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from router.db.engine import writing
from router.domain.query import Level
from router.query import exchange
from router.query.scu import Peer, find
from tests.conftest import until
from tests.query import raw
from tests.query.holding import hold
from tests.query.node import Answering, answering

STUDIES = 6000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """A node with more matches than any socket buffers."""
    with answering(tmp_path_factory.mktemp("node"), timeout_s=3) as made:
        with writing(made.node.engine) as connection:
            for number in range(STUDIES):
                hold(connection, f"1.2.{number}", study_description="x" * 60, patient_name="y" * 60)
        yield made


def asking(node: Answering) -> socket.socket:
    """A connection on which everything was asked for, and nothing of the answer read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", node.port))
    connection.sendall(raw.association())
    assert connection.recv(1) == b"\2"
    connection.sendall(raw.c_find({"StudyDescription": "", "PatientName": "", "StudyInstanceUID": ""}))
    return connection


def held_open(ae: AE) -> list[Association]:
    return [one for one in ae.active_associations if one.is_acceptor]


@pytest.mark.long
def test_a_peer_that_does_not_read_is_waited_for_and_then_dropped(node: Answering) -> None:
    with asking(node):
        (association,) = until(lambda: held_open(node.ae), what="the association")
        until(lambda: association.dul.to_provider_queue.qsize() > exchange.WAITING // 2, what="a full queue")
        most = []

        def gone() -> bool:
            most.append(association.dul.to_provider_queue.qsize())
            return not held_open(node.ae)

        until(gone, what="its end")
        assert max(most) <= exchange.WAITING + 1


@pytest.mark.parametrize("last_words", [raw.ABORT, b""], ids=["aborts", "vanishes"])
def test_a_peer_that_goes_away_ends_its_query_and_no_other(node: Answering, last_words: bytes) -> None:
    with asking(node) as connection:
        until(lambda: raw.PENDING[0] in connection.recv(2000), what="the first match")
        connection.sendall(last_words)
    until(lambda: not held_open(node.ae), what="its end")
    peer = Peer(ae_title="ISOCENTER", host="127.0.0.1", port=node.port, calling_ae_title="FRIEND")
    assert len(list(find(peer, {"StudyInstanceUID": "1.2.7"}, Level.STUDY))) == 1


def test_a_cancel_is_heard_before_the_answer_is_over(node: Answering) -> None:
    with asking(node) as connection:
        answered = b""
        while not any(status in answered for status in raw.PENDING):  # a cancel of what has not begun is none
            answered += connection.recv(2000)
        connection.sendall(raw.cancel())
        while piece := connection.recv(1 << 16):
            answered += piece
            if b"\0\0\0\t\2\0\0\0\0\xfe" in answered:
                break
        connection.sendall(raw.RELEASE)
        matches = sum(answered.count(status) for status in raw.PENDING)
    assert 0 < matches < STUDIES / 2


def test_a_message_that_is_no_identifier_is_refused_and_the_association_goes_on(node: Answering) -> None:
    from pydicom.dataset import Dataset
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as StudyRootFind

    def command() -> Any:
        wanted = Dataset()
        wanted.AffectedSOPClassUID = StudyRootFind
        wanted.CommandField, wanted.MessageID, wanted.Priority, wanted.CommandDataSetType = 0x0020, 1, 0, 1
        return exchange.command_set(wanted)

    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.settimeout(20)
        connection.sendall(raw.association())
        assert connection.recv(1) == b"\2"
        for content in (b"\xff" * 40, b"\0" * 6, b"\x08\0\x52\0CS\x20\0STUDY "):
            connection.sendall(raw.message(command(), content))
            answered = b""
            while b"\0\0\0\t\2\0\0\0\0\xa9" not in answered:
                piece = connection.recv(1 << 16)
                assert piece, "the association was ended"
                answered += piece
        connection.sendall(raw.RELEASE)
