"""Whatever a peer sends or does not send: memory stays, nothing leaks, slots come back, others are not disturbed."""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import until
from tests.ingest.conftest import Door, dataset_bytes, listening, send, slice_of
from tests.ingest.wire import (
    ABORT,
    ACCEPTED,
    CT,
    ECHO,
    ECHO_COMMAND,
    P_DATA,
    REJECTED,
    Wire,
    associate,
    p_data,
    pdu,
    pdv,
    store_command,
    store_message,
)

SLICE = dataset_bytes(slice_of())
HASTE = {"pdu_timeout_s": 1, "idle_timeout_s": 2, "association_timeout_s": 1}


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Door]:
    """A listener with little patience; whatever was done to it, it still stores, and nothing is left of the rest."""
    with listening(tmp_path, **HASTE) as door:
        yield door
        until(lambda: not list(door.node.store.root.glob("incoming/*")), what="no part is left")
        assert send(door, slice_of(series="7.7.7")) == [0]
        until(lambda: not door_threads(), what="threads end")


def door_threads() -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if "Acceptor" in thread.name or "run_reactor" in thread.name
    ]


BROKEN = {
    "a PDU of 2^32-1 bytes": pdu(P_DATA, b"", length=0xFFFFFFFF),
    "a PDU of 2^32-1 bytes with an item in it": p_data(pdv(CT, 3, store_command("1.2")), length=0xFFFFFFFF),
    "an unknown PDU type": pdu(9, b"what"),
    "a PDU type of 0": pdu(0, bytes(10)),
    "an item longer than its PDU": p_data(pdv(CT, 0, b"x", length=0xFFFFFFF0)),
    "an item shorter than its header": p_data(pdv(CT, 0, b"", length=1)),
    "an item of length 0": p_data(pdv(CT, 0, b"", length=0)),
    "a PDU too short for an item": p_data(b"\0\0"),
    "data without a command": p_data(pdv(CT, 2, SLICE)),
    "a context that was never offered": p_data(pdv(77, 3, store_command("1.2.3.4.1"))),
    "a command that is noise": p_data(pdv(CT, 3, b"\xff" * 60)),
    "an empty command": p_data(pdv(CT, 3, b"")),
    "a command without its field": p_data(pdv(CT, 3, b"\0\0\2\0\2\0\0\0ab")),
    "a command whose element is longer than it": p_data(pdv(CT, 3, b"\0\0\0\1\xff\xff\xff\x7fab")),
    "a store command without a message id": p_data(pdv(CT, 3, b"\0\0\0\1\2\0\0\0\1\0")),
    "a command in the middle of a data set": p_data(pdv(CT, 3, store_command("1.2.3.4.1")), pdv(CT, 0, SLICE[:90]))
    + p_data(pdv(CT, 3, store_command("1.2.3.4.2"))),
    "a data set under two contexts": p_data(pdv(CT, 3, store_command("1.2.3.4.1")), pdv(CT, 0, SLICE[:90]))
    + p_data(pdv(ECHO, 2, SLICE[90:])),
    "a command under two contexts": p_data(
        pdv(CT, 1, store_command("1.2")[:30]), pdv(ECHO, 3, store_command("1.2")[30:])
    ),
    "a command without end": b"".join(p_data(pdv(CT, 1, bytes(16000))) for _ in range(6)),
    "a second association request": associate(),
    "a release response out of the blue": pdu(6, bytes(4)),
    "an association acceptance": pdu(2, bytes(100)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_stream_ends_its_association_only(hasty: Door, name: str) -> None:
    with Wire(hasty.port) as good, Wire(hasty.port) as bad:
        assert good.associate() == ACCEPTED
        assert bad.associate() == ACCEPTED
        bad.send(BROKEN[name])
        assert bad.is_closed()
        good.send(store_message("1.2.3.4.1", SLICE))
        assert good.status() == 0
    assert len(hasty.rows()) == 1


REQUESTS = {
    "half a request": associate()[:50],
    "only a type": b"\1",
    "nothing": b"",
    "a request of 2^32-1 bytes": pdu(1, b"\0\1", length=0xFFFFFFFF),
    "noise": os.urandom(300),
    "HTTP": b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "data before a request": p_data(pdv(CT, 3, store_command("1.2"))),
    "a request with a broken item": pdu(1, associate()[6:80] + b"\x20\0\xff\xff\1\0\0\0"),
    "an abort at once": pdu(ABORT, bytes(4)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_no_request_is_dropped_in_time(hasty: Door, name: str) -> None:
    with Wire(hasty.port) as wire:
        wire.send(REQUESTS[name])
        assert wire.is_closed()


def test_a_wrong_protocol_version_is_rejected(hasty: Door) -> None:
    request = bytearray(associate())
    request[6:8] = b"\0\2"
    with Wire(hasty.port) as wire:
        wire.send(bytes(request))
        assert wire.pdu()[0] == REJECTED


@pytest.mark.long
@pytest.mark.parametrize("sent", [1, 5, 6, 9, 12, 200])
def test_half_a_pdu_and_then_silence_is_dropped(hasty: Door, sent: int) -> None:
    with Wire(hasty.port) as wire:
        wire.associate()
        wire.send(store_message("1.2.3.4.1", SLICE)[:sent])
        assert wire.is_closed()
    assert not hasty.rows()


def test_a_pdu_that_drips_is_dropped(hasty: Door) -> None:
    message = p_data(pdv(CT, 3, store_command("1.2.3.4.1")))
    pause = threading.Event()
    with Wire(hasty.port) as wire, contextlib.suppress(OSError):
        wire.associate()
        for byte in message:
            wire.send(bytes([byte]))
            pause.wait(0.1)
        pytest.fail("it was listened to for too long")


def test_silence_ends_an_association(hasty: Door) -> None:
    with Wire(hasty.port) as wire:
        wire.associate()
        assert wire.pdu()[0] == ABORT
        assert wire.is_closed()


def test_silence_in_the_middle_of_an_object_ends_it(hasty: Door) -> None:
    with Wire(hasty.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(CT, 3, store_command("1.2.3.4.1")), pdv(CT, 0, SLICE[:700])))
        assert wire.is_closed()
    assert not hasty.rows()


def test_who_does_not_close_after_release_is_closed(hasty: Door) -> None:
    with Wire(hasty.port) as wire:
        wire.associate()
        wire.release()
        assert wire.is_closed()


def test_slots_of_the_dead_come_back(tmp_path: Path) -> None:
    with listening(tmp_path, max_associations=4, max_associations_per_ae=4, **HASTE) as door:
        dead = [Wire(door.port) for _ in range(4)]
        for wire in dead:
            wire.associate()
            wire.send(store_message("1.2.3.4.1", SLICE)[:300])

        def is_served() -> bool:
            with Wire(door.port) as wire:
                return wire.associate() == ACCEPTED

        until(is_served, deadline_s=30)
        for wire in dead:
            wire.socket.close()


def test_connections_that_say_nothing_do_not_keep_others_out(tmp_path: Path) -> None:
    with listening(tmp_path, max_associations=4, association_timeout_s=1) as door:
        silent = [Wire(door.port) for _ in range(100)]

        def is_served() -> bool:
            try:
                with Wire(door.port) as wire:
                    return wire.associate() == ACCEPTED
            except OSError:
                return False

        until(is_served, deadline_s=30)
        assert len(door_threads()) < 2 * (4 + 64) + 10
        for wire in silent:
            wire.socket.close()


def test_an_object_in_a_thousand_pieces_is_one_object(hasty: Door) -> None:
    pieces = [pdv(CT, 0, SLICE[at : at + 1]) for at in range(len(SLICE))] + [pdv(CT, 2, b"")]
    with Wire(hasty.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(CT, 1, store_command("1.2.3.4.1")[:7]), pdv(CT, 3, store_command("1.2.3.4.1")[7:])))
        wire.send(*(p_data(piece) for piece in pieces[:600]), p_data(*pieces[600:]))
        assert wire.status() == 0
    assert hasty.content(hasty.rows()[0]).endswith(SLICE)


def test_a_message_in_very_many_empty_pieces_costs_no_memory(hasty: Door) -> None:
    process = psutil.Process()
    with Wire(hasty.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(CT, 3, store_command("1.2.3.4.1"))))
        before = process.memory_info().rss
        empty = p_data(*[pdv(CT, 0, b"")] * 2000)
        for _ in range(100):
            wire.send(empty)
        wire.send(p_data(pdv(CT, 2, SLICE)))
        assert wire.status() == 0
    assert process.memory_info().rss - before < 20 << 20


@pytest.mark.parametrize(("beyond", "taken"), [(0, True), (1, False)])
def test_a_pdu_may_be_as_long_as_was_negotiated_and_no_longer(hasty: Door, beyond: int, taken: bool) -> None:
    room = hasty.node.settings.listener.max_pdu_bytes - 6
    dataset = dataset_bytes(slice_of(pixels=bytes(2 * room), Rows=1024, Columns=256))
    with Wire(hasty.port) as wire:
        wire.associate()
        wire.send(store_message("1.2.3.4.1", dataset, room=room + beyond))
        assert (wire.status() == 0) if taken else wire.is_closed()
    assert len(hasty.files()) == taken


def test_messages_sent_without_waiting_are_answered_in_order(hasty: Door) -> None:
    with Wire(hasty.port) as wire:
        wire.associate(window=(8, 1))
        for number in range(1, 9):
            wire.send(store_message(f"1.2.3.4.{number}", dataset_bytes(slice_of(number=number)), message_id=number))
        assert [wire.status() for _ in range(8)] == [0] * 8
    assert [row.sop_instance_uid for row in hasty.rows()] == [f"1.2.3.4.{number}" for number in range(1, 9)]


def test_a_message_id_may_come_again(hasty: Door) -> None:
    with Wire(hasty.port) as wire:
        wire.associate()
        for number in (1, 2, 3):
            wire.send(store_message(f"1.2.3.4.{number}", dataset_bytes(slice_of(number=number)), message_id=5))
            assert wire.status() == 0
    assert len(hasty.rows()) == 3


def test_echo_and_store_alternate_on_one_association(hasty: Door) -> None:
    with Wire(hasty.port) as wire:
        wire.associate()
        for number in (1, 2, 3):
            wire.send(p_data(pdv(ECHO, 3, ECHO_COMMAND)))
            assert wire.status() == 0
            wire.send(store_message(f"1.2.3.4.{number}", dataset_bytes(slice_of(number=number))))
            assert wire.status() == 0


def test_a_peer_with_a_tiny_maximum_length_gets_its_answer_in_pieces(hasty: Door) -> None:
    with Wire(hasty.port) as wire:
        wire.associate(max_length=32)
        wire.send(store_message("1.2.3.4.1", SLICE))
        command = b""
        while True:
            kind, content = wire.pdu()
            assert kind == P_DATA
            assert len(content) <= 32
            command += content[6:]
            if content[5] & 2:
                break
    assert b"1.2.3.4.1" in command


@pytest.mark.long
def test_a_peer_that_never_reads_its_answers_is_dropped(tmp_path: Path) -> None:
    with listening(tmp_path, pdu_timeout_s=1, idle_timeout_s=30) as door, Wire(door.port, receive_buffer=4096) as wire:
        wire.associate(window=(0, 1))
        refused = p_data(pdv(CT, 3, store_command("1.2.3.4.1", sop_class="1.2")), pdv(CT, 2, b""))

        def speak() -> None:  # until no buffer of the kernel, however large, takes more
            while True:
                wire.send(*[refused] * 100_000)

        with pytest.raises(OSError):
            speak()
        until(lambda: not door_threads(), deadline_s=30)


@pytest.mark.long
@pytest.mark.parametrize("waits_for", ["the acceptance", "the answer to a C-STORE"])
def test_a_peer_that_waits_for_us_is_not_silent(tmp_path: Path, waits_for: str) -> None:
    """However long our database takes: an association is idle only while nobody owes it anything."""
    with listening(tmp_path, idle_timeout_s=1, association_timeout_s=20) as door, Wire(door.port) as wire:
        if waits_for == "the acceptance":
            with busy(door, seconds=2):
                assert wire.associate() == ACCEPTED
        else:
            assert wire.associate() == ACCEPTED
            with busy(door, seconds=2):
                wire.send(store_message("1.2.3.4.1", SLICE))
                assert wire.status() == 0
        time.sleep(0.3)  # a short silence of the peer is what is tried
        wire.send(p_data(pdv(ECHO, 3, ECHO_COMMAND)))
        assert wire.status() == 0
        wire.release()


@contextlib.contextmanager
def busy(door: Door, *, seconds: float) -> Iterator[None]:
    """The database takes nothing for so long."""
    connection = sqlite3.connect(door.node.engine.url.database or "", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(seconds, lambda: connection.execute("ROLLBACK"))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        connection.close()
