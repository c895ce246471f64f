"""`isocenter studies`: what came, and what it waits for."""

from typing import Annotated

import typer

from router import views
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows, talk, who
from router.cli._far import Far, Url
from router.db import audit
from router.db import studies as index
from router.db.engine import now, reading, writing
from router.domain.study import StudyState
from router.wake import Bell

studies = typer.Typer(help="What came, and what it waits for.", no_args_is_help=True)
app.add_typer(studies, name="studies")

Uid = Annotated[str, typer.Argument(help="Its StudyInstanceUID")]
Why = Annotated[str, typer.Option(help="The reason, for the audit; name no patient")]


@studies.command("list", epilog="Example: isocenter studies list --state held")
def list_(
    config: Config = DEFAULT_CONFIG,
    state: Annotated[StudyState | None, typer.Option(help="Only studies in this state")] = None,
    attention: Annotated[bool, typer.Option(help="Only those that a person should look at")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first")] = 100,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Studies, the newest first."""
    if url:
        rows = Far(url).get("studies", state=state, attention=attention, limit=limit)["studies"]
    else:
        with reading(database(config)) as connection:
            rows = [
                views.study(one, clock)
                for one in index.list_(connection, state=state, attention=attention, limit=limit)
            ]
    columns = ("study_instance_uid", "state", "generation", "study_description", "last_instance", "note")
    print_rows(rows, columns, as_json=as_json, empty="No studies yet.")


@studies.command("hold", epilog="Example: isocenter studies hold 1.2.840.113619.2.55.3 --why 'wrong patient?'")
def hold(study: Uid, config: Config = DEFAULT_CONFIG, why: Why = "", url: Url = None) -> None:
    """Route nothing of a study until it is released: no rule is asked, and no job of it starts."""
    if url:
        Far(url).post(f"studies/{study}/hold", reason=why or "held by a person")
        talk.print("held")
        return
    with writing(database(config)) as connection:
        index.held_by(connection, study, who=who(), reason=why or "held by a person")
    talk.print("held")


@studies.command("release", epilog="Example: isocenter studies release 1.2.840.113619.2.55.3")
def release(study: Uid, config: Config = DEFAULT_CONFIG, why: Why = "", url: Url = None) -> None:
    """Let a held study go on: it is looked at again now, and held again where its trouble has not been put right."""
    from router.config import load

    if url:
        Far(url).post(f"studies/{study}/release", reason=why)
        talk.print("released")
        return
    with writing(database(config)) as connection:
        index.released_by(connection, study, now(), who=who(), reason=why)
    Bell(load(config).run_path / "wake").ring("decide")
    talk.print("released")


@studies.command("seen", epilog="Example: isocenter studies seen 1.2.840.113619.2.55.3")
def seen(study: Uid, config: Config = DEFAULT_CONFIG) -> None:
    """Somebody has looked at a study that asked for attention."""
    with writing(database(config)) as connection:
        if index.find(connection, study) is None:
            raise index.UnknownStudy(f"there is no study {study}", remedy="See `isocenter studies list --attention`")
        asked = index.attended(connection, study)
        if asked:
            audit.write(connection, who(), "study.attended", study)
    talk.print("noted" if asked else "it did not ask for attention")
