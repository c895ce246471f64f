"""`isocenter alerts`: what a person should look at."""

from typing import Annotated

import typer

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows, talk
from router.db import alerts as store
from router.db.engine import reading, writing

alerts = typer.Typer(help="What a person should look at.", no_args_is_help=True)
app.add_typer(alerts, name="alerts")


@alerts.command("list", epilog="Example: isocenter alerts list --ended")
def list_(
    config: Config = DEFAULT_CONFIG,
    ended: Annotated[bool, typer.Option("--ended", help="Also those that are over")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first")] = 100,
    as_json: AsJson = False,
) -> None:
    """Alerts that stand, the newest first."""
    with reading(database(config)) as connection:
        found = store.list_(connection, ended=ended, limit=limit)
    rows = [
        {
            "id": one.id,
            "kind": one.kind,
            "subject": one.subject,
            "what": one.what,
            "remedy": one.remedy,
            "raised": clock(one.raised_at),
            "times": one.times,
            "ended": clock(one.ended_at),
        }
        for one in found
    ]
    columns = ("id", "kind", "subject", "what", "remedy", "raised", "times", "ended")
    print_rows(rows, columns, as_json=as_json, empty="No alerts.")


@alerts.command("end", epilog="Example: isocenter alerts end 3")
def end(
    number: Annotated[int, typer.Argument(help="The alert's number, from `isocenter alerts list`")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Say that an alert is over; if its cause is not, it is raised again."""
    with writing(database(config)) as connection:
        store.end_one(connection, number)
    talk.print(f"alert {number} is over")
