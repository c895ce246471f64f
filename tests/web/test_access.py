"""Every route and command by role: the table is walked by each role, by tokens, by a stranger, by another account."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from router.domain.access import SCOPES, Role, Scope
from router.web import doors
from router.web import server as application
from tests.conftest import REPOSITORY
from tests.house.test_docs import COMMANDS
from tests.servers import isocenter
from tests.web import access
from tests.web.conftest import Window

NOBODY = 65534
TALES = {
    "{uid}": "1.2.3", "{id}": "1", "{index}": "0", "{name}": "nobody", "{file:rest}": "a/b.js", "{file}": "console.css",
    "{study}": "1.2.3", "{series}": "1.2.4", "{instance}": "1.2.5", "{numbers}": "1", "{number}": "1",
    "{tag}": "00091001",
}  # fmt: skip


def knocks() -> Iterator[tuple[str, str, doors.Door]]:
    """Every door by each of its methods: method, a path that leads there, the door. Logging out comes last."""
    for one in sorted(doors.DOORS, key=lambda one: one.path == "/logout"):
        path = one.path
        for word, value in TALES.items():
            path = path.replace(word, value)
        assert "{" not in path, f"add {path} to the tales"
        yield from ((method, path, one) for method in one.methods)


def status(client: httpx.Client, method: str, path: str) -> int:
    """What is answered, the body left where it is: a stream of events has no end. A wrong password is no refusal."""
    with client.stream(method, path, json={} if method == "POST" else None) as answer:
        return 400 if answer.status_code == 401 and "www-authenticate" not in answer.headers else answer.status_code


def test_every_door_by_role(window: Window) -> None:
    stranger, people = window.client(), {role: window.log_in(str(role)) for role in Role}
    walked = 0
    for method, path, one in knocks():
        assert (status(stranger, method, path) == 401) == (one.needs != doors.OPEN), (method, path)
        for role, browser in people.items():
            refused = status(browser, method, path) == 403
            assert refused == (one.needs != doors.OPEN and one.needs not in SCOPES[role]), (role, method, path)
            walked += 1
    assert walked > 300


@pytest.mark.long
def test_every_door_by_token(window: Window) -> None:
    programs = {scope: window.program(scope) for scope in Scope}
    for method, path, one in knocks():
        for scope, program in programs.items():
            if one.needs == doors.OPEN:
                continue
            assert (status(program, method, path) == 403) == (scope is not one.needs), (scope, method, path)


def test_a_stranger_gets_no_socket(window: Window) -> None:
    asked = {
        "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    for path in ("/_nicegui_ws/socket.io/?EIO=4&transport=websocket", "/api/v1/events"):
        assert window.client(**asked).get(path).status_code == 403


def test_every_route_of_the_application_has_a_door(window: Window) -> None:
    parts = application.build(window.node, console=False).routes
    routes = [
        route for part in parts for route in getattr(part, "effective_route_contexts", lambda part=part: [part])()
    ]
    assert len(routes) > 60
    for route in routes:
        path = route.path.replace("{", "").replace("}", "")
        for method in route.methods:
            assert doors.door(path, method), f"{method} {route.path} has no door"


def test_the_page_says_what_the_tables_say() -> None:
    assert (REPOSITORY / "deploy" / "ACCESS.md").read_text() == access.page(), "python -m tests.web.access"


def test_what_init_and_backup_write_is_closed_to_other_accounts(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    isocenter("init", folder, "--pacs", "PACS@127.0.0.1:104")
    isocenter("backup", folder / "copy.db", "--config", folder / "isocenter.yaml")
    found = [folder, *folder.iterdir()]
    assert {one.name for one in found} >= {"made", "isocenter.yaml", "isocenter.db", "store", "copy.db"}
    assert [one.name for one in found if one.stat().st_mode & 0o007] == []


FILES_ONLY = ("check", "doctor")
"""They tell what is wrong with the settings, which this account may read, and with the database, which it may not."""
WALK = """
import contextlib, io, json, sys
from unittest.mock import patch
sys.path.insert(0, sys.argv[2])
from router import cli
from tests.house.test_docs import COMMANDS
from tests.web.access import ANYBODY
found = {}
for path, command in COMMANDS.items():
    if " ".join(path) in ANYBODY:
        continue
    words = list(path)
    for one in command.params:
        if one.name == "config":
            words += ["--config", sys.argv[1]]
        elif one.required:
            value = {"role": "viewer", "scope": "read"}.get(one.name, "1")
            words += [value] if one.param_type_name == "argument" else [one.opts[0], value]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), patch.object(sys, "argv", ["i", *words]):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        except BaseException as error:
            code = repr(error)
    found[" ".join(path)] = (code, out.getvalue(), err.getvalue())
print(json.dumps(found))
"""


@pytest.mark.long
def test_another_account_gets_nothing_from_any_command(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir(mode=0o755)  # the folder itself is open
    isocenter("init", folder, "--pacs", "PACS@127.0.0.1:104")
    alien = _made_foreign(folder)
    (folder / "isocenter.yaml").chmod(0o644)  # anybody can write such a file; the database is what counts
    done = subprocess.run(
        [*alien, sys.executable, "-c", WALK, str(folder / "isocenter.yaml"), str(REPOSITORY)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == len(COMMANDS) - len(access.ANYBODY)
    for name, (code, out, _) in found.items():
        assert code != 0 or name == "models list", (name, out)
        assert out == "" or name in FILES_ONLY, (name, out)
    assert sum("this account may not" in err for _, _, err in found.values()) > 40


def _made_foreign(folder: Path) -> list[str]:
    """Give these files to another account; the words before a command that make it obey their modes, also for root."""
    for path in (folder, *folder.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        elif path.is_file():
            path.chmod(path.stat().st_mode & 0o007)
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
