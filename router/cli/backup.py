"""`isocenter backup`: a copy of the database while the node runs."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import make_url

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, Config, closed_to_others, talk

PAGES = 2048
"""Copied at once; between two such portions others write."""


class NoBackup(Problem):
    """The database cannot be copied so."""


@app.command(epilog="Example: isocenter backup /backup/isocenter-2026-11-21.db")
def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; a file that is there stays as it is")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Copy the database (index, queue, revisions, audit) while the node runs; not the store's files."""
    from router.config import load

    url = make_url(load(config).database.url)
    if url.get_backend_name() != "sqlite":
        raise NoBackup(
            "the database is PostgreSQL, which copies itself",
            remedy="Use `pg_dump --format=custom`, or your PostgreSQL's own continuous archiving",
        )
    source = Path(url.database or "")
    if not source.is_file():
        raise NoBackup(f"there is no database {source}", remedy="Look at database.url in isocenter.yaml")
    if target.exists():
        raise NoBackup(
            f"{target} is there already", remedy="Name a file that does not exist; backups are not overwritten"
        )
    closed_to_others()
    part = target.with_name(f"{target.name}.part")
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as here,
            closing(sqlite3.connect(part)) as there,
        ):
            here.backup(there, pages=PAGES)
            there.execute("PRAGMA journal_mode=DELETE")
            (sound,) = there.execute("PRAGMA integrity_check").fetchone()
        if sound != "ok":
            raise NoBackup(f"the copy is not sound: {sound}", remedy="Look at the disk of the database")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(target)
    except (OSError, sqlite3.Error) as error:
        raise NoBackup(
            f"{target} cannot be written: {error}", remedy="Look at the disk and the rights there"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    talk.print(f"{target} holds the database, {target.stat().st_size / 1e6:.1f} MB")
