"""What becomes of the results of an earlier run when its series has changed: which somebody has, and what is said."""

from collections.abc import Collection, Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from dicom_sr.kinds import NOTE, Replaced, Supersedes
from router.db import jobs, results, studies
from router.domain import supersede
from router.domain.delivery import Result
from router.domain.job import Job
from router.node import Node

MOST_RUNS = 10_000


def before(connection: Connection, job: Job, *, profile: str | None = None) -> tuple[Job, list[tuple[str, Result]]]:
    """The newest earlier run of this work whose results somebody has taken, and those with their destinations.

    Of a run that has none before it the run itself is given, with nothing taken.
    """
    runs = jobs.list_(connection, study_instance_uid=job.study_instance_uid, limit=MOST_RUNS)
    for run in supersede.earlier(job, runs):
        taken = results.delivered_of(connection, run.id)
        if taken:
            return run, results.delivered_of(connection, run.id, profile=profile) or taken
    return job, []


def where_it_was(connection: Connection, job: Job, *, profile: str) -> tuple[Job, list[tuple[str, Result]]]:
    """The newest run of this work on the same images in another series or study whose results somebody has taken.

    An image is in one study only, so they were all moved here.
    """
    for run in jobs.on_same_images(connection, job):
        taken = results.delivered_of(connection, run.id)
        if taken:
            return run, results.delivered_of(connection, run.id, profile=profile) or taken
    return job, []


def told(
    connection: Connection, node: Node, job: Job, profile: str, *, rejecting: Collection[str] = ()
) -> Supersedes | None:
    """What the objects of this run, in this profile, say of the ones whose place they take.

    `rejecting` are the destinations that get them and want a note with them that rejects the old ones.
    """
    run, taken = before(connection, job, profile=profile)
    if not taken:
        run, taken = where_it_was(connection, job, profile=profile)
    if not taken:
        return None
    at = datetime.fromtimestamp((run.finished_at or run.created_at) / 1e6, ZoneInfo(node.settings.timezone))
    return Supersedes(
        change=f"Supersedes the result of {at:%Y-%m-%d %H:%M}: {supersede.change(job, run)}.",
        correction=supersede.is_correction(job, run),
        objects=replaced(run, taken),
        rejected=rejected(connection, job, rejecting),
    )


def rejected(connection: Connection, job: Job, rejecting: Collection[str]) -> tuple[Replaced, ...]:
    """The newest objects that one of these destinations has of an earlier run; those before are rejected already."""
    if not rejecting:
        return ()
    runs = jobs.list_(connection, study_instance_uid=job.study_instance_uid, limit=MOST_RUNS)
    for run in supersede.earlier(job, runs):
        taken = [(name, one) for name, one in results.delivered_of(connection, run.id) if name in rejecting]
        if taken:
            return replaced(run, taken)
    return ()


def replaced(run: Job, taken: Iterable[tuple[str, Result]]) -> tuple[Replaced, ...]:
    """What was taken of a run, each object once; a note that rejected others is no result."""
    objects = {
        one.sop_instance_uid: Replaced(
            study_instance_uid=run.study_instance_uid,
            series_instance_uid=one.series_instance_uid,
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
        )
        for _, one in taken
        if one.kind != NOTE
    }
    return tuple(objects.values())


def held_for(connection: Connection, job: Job) -> dict[str, str]:
    """Destinations whose delivery of this run is for a person to release, and why.

    They have the same images' results under the identity before a correction. Whoever has corrected it there has
    mostly corrected our results with it, so that sending others unasked would make two of them.
    """
    run, taken = before(connection, job)
    if not taken or not supersede.is_correction(job, run):
        return {}
    why = f"has the results of job {run.id} under the data before a correction; release this one to send corrected ones"
    return {name: f"{name} {why}" for name, _ in taken}


def turn_stale(
    connection: Connection,
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    pixels_digest: str | None,
    fresh: set[int],
) -> list[Job]:
    """Runs on what the series no longer is are stale, what follows of them ends, and what was delivered is shown.

    `pixels_digest` is None where the series has no image any more. Gives the runs that were not stale before.
    """
    turned = jobs.turn_stale(
        connection, study_instance_uid=study_instance_uid, series_instance_uid=series_instance_uid, fresh=fresh
    )
    for run in turned:
        names = sorted({name for name, _ in results.delivered_of(connection, run.id)})
        if names:
            corrected = run.pixels_digest == pixels_digest
            text = (
                moved_away(run, names)
                if pixels_digest is None
                else shown(run, names, corrected=corrected, follows=bool(fresh))
            )
            studies.attend(connection, study_instance_uid, text)
    return turned


def moved_away(run: Job, names: Collection[str]) -> str:
    """What a person is asked to look at where a series has lost all its images."""
    return (
        f"{', '.join(names)} took results of job {run.id} ({run.work}), all images of their series were moved to "
        "another series or study since; nothing takes their place here"
    )


def shown(run: Job, names: Collection[str], *, corrected: bool, follows: bool) -> str:
    """What a person is asked to look at."""
    why = "patient or study data were corrected since" if corrected else "the series has changed since"
    then = (
        "no rule wants new ones"
        if not follows
        else "corrected ones are held for you to release"
        if corrected
        else "newer ones supersede them"
    )
    return f"{', '.join(names)} took results of job {run.id} ({run.work}), {why}; {then}"
