"""`isocenter pipelines`: what can run here, and what must not for now."""

from typing import Annotated

import typer

from dicom_sr.problem import Problem
from pipelines import catalog
from router import views
from router.cli import app
from router.cli._common import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    answer,
    clock,
    database,
    models_of,
    print_json,
    print_rows,
    talk,
    who,
)
from router.db import breakers
from router.db.engine import reading, writing
from router.domain.job import Lane

pipelines = typer.Typer(
    help="What can run here: the catalogue and its model cards; pause, resume.", no_args_is_help=True
)
app.add_typer(pipelines, name="pipelines")


class NotPaused(Problem):
    """There is nothing to resume."""


@pipelines.command("list", epilog="Example: isocenter pipelines list --json")
def list_(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Every pipeline of the catalogue and every installed bundle, a line each."""
    models_of(config)
    rows = [views.card(catalog.find(name).spec) for name in catalog.names()]
    print_rows(rows, ("name", "version", "title", "research_use"), as_json=as_json, empty="The catalogue is empty.")


@pipelines.command("show", epilog="Example: isocenter pipelines show ct_lung")
def show(name: str, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """The model card of one pipeline: intended use, needs, outputs with codes, limitations, settings."""
    models_of(config)
    spec = catalog.find(name).spec
    if as_json:
        print_json(views.card(spec))
        return
    answer.print(f"{spec.name} {spec.version}: {spec.title}", markup=False)
    answer.print(f"{'RESEARCH USE ONLY. ' if spec.research_use else ''}{spec.intended_use}\n", markup=False)
    answer.print(f"Modalities: {', '.join(spec.modalities)}", markup=False)
    for title, lines in (("Needs", spec.needs), ("Limitations", spec.limitations)):
        answer.print(f"{title}:", markup=False)
        for line in lines:
            answer.print(f"  - {line}", markup=False)
    answer.print("Segments:")
    for segment in spec.segments:
        side = f", {segment.laterality.meaning}" if segment.laterality else ""
        code = segment.type
        answer.print(f"  - {segment.label}: {code.meaning}{side} ({code.value}, {code.scheme})", markup=False)
    answer.print("Measurements:")
    for measurement in spec.measurements:
        code = measurement.name
        answer.print(f"  - {code.meaning} in {measurement.unit.meaning} ({code.value}, {code.scheme})", markup=False)
    answer.print("Settings:")
    for key, field in spec.settings.model_fields.items():
        answer.print(f"  - {key} (default {field.default}): {field.description}", markup=False)
    answer.print(f"Weights: {spec.weights_digest or 'none'}; licence {spec.licence}", markup=False)


@pipelines.command("paused", epilog="Example: isocenter pipelines paused")
def paused(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Pipelines of which no job starts, and why."""
    with reading(database(config)) as connection:
        found = breakers.paused(connection)
    rows = [{"name": one.pipeline, "since": clock(one.at), "who": one.who, "why": one.why} for one in found.values()]
    print_rows(rows, ("name", "since", "who", "why"), as_json=as_json, empty="No pipeline is paused.")


@pipelines.command("pause", epilog="Example: isocenter pipelines pause ct_lung --why 'wrong volumes since Monday'")
def pause(
    name: str,
    config: Config = DEFAULT_CONFIG,
    why: Annotated[str, typer.Option(help="For those who wonder why nothing runs")] = "",
) -> None:
    """Let no job of a pipeline start, until it is resumed; a run that is going on ends as it does."""
    models_of(config)
    catalog.find(name)
    with writing(database(config)) as connection:
        breakers.pause(connection, name, who=who(), why=why)
    talk.print(f"{name} is paused")


@pipelines.command("resume", epilog="Example: isocenter pipelines resume ct_lung")
def resume(name: str, config: Config = DEFAULT_CONFIG) -> None:
    """Let the jobs of a paused pipeline start again."""
    from router.config import load
    from router.wake import Bell

    with writing(database(config)) as connection:
        was = breakers.resume(connection, name, who=who())
    if not was:
        raise NotPaused(f"{name} is not paused", remedy="See `isocenter pipelines paused`")
    Bell(load(config).run_path / "wake").ring(Lane.INFER)
    talk.print(f"{name} goes on")
