"""`isocenter jobs`: what runs, ran or failed, and a person's word in it."""

import getpass
from collections.abc import Callable
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, answer, clock, database, print_json, print_rows, talk
from router.db import jobs as queue
from router.db import receipts, results
from router.db.engine import reading, writing
from router.domain.job import Job, Lane, State
from router.wake import Bell

jobs = typer.Typer(help="What runs, ran or failed; retry, cancel, hold, release, re-run.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")

Number = Annotated[int, typer.Argument(help="The job's number, from `isocenter jobs list`")]


def summary(job: Job) -> dict[str, Any]:
    """A job's line: the same fields for people and programs."""
    return {
        "id": job.id,
        "lane": str(job.lane),
        "state": str(job.state),
        "outcome": job.outcome and str(job.outcome),
        "work": job.work,
        "study_instance_uid": job.study_instance_uid,
        "series_instance_uid": job.series_instance_uid,
        "generation": job.generation,
        "run": job.run,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "phase": job.phase,
        "percent": None if job.fraction is None else round(100 * job.fraction),
        "reason": job.reason,
        "problem": job.problem,
        "created": clock(job.created_at),
        "started": clock(job.started_at),
        "finished": clock(job.finished_at),
    }


def details(connection: Connection, job_id: int) -> dict[str, Any]:
    """Everything about one job: its line, settings, measurements, objects, and each destination's answers.

    Raises:  UnknownJob
    """
    job = queue.find(connection, job_id)
    if job is None:
        raise queue.UnknownJob(f"there is no job {job_id}", remedy="See `isocenter jobs list`")
    values = summary(job) | {"settings": job.settings, "pixels_digest": job.pixels_digest}
    if job.lane is Lane.INFER:
        values["measurements"] = [
            {"label": m.label, "name": m.name, "value": m.value, "unit": m.unit, "remark": m.remark}
            for m in results.measurements_of(connection, job_id)
        ]
        values["objects"] = [
            {"kind": one.kind, "sop_instance_uid": one.sop_instance_uid, "path": one.path}
            for result_set in results.sets_of_job(connection, job_id)
            for one in results.of_set(connection, result_set.id)
        ]
    else:
        values["receipts"] = receipts.of_job(connection, job_id)
    return values


@jobs.command("list", epilog="Example: isocenter jobs list --state failed")
def list_(
    config: Config = DEFAULT_CONFIG,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state")] = None,
    lane: Annotated[Lane | None, typer.Option(help="Only inference, builds or deliveries")] = None,
    study: Annotated[str | None, typer.Option(help="Only jobs of this StudyInstanceUID")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first")] = 100,
    as_json: AsJson = False,
) -> None:
    """Jobs, the newest first."""
    with reading(database(config)) as connection:
        found = queue.list_(connection, state=state, lane=lane, study_instance_uid=study, limit=limit)
    columns = ("id", "lane", "work", "state", "outcome", "percent", "attempt", "created", "reason")
    print_rows(map(summary, found), columns, as_json=as_json, empty="No jobs.")


@jobs.command("show", epilog="Example: isocenter jobs show 17")
def show(job_id: Number, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """One job: phase, attempts, reason, measurements, objects, and what each destination answered."""
    with reading(database(config)) as connection:
        values = details(connection, job_id)
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


def _command(config: Config, job_id: int, act: Callable[[Connection], object]) -> Job:
    """Do a person's act on a job and wake whoever may now work on it; the job as it is afterwards."""
    from router.config import load

    settings = load(config)
    with writing(database(config)) as connection:
        done = act(connection)
        found = queue.find(connection, done if isinstance(done, int) else job_id)
    assert found is not None
    Bell(settings.run_path / "wake").ring(str(found.lane))
    talk.print(f"job {found.id} is {found.state}")
    return found


def _who() -> str:
    """Who gives the command, for the audit."""
    return f"cli:{getpass.getuser()}"


@jobs.command("retry", epilog="Example: isocenter jobs retry 17")
def retry(job_id: Number, config: Config = DEFAULT_CONFIG) -> None:
    """Give a failed job all its attempts again."""
    _command(config, job_id, lambda connection: queue.revive(connection, job_id, who=_who()))


@jobs.command("cancel", epilog="Example: isocenter jobs cancel 17")
def cancel(job_id: Number, config: Config = DEFAULT_CONFIG) -> None:
    """End a job, also one that is running."""
    _command(config, job_id, lambda connection: queue.cancel(connection, job_id, who=_who()))


@jobs.command("hold", epilog="Example: isocenter jobs hold 17")
def hold(job_id: Number, config: Config = DEFAULT_CONFIG) -> None:
    """Keep a queued job from starting."""
    _command(config, job_id, lambda connection: queue.hold(connection, job_id, who=_who()))


@jobs.command("release", epilog="Example: isocenter jobs release 17")
def release(job_id: Number, config: Config = DEFAULT_CONFIG) -> None:
    """Let a held job go on."""
    _command(config, job_id, lambda connection: queue.release(connection, job_id, who=_who()))


@jobs.command("rerun", epilog="Example: isocenter jobs rerun 17")
def rerun(job_id: Number, config: Config = DEFAULT_CONFIG) -> None:
    """Do the same work once more as a new job, whose objects get UIDs of their own."""
    _command(config, job_id, lambda connection: queue.rerun(connection, job_id, who=_who()))
