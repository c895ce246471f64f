"""`isocenter studies`: what came, and what it waits for."""

from typing import Annotated, Any

import typer

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows
from router.db import studies as index
from router.db.engine import reading
from router.domain.study import Study, StudyState

studies = typer.Typer(help="What came, and what it waits for.", no_args_is_help=True)
app.add_typer(studies, name="studies")


def summary(study: Study) -> dict[str, Any]:
    """A study's line: the same fields for people and programs."""
    return {
        "study_instance_uid": study.study_instance_uid,
        "state": str(study.state),
        "generation": study.generation,
        "patient_id": study.patient.patient_id,
        "study_date": study.study_date,
        "study_description": study.study_description,
        "calling_ae_title": study.calling_ae_title,
        "last_instance": clock(study.last_instance_at),
        "completed": clock(study.completed_at),
        "note": study.held_reason or study.completeness,
    }


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
    print_rows(map(summary, found), columns, as_json=as_json, empty="No studies yet.")
