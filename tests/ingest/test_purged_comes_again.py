"""Retention: what is purged is gone and comes again whole, whenever the purge was killed; damage is named; backups."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from router.config import Retention
from router.db.engine import reading, writing
from router.db.instances import Status
from router.db.tables import audit, study
from router.work import rehash, retain
from tests.conftest import until
from tests.ingest.conftest import Door, listening, make_node, send, slice_of

SLICES = [slice_of(number=number) for number in range(1, 6)]

PURGE = """
import os, signal, sys
from pathlib import Path
from router.config import Retention
from router.work import retain
from tests.ingest.conftest import make_node

kill_at, seen = int(sys.argv[2]), 0

def step(name, _):
    global seen
    if name in ("os.remove", "sqlite3.connect"):
        seen += 1
        if seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

node = make_node(Path(sys.argv[1]), retention={"keep_days": 0})
sys.addaudithook(step)
retain.run(node)
"""


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Door]:
    """A door that holds a study of five slices, decided, and nothing to be done with it."""
    with listening(tmp_path) as door:
        assert send(door, *SLICES) == [0] * 5
        until(lambda: all(row.dataset_digest for row in door.rows()), what="the digests")
        done(door)
        yield door


def done(door: Door) -> None:
    with writing(door.node.engine) as connection:
        connection.execute(study.update().values(state="complete", decide_at=None))


def folder_of(door: Door) -> Path:
    return door.node.store.root.parent


def purge(door: Door, *, kill_at: int = 0) -> int:
    """Let go whatever may go, in a process that is killed before its n-th file; its exit code."""
    command = [sys.executable, "-c", PURGE, str(folder_of(door)), str(kill_at)]
    return subprocess.run(command, check=False, env=os.environ).returncode


def there(door: Door) -> bool:
    return all(door.node.store.has(row.path, size=row.size) for row in door.rows() if row.status is Status.CURRENT)


def test_what_is_purged_is_gone_and_comes_again_whole(full: Door) -> None:
    assert purge(full) == 0
    assert full.files() == []
    assert {row.status for row in full.rows()} == {Status.PURGED}
    with reading(full.node.engine) as connection:
        (row,) = connection.execute(select(audit).where(audit.c.act == "study.purged")).mappings()
    assert (row["study_instance_uid"], row["detail"]["files"]) == ("1.2.3", 5)
    assert send(full, *SLICES) == [0] * 5
    assert [row.status for row in full.rows()] == [Status.CURRENT] * 5
    assert there(full)
    assert len(full.files()) == 5


@pytest.mark.long
@pytest.mark.parametrize("kill_at", [1, 2, 4])
def test_a_purge_that_was_killed_between_file_and_row_loses_nothing_that_comes_again(full: Door, kill_at: int) -> None:
    assert purge(full, kill_at=kill_at) == -signal.SIGKILL
    assert len(full.files()) == 5 - kill_at + 1
    assert {row.status for row in full.rows()} == {Status.CURRENT}, "the rows come after the files"
    assert send(full, *SLICES) == [0] * 5
    assert there(full)
    assert len(full.files()) == 5


@pytest.mark.long
def test_a_purge_that_was_killed_is_finished_by_the_next(full: Door) -> None:
    assert purge(full, kill_at=3) == -signal.SIGKILL
    assert purge(full) == 0
    assert full.files() == []
    assert {row.status for row in full.rows()} == {Status.PURGED}


@pytest.mark.long
@pytest.mark.parametrize("values", [{"state": "held"}, {"state": "receiving", "decide_at": 1}])
def test_a_study_that_is_not_decided_stays(full: Door, values: dict[str, object]) -> None:
    with writing(full.node.engine) as connection:
        connection.execute(study.update().values(values))
    assert purge(full) == 0
    assert len(full.files()) == 5


def test_damage_in_the_store_is_named_file_by_file(full: Door) -> None:
    assert [one.fault for one in rehash.look(full.node)] == [None] * 5
    gone, cut, other = (full.node.store.path(row.path) for row in sorted(full.rows(), key=lambda r: r.path)[:3])
    gone.unlink()
    with cut.open("r+b") as file:
        file.truncate(200)
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    faults = {full.node.store.path(one.path): one.fault for one in rehash.look(full.node) if one.fault}
    assert sorted(faults) == sorted([gone, cut, other])
    assert faults[gone] == "missing"
    assert faults[cut].startswith("200 bytes instead of")
    assert faults[other] == "other bytes than were received"


@pytest.mark.long
def test_the_plan_touches_nothing(full: Door) -> None:
    node = make_node(folder_of(full), retention=Retention(keep_days=0).model_dump())
    (one,) = retain.planned(node)
    assert one.held.study_instance_uid == "1.2.3"
    assert len(full.files()) == 5
    node.engine.dispose()


@pytest.mark.long
def test_a_backup_made_while_the_node_receives_is_restored_and_reconciled_with_the_store(tmp_path: Path) -> None:
    config, copy = tmp_path / "isocenter.yaml", tmp_path / "copy.db"
    config.write_text("")
    command = [sys.executable, "-m", "router.cli", "backup", str(copy), "--config", str(config)]
    with listening(tmp_path) as door:
        assert send(door, *SLICES[:2]) == [0, 0]
        assert subprocess.run(command, check=False).returncode == 0
        assert subprocess.run(command, check=False, capture_output=True).returncode == 1, "a copy is never overwritten"
        assert send(door, *SLICES[2:]) == [0] * 3
    for name in ("isocenter.db-wal", "isocenter.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    copy.rename(tmp_path / "isocenter.db")
    with sqlite3.connect(tmp_path / "isocenter.db") as connection:
        assert connection.execute("SELECT count(*) FROM instance").fetchone() == (2,)
    connection.close()
    with listening(tmp_path) as door:
        assert len(door.rows()) == 5, "files that the copy does not know are indexed at the start"
        assert there(door)
