"""What `isocenter rules`, `sources` and `destinations` share: numbered revisions; nothing is edited in place."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from router import revise, rulebook, views
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_json, print_rows, talk, who
from router.cli._far import Far, Url
from router.db import revisions
from router.db.engine import reading, writing
from router.db.revisions import Kind, Revision
from router.errors import UnreadableFile

Document = Annotated[Path, typer.Argument(help="A YAML file; - reads standard input")]
Number = Annotated[int | None, typer.Option("--revision", "-r", help="Its number; the one in force by default")]


def text_of(path: Path) -> str:
    """What the file, or standard input, holds.

    Raises:  UnreadableFile
    """
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"not UTF-8 text (byte {error.start})"
        raise UnreadableFile(f"{path} cannot be read ({why})", remedy="Name a YAML file") from error


def revision_of(connection: Connection, kind: Kind, number: int | None) -> Revision:
    """The revision of this number, or the one in force."""
    return revisions.current(connection, kind) if number is None else revisions.find(connection, kind, number)


def shelf(kind: Kind, what: str, columns: tuple[str, ...], *, example: str) -> typer.Typer:
    """The commands that all three kinds have; `example` is a name that one of them may have."""
    group = typer.Typer(help=f"{what}, as numbered revisions in the database.", no_args_is_help=True)
    app.add_typer(group, name=str(kind))

    def wanted(config: Path, url: str | None, number: int | None) -> Revision:
        if url:
            found = Far(url).get(str(kind), revision=number)
            at = round(datetime.fromisoformat(found["at"]).timestamp() * 1e6)
            return Revision(
                kind=kind, number=found["number"], author=found["author"], note=found["note"], created_at=at,
                body=found["entries"],
            )  # fmt: skip
        with reading(database(config)) as connection:
            return revision_of(connection, kind, number)

    @group.command("list", epilog=f"Example: isocenter {kind} list")
    def list_(config: Config = DEFAULT_CONFIG, number: Number = None, as_json: AsJson = False, url: Url = None) -> None:
        """What is in force, a line each."""
        revision = wanted(config, url, number)
        talk.print(f"{kind}, revision {revision.number} of {clock(revision.created_at)} by {revision.author}")
        rows = [dict.fromkeys(columns, "") | entry for entry in rulebook.in_full(kind, revision.body)]
        print_rows(rows, columns, as_json=as_json, empty=f"There are no {kind}.")

    @group.command("show", epilog=f"Example: isocenter {kind} show {example}")
    def show(
        name: Annotated[str, typer.Argument(help="As `list` names it")],
        config: Config = DEFAULT_CONFIG,
        number: Number = None,
        as_json: AsJson = False,
        url: Url = None,
    ) -> None:
        """One of them with every setting, also those that are as by default."""
        revision = wanted(config, url, number)
        entry = revise.entry_of(rulebook.in_full(kind, revision.body), kind, name)
        if as_json:
            print_json(entry)
            return
        talk.print(f"{kind}, revision {revision.number} of {clock(revision.created_at)} by {revision.author}")
        typer.echo(rulebook.write(kind, [entry]), nl=False)

    @group.command("history", epilog=f"Example: isocenter {kind} history")
    def history(config: Config = DEFAULT_CONFIG, as_json: AsJson = False, url: Url = None) -> None:
        """All revisions, the newest first: who, when and why."""
        if url:
            rows = Far(url).get(f"{kind}/history")
        else:
            with reading(database(config)) as connection:
                rows = [views.revision(one, clock) for one in revisions.list_(connection, kind)]
        print_rows(rows, ("number", "at", "author", "note"), as_json=as_json, empty=f"There are no {kind}.")

    @group.command("export", epilog=f"Example: isocenter {kind} export > {kind}.yaml")
    def export(config: Config = DEFAULT_CONFIG, number: Number = None, url: Url = None) -> None:
        """A revision as YAML that can be edited and imported."""
        typer.echo(revise.export(wanted(config, url, number)), nl=False)

    @group.command("import", epilog=f"Example: isocenter {kind} import {kind}.yaml --note 'new scanner'")
    def import_(
        path: Document,
        config: Config = DEFAULT_CONFIG,
        note: Annotated[str, typer.Option(help="Why, for the history")] = "",
        url: Url = None,
    ) -> None:
        """Put a document in force as the next revision, or name every fault with line and column and change nothing."""
        text = text_of(path)
        if url:
            made = Far(url).post(str(kind), text=text, note=note)
            talk.print(f"{kind}: revision {made['number']} is in force")
            return
        with writing(database(config)) as connection:
            revision = revise.import_(connection, text, str(path), author=who(), note=note, kind=kind)
        talk.print(f"{kind}: revision {revision.number} is in force")

    @group.command("diff", epilog=f"Example: isocenter {kind} diff 3 4")
    def diff(
        old: int,
        new: Annotated[int | None, typer.Argument()] = None,
        config: Config = DEFAULT_CONFIG,
        url: Url = None,
    ) -> None:
        """What a later revision (the one in force by default) says otherwise than an older one."""
        if url:
            lines = Far(url).get(f"{kind}/diff", old=old, new=new)["lines"]
            typer.echo("\n".join(lines) or "no difference")
            return
        with reading(database(config)) as connection:
            found = revise.difference(revisions.find(connection, kind, old), revision_of(connection, kind, new))
        typer.echo("\n".join(found.lines) if found else "no difference")

    @group.command("rollback", epilog=f"Example: isocenter {kind} rollback 3")
    def rollback(number: int, config: Config = DEFAULT_CONFIG, url: Url = None) -> None:
        """Put an older revision in force again, as a new one."""
        if url:
            made = Far(url).post(f"{kind}/rollback", number=number, reason=f"back to revision {number}")
            talk.print(f"{kind}: revision {made['number']} is in force, equal to {number}")
            return
        with writing(database(config)) as connection:
            revision = revise.rollback(connection, kind, number, author=who())
        talk.print(f"{kind}: revision {revision.number} is in force, equal to {number}")

    return group
