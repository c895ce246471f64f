"""The keeper's commands as commands: what they say, what they leave, and their exit codes."""

import json
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import select

from router.compose import open_node
from router.config import load
from router.db import instances
from router.db.engine import reading, writing
from router.db.tables import audit, instance, study
from router.ingest.digest import digests
from router.work.seal import seal_due
from tests.servers import isocenter
from tests.work.site import STUDY, Site

PATIENT, NAME = "PH0001", "Phantom^Small"


class Keeper:
    """A node in a folder, and commands on it."""

    def __init__(self, folder: Path) -> None:
        isocenter("init", folder, "--pacs", "PACS@127.0.0.1:104")
        self.config = folder / "isocenter.yaml"
        self.site = Site(node=open_node(load(self.config)), folder=folder)

    def says(self, code: int, *words: str | Path) -> str:
        """What the command prints; it ends with this code and never with a traceback."""
        done = isocenter(*words, "--config", self.config, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    made = Keeper(tmp_path / "node")
    made.site.receive()
    return made


@pytest.mark.long
def test_the_audit_is_verified_and_exported_and_an_altered_row_is_named(keeper: Keeper) -> None:
    keeper.says(0, "audit", "list")
    keeper.says(0, "audit", "verify")  # before the first seal there need be no key
    seal_due(keeper.site.node)
    assert json.loads(keeper.says(0, "audit", "verify", "--json")) == []
    messages = keeper.says(0, "audit", "export").splitlines()
    assert sum("AuditMessage" in line for line in messages) >= 1
    assert "does not take the messages" in keeper.says(1, "audit", "export", "--to", "tcp://127.0.0.1:1")
    with writing(keeper.site.node.engine) as connection:
        first = connection.scalar(select(audit.c.id).where(audit.c.seal.is_not(None)).order_by(audit.c.id))
        connection.exec_driver_sql(f"UPDATE audit SET who = 'nobody' WHERE id = {first}")
    assert f"row {first} was altered" in keeper.says(1, "audit", "verify")


@pytest.mark.long
def test_every_damaged_and_every_missing_file_of_the_store_is_named(keeper: Keeper) -> None:
    store = keeper.site.node.store
    with writing(keeper.site.node.engine) as connection:
        rows = instances.of_study(connection, STUDY)
        for row in rows:
            digest = digests(store.path(row.path), row.version, row).dataset_digest
            is_it = instance.c.sop_instance_uid == row.sop_instance_uid
            connection.execute(instance.update().where(is_it).values(dataset_digest=digest))
    keeper.says(0, "verify")
    damaged, missing, whole = (row.path for row in rows[:3])
    file = store.path(damaged)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    store.path(missing).unlink()
    said = keeper.says(1, "verify", "--json")
    assert damaged in said
    assert missing in said
    assert whole not in said
    assert PATIENT not in said


@pytest.mark.long
def test_a_backup_is_whole_and_overwrites_nothing(keeper: Keeper, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    keeper.says(0, "backup", copy)
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM study").fetchone() == (1,)
    connection.close()
    content = copy.read_bytes()
    assert "is there already" in keeper.says(1, "backup", copy).replace("\n", " ")
    assert copy.read_bytes() == content
    keeper.says(1, "backup", tmp_path / "no such folder" / "copy.db")


@pytest.mark.long
def test_retention_shows_what_would_go_and_touches_nothing(keeper: Keeper) -> None:
    files = sorted(keeper.site.node.store.root.rglob("*.dcm"))
    assert json.loads(keeper.says(0, "retention", "plan", "--json")) == []
    assert json.loads(keeper.says(0, "retention", "run", "--json")) == []
    assert sorted(keeper.site.node.store.root.rglob("*.dcm")) == files


@pytest.mark.long
def test_a_patient_is_forgotten_only_with_yes_and_the_audit_stays_whole(keeper: Keeper) -> None:
    def known() -> bool:
        with reading(keeper.site.node.engine) as connection:
            return connection.scalar(select(study.c.patient_id).where(study.c.patient_id == PATIENT)) is not None

    keeper.says(1, "forget", "NOBODY")
    seal_due(keeper.site.node)
    keeper.says(0, "forget", PATIENT)
    assert known()
    keeper.says(0, "forget", PATIENT, "--yes")
    assert not known()
    assert not list(keeper.site.node.store.root.rglob("*.dcm"))
    for file in keeper.site.folder.glob("isocenter.db"):
        connection = sqlite3.connect(file)
        dump = "\n".join(connection.iterdump())
        connection.close()
        assert NAME not in dump
        assert f"'{PATIENT}'" not in dump
    keeper.says(0, "audit", "verify")
    keeper.says(1, "forget", PATIENT)
