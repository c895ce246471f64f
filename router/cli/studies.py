"""`isocenter studies`: what came, and what it waits for."""

import getpass
from typing import Annotated

import typer

from router import views
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows, talk
from router.db import audit
from router.db import studies as index
from router.db.engine import reading, writing
from router.domain.study import StudyState

studies = typer.Typer(help="What came, and what it waits for.", no_args_is_help=True)
app.add_typer(studies, name="studies")


@studies.command("list", epilog="Example: isocenter studies list --state held")
def list_(
    config: Config = DEFAULT_CONFIG,
    state: Annotated[StudyState | None, typer.Option(help="Only studies in this state")] = None,
    attention: Annotated[bool, typer.Option(help="Only those that a person should look at")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first")] = 100,
    as_json: AsJson = False,
) -> None:
    """Studies, the newest first."""
    with reading(database(config)) as connection:
        found = index.list_(connection, state=state, attention=attention, limit=limit)
    columns = ("study_instance_uid", "state", "generation", "study_description", "last_instance", "note")
    print_rows((views.study(one, clock) for one in found), columns, as_json=as_json, empty="No studies yet.")


@studies.command("seen", epilog="Example: isocenter studies seen 1.2.840.113619.2.55.3")
def seen(study: Annotated[str, typer.Argument(help="Its StudyInstanceUID")], config: Config = DEFAULT_CONFIG) -> None:
    """Somebody has looked at a study that asked for attention."""
    with writing(database(config)) as connection:
        if index.find(connection, study) is None:
            raise index.UnknownStudy(f"there is no study {study}", remedy="See `isocenter studies list --attention`")
        asked = index.attended(connection, study)
        if asked:
            audit.write(connection, f"cli:{getpass.getuser()}", "study.attended", study)
    talk.print("noted" if asked else "it did not ask for attention")
