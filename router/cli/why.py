"""`isocenter why`: what happened to a study, and why."""

from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, database, print_json
from router.config import load
from router.db.engine import reading


@app.command(epilog="Example: isocenter why 1.2.840.113619.2.55.3")
def why(
    word: Annotated[str, typer.Argument(metavar="STUDY", help="StudyInstanceUID, AccessionNumber or PatientID")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """What really happened to a study: witnesses, facts, every rule's answer, jobs, deliveries; one page."""
    from router.why import explain

    zone = ZoneInfo(load(config).timezone)
    with reading(database(config)) as connection:
        pages = explain(connection, word)
    if as_json:
        print_json([page.as_json() for page in pages])
        return
    typer.echo("\n\n".join("\n".join(page.lines(zone)) for page in pages))
