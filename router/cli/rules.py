"""`isocenter rules`: what runs on what and where results go; check, try, put in force."""

from pathlib import Path
from typing import Annotated, Any

import typer

from router import revise, rulebook, trial
from router.cli._books import Document, revision_of, shelf, text_of
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_json, talk, who
from router.db import revisions
from router.db.engine import reading, writing
from router.db.revisions import Kind
from router.errors import WrongRulebook

COLUMNS = ("name", "scope", "mode", "priority", "pipelines", "destinations")

rules = shelf(Kind.RULES, "What runs on what and where results go", COLUMNS, example="'chest ct lungs'")


@rules.command("lint", epilog="Example: isocenter rules lint rules.yaml")
def lint(path: Document, config: Config = DEFAULT_CONFIG) -> None:
    """Every fault of a rulebook with line, column and what was probably meant; changes nothing."""
    known = None
    if config.exists():
        with reading(database(config)) as connection:
            known = revise.known(connection)
    kind, body = rulebook.parse(text_of(path), str(path), known=known)
    number = len(list(body))
    talk.print(f"{path}: {number} {kind if number != 1 else str(kind).removesuffix('s')}, no fault")


@rules.command("test", epilog="Example: isocenter rules test study/ --rules rules.yaml")
def try_on_files(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them")],
    config: Config = DEFAULT_CONFIG,
    book: Annotated[Path | None, typer.Option("--rules", help="A rulebook file; else the one in force")] = None,
    as_json: AsJson = False,
) -> None:
    """What the rules would decide on these files: facts, verdicts, the first failing condition. Sends nothing."""
    if book is None:
        with reading(database(config)) as connection:
            body = revisions.current(connection, Kind.RULES).body
    else:
        kind, body = rulebook.parse(text_of(book), str(book))
        if kind is not Kind.RULES:
            raise WrongRulebook([], remedy=f"{book} holds {kind}, not rules")
    done = trial.on_files(paths, rulebook.rules(body)).as_json()
    if as_json:
        print_json(done)
        return
    for study in done["studies"]:
        print_study(study)
    if done["skipped"]:
        talk.print(f"{len(done['skipped'])} files are not DICOM and were passed over")


def print_study(study: dict[str, Any]) -> None:
    """Facts of each series with where they came from, then every rule's verdict, condition by condition."""
    typer.echo(f"study {study['study_instance_uid']}")
    for series in study["series"]:
        typer.echo(f"  series {series['series_instance_uid']}, {series['files']} files")
        for keyword, fact in series["facts"].items():
            typer.echo(f"    {keyword} = {fact['text']}  ({fact['origin']})")
    for decision in study["decisions"]:
        runs = ", ".join(decision["pipelines"]) or "nothing"
        to = ", ".join(decision["destinations"]) or "nowhere"
        says = f"fires: {runs} -> {to} (mode {decision['mode']})" if decision["fires"] else "does not fire"
        about = decision["series_instance_uid"] or "the study"
        typer.echo(f"  rule {decision['rule']!r} on {about}: {says}")
        typer.echo(f"    {decision['reason']}")
        print_verdict(decision["verdict"], "    ")


def print_verdict(verdict: dict[str, Any], indent: str) -> None:
    """One condition and the value seen, then its parts below it."""
    seen = f"  [{verdict['seen']}]" if verdict.get("seen") else ""
    typer.echo(f"{indent}{'yes' if verdict['holds'] else 'no '}  {verdict['asked']}{seen}")
    for part in verdict.get("parts", ()):
        print_verdict(part, indent + "  ")


@rules.command("backtest", epilog="Example: isocenter rules backtest new.yaml --days 30")
def try_on_past(
    path: Document,
    days: Annotated[float, typer.Option(min=0, help="Studies that became complete within so many days")] = 30,
    against: Annotated[int | None, typer.Option(help="Revision to compare with; the one in force by default")] = None,
    examples: Annotated[int, typer.Option(min=0, help="At most so many studies are named")] = 5,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Which past studies these rules would have routed differently, and what that would cost. Changes nothing."""
    from router import backtest

    with reading(database(config)) as connection:
        kind, body = rulebook.parse(text_of(path), str(path), known=revise.known(connection))
        if kind is not Kind.RULES:
            raise WrongRulebook([], remedy=f"{path} holds {kind}, not rules")
        old = revision_of(connection, Kind.RULES, against)
        done = backtest.run(connection, rulebook.rules(body), rulebook.rules(old.body), days=days, examples=examples)
    if as_json:
        print_json(done.as_json())
        return
    typer.echo("\n".join(done.lines(f"{path}", f"revision {old.number}", clock(done.since))))


@rules.command("promote", epilog="Example: isocenter rules promote 'chest ct lungs'")
def promote(name: str, config: Config = DEFAULT_CONFIG) -> None:
    """Switch a rule from shadow (or off) to on."""
    with writing(database(config)) as connection:
        revision = revise.promote(connection, name, author=who())
    talk.print(f"rules: revision {revision.number} is in force")
