"""`isocenter alerts`: what a person should look at."""

from typing import Annotated

import typer

from router import views
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, answer, clock, database, print_rows, talk, who
from router.cli._far import Far, Url
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
    url: Url = None,
) -> None:
    """Alerts that stand, the newest first."""
    if url:
        rows = Far(url).get("alerts", ended=ended, limit=limit)
    else:
        with reading(database(config)) as connection:
            rows = [views.alert(one, clock) for one in store.list_(connection, ended=ended, limit=limit)]
    columns = ("id", "kind", "subject", "what", "remedy", "raised", "times", "ended")
    print_rows(rows, columns, as_json=as_json, empty="No alerts.")


@alerts.command("end", epilog="Example: isocenter alerts end 3")
def end(
    number: Annotated[int, typer.Argument(help="The alert's number, from `isocenter alerts list`")],
    config: Config = DEFAULT_CONFIG,
    why: Annotated[str, typer.Option("--why", help="Reason, for the audit; never a patient's name")] = "",
    url: Url = None,
) -> None:
    """Say that an alert is over; if its cause is not, it is raised again."""
    if url:
        Far(url).post(f"alerts/{number}/end", reason=why)
        talk.print(f"alert {number} is over")
        return
    with writing(database(config)) as connection:
        store.end_one(connection, number, who=who(), why=why)
    talk.print(f"alert {number} is over")


@alerts.command("test", epilog="Example: isocenter alerts test")
def try_(config: Config = DEFAULT_CONFIG) -> None:
    """Send a test by every channel that is configured, and say what came of it."""
    from router import notify
    from router.config import load
    from router.db.engine import now

    settings = load(config)
    database(config)  # who may not open it does not speak in the node's name
    what = f"this is a test of the alerts of {settings.ae_title}"
    notice = notify.Notice(
        id=0,
        kind="alerts.test",
        subject=settings.ae_title,
        what=what,
        remedy="Nothing is to be done",
        raised_at=now(),
    )
    channels = notify.channels(settings)
    if not channels:
        answer.print("No channel is configured: see `alerts` in isocenter.yaml.", markup=False)
        raise typer.Exit(1)
    failed = False
    for name, send in channels.items():
        try:
            send(settings, [notice])
        except notify.NotSent as problem:
            failed = True
            answer.print(f"{name}: {problem.what}. {problem.remedy}", markup=False)
        else:
            answer.print(f"{name}: sent", markup=False)
    if failed:
        raise typer.Exit(1)
