"""`isocenter rules|sources|destinations`: what is in force, as numbered revisions; nothing is edited in place."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from router import revise, rulebook, trial
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_json, print_rows, talk
from router.db import callers, revisions
from router.db.engine import reading, writing
from router.db.revisions import Kind, Revision
from router.errors import UnreadableFile, WrongRulebook

Document = Annotated[Path, typer.Argument(help="A YAML file; - reads standard input")]
Number = Annotated[int | None, typer.Option("--revision", "-r", help="Its number; the one in force by default")]


def who() -> str:
    """Who gives the command, for the audit."""
    return f"cli:{getpass.getuser()}"


def text_of(path: Path) -> str:
    """What the file, or standard input, holds.

    Raises:  UnreadableFile
    """
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{path} cannot be read: {error}", remedy="Name a YAML file") from error


def revision_of(connection: Connection, kind: Kind, number: int | None) -> Revision:
    """The revision of this number, or the one in force."""
    return revisions.current(connection, kind) if number is None else revisions.find(connection, kind, number)


def rows_of(revision: Revision) -> list[dict[str, Any]]:
    """The entries of a revision as they are listed."""
    return [dict(entry) for entry in revision.body]


def shelf(kind: Kind, what: str, columns: tuple[str, ...]) -> typer.Typer:
    """The commands that all three kinds have."""
    group = typer.Typer(help=f"{what}, as numbered revisions in the database.", no_args_is_help=True)
    app.add_typer(group, name=str(kind))

    @group.command("list", epilog=f"Example: isocenter {kind} list")
    def list_(config: Config = DEFAULT_CONFIG, number: Number = None, as_json: AsJson = False) -> None:
        """What is in force, a line each."""
        with reading(database(config)) as connection:
            revision = revision_of(connection, kind, number)
        talk.print(f"{kind}, revision {revision.number} of {clock(revision.created_at)} by {revision.author}")
        rows = [{column: entry.get(column, "") for column in columns} | entry for entry in rows_of(revision)]
        print_rows(rows, columns, as_json=as_json, empty=f"There are no {kind}.")

    @group.command("history", epilog=f"Example: isocenter {kind} history")
    def history(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
        """All revisions, the newest first: who, when and why."""
        with reading(database(config)) as connection:
            found = revisions.list_(connection, kind)
        rows = [{"number": r.number, "at": clock(r.created_at), "author": r.author, "note": r.note} for r in found]
        print_rows(rows, ("number", "at", "author", "note"), as_json=as_json, empty=f"There are no {kind}.")

    @group.command("export", epilog=f"Example: isocenter {kind} export > {kind}.yaml")
    def export(config: Config = DEFAULT_CONFIG, number: Number = None) -> None:
        """A revision as YAML that can be edited and imported."""
        with reading(database(config)) as connection:
            typer.echo(revise.export(revision_of(connection, kind, number)), nl=False)

    @group.command("import", epilog=f"Example: isocenter {kind} import {kind}.yaml --note 'new scanner'")
    def import_(
        path: Document,
        config: Config = DEFAULT_CONFIG,
        note: Annotated[str, typer.Option(help="Why, for the history")] = "",
    ) -> None:
        """Put a document in force as the next revision, or name every fault with line and column and change nothing."""
        text = text_of(path)
        with writing(database(config)) as connection:
            revision = revise.import_(connection, text, str(path), author=who(), note=note, kind=kind)
        talk.print(f"{kind}: revision {revision.number} is in force")

    @group.command("diff", epilog=f"Example: isocenter {kind} diff 3 4")
    def diff(old: int, new: Annotated[int | None, typer.Argument()] = None, config: Config = DEFAULT_CONFIG) -> None:
        """What a later revision (the one in force by default) says otherwise than an older one."""
        with reading(database(config)) as connection:
            found = revise.difference(revisions.find(connection, kind, old), revision_of(connection, kind, new))
        typer.echo("\n".join(found.lines) if found else "no difference")

    @group.command("rollback", epilog=f"Example: isocenter {kind} rollback 3")
    def rollback(number: int, config: Config = DEFAULT_CONFIG) -> None:
        """Put an older revision in force again, as a new one."""
        with writing(database(config)) as connection:
            revision = revise.rollback(connection, kind, number, author=who())
        talk.print(f"{kind}: revision {revision.number} is in force, equal to {number}")

    return group


rules = shelf(Kind.RULES, "What runs on what and where results go", ("name", "mode", "pipelines", "destinations"))
sources = shelf(Kind.SOURCES, "Who may send", ("ae_title", "addresses", "services", "notes"))
destinations = shelf(Kind.DESTINATIONS, "Where results go", ("name", "kind", "ae_title", "host", "port", "path"))


@rules.command("lint", epilog="Example: isocenter rules lint rules.yaml")
def lint(path: Document, config: Config = DEFAULT_CONFIG) -> None:
    """Every fault of a rulebook with line, column and what was probably meant; changes nothing."""
    known = None
    if config.exists():
        with reading(database(config)) as connection:
            known = revise.known(connection)
    kind, body = rulebook.parse(text_of(path), str(path), known=known)
    talk.print(f"{path}: {len(list(body))} {kind}, no fault")


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


@sources.command("seen", epilog="Example: isocenter sources seen")
def seen(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Callers that were turned away, the last one first, and why."""
    with reading(database(config)) as connection:
        found = callers.seen(connection)
    rows = [
        {
            "ae_title": one.calling_ae_title, "address": one.address, "attempts": one.attempts,
            "last_seen": clock(one.last_seen_at), "reason": one.reason,
        }
        for one in found
    ]  # fmt: skip
    columns = ("ae_title", "address", "attempts", "last_seen", "reason")
    print_rows(rows, columns, as_json=as_json, empty="Nobody was turned away.")


@sources.command("accept", epilog="Example: isocenter sources accept CT_SIEMENS_1 --address 10.1.2.3")
def accept(
    ae_title: str,
    address: Annotated[str, typer.Option(help="IP address or network that it calls from, or any")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Let a caller send from now on."""
    with writing(database(config)) as connection:
        revision = revise.accept_source(connection, ae_title, address, author=who())
        callers.forget(connection, ae_title, address)
    talk.print(f"{ae_title} may send from {address}; sources: revision {revision.number} is in force")
