"""deploy/compose.yaml starts what exists, with settings that the program knows; what is kept lies in its volumes."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from router import cli
from router.config import Settings
from tests.conftest import REPOSITORY
from tests.house.test_docs import COMMANDS, settings

FILE = REPOSITORY / "deploy" / "compose.yaml"
PROFILES = {"node", "gpu", "orthanc", "ohif", "postgres"}
POSTGRES = "postgresql+psycopg://isocenter@postgres/isocenter"


def filled(text: str, **given: str) -> str:
    """The text as Compose hands it on, with these variables set: ${NAME:-default}, and $$ for a dollar sign."""
    found = re.sub(r"(?<!\$)\$\{(\w+):-([^}]*)\}", lambda one: given.get(one[1]) or one[2], text)
    assert not re.search(r"(?<!\$)\$[{A-Z]", found), "a variable without a default"
    return found.replace("$$", "$")


@pytest.fixture
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(FILE.read_text()))


def configuration(compose: dict[str, Any], **given: str) -> Settings:
    return Settings.model_validate(yaml.safe_load(filled(compose["configs"]["isocenter"]["content"], **given)))


def test_each_profile_starts_something_and_each_service_has_one(compose: dict[str, Any]) -> None:
    found = {profile for one in compose["services"].values() for profile in one["profiles"]}
    assert found == PROFILES
    assert all(f"--profile {profile}" in FILE.read_text() for profile in PROFILES)


def test_the_nodes_settings_are_settings(compose: dict[str, Any]) -> None:
    made = configuration(compose)
    assert made.database.url == "sqlite:////srv/isocenter/isocenter.db"
    assert configuration(compose, ISOCENTER_DATABASE=POSTGRES).database.url == POSTGRES
    for service in ("node", "node-gpu"):
        ports = {filled(one).rpartition(":")[2] for one in compose["services"][service]["ports"]}
        assert ports == {str(made.listener.port), str(made.web.port)}
        (window,) = (one for one in compose["services"][service]["ports"] if one.endswith(str(made.web.port)))
        assert window.startswith("127.0.0.1:"), "without TLS the window is for this machine"


def test_nothing_that_is_kept_lies_outside_a_volume(compose: dict[str, Any]) -> None:
    """Every path of the settings: those that have a default would lie beside the settings file, which is read-only."""
    made = configuration(compose)
    kept = [one.split(":")[1] for one in compose["services"]["node"]["volumes"]]
    kept += [one.split(":")[0] for one in compose["services"]["node"]["tmpfs"]]
    for path, default in settings(Settings):
        value: Any = made
        for step in path.split("."):
            value = getattr(value, step)
        if isinstance(default, Path) or isinstance(value, Path):
            assert any(value.is_relative_to(one) for one in kept), path


def test_the_container_runs_commands_that_exist(compose: dict[str, Any]) -> None:
    script = filled(compose["services"]["node"]["command"][-1]).replace("\\\n", " ")
    lines = [shlex.split(line.removeprefix("exec ")) for line in script.splitlines() if line.strip()]
    assert [words[:2] for words in lines] == [["isocenter", "init"], ["isocenter", "serve"]]
    for words in lines:
        options = {option for one in COMMANDS[(words[1],)].params for option in one.opts}
        assert {word for word in words if word.startswith("--")} <= options
        assert words[1] in cli.nouns()


def test_orthanc_knows_the_node(compose: dict[str, Any]) -> None:
    said = json.loads(filled(compose["configs"]["orthanc"]["content"]))
    made = configuration(compose)
    assert said["DicomModalities"]["isocenter"] == [made.ae_title, "node", made.listener.port]
    pacs = filled(compose["services"]["node"]["environment"]["ISOCENTER_PACS"])
    assert pacs == f"{said['DicomAet']}@orthanc:{said['DicomPort']}"


def test_docker_takes_it() -> None:
    docker = shutil.which("docker")
    known = docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    if not docker or not known:
        pytest.skip("docker compose is not here")
    profiles = [word for profile in sorted(PROFILES) for word in ("--profile", profile)]
    done = subprocess.run(
        [docker, "compose", "-f", str(FILE), *profiles, "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
