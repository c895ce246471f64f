"""`isocenter sources`: who may send, and who was turned away."""

from typing import Annotated

import typer

from router import revise
from router.cli._books import shelf
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows, talk, who
from router.db import callers
from router.db.engine import reading, writing
from router.db.revisions import Kind

sources = shelf(Kind.SOURCES, "Who may send", ("ae_title", "addresses", "services", "notes"), example="CT_SIEMENS_1")


@sources.command("seen", epilog="Example: isocenter sources seen")
def seen(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Callers that were turned away, the last one first, and why."""
    with reading(database(config)) as connection:
        found = callers.seen(connection)
    rows = [
        {
            "ae_title": one.calling_ae_title, "address": one.address, "attempts": one.attempts,
            "last_seen": clock(one.last_seen_at), "reason": one.reason,
        }
        for one in found
    ]  # fmt: skip
    columns = ("ae_title", "address", "attempts", "last_seen", "reason")
    print_rows(rows, columns, as_json=as_json, empty="Nobody was turned away.")


@sources.command("accept", epilog="Example: isocenter sources accept CT_SIEMENS_1 --address 10.1.2.3")
def accept(
    ae_title: str,
    address: Annotated[str, typer.Option(help="IP address or network that it calls from, or any")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Let a caller send from now on."""
    with writing(database(config)) as connection:
        revision = revise.accept_source(connection, ae_title, address, author=who())
        callers.forget(connection, ae_title, address)
    talk.print(f"{ae_title} may send from {address}; sources: revision {revision.number} is in force")
