"""`isocenter jobs retry, cancel, hold, release, rerun`: what each word does, and the reason that the audit keeps."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from typer.testing import CliRunner, Result

from dicom_sr.problem import Problem
from pipelines import catalog
from router.cli import app
from router.compose import open_node
from router.config import load
from router.db import jobs
from router.db.engine import reading, writing
from router.db.tables import audit
from router.domain.job import IllegalMove, State
from tests.work.test_queue import added, in_hand, now


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    for noun in ("init", "jobs"):
        importlib.import_module(f"router.cli.{noun}")  # registers its commands
    assert CliRunner().invoke(app, ["init", str(tmp_path / "node"), "--pacs", "PACS@127.0.0.1:104"]).exit_code == 0
    yield str(tmp_path / "node" / "isocenter.yaml")
    catalog.look_in(None)


@pytest.fixture
def engine(config: str) -> Iterator[Engine]:
    node = open_node(load(Path(config)))
    yield node.engine
    node.engine.dispose()


def say(config: str, word: str, job_id: int, *more: str) -> Result:
    return CliRunner().invoke(app, ["jobs", word, str(job_id), *more, "--config", config])


def told(engine: Engine) -> list[tuple[str, object]]:
    """Act and reason of every word given to a job."""
    with reading(engine) as connection:
        rows = connection.execute(select(audit.c.act, audit.c.detail).where(audit.c.act.startswith("job.")))
        return [(act, (detail if isinstance(detail, dict) else json.loads(detail)).get("why")) for act, detail in rows]


def test_each_word_moves_the_job_and_its_reason_is_in_the_audit(config: str, engine: Engine) -> None:
    number = added(engine)
    assert "is held" in say(config, "hold", number, "--why", "scanner under service").output
    assert now(engine, number).reason == "scanner under service"
    assert "is queued" in say(config, "release", number).output
    held = in_hand(engine)
    with writing(engine) as connection:
        jobs.give_up(connection, held, reason="broken", problem="X")
    assert "is queued" in say(config, "retry", number, "--why", "the disk was full").output
    assert "is cancelled" in say(config, "cancel", number).output
    assert now(engine, number).reason == "cancelled by a person"
    assert say(config, "rerun", number, "--why", "asked for by the ward").exit_code == 0
    assert (now(engine, number + 1).run, now(engine, number + 1).state) == (1, State.QUEUED)
    assert told(engine) == [
        ("job.hold", "scanner under service"),
        ("job.release", ""),
        ("job.revive", "the disk was full"),
        ("job.cancel", ""),
        ("job.rerun", "asked for by the ward"),
    ]


def test_a_word_that_the_job_cannot_follow_changes_nothing(config: str, engine: Engine) -> None:
    number = added(engine)
    assert isinstance(say(config, "release", number).exception, IllegalMove)
    missing = say(config, "cancel", 4711).exception
    assert isinstance(missing, Problem)
    assert "there is no job 4711" in str(missing)
    assert now(engine, number).state is State.QUEUED
    assert told(engine) == []
