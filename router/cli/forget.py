"""`isocenter forget`: erase who a patient was, while the audit's chain stays whole."""

from typing import Annotated

import typer

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, Config, database, talk, who
from router.db import audit, forgetting
from router.db.engine import writing


class NotForgotten(Problem):
    """A patient cannot be forgotten (yet)."""


@app.command(epilog="Example: isocenter forget 4711 --yes")
def forget(
    patient: Annotated[str, typer.Argument(help="The PatientID")],
    config: Config = DEFAULT_CONFIG,
    issuer: Annotated[str | None, typer.Option(help="Only as this issuer's (IssuerOfPatientID)")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only say what would be erased")] = False,
) -> None:
    """Erase a patient: all files, and every identifier in the database; audit rows keep a key that nobody can read."""
    from router.config import load
    from router.store import Store

    settings = load(config)
    engine = database(config)
    store = Store(settings.storage.path)
    with writing(engine) as connection:
        keys = audit.keys_of(connection, patient, issuer)
        found = forgetting.studies_of(connection, patient, issuer)
        if not keys and not found:
            raise NotForgotten("no study and no audit row is about this PatientID", remedy="Look at its spelling")
        busy = forgetting.unfinished(connection, found)
        if busy:
            raise NotForgotten(
                f"{len(busy)} studies of this patient are still being worked on or delivered: {', '.join(busy[:3])}",
                remedy="Wait, or cancel their jobs with `isocenter jobs cancel`",
            )
        paths = forgetting.paths_of(connection, found)
        talk.print(f"{len(found)} studies, {len(paths)} files, {len(keys)} keys in the audit")
        if not yes:
            talk.print("Nothing was erased; say --yes")
            return
        for path in paths:
            store.discard(path)
        for study_instance_uid in found:
            audit.write(connection, who(), "patient.forgotten", study_instance_uid)
        forgetting.blank(connection, found)
        audit.erase(connection, audit.keys_of(connection, patient, issuer))
    talk.print("Forgotten. Backups and other machines may still know this patient")
