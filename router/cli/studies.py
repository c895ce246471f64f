"""`isocenter studies`: what came, and what it waits for."""

from typing import Annotated

import typer

from router import views
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows
from router.db import studies as index
from router.db.engine import reading
from router.domain.study import StudyState

studies = typer.Typer(help="What came, and what it waits for.", no_args_is_help=True)
app.add_typer(studies, name="studies")


@studies.command("list", epilog="Example: isocenter studies list --state held")
def list_(
    config: Config = DEFAULT_CONFIG,
    state: Annotated[StudyState | None, typer.Option(help="Only studies in this state")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first")] = 100,
    as_json: AsJson = False,
) -> None:
    """Studies, the newest first."""
    with reading(database(config)) as connection:
        found = index.list_(connection, state=state, limit=limit)
    columns = ("study_instance_uid", "state", "generation", "study_description", "last_instance", "note")
    print_rows((views.study(one, clock) for one in found), columns, as_json=as_json, empty="No studies yet.")
