"""Success means: on the disk and in the index, in this order, whenever the process or the machine dies."""

import os
import re
import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from router.db import instances
from router.db.engine import reading, writing
from router.db.instances import Status
from router.db.tables import instance
from router.ingest.status import StoreStatus
from router.store import Store
from tests.conftest import component, until
from tests.disk import CannotPretend, cut_power, ext4, fill
from tests.ingest.conftest import Door, association, dataset_bytes, listening, send, slice_of
from tests.ingest.door_process import door_process
from tests.ingest.wire import ACCEPTED, Wire, store_message
from tests.servers import free_port

ROUNDS = int(os.environ.get("ISOCENTER_KILLS", "6"))


def pixels(number: int) -> bytes:
    return bytes([number % 251]) * (512 * 96)


class Sender(threading.Thread):
    """Sends different slices over one association until the listener is gone; remembers what was acknowledged."""

    def __init__(self, port: int, ordinal: int) -> None:
        super().__init__()
        self.port = port
        self.ordinal = ordinal
        self.acknowledged: dict[str, bytes] = {}
        self.begun: set[str] = set()

    def run(self) -> None:
        try:
            with Wire(self.port) as wire:
                if wire.associate() != ACCEPTED:
                    return
                for number in range(1, 10_000):
                    series = f"1.2.{os.getpid()}.{self.ordinal}"
                    made = slice_of(
                        series=series, number=number, pixels=pixels(number + self.ordinal), Rows=192, Columns=128
                    )
                    content = dataset_bytes(made)
                    self.begun.add(made.SOPInstanceUID)
                    wire.send(store_message(made.SOPInstanceUID, content))
                    if wire.status() == 0:
                        self.acknowledged[made.SOPInstanceUID] = content
        except (OSError, AssertionError):
            return


@pytest.mark.parametrize("round_", [0, 1, *(pytest.param(one, marks=pytest.mark.long) for one in range(2, ROUNDS))])
def test_kill_nine_in_the_middle_of_eight_associations_loses_nothing_acknowledged(tmp_path: Path, round_: int) -> None:
    port = free_port()
    with door_process(tmp_path, port) as process:
        senders = [Sender(port, ordinal) for ordinal in range(8)]
        for sender in senders:
            sender.start()
        until(lambda: sum(len(sender.acknowledged) for sender in senders) > 15 + 17 * round_)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for sender in senders:
            sender.join()
    acknowledged = {uid: content for sender in senders for uid, content in sender.acknowledged.items()}
    begun = {uid for sender in senders for uid in sender.begun}
    with listening(tmp_path) as door:
        rows = {row.sop_instance_uid: row for row in door.rows()}
        assert all(row.status is Status.CURRENT for row in rows.values())
        for uid, content in acknowledged.items():
            assert door.content(rows[uid]).endswith(content), uid
        assert rows.keys() <= begun
        whole = {row.path for row in rows.values()}
        assert {str(path.relative_to(door.node.store.root)) for path in door.files()} == whole
        for uid in rows.keys() - acknowledged.keys():  # complete, but killed before the answer: the sender sends again
            assert len(door.content(rows[uid])) == rows[uid].size


@contextmanager
def pretending() -> Iterator[None]:
    """Skip where the machine has no such disk, or cannot cut its power."""
    try:
        yield
    except CannotPretend as error:
        pytest.skip(str(error))


@pytest.mark.long
def test_a_power_cut_loses_nothing_acknowledged(tmp_path: Path) -> None:
    image, mount, port = tmp_path / "image", tmp_path / "disk", free_port()
    with pretending(), ext4(image, mount), door_process(mount, port, *POWER_CUT_SETTINGS) as process:
        senders = [Sender(port, ordinal) for ordinal in range(4)]
        for sender in senders:
            sender.start()
        until(lambda: sum(len(sender.acknowledged) for sender in senders) > 40)
        cut_power(mount)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for sender in senders:
            sender.join()
    acknowledged = {uid: content for sender in senders for uid, content in sender.acknowledged.items()}
    with ext4(image, mount), listening(mount) as door:
        rows = {row.sop_instance_uid: row for row in door.rows() if row.status is Status.CURRENT}
        for uid, content in acknowledged.items():
            assert uid in rows
            assert door.content(rows[uid]).endswith(content), uid
        for row in rows.values():
            assert len(door.content(row)) == row.size


