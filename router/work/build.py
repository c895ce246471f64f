"""Role `build`: a result set in a further profile from the kept findings of a run, without running anything again.

A destination whose profile was added or changed after the run gets its set here, as does one that refuses what its
profile says, and a note alone about a run whose images have gone (`router.work.notes`). The objects get their own UIDs,
since the profile is part of them. No torch comes into this process.
"""

import hashlib
import threading
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import BytesIO
from zoneinfo import ZoneInfo

import pydicom
from pydicom.dataset import Dataset
from sqlalchemy import Connection

from dicom_sr import check, kept, result_set, source
from dicom_sr.kinds import NOTE, rejection_note
from dicom_sr.nouns import Findings
from dicom_sr.problem import Problem
from dicom_sr.source import SourceSeries
from router.db import audit, findings, jobs, results
from router.db.engine import reading
from router.destinations import Profile
from router.domain.delivery import Result, note_for
from router.domain.job import Job, Lane, Outcome
from router.domain.rules import Priority
from router.node import Node
from router.work import outbox, sets, supersede
from router.work.loop import Ending, InHand, Loop

LEASE_S = 60.0
MOVED = "The images of these results were moved to another series or study"


class FindingsGone(Problem):
    """The kept findings of a run are not in the store, or not as they were kept."""


class NothingToReject(Problem):
    """A note was asked for, and of the objects that it is about none lies in the store any more."""


def serve(node: Node, stop: threading.Event) -> None:
    """Build until `stop` is set; the set in hand is finished first."""
    Loop(
        node=node,
        lane=Lane.BUILD,
        work=lambda hand: build(node, hand),
        lease_s=LEASE_S,
        retry_first_s=1.0,
        retry_cap_s=60.0,
    ).serve(stop)


def build(node: Node, hand: InHand) -> Ending:
    """Build the result set that the job names.

    Raises:  Problem, Lost
    """
    job = hand.job
    if note_for(job.profile) is not None:
        return note(node, job)
    with reading(node.engine) as connection:
        of = jobs.find(connection, job.findings_job_id or 0)
        noted = findings.find(connection, job.findings_job_id or 0)
        if of is None or noted is None:
            raise FindingsGone(
                f"job {job.findings_job_id} has kept no findings",
                remedy=f"Re-run it: `isocenter jobs rerun {job.findings_job_id}`",
            )
        place, base = place_of(connection, job), node.settings.results.series_number_base
        (series_number,) = sets.series_numbers(connection, of, [place], base)
        canonical = job.profile or "{}"
        rejecting = outbox.rejecting(connection, of, canonical)
        supersedes = supersede.told(connection, node, of, canonical, rejecting=rejecting)
    rows = sets.inputs(node, job, of)
    profile = Profile.model_validate_json(job.profile or "{}")
    hand.progress("reading", 0.0)
    series = source.read(sets.paths(node, rows), policy=node.settings.inference.policy)
    found = recalled(node, noted, series)
    hand.progress("building", 0.2)
    order = sets.order(node, of, noted, profile=profile, rows=rows, series_number=series_number, supersedes=supersedes)
    with sets.looked_over(node, job):
        made = result_set.build(order.kinds, order.order(found, series))
    built = sets.keep(node, profile.canonical(), made)
    return Ending(
        outcome=Outcome.RESULT,
        record=lambda connection: record(connection, node, job, of, built),
        rings=(Lane.DELIVER,),
    )


def recalled(node: Node, noted: findings.Kept, series: SourceSeries) -> Findings:
    """The findings of a run from the store.

    Raises:  FindingsGone, UnreadableFindings, OtherSeries
    """
    if not intact(node, noted):
        raise FindingsGone(
            f"the findings of job {noted.job_id} are damaged or gone from the store",
            remedy=f"Re-run it: `isocenter jobs rerun {noted.job_id}`",
        )
    return kept.unpack(node.store.path(noted.path).read_bytes(), series)


