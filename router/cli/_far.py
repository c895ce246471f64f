"""A node elsewhere, by its API: what `--url` asks instead of the database. The fields are the same."""

import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_sr.problem import Problem

TIMEOUT_S = 30.0
TOKEN = "ISOCENTER_TOKEN"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="ISOCENTER_URL",
        help=f"Ask the window of a node there, not a database; {TOKEN} holds a token, or {TOKEN}_FILE names its file",
    ),
]


class NodeRefuses(Problem):
    """A node elsewhere does not do what we ask, or does not answer."""


class Far:
    """The API of a node."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, path: str, **asked: Any) -> Any:
        """What is answered there.

        Raises:  NodeRefuses
        """
        return self._ask("GET", path, params={name: _word(one) for name, one in asked.items() if one is not None})

    def post(self, path: str, **said: Any) -> Any:
        """What is answered to this command.

        Raises:  NodeRefuses
        """
        return self._ask("POST", path, json=said)

    def _ask(self, method: str, path: str, **given: Any) -> Any:
        import httpx  # not for commands that stay on this machine

        headers = {"authorization": f"Bearer {token()}"}
        try:
            answer = httpx.request(method, f"{self.url}/api/v1/{path}", headers=headers, timeout=TIMEOUT_S, **given)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NodeRefuses(
                f"{self.url} does not answer ({type(error).__name__})", remedy="Is it the address of a node's window?"
            ) from None
        if answer.status_code == 204:
            return None
        try:
            found = answer.json()
        except ValueError:
            raise NodeRefuses(
                f"{self.url} answered {answer.status_code}, and nothing that a node says",
                remedy="Is it the address of a node's window?",
            ) from None
        if answer.is_success:
            return found
        trouble = found if isinstance(found, dict) else {}
        faults = "".join(f"\n{one}" for one in trouble.get("faults", ()))
        raise NodeRefuses(f"{trouble.get('what', answer.status_code)}{faults}", remedy=str(trouble.get("remedy", "")))


def token() -> str:
    """Our token there.

    Raises:  NodeRefuses
    """
    given, path = os.environ.get(TOKEN), os.environ.get(f"{TOKEN}_FILE")
    try:
        found = given or (Path(path).read_text().strip() if path else "")
    except OSError as error:
        raise NodeRefuses(f"{path} cannot be read ({error.strerror})", remedy="It holds the token") from error
    if not found:
        raise NodeRefuses(
            f"--url needs a token in {TOKEN}, or {TOKEN}_FILE", remedy="An admin makes one: `isocenter tokens add NAME`"
        )
    return found


def _word(value: Any) -> Any:
    return str(value.value) if isinstance(value, Enum) else value
