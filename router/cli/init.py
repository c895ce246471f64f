"""`isocenter init`: a new node in a folder."""

from pathlib import Path
from typing import Annotated

import typer

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import closed_to_others, peer, talk
from router.domain.access import Role

TEMPLATE = """\
# Isocenter: machine settings. Rules, sources and destinations are not here: they are numbered revisions in the
# database, see `isocenter rules --help`, `isocenter sources --help` and `isocenter destinations --help`.
# Every other setting, with its unit and default, stands in deploy/isocenter.example.yaml.

ae_title: {ae_title}          # senders must call us so
timezone: {timezone}          # IANA name; dates and times in results are in this zone

listener:
  host: 0.0.0.0
  port: {port}

storage:
  path: store                 # folder of the objects, relative to this file

database:
  url: sqlite:///isocenter.db # or postgresql+psycopg://user@host/name

completeness:
  quiet_period_s: {quiet:g}         # a study is complete after so much silence
"""


class AlreadyThere(Problem):
    """The folder has a node already."""

    exit_code = 2


@app.command(epilog="Example: isocenter init /srv/isocenter --pacs ORTHANC@127.0.0.1:4242 --timezone Europe/Zurich")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the new node; made if it is not there")],
    pacs: Annotated[str, typer.Option(help="Where results go: AE_TITLE@HOST:PORT")],
    ae_title: Annotated[str, typer.Option(help="Our AE title")] = "ISOCENTER",
    port: Annotated[int, typer.Option(help="Port of the listener", min=0, max=65535)] = 11112,
    timezone: Annotated[str, typer.Option(help="IANA time zone name")] = "UTC",
    quiet_period_s: Annotated[float, typer.Option(help="Silence after which a study is complete", min=0)] = 30.0,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="Use this isocenter.yaml where it lies, and write none")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Do nothing where a node is already")] = False,
) -> None:
    """Write a commented isocenter.yaml and a database with a first rulebook, sources and the PACS as destination."""
    from router import passwords, starter
    from router.config import load
    from router.db import accounts, node, place, revisions
    from router.db.engine import connect, writing
    from router.db.migrate import upgrade

    title, host, pacs_port = peer(pacs)
    config = settings_file or folder / "isocenter.yaml"
    if settings_file is None and config.exists():
        if once:
            return
        raise AlreadyThere(f"{config} exists already", remedy="Choose another folder, or edit that file")
    closed_to_others()
    folder.mkdir(parents=True, exist_ok=True)
    if settings_file is None:
        config.write_text(TEMPLATE.format(ae_title=ae_title, timezone=timezone, port=port, quiet=quiet_period_s))
    try:
        settings = load(config)
        place.refuse_network(settings.database.url)
    except Problem:
        if settings_file is None:
            config.unlink()
        raise
    settings.storage.path.mkdir(parents=True, exist_ok=True)
    engine = connect(settings.database.url)
    upgrade(engine)
    if node.exists(engine):
        if once:
            return
        raise AlreadyThere(f"the database of {config} has a node already", remedy="Start it: `isocenter serve`")
    node.create(engine)
    password = passwords.made()
    kept = passwords.hashed(password, name="admin")
    with writing(engine) as connection:
        accounts.add(connection, "admin", Role.ADMIN, kept, who="init")
        for kind, body in starter.starter(ae_title=title, host=host, port=pacs_port).items():
            revisions.add(connection, kind, body, author="init", note="first")
    if settings_file is None:
        talk.print(
            f"A node lies in {folder}: {config.name}, {Path(settings.database.url).name}, {settings.storage.path.name}/"
        )
    talk.print(f"Start it with: isocenter serve --config {config}")
    talk.print(
        f"Then open http://{settings.web.host}:{settings.web.port} and log in as admin. "
        f"The password, shown this once: {password}",
        markup=False,
        soft_wrap=True,
    )