def intact(node: Node, noted: findings.Kept) -> bool:
    """Whether the kept file is there as it was kept."""
    try:
        return hashlib.sha256(node.store.path(noted.path).read_bytes()).hexdigest() == noted.digest
    except FileNotFoundError:
        return False


def place_of(connection: Connection, job: Job) -> int:
    """Which of the run's result sets this is: after those of the run itself, in the order of the build jobs."""
    builds = jobs.builds_of(connection, job.findings_job_id or 0)
    later = {one.profile for one in builds}
    first = [one for one in results.sets_of_job(connection, job.findings_job_id or 0) if one.profile not in later]
    return len(first) + sum(one.id < job.id for one in builds)


def record(connection: Connection, node: Node, job: Job, of: Job, built: sets.KeptSet) -> None:
    """Results, deliveries and audit, in the transaction that finishes the job.

    Raises:  OtherBytes
    """
    sets.record(connection, of, built)
    made = outbox.plan(connection, of.id, max_attempts=node.settings.delivery.max_attempts)
    audit.write(
        connection,
        "build",
        "results.built",
        job.study_instance_uid,
        job=job.id,
        findings_of=of.id,
        instances=[one.sop_instance_uid for one, _ in built.objects],
        deliveries=made,
    )


def note(node: Node, job: Job) -> Ending:
    """Build the note that the job names, about what its destination has of a run.

    Raises:  NothingToReject, GateClosed
    """
    destination, profile = note_for(job.profile) or "", job.profile or ""
    with reading(node.engine) as connection:
        of = jobs.find(connection, job.findings_job_id or 0)
        assert of is not None
        place, base = place_of(connection, job), node.settings.results.series_number_base
        (series_number,) = sets.series_numbers(connection, of, [place], base)
        taken = [one for name, one in results.delivered_of(connection, of.id) if name == destination]
        asked_at = min(one.created_at for one in jobs.builds_of(connection, of.id) if one.profile == profile)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=asked_at)
    made = rejection_note.alone(
        an_object(node, of, taken),
        supersede.replaced(of, [(destination, one) for one in taken]),
        description=MOVED,
        uid=sets.naming(node, of, of.identity_digest or "", profile),
        made_at=moment.astimezone(ZoneInfo(node.settings.timezone)),
        series_number=series_number,
        weights_digest=of.weights_digest,
    )
    faults = check.inspect([pydicom.dcmread(BytesIO(made.part10))], places=[NOTE])
    if faults:
        raise check.GateClosed(faults)
    built = sets.keep(node, profile, (made,))
    return Ending(
        outcome=Outcome.RESULT,
        record=lambda connection: record_note(connection, node, job, of, built),
        rings=(Lane.DELIVER,),
    )


def an_object(node: Node, of: Job, taken: Iterable[Result]) -> Dataset:
    """One of these objects as it was sent, less its pixels.

    Raises:  NothingToReject
    """
    for one in taken:
        with suppress(FileNotFoundError):
            return pydicom.dcmread(node.store.path(one.path), stop_before_pixels=True)
    raise NothingToReject(
        f"no object of job {of.id} lies in the store any more",
        remedy="Reject its results at the destination by hand",
    )


def record_note(connection: Connection, node: Node, job: Job, of: Job, built: sets.KeptSet) -> None:
    """The note, its delivery and audit, in the transaction that finishes the job.

    Raises:  OtherBytes
    """
    sets.record(connection, of, built)
    (made,) = [one for one in results.sets_of_job(connection, of.id) if one.profile == built.profile]
    delivery, _ = jobs.add_delivery(
        connection,
        study_instance_uid=of.study_instance_uid,
        generation=of.generation,
        result_set_id=made.id,
        destination=note_for(built.profile) or "",
        priority=Priority.STAT,
        max_attempts=node.settings.delivery.max_attempts,
    )
    audit.write(
        connection,
        "build",
        "results.rejected",
        job.study_instance_uid,
        job=job.id,
        findings_of=of.id,
        instances=[one.sop_instance_uid for one, _ in built.objects],
        deliveries=[delivery],
    )