@pytest.mark.long
def test_a_disk_that_is_full_to_the_last_byte_acknowledges_nothing_until_there_is_room(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    big = slice_of(number=2, pixels=pixels(2), Rows=96, Columns=256)
    with pretending(), ext4(tmp_path / "image", mount), listening(mount) as door:
        with association(door, big) as made:
            assert made.send_c_store(slice_of(number=1)).Status == StoreStatus.SUCCESS
            before = door.files()
            ballast = fill(mount)
            assert made.send_c_store(big).Status == StoreStatus.OUT_OF_RESOURCES
            assert door.files() == before
            ballast.unlink()
            assert made.send_c_store(big).Status == StoreStatus.SUCCESS
        assert [row.sop_instance_uid for row in door.rows()] == ["1.2.3.4.1", "1.2.3.4.2"]
        assert door.content(door.rows()[1]).endswith(dataset_bytes(big))


POWER_CUT_SETTINGS = tuple(os.environ.get("ISOCENTER_POWER_CUT", "").split())
"""`fsync=false` shows that this test can fail."""


CALL = re.compile(r"^(?P<pid>\d+) +(?P<time>[\d.]+) (?P<name>\w+)\((?P<arguments>.*)")


def test_a_trace_shows_rename_sync_row_and_only_then_the_answer(tmp_path: Path) -> None:
    component("strace")
    port, trace = free_port(), tmp_path / "trace"
    calls = "trace=openat,rename,fsync,fdatasync,pwrite64,sendto,writev"
    tracer = ["strace", "-f", "-ttt", "-s", "400", "-xx", "-e", calls, "-o", str(trace)]
    (tmp_path / "node").mkdir()
    with door_process(tmp_path / "node", port, before=tracer), Wire(port) as wire:
        wire.associate()
        for number in range(1, 6):
            made = slice_of(number=number)
            wire.send(store_message(made.SOPInstanceUID, dataset_bytes(made), message_id=number))
            assert wire.status() == 0
        stores = lambda: [kinds for kinds in _orders(trace.read_text()) if "rename" in kinds]  # noqa: E731
        until(lambda: len(stores()) >= 5, what="the trace of five instances")
        orders = stores()
    assert len(orders) == 5
    for order in orders:
        assert order.index("write") < order.index("rename") < order.index("sync") < order.index("row"), order
        assert order.index("row") < order.index("answer"), order


KINDS = {"writev": "write", "rename": "rename", "fsync": "sync", "fdatasync": "sync", "pwrite64": "row"}


def _orders(trace: str) -> list[list[str]]:
    """For each C-STORE: what the association's thread did, in this order, from the file's opening to the answer."""
    orders: list[list[str]] = []
    threads: dict[str, list[str]] = {}
    for line in trace.splitlines():
        call = CALL.match(line)
        if call is None:
            continue
        name, arguments = call["name"], _plain(call["arguments"])
        mine = threads.get(call["pid"])
        if name == "openat" and ".part" in arguments:
            threads[call["pid"]] = []
        elif mine is not None:
            kind = {"writev": "write", "rename": "rename", "fsync": "sync", "fdatasync": "sync", "pwrite64": "row"}.get(
                name
            )
            if name == "sendto":
                orders.append([*mine, "answer"])
                del threads[call["pid"]]
            elif kind:
                mine.append(kind)
    return orders


def _plain(text: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)


def test_off_ext4_the_folder_is_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    synced: list[bool] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.path.isdir(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    for names_follow_files, expected in ((True, [False]), (False, [False, True])):
        synced.clear()
        store.names_follow_files = names_follow_files
        store.open_part().keep("1.2.3")
        assert synced == expected


def test_a_produced_file_cut_short_by_a_power_failure_is_whole_after_the_next_try(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = store.keep(b"whole result")
    store.path(kept).write_bytes(b"who")
    assert store.keep(b"whole result") == kept
    assert store.path(kept).read_bytes() == b"whole result"


def test_litter_of_a_dead_writer_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    living = store.open_part()
    dead = tmp_path / "incoming" / "0123.part"
    dead.write_bytes(b"half")
    assert store.sweep() == 1
    assert not dead.exists()
    assert Path(living.path).exists()
    living.drop()
    assert not Path(living.path).exists()


def test_a_durable_file_without_a_row_is_indexed_at_the_next_start(tmp_path: Path) -> None:
    with listening(tmp_path) as door:
        send(door, slice_of(number=1), slice_of(number=2))
        until(lambda: all(row.dataset_digest for row in door.rows()))
        with writing(door.node.engine) as connection:
            connection.execute(instance.delete().where(instance.c.instance_number == "2"))
            connection.exec_driver_sql("DELETE FROM series")
            connection.exec_driver_sql("DELETE FROM study")
    with listening(tmp_path) as door:
        rows = door.rows()
        assert [row.instance_number for row in rows] == ["1", "2"]
        assert rows[1].header["Modality"] == "CT"
        assert len(door.files()) == 2
        with reading(door.node.engine) as connection:
            assert connection.exec_driver_sql("SELECT state, calling_ae_title FROM study").one() == (
                "receiving",
                "SENDER",
            )


def test_the_whole_index_can_be_rebuilt_from_the_files(tmp_path: Path) -> None:
    with listening(tmp_path) as door:
        send(door, *[slice_of(number=number) for number in range(1, 6)])
        send(door, slice_of(number=1, pixels=rb"\9" * 512))
        until(lambda: all(row.dataset_digest for row in door.rows()))
        before = [(row.sop_instance_uid, row.status) for row in door.rows()]
        with writing(door.node.engine) as connection:
            for table in ("instance", "series", "study"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
    with listening(tmp_path) as door:
        after = [(row.sop_instance_uid, row.status) for row in door.rows()]
        assert sorted(after) == sorted(before)


def test_a_row_without_its_file_is_marked_and_the_instance_is_stored_when_it_comes(tmp_path: Path) -> None:
    with listening(tmp_path) as door:
        send(door, slice_of())
        (row,) = until(lambda: [row for row in door.rows() if row.dataset_digest])
        door.node.store.discard(row.path)
    with listening(tmp_path) as door:
        assert [row.status for row in door.rows()] == [Status.PURGED]
        assert send(door, slice_of()) == [0]
        assert [row.status for row in door.rows()] == [Status.CURRENT]


def test_a_file_that_is_shorter_than_it_was_is_set_aside(tmp_path: Path) -> None:
    with listening(tmp_path) as door:
        send(door, slice_of())
        (row,) = door.rows()
        path = door.node.store.path(row.path)
        path.write_bytes(path.read_bytes()[:-100])
    with listening(tmp_path) as door:
        assert [row.status for row in door.rows()] == [Status.PURGED]
        assert [path.parent.name for path in door.files()] == ["quarantine"]


def test_a_foreign_file_in_the_store_is_set_aside(tmp_path: Path) -> None:
    with listening(tmp_path) as door:
        pass
    for name, content in (("x.dcm", b"not DICOM"), ("y.dcm", bytes(500)), ("z.dcm", b"")):
        (tmp_path / "store" / "instances" / "00" / name).write_bytes(content)
    with listening(tmp_path) as door:
        assert door.rows() == []
        assert [path.parent.name for path in door.files()] == ["quarantine"] * 3


def test_a_file_that_the_index_cannot_hold_is_set_aside_and_the_others_are_indexed(tmp_path: Path) -> None:
    with listening(tmp_path) as door:
        assert send(door, slice_of(number=1), slice_of(number=2)) == [0, 0]
    with door.node.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM instance")
        connection.exec_driver_sql(
            "CREATE TRIGGER no_13 BEFORE INSERT ON instance WHEN NEW.instance_number = '1'"
            " BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    door.node.engine.dispose()
    with listening(tmp_path) as door:
        assert [row.instance_number for row in door.rows()] == ["2"]
        assert len(list((door.node.store.root / "quarantine").iterdir())) == 1
        assert send(door, slice_of(number=1)) == [StoreStatus.CANNOT_UNDERSTAND]


def ignores(pid: int, told: signal.Signals) -> bool:
    mask = re.search(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return mask is not None and bool(int(mask[1], 16) >> (told - 1) & 1)


@pytest.mark.long
def test_a_digester_is_not_ended_by_what_is_told_to_all_and_ends_with_its_door(tmp_path: Path) -> None:
    port = free_port()
    with door_process(tmp_path, port) as process, Wire(port) as wire:
        wire.associate()
        wire.send(store_message("1.2.3.4.1", dataset_bytes(slice_of())))
        assert wire.status() == 0
        children = Path(f"/proc/{process.pid}/task")

        def started() -> list[int]:
            return [int(one) for task in children.iterdir() for one in (task / "children").read_text().split()]

        (digester,) = until(started)
        until(lambda: b"digester" in Path(f"/proc/{digester}/cmdline").read_bytes())
        until(lambda: ignores(digester, signal.SIGTERM) and ignores(digester, signal.SIGINT))
        os.kill(digester, signal.SIGTERM)
        os.kill(digester, signal.SIGINT)
        wire.send(store_message("1.2.3.4.2", dataset_bytes(slice_of(number=2)), message_id=2))
        assert wire.status() == 0
        assert started() == [digester]
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
        until(lambda: not Path(f"/proc/{digester}").exists())


def test_digests_are_computed_after_a_restart_too(tmp_path: Path) -> None:
    with listening(tmp_path) as door:
        send(door, slice_of())
        until(lambda: door.rows()[0].dataset_digest)
        first = door.rows()[0]
        with writing(door.node.engine) as connection:
            connection.exec_driver_sql("UPDATE instance SET dataset_digest = NULL, pixel_digest = NULL")
    with listening(tmp_path) as door:
        again = until(lambda: next((row for row in door.rows() if row.dataset_digest), None))
        assert (again.dataset_digest, again.pixel_digest) == (first.dataset_digest, first.pixel_digest)


def test_two_writers_of_one_uid_leave_one_current_version(tmp_path: Path) -> None:
    with listening(tmp_path) as door:
        send(door, slice_of())
        with reading(door.node.engine) as connection:
            (row,) = instances.versions(connection, "1.2.3.4.1")
        values = {column.name: getattr(row, column.name) for column in instance.c}
        with pytest.raises(sqlite3.IntegrityError):
            sqlite_insert(tmp_path / "isocenter.db", values | {"version": 2, "path": "other"})


def sqlite_insert(path: Path, values: dict[str, object]) -> None:
    import json

    values = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in values.items()}
    with sqlite3.connect(path) as connection:
        try:
            connection.execute(
                f"INSERT INTO instance ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
                [str(value) if isinstance(value, Status) else value for value in values.values()],
            )
        finally:
            connection.rollback()
    connection.close()


@pytest.mark.long
def test_a_million_files_are_reconciled_within_a_minute(tmp_path: Path) -> None:
    """A tenth of it, in a tenth of the time: what takes long here is making them."""
    pytest.importorskip("psutil")
    with listening(tmp_path) as door:
        send(door, slice_of())
    count = 100_000
    store = door.node.store
    with writing(door.node.engine) as connection:
        row = dict(connection.execute(select(instance)).one()._mapping)
        content = store.path(row["path"]).read_bytes()
        rows = []
        for number in range(count):
            relative = f"instances/{number % 256:02x}/{number:038d}.dcm"
            store.path(relative).write_bytes(content)
            rows.append({**row, "sop_instance_uid": f"1.2.3.4.{number + 10}", "path": relative})
        connection.execute(instance.insert(), rows)
    import time

    from router.ingest.receive import Receiver
    from router.ingest.reconcile import reconcile

    receiver = Receiver(door.node.settings, store, door.node.engine)
    begun = time.process_time()  # of this process: others may have the machine
    found = reconcile(receiver)
    took = time.process_time() - begun
    door.node.engine.dispose()
    assert found.files == count + 1
    assert (found.adopted, found.lost) == (0, 0)
    assert took < 6, took
    shutil.rmtree(store.root)


def test_stopping_finishes_what_is_under_way(tmp_path: Path) -> None:
    port = free_port()
    with door_process(tmp_path, port) as process:
        with Wire(port) as wire:
            wire.associate()
            message = store_message("1.2.3.4.1", dataset_bytes(slice_of()))
            wire.send(message[:400])
            os.killpg(process.pid, signal.SIGTERM)
            wire.send(message[400:])
            assert wire.status() == 0
            wire.release()
        assert process.wait(20) == 0
    assert not (tmp_path / "store" / "incoming").exists() or not list((tmp_path / "store" / "incoming").iterdir())


def test_door_is_closed_for_new_associations_while_it_stops(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.associate()
        door.stop.set()

        def refused() -> bool:
            try:
                with Wire(door.port):
                    return False
            except OSError:
                return True

        until(refused)
        wire.release()
