"""`isocenter jobs`: what runs, ran or failed, and a person's word in it."""

from typing import Annotated

import typer

from router import views
from router.cli import app
from router.cli._common import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    answer,
    clock,
    database,
    print_json,
    print_rows,
    talk,
    who,
)
from router.cli._far import Far, Url
from router.db import commands
from router.db import jobs as queue
from router.db.engine import reading, writing
from router.domain.job import Lane, State
from router.wake import Bell

jobs = typer.Typer(help="What runs, ran or failed; retry, cancel, hold, release, re-run.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")

Number = Annotated[int, typer.Argument(help="The job's number, from `isocenter jobs list`")]
Why = Annotated[str, typer.Option(help="The reason, for the audit; name no patient")]


@jobs.command("list", epilog="Example: isocenter jobs list --state failed")
def list_(
    config: Config = DEFAULT_CONFIG,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state")] = None,
    lane: Annotated[Lane | None, typer.Option(help="Only inference, builds or deliveries")] = None,
    study: Annotated[str | None, typer.Option(help="Only jobs of this StudyInstanceUID")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first")] = 100,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Jobs, the newest first."""
    if url:
        rows = Far(url).get("jobs", state=state, lane=lane, study=study, limit=limit)
    else:
        with reading(database(config)) as connection:
            found = queue.list_(connection, state=state, lane=lane, study_instance_uid=study, limit=limit)
        rows = [views.job(one, clock) for one in found]
    columns = ("id", "lane", "work", "state", "outcome", "percent", "attempt", "created", "reason")
    print_rows(rows, columns, as_json=as_json, empty="No jobs.")


@jobs.command("show", epilog="Example: isocenter jobs show 17")
def show(job_id: Number, config: Config = DEFAULT_CONFIG, as_json: AsJson = False, url: Url = None) -> None:
    """One job: phase, attempts, reason, measurements, objects, and what each destination answered."""
    if url:
        values = Far(url).get(f"jobs/{job_id}")
    else:
        with reading(database(config)) as connection:
            values = views.job_in_full(connection, job_id, clock)
    if as_json:
        print_json(values)
        return
    lists = ("measurements", "objects", "receipts")
    for key, value in values.items():
        if key not in lists and value is not None and value != "":
            answer.print(f"{key.replace('_', ' ')}: {value}", markup=False, soft_wrap=True)
    for key in lists:
        if values.get(key):
            answer.print(f"\n{key}:")
            print_rows(values[key], tuple(values[key][0]), as_json=False, empty="")


VERBS: dict[commands.Command, str] = {
    commands.revive: "retry", commands.cancel: "cancel", commands.hold: "hold", commands.release: "release",
    commands.rerun: "rerun",
}  # fmt: skip
"""What the API calls them."""


def _command(config: Config, job_id: int, act: commands.Command, why: str, url: str | None) -> None:
    """Tell a job a person's word and wake whoever may now work on it."""
    if url:
        done = Far(url).post(f"jobs/{job_id}/{VERBS[act]}", reason=why)
        talk.print(f"job {done['id']} is {done['state']}")
        return
    from router.config import load

    settings = load(config)
    with writing(database(config)) as connection:
        done = act(connection, job_id, who=who(), why=why)
        found = queue.find(connection, done if isinstance(done, int) else job_id)
    assert found is not None
    Bell(settings.run_path / "wake").ring(str(found.lane))
    talk.print(f"job {found.id} is {found.state}")


@jobs.command("retry", epilog="Example: isocenter jobs retry 17")
def retry(job_id: Number, config: Config = DEFAULT_CONFIG, why: Why = "", url: Url = None) -> None:
    """Give a failed job all its attempts again."""
    _command(config, job_id, commands.revive, why, url)


@jobs.command("cancel", epilog="Example: isocenter jobs cancel 17")
def cancel(job_id: Number, config: Config = DEFAULT_CONFIG, why: Why = "", url: Url = None) -> None:
    """End a job, also one that is running."""
    _command(config, job_id, commands.cancel, why, url)


@jobs.command("hold", epilog="Example: isocenter jobs hold 17")
def hold(job_id: Number, config: Config = DEFAULT_CONFIG, why: Why = "", url: Url = None) -> None:
    """Keep a queued job from starting."""
    _command(config, job_id, commands.hold, why, url)


@jobs.command("release", epilog="Example: isocenter jobs release 17")
def release(job_id: Number, config: Config = DEFAULT_CONFIG, why: Why = "", url: Url = None) -> None:
    """Let a held job go on."""
    _command(config, job_id, commands.release, why, url)


@jobs.command("rerun", epilog="Example: isocenter jobs rerun 17")
def rerun(job_id: Number, config: Config = DEFAULT_CONFIG, why: Why = "", url: Url = None) -> None:
    """Do the same work once more as a new job, whose objects get UIDs of their own."""
    _command(config, job_id, commands.rerun, why, url)
