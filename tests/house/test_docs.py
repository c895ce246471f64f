"""Every command, setting and state in the docs exists, and the reverse."""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

from router import cli, compose
from router.config import Settings, load
from router.domain.job import LIFE, State
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "deploy" / "RUNBOOK.md"]
EXAMPLE = REPOSITORY / "deploy" / "isocenter.example.yaml"


def root() -> Any:
    for noun in cli.nouns():
        importlib.import_module(f"{cli.__name__}.{noun}")
    return typer.main.get_command(cli.app)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(root()))


def spans(page: Path) -> list[tuple[str, ...]]:
    """Words of each command line, in code blocks and code spans only."""
    text = page.read_text()
    code = "\n".join(re.findall(r"```\n(.*?)```", text, re.S) + re.findall(r"`([^`\n]+)`", text))
    lines = [re.sub(r"#.*", "", line) for line in code.replace("\\\n", " ").splitlines()]
    found = [re.search(r"(?:^|/|\s)isocenter ([a-z].*)", line) for line in lines]
    return [tuple(shlex.split(hit[1].split("&&")[0].split(">")[0])) for hit in found if hit]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_exist_with_their_options(page: Path) -> None:
    assert spans(page)
    for words in spans(page):
        path = next((words[:n] for n in (2, 1) if words[:n] in COMMANDS), None)
        groups = {path[:1] for path in COMMANDS}
        assert path is not None or (len(words) == 1 and words[:1] in groups), f"{page.name}: isocenter {words}"
        if path is None:
            continue
        options = {option for parameter in COMMANDS[path].params for option in parameter.opts} | {"--help"}
        unknown = {word for word in words if word.startswith("--")} - options
        assert not unknown, f"{page.name}: isocenter {' '.join(words)}: {unknown}"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_docs_and_its_help_ends_in_an_example(path: tuple[str, ...]) -> None:
    known = "".join(page.read_text() for page in PAGES)
    assert f"isocenter {' '.join(path)}" in known, f"isocenter {' '.join(path)} is in no page"
    assert "Example: isocenter" in (COMMANDS[path].epilog or "")
    assert COMMANDS[path].help


@pytest.mark.long
def test_help_of_every_command_is_printed() -> None:
    for words in ([], *({path[:1] for path in COMMANDS})):
        done = subprocess.run(
            [sys.executable, "-m", "router.cli", *words, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_a_command_imports_no_other_noun() -> None:
    code = (
        "import sys; sys.argv = ['isocenter', 'send', '--help']\nfrom router import cli\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(*sorted({*sys.modules} & {f'router.cli.{noun}' for noun in cli.nouns()}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "router.cli.send"


def settings(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            yield from settings(type(default), f"{path}{name}.")
        else:
            yield f"{path}{name}", default


def test_the_example_names_every_setting_with_its_default_and_loads() -> None:
    load(EXAMPLE)
    document = yaml.safe_load(EXAMPLE.read_text())
    for path, default in settings(Settings):
        value: Any = document
        for step in path.split("."):
            assert step in value, f"{path} is not in {EXAMPLE.name}"
            value = value[step]
        assert value == (str(default) if isinstance(default, Path) else default), path


def test_the_example_says_what_each_setting_is() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\s*[a-z_]+: \S", line):
            assert "#" in line or lines[number - 1].lstrip().startswith("#"), line


def test_the_runbook_shows_the_life_of_a_job() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| ([\w, ]*)\s*\|$", (REPOSITORY / "deploy/RUNBOOK.md").read_text(), re.M)
    shown = {state: {word.strip() for word in events.split(",") if word.strip()} for state, events in rows}
    real = {str(state): {str(event) for start, event in LIFE if start is state} for state in State}
    assert {state: shown.get(state) for state in real} == real


def test_the_runbook_shows_every_role() -> None:
    text = (REPOSITORY / "deploy/RUNBOOK.md").read_text()
    assert all(f"| `{role}` |" in text for role in compose.ROLES)
