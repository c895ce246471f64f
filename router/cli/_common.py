"""What all commands share: where the settings are, and how a listing is printed."""

import getpass
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dicom_sr.problem import Problem

if TYPE_CHECKING:
    from sqlalchemy import Engine

Config = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="ISOCENTER_CONFIG", help="The node's isocenter.yaml", show_default=True),
]
DEFAULT_CONFIG = Path("isocenter.yaml")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]

answer = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
talk = Console(stderr=True, highlight=False)


class BadAddress(Problem):
    """An address is not AE_TITLE@HOST:PORT."""

    exit_code = 2


def peer(address: str) -> tuple[str, str, int]:
    """AE title, host and port of AE_TITLE@HOST:PORT; an IPv6 host stands in brackets.

    Raises:  BadAddress
    """
    found = re.fullmatch(r"(?P<title>[^@\\]{1,16})@(?P<host>\[[^\]]+\]|[^:@\s]+):(?P<port>\d{1,5})", address.strip())
    if found is None or int(found["port"]) > 65535:
        raise BadAddress(
            f"{address!r} is not an address", remedy="Write AE_TITLE@HOST:PORT, as in ORTHANC@10.0.0.5:4242"
        )
    return found["title"].strip(), found["host"].strip("[]"), int(found["port"])


def database(config: Path) -> "Engine":
    """The node's database, as the settings name it; a schema that is too old or too new is refused, never migrated.

    Raises:  Problem
    """
    from pipelines import catalog
    from router.config import load
    from router.db.engine import connect
    from router.db.node import node_id
    from router.db.place import refuse_foreign

    settings = load(config)
    refuse_foreign(settings.database.url)
    catalog.look_in(**settings.inference.shelf)
    engine = connect(settings.database.url)
    node_id(engine)
    return engine


def closed_to_others() -> None:
    """What this process writes from now on is for its account and its group alone: patients are in it."""
    os.umask(os.umask(0o077) | 0o027)


def who() -> str:
    """Who gives the command, for the audit."""
    return f"cli:{getpass.getuser()}"


def models_of(config: Path) -> Path | None:
    """Where this node's bundles lie, known to the catalogue from now on; None where there is no node."""
    from pipelines import catalog
    from router.config import load

    if not config.exists():
        return None
    inference = load(config).inference
    catalog.look_in(**inference.shelf)
    return inference.models_path


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def clock(microseconds: int | None) -> str:
    """A time of the database for people: local time to the second, or nothing."""
    if microseconds is None:
        return ""
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
    if isinstance(value, dict):
        return str(value.get("name", value))
    return "" if value is None else str(value)


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """A listing: a table of these columns, or all fields as JSON; `empty` is said when there is nothing."""
    rows = list(rows)
    if as_json:
        print_json(rows)
        return
    if not rows:
        talk.print(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column == "id")
    for row in rows:
        values = [row[column] for column in columns]
        table.add_row(*map(cell, values))
    answer.print(table)
