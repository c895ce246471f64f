"""Commands with --url ask a node elsewhere by its API: the same fields, the same words, the same faults."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from router import cli, passwords
from router.db import alerts, tokens
from router.db.engine import writing
from router.domain.access import Scope
from tests.web.conftest import Window
from tests.web.rows import arrive
from tests.web.test_api import node_with_rules

TIMES = ("wanted_by", "superseded", "created", "started", "finished", "last_instance", "completed", "raised", "at")


class Shell:
    """A person at another machine, with a token, and the same person at the node's."""

    def __init__(self, window: Window, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.window, self.folder, self.capsys = window, folder, capsys
        secret = passwords.secret()
        with writing(window.node.engine) as connection:
            scopes = [Scope.READ, Scope.OPERATE, Scope.CONFIGURE]
            tokens.add(connection, "shell", passwords.digest(secret), scopes, who="test")
        (folder / "token").write_text(f"{secret}\n")
        self.config = folder / "isocenter.yaml"
        self.config.write_text(yaml.safe_dump({"database": {"url": window.node.settings.database.url}}))

    def says(self, *words: str, code: int = 0, **environ: str) -> str:
        with pytest.MonkeyPatch.context() as here:
            here.setattr(sys, "argv", ["isocenter", *words])
            for name, value in ({"ISOCENTER_TOKEN_FILE": str(self.folder / "token")} | environ).items():
                here.setenv(name, value)
            self.capsys.readouterr()
            try:
                cli.main()
            except SystemExit as end:
                ended = int(end.code or 0)
            else:
                ended = 0
        done = self.capsys.readouterr()
        assert ended == code, done.err
        return done.out + done.err

    def far(self, *words: str, **more: Any) -> str:
        return self.says(*words, "--url", self.window.url, **more)

    def near(self, *words: str) -> str:
        return self.says(*words, "--config", str(self.config))


@pytest.fixture
def shell(window: Window, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    node_with_rules(window.node)
    return Shell(window, tmp_path, capsys)


def plain(found: Any) -> Any:
    """What was answered without its times, which a machine tells by its own clock."""
    if isinstance(found, list):
        return [plain(one) for one in found]
    if not isinstance(found, dict):
        return found
    return {name: bool(one) if name in TIMES else plain(one) for name, one in found.items()}


def test_the_fields_are_the_same_and_so_are_the_words(window: Window, shell: Shell) -> None:
    job_id = arrive(window.node, "1.2.3")
    with writing(window.node.engine) as connection:
        alerts.raise_(connection, "destination.down", "pacs", what="pacs is silent", remedy="Look there")
    for words in (("jobs", "list"), ("jobs", "show", str(job_id)), ("studies", "list"), ("alerts", "list")):
        far, near = (json.loads(one(*words, "--json")) for one in (shell.far, shell.near))
        assert plain(far) == plain(near), words
    assert f"job {job_id} is held" in shell.far("jobs", "hold", str(job_id), "--why", "a test wants it")
    assert "held" in shell.near("jobs", "show", str(job_id))
    assert ("token:shell", "job.hold") in window.acts()
    assert shell.far("studies", "hold", "1.2.3").strip() == "held"
    assert shell.far("alerts", "end", "1", "--why", "a test wants it").strip() == "alert 1 is over"


def test_rules_are_exported_imported_and_rolled_back_from_elsewhere(window: Window, shell: Shell) -> None:
    text = shell.far("rules", "export")
    assert text == shell.near("rules", "export")
    (shell.folder / "rules.yaml").write_text(text.replace("at_least: 10", "at_least: 20"))
    assert "revision 2 is in force" in shell.far("rules", "import", str(shell.folder / "rules.yaml"), "--note", "x")
    assert "at_least: 20" in shell.far("rules", "diff", "1")
    assert "equal to 1" in shell.far("rules", "rollback", "1")
    (shell.folder / "rules.yaml").write_text(text.replace("Modality", "Modalty"))
    assert "Modalty" in shell.far("rules", "import", str(shell.folder / "rules.yaml"), code=1)


def test_trouble_is_told_in_words(shell: Shell) -> None:
    assert "there is no job 99" in shell.far("jobs", "show", "99", code=1)
    assert "who is asking is not known" in shell.far("jobs", "list", code=1, ISOCENTER_TOKEN="wrong")
    assert "does not answer" in shell.says("jobs", "list", "--url", "http://127.0.0.1:1", code=1)
    assert "needs a token" in shell.far("jobs", "list", code=1, ISOCENTER_TOKEN_FILE="")
