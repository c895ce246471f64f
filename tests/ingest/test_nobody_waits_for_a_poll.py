"""From the last slice on every room is woken by the one before it: no step waits until somebody looks by himself."""

import os
import threading
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage

from router.db import instances
from router.db.engine import now, writing
from router.ingest import digester, notice
from router.wake import Bell, Ear
from tests.conftest import until
from tests.ingest.conftest import Door, association, listening, make_node, slice_of


def test_the_end_of_an_association_wakes_decide_and_lets_the_digester_begin(door: Door) -> None:
    folder = door.node.wake_folder
    with (
        Ear(folder, "decide") as decide,
        Ear(folder, digester.TOPIC) as stored,
        Ear(folder, digester.AT_ONCE) as ended,
    ):
        with association(door) as sender:
            assert sender.send_c_store(slice_of()).Status == 0
            assert stored.wait(60)
            assert not ended.wait(0)
            decide.wait(60)
        assert ended.wait(60)
        assert decide.wait(60)


def test_the_digester_is_there_before_the_first_instance_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice, "LOOK_S", 0.1)
    with listening(tmp_path) as door, Ear(door.node.wake_folder, "decide") as decide:

        def ready() -> bool:
            return any(door.node.wake_folder.glob(f"{digester.TOPIC}.*"))

        until(ready, what="a digester that listens")
        assert not decide.wait(0), "nothing has come that would have to be decided on"


def test_the_digester_lets_a_burst_pass_but_waits_no_longer_than_its_association(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digester, "PATIENCE_S", 3600.0)
    bell, over = Bell(tmp_path), threading.Event()

    def burst() -> None:
        while not over.wait(0.02):
            bell.ring(digester.TOPIC)

    with Ear(tmp_path, digester.TOPIC) as stored, Ear(tmp_path, digester.AT_ONCE) as ended:
        sending = threading.Thread(target=burst)
        waiting = threading.Thread(target=digester._let_pass, args=(stored, ended), daemon=True)
        sending.start()
        try:
            assert stored.wait(60)
            waiting.start()
            bell.ring(digester.AT_ONCE)
            waiting.join(60)
            assert not waiting.is_alive()
        finally:
            over.set()
            sending.join()


def test_decide_is_woken_when_the_digester_has_done_something(tmp_path: Path) -> None:
    node = make_node(tmp_path)
    arrival = instances.Arrival(
        sop_instance_uid="1.2.3.1.1", sop_class_uid=CTImageStorage, study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.1", transfer_syntax_uid="1.2.840.10008.1.2.1", path="instances/gone", size=1,
        pixel_offset=None, pixel_length=None, header={}, identity_digest="", ours=False, association_id=None,
        calling_ae_title="SCANNER", received_at=now(),
    )  # fmt: skip
    with writing(node.engine) as connection:
        instances.record_new(connection, [arrival])
    orders = digester.Orders(
        database_url=node.engine.url.render_as_string(hide_password=False),
        store=str(node.store.root),
        wake_folder=str(node.wake_folder),
        log_format="json",
        log_level="info",
    )
    ours, theirs = os.pipe()
    running = threading.Thread(target=digester.run, args=(orders, ours))
    with Ear(node.wake_folder, "decide") as decide:
        running.start()
        try:
            assert decide.wait(60)
        finally:
            os.close(theirs)
            running.join(60)
            os.close(ours)
    assert not running.is_alive()
