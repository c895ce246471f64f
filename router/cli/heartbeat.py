"""`isocenter heartbeat`: a phantom of known volume goes from door to door, and its number must come back."""

import time
from typing import Annotated, Any

import typer

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows, talk, who
from router.db import beats as store
from router.db.beats import Beat
from router.db.engine import now, reading, writing

beat = typer.Typer(help="Whether the whole node works: a phantom goes from door to door.", no_args_is_help=True)
app.add_typer(beat, name="heartbeat")

LOOK_S = 0.5
GRACE_S = 60.0
"""How long after a cycle's deadline role tick may still say how it ended."""


class NoHeartbeat(Problem):
    """The heartbeat's phantom has not come back, or there is nobody who could send it."""


@beat.command("now", epilog="Example: isocenter heartbeat now")
def now_(config: Config = DEFAULT_CONFIG) -> None:
    """Send the phantom now and wait until it is back; exits 1 when it is not, and names the stage."""
    from uuid import uuid4

    from router.config import load

    wanted, engine = load(config).heartbeat, database(config)
    with writing(engine) as connection:
        going = store.going_on(connection)
        uid = going.study_instance_uid if going else f"2.25.{uuid4().int}"
        store.begin(connection, uid, asked_by=who(), folder=wanted.folder, deadline_s=wanted.deadline_s)
    while True:
        with reading(engine) as connection:
            found = next(one for one in store.list_(connection) if one.study_instance_uid == uid)
        if found.ended_at is not None:
            break
        if now() > found.deadline_at + GRACE_S * 1_000_000:
            raise NoHeartbeat("nobody has looked at the phantom", remedy="Start `isocenter serve` (role tick)")
        time.sleep(LOOK_S)
    took_s = (found.ended_at - found.began_at) / 1e6
    if found.stage is not None:
        raise NoHeartbeat(
            f"the phantom did not get past {found.stage}: {found.what}",
            remedy="`isocenter alerts list` says what to do",
        )
    talk.print(f"The phantom came through in {took_s:.1f} s: {found.volume_ml:.2f} ml, as was sent")


@beat.command("list", epilog="Example: isocenter heartbeat list --limit 5")
def list_(
    config: Config = DEFAULT_CONFIG,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first")] = 20,
    as_json: AsJson = False,
) -> None:
    """The last cycles and how they ended, the newest first."""
    with reading(database(config)) as connection:
        found = store.list_(connection, limit=limit)
    columns = ("began", "asked_by", "result", "seconds", "volume_ml", "what")
    print_rows(map(row, found), columns, as_json=as_json, empty="No heartbeat yet.")


def row(one: Beat) -> dict[str, Any]:
    """One cycle's line."""
    ended = one.ended_at is not None
    return {
        "study_instance_uid": one.study_instance_uid,
        "began": clock(one.began_at),
        "asked_by": one.asked_by,
        "result": ("right" if one.stage is None else f"broken: {one.stage}") if ended else "goes on",
        "seconds": round((one.ended_at - one.began_at) / 1e6, 1) if one.ended_at is not None else None,
        "volume_ml": one.volume_ml,
        "what": one.what,
    }
