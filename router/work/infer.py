"""Role `infer`: a claimed job becomes result sets and deliveries, in one transaction, or a reason why not.

The volume is read, the pipeline run and the objects built in a resident process of their own; this one only claims,
watches, keeps files and writes rows, so it never imports torch. Built again after a kill, objects have the same UIDs
and the same bytes: everything that goes into them is derived from the job's row and its inputs.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection

from dicom_sr import uids
from dicom_sr.kinds import Built
from dicom_sr.problem import Problem
from pipelines import catalog
from pipelines.spec import Spec
from router.db import audit, holdings, instances, jobs, results, studies
from router.db.engine import reading, writing
from router.db.instances import InstanceRow
from router.destinations import Profile
from router.domain.delivery import MeasurementRow, Result
from router.domain.job import Job, Lane, Outcome
from router.domain.study import identity_digest
from router.node import Node
from router.query.made import header_of
from router.work import outbox
from router.work.loop import Ending, InHand, Loop, Lost
from router.work.messages import Build, Failure, Naming, Run
from router.work.resident import INSIDE, Resident

log = structlog.get_logger()

RETRY_FIRST_S = 1.0
RETRY_CAP_S = 60.0

BUILD_LIMIT_S = 300.0
"""The longest that building one result set may take."""

SERIES_A_SET = 10
"""SeriesNumbers that are set aside for one result set."""

SETS_A_JOB = 8
"""Result sets for which a job has SeriesNumbers set aside."""


class OtherVersion(Problem):
    """The job wants a version of its pipeline that is not installed."""


class NewWish(Problem):
    """While the job ran, a rule came to want its results in a form that it has not built."""

    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """All that a job means, from one snapshot of the database."""

    spec: Spec
    rows: Sequence[InstanceRow]
    profiles: dict[str, Profile]
    series_numbers: dict[str, int]
    completeness: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSet:
    """A result set whose files are in the store already."""

    profile: str
    objects: tuple[tuple[Built, str], ...]
    """Each object with its path below the store's root."""


def serve(node: Node, stop: threading.Event, *, inside: Sequence[str] = INSIDE) -> None:
    """Run inference jobs until `stop` is set; the one in hand is finished first. `inside` starts the process.

    Raises:  ToldProblem, when the configured device is not there
    """
    settings = node.settings.inference
    with Resident(device=settings.device, threads=settings.threads, command=inside) as resident:
        resident.start()
        Loop(
            node=node,
            lane=Lane.INFER,
            work=lambda hand: infer(node, hand, resident),
            lease_s=settings.lease_s,
            retry_first_s=RETRY_FIRST_S,
            retry_cap_s=RETRY_CAP_S,
        ).serve(stop)


def infer(node: Node, hand: InHand, resident: Resident) -> Ending:
    """Run the job's pipeline and build every result set that is wanted.

    Raises:  Problem, Lost
    """
    job = hand.job
    assigned = assignment(node, job)
    request = Run(
        paths=tuple(node.store.path(row.path) for row in assigned.rows),
        pipeline=assigned.spec.name,
        settings=dict(job.settings or {}),
    )
    found = resident.run(request, hand, limit_s=assigned.spec.time_limit_s)
    if isinstance(found, Failure):
        return refusal(job, found)
    hand.progress("building", 1.0)
    kept = tuple(
        keep(node, canonical, resident.build(order(node, job, assigned, canonical), hand, limit_s=BUILD_LIMIT_S).built)
        for canonical in assigned.profiles
    )
    return Ending(
        outcome=Outcome.RESULT,
        record=lambda connection: record(connection, node, job, kept, found.measurements),
        rings=(Lane.DELIVER,),
    )


def assignment(node: Node, job: Job) -> Assignment:
    """What the job is to read and to make.

    Raises:  UnknownPipeline, OtherVersion, Lost (the series is not what it was when the job was made)
    """
    spec = catalog.find(job.pipeline or "").spec
    if spec.version != job.pipeline_version:
        raise OtherVersion(
            f"the job wants {spec.name} {job.pipeline_version}, installed is {spec.version}",
            remedy="Send the series again, or install the other version; results must say what made them",
        )
    series_instance_uid = job.series_instance_uid or ""
    with reading(node.engine) as connection:
        rows = instances.of_series(connection, job.study_instance_uid, series_instance_uid)
        study = studies.find(connection, job.study_instance_uid)
        profiles = outbox.profiles(connection, job)
        numbers = series_numbers(connection, job, tuple(profiles), node.settings.results.series_number_base)
    if uids.pixels_digest((row.sop_instance_uid, row.pixel_digest or "") for row in rows) != job.pixels_digest or (
        job.identity_digest and identity_digest(row.header for row in rows) != job.identity_digest
    ):
        with writing(node.engine) as connection:
            jobs.overtaken(connection, job, reason="the series has changed since; a newer job will read it")
        raise Lost(f"series {series_instance_uid} has changed since", remedy="A newer job will read it")
    witnesses = (study.witnesses if study else None) or {}
    return Assignment(
        spec=spec,
        rows=rows,
        profiles=profiles,
        series_numbers=numbers,
        completeness=str(witnesses.get("sentence") or "It is not known how the series was found to be complete."),
    )


