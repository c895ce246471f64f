"""`isocenter conformance`: the DICOM conformance statement of the configuration in force."""

from typing import Annotated

import typer

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, Config, database


@app.command(epilog="Example: isocenter conformance --html > conformance.html")
def conformance(
    config: Config = DEFAULT_CONFIG,
    as_html: Annotated[bool, typer.Option("--html", help="One HTML page instead of Markdown")] = False,
) -> None:
    """Print the DICOM conformance statement (PS3.2) of this node, from the tables that it works with."""
    from router import conformance as made
    from router import statement
    from router.config import load
    from router.db.engine import reading

    settings = load(config)
    with reading(database(config)) as connection:
        found = made.running(settings, connection)
    title = f"DICOM conformance statement of Isocenter ({settings.ae_title})"
    write = statement.html if as_html else statement.markdown
    typer.echo(write(made.statement(found), title))
