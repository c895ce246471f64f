"""What `isocenter rules` and `isocenter studies` print, as somebody at a terminal uses them."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dicom_sr.problem import Problem
from pipelines import catalog
from router.cli import app


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for noun in ("init", "rules", "sources", "destinations", "studies"):
        importlib.import_module(f"router.cli.{noun}")  # registers its commands
    folder = tmp_path_factory.mktemp("node") / "node"
    done = CliRunner().invoke(app, ["init", str(folder), "--pacs", "ORTHANC@127.0.0.1:4242"])
    assert done.exit_code == 0, done.output
    yield str(folder / "isocenter.yaml")
    catalog.look_in(None)


def ask(config: str, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--config", config])


def refused(config: str, *words: str) -> Problem:
    done = ask(config, *words)
    assert isinstance(done.exception, Problem), done.output
    return done.exception


def test_the_list_says_of_every_rule_its_scope_mode_and_priority_also_as_by_default(config: str) -> None:
    lines = ask(config, "rules", "list").stdout.splitlines()
    assert lines[0].split() == ["name", "scope", "mode", "priority", "pipelines", "destinations"]
    assert lines[1].split() == ["chest", "ct", "lungs", "series", "on", "routine", "ct_lung", "pacs"]
    (rule,) = json.loads(ask(config, "rules", "list", "--json").stdout)
    assert (rule["mode"], rule["hold"], rule["on_conflict"]) == ("on", False, "trust_pixels")


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        ("rules", "chest ct lungs", "on_conflict: trust_pixels"),
        ("sources", "ORTHANC", "witnesses: [announced, mpps]"),
        ("destinations", "pacs", "commitment: ask"),
    ],
)
def test_one_entry_is_shown_with_every_setting(config: str, kind: str, name: str, says: str) -> None:
    assert says in ask(config, kind, "show", name).stdout
    assert name in json.loads(ask(config, kind, "show", name, "--json").stdout).values()
    assert f"the {kind} in force have no {name[:-1]}: did you mean {name}?" in str(
        refused(config, kind, "show", name[:-1])
    )


def test_what_is_not_there_is_named_with_what_to_do(config: str, tmp_path: Path) -> None:
    assert "`isocenter rules history` shows them" in str(refused(config, "rules", "diff", "9"))
    missing = tmp_path / "missing"
    assert str(refused(config, "rules", "test", str(missing))).startswith(f"{missing} cannot be read (No such file")
    assert str(refused(config, "rules", "lint", str(missing))).startswith(f"{missing} cannot be read (No such file")
    assert "`isocenter why` finds it" in str(refused(config, "studies", "release", "1.2.3"))


def test_a_fact_that_a_rule_asks_for_in_vain_is_shown_as_absent(config: str, data: Path) -> None:
    headers = data / "routing_headers_covid19_ny_sbu" / "headers_only"
    empty = next(path for path in sorted(headers.glob("*.dcm")) if b"CHEST" not in path.read_bytes()[:4096])
    (study,) = json.loads(ask(config, "rules", "test", str(empty), "--json").stdout)["studies"]
    facts = study["series"][0]["facts"]
    assert facts["BodyPartExamined"] == {"values": [], "spread": "absent", "origin": "nowhere", "text": "absent"}