def series_numbers(connection: Connection, job: Job, profiles: Sequence[str], base: int) -> dict[str, int]:
    """The first SeriesNumber of each result set: from `base` up, in the order of the study's jobs, past those in use.

    Two jobs of a study never get the same, however they overlap and however often they are tried.
    """
    taken = results.foreign_series_numbers(connection, job.study_instance_uid)
    first = jobs.earlier_in_study(connection, job) * SETS_A_JOB
    free: list[int] = []
    number = base
    while len(free) < first + len(profiles):
        if not taken & set(range(number, number + SERIES_A_SET)):
            free.append(number)
        number += SERIES_A_SET
    return dict(zip(profiles, free[first:], strict=True))


def order(node: Node, job: Job, assigned: Assignment, canonical: str) -> Build:
    """What the resident process needs to build one result set, the same at every attempt."""
    identity = job.identity_digest or identity_digest(row.header for row in assigned.rows)
    made_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=job.created_at)
    return Build(
        kinds=assigned.profiles[canonical].kinds,
        uid=Naming(
            node=node.node_id,
            input_digest=uids.input_digest(job.pixels_digest or "", identity),
            pipeline=assigned.spec.name,
            version=assigned.spec.version,
            weights=job.weights_digest or "none",
            settings=job.settings_digest or "",
            encoding=canonical,
            run=job.run,
        ),
        made_at=made_at.astimezone(ZoneInfo(node.settings.timezone)),
        series_number=assigned.series_numbers[canonical],
        completeness=assigned.completeness,
    )


def keep(node: Node, canonical: str, built: tuple[Built, ...]) -> KeptSet:
    """Put the objects into the store, durably, before any row speaks of them."""
    return KeptSet(profile=canonical, objects=tuple((one, node.store.keep(one.part10)) for one in built))


def record(
    connection: Connection, node: Node, job: Job, kept: Sequence[KeptSet], measurements: Sequence[MeasurementRow]
) -> None:
    """Results, numbers, deliveries and audit, in the transaction that finishes the job.

    Raises:  OtherBytes, NewWish
    """
    for one in kept:
        set_id = results.add_set(
            connection,
            job_id=job.id,
            profile=one.profile,
            study_instance_uid=job.study_instance_uid,
            generation=job.generation,
        )
        for ordinal, (built, path) in enumerate(one.objects):
            results.add(connection, row(built, set_id, ordinal, path))
            holdings.describe(connection, built.sop_instance_uid, header_of(built.part10))
    results.add_measurements(connection, job.id, measurements)
    made = outbox.plan(connection, job.id, max_attempts=node.settings.delivery.max_attempts)
    late = outbox.unbuilt(connection, job)
    if late:
        raise NewWish(f"meanwhile {', '.join(late)} came to want this, too", remedy="It is built at the next attempt")
    audit.write(
        connection,
        "infer",
        "results.produced",
        job.study_instance_uid,
        job=job.id,
        pipeline=job.pipeline,
        instances=[built.sop_instance_uid for one in kept for built, _ in one.objects],
        deliveries=made,
    )


def row(built: Built, set_id: int, ordinal: int, path: str) -> Result:
    """One kept object as its row."""
    return Result(
        sop_instance_uid=built.sop_instance_uid,
        result_set_id=set_id,
        ordinal=ordinal,
        kind=built.kind,
        sop_class_uid=built.sop_class_uid,
        series_instance_uid=built.series_instance_uid,
        path=path,
        digest=hashlib.sha256(built.part10).hexdigest(),
    )


def refusal(job: Job, why: Failure) -> Ending:
    """The job is done, and came to nothing, for a reason that people read."""
    reason = f"{why.what}. {why.remedy}"

    def note(connection: Connection) -> None:
        audit.write(
            connection, "infer", "run.refused", job.study_instance_uid, job=job.id, pipeline=job.pipeline, reason=reason
        )

    return Ending(outcome=Outcome.REFUSED, reason=reason, record=note)
