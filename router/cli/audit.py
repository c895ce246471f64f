"""`isocenter audit`: who did what to patient data, whether anyone has touched the record, and its export."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Connection, Engine

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows, talk, who
from router.db import audit as trail
from router.db.engine import now, reading, writing
from router.domain.audit import Act, Finding, Row, Verifier

audit = typer.Typer(help="Who did what to patient data; verify the chain; export.", no_args_is_help=True)
app.add_typer(audit, name="audit")

PAGE = 500
SEALED_WITHIN_S = 600.0
"""Rows that are older than this and in no seal mean that nobody seals."""


class AuditBroken(Problem):
    """The audit is not as it was written."""


class NotSent(Problem):
    """The receiver of the audit messages does not take them."""


def line(row: Row) -> dict[str, Any]:
    """A row for people and programs; it names no patient."""
    return {
        "id": row.id,
        "at": clock(row.at),
        "who": row.who,
        "act": row.act,
        "outcome": str(row.outcome),
        "study_instance_uid": row.study_instance_uid,
        "job": row.job_id,
        "patient_key": row.patient_key,
        "detail": ", ".join(f"{name} {value}" for name, value in row.detail.items()),
        "seal": row.seal,
    }


@audit.command("list", epilog="Example: isocenter audit list --study 1.2.840.113619.2.55.3")
def list_(
    config: Config = DEFAULT_CONFIG,
    study: Annotated[str | None, typer.Option(help="Only acts on this StudyInstanceUID")] = None,
    patient: Annotated[str | None, typer.Option(help="Only acts on this PatientID's studies")] = None,
    job: Annotated[int | None, typer.Option(help="Only acts of this job")] = None,
    act: Annotated[Act | None, typer.Option(help="Only this kind of act")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only acts since then, local time")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest")] = 100,
    as_json: AsJson = False,
) -> None:
    """Who did what, the newest last; looking is an act, too."""
    with writing(database(config)) as connection:
        keys = None if patient is None else trail.keys_of(connection, patient)
        rows = trail.list_(
            connection,
            study_instance_uid=study,
            job_id=job,
            keys=keys,
            act=act,
            since=None if since is None else round(since.astimezone(UTC).timestamp() * 1e6),
            limit=limit,
        )
        trail.write(connection, who(), "audit.read", study, rows=len(rows))
    columns = ("id", "at", "who", "act", "outcome", "study_instance_uid", "job", "detail")
    print_rows(map(line, rows), columns, as_json=as_json, empty="No acts.")


@audit.command("verify", epilog="Example: isocenter audit verify --heads /mnt/other-machine/heads.jsonl")
def verify(
    config: Config = DEFAULT_CONFIG,
    heads: Annotated[Path | None, typer.Option(help="Heads that have left the machine; default: heads_file")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether every sealed row is as it was written, none is missing, and the end has not been cut off."""
    from router.config import load
    from router.db.node import node_id
    from router.work import seal

    settings = load(config)
    engine = database(config)
    source = heads or settings.audit.heads_file
    known = {} if source is None else seal.heads_in(source, node_id(engine))
    with reading(engine) as connection:
        verifier = seal.verifier(connection, settings, known)
    found, links, loose = walk(engine, verifier)
    print_rows(
        [{"seal": one.seal, "row": one.row, "finding": one.said} for one in found],
        ("seal", "row", "finding"),
        as_json=as_json,
        empty=f"{links} seals are whole" + ("" if source else "; no heads to compare with: a cut end cannot be seen"),
    )
    if loose:
        talk.print(f"{loose} rows of the last minutes are not sealed yet")
    if found:
        raise AuditBroken(
            f"{len(found)} things are wrong with the audit",
            remedy="Keep the database as it is, and find out who did it",
        )


def walk(engine: Engine, verifier: Verifier) -> tuple[list[Finding], int, int]:
    """What is wrong; how many seals there are; how many rows are not sealed yet."""
    found: list[Finding] = []
    with reading(engine) as connection:
        for link, rows in trail.links(connection):
            found += verifier.link(link, rows)
        found += verifier.end()
        found += [
            Finding(said=f"rows name seal {number}, which is missing", seal=number)
            for number in trail.orphans(connection)
            if number > verifier.number
        ]
        overdue = trail.count_unsealed(connection, now() - round(SEALED_WITHIN_S * 1e6))
        loose = trail.count_unsealed(connection, now())
        count = trail.count_links(connection)
    if overdue:
        found.append(Finding(said=f"{overdue} rows are older than {SEALED_WITHIN_S / 60:g} minutes and in no seal"))
    return found, count, loose


@audit.command("export", epilog="Example: isocenter audit export --to tls://audit.hospital.example:6514 --ca ca.pem")
def export(
    config: Config = DEFAULT_CONFIG,
    to: Annotated[str | None, typer.Option(help="udp://, tcp:// or tls://HOST:PORT of a repository")] = None,
    ca: Annotated[Path | None, typer.Option(help="Certificates that may sign the repository's")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only rows with a higher number")] = 0,
) -> None:
    """Audit messages of DICOM (PS3.15 A.5), one a row, to a repository by syslog, or on standard output."""
    from router import audit_message, syslog
    from router.config import load
    from router.db.node import node_id

    settings = load(config)
    engine = database(config)
    with writing(engine) as connection:
        trail.write(connection, who(), "audit.exported", after=after, to=to or "standard output")
    own = node_id(engine)

    def messages() -> Iterator[str]:
        with reading(engine) as connection:
            for row, patient in everything(connection, after):
                yield audit_message.xml(row, node_id=own, ae_title=settings.ae_title, patient=patient)

    if to is None:
        for message in messages():
            sys.stdout.write(f"{message}\n")
        return
    try:
        sent = syslog.send(to, messages(), kind=audit_message.KIND, ca_file=ca or settings.audit.syslog_ca_file)
    except (OSError, KeyError, ValueError) as error:
        raise NotSent(f"{to} does not take the messages: {error}", remedy="Look at the address and --ca") from error
    talk.print(f"{sent} messages sent")


def everything(connection: Connection, after: int) -> Iterator[tuple[Row, Any]]:
    """Every row after this one, with its patient where that is not forgotten."""
    while rows := trail.after(connection, after, PAGE):
        known = trail.patients(connection, [row.patient_key for row in rows if row.patient_key])
        for row in rows:
            yield row, known.get(row.patient_key or "")
        after = rows[-1].id
