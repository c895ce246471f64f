"""Role `infer`: a claimed job becomes result sets and deliveries, in one transaction, or a reason why not.

The volume is read, the pipeline run and the objects built in a resident process of their own; this one only claims,
watches, keeps files and writes rows, so it never imports torch. Built again after a kill, objects have the same UIDs
and the same bytes: everything that goes into them is derived from the job's row and its inputs.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from dicom_sr.kinds import Supersedes
from dicom_sr.problem import Problem
from pipelines import catalog
from pipelines.spec import Spec
from router.db import audit, findings, results
from router.db.engine import reading, writing
from router.db.findings import Kept
from router.db.instances import InstanceRow
from router.destinations import Profile
from router.domain import audit as audited
from router.domain.delivery import MeasurementRow
from router.domain.job import Job, Lane, Outcome
from router.domain.rules import Priority
from router.node import Node
from router.work import outbox, sets, supersede
from router.work.build import intact
from router.work.loop import Ending, InHand, Loop
from router.work.messages import Failure, Found, Recall, Run, ToldProblem
from router.work.resident import INSIDE, LOOK_S, Resident
from router.work.sets import KeptSet

log = structlog.get_logger()

RETRY_FIRST_S = 1.0
RETRY_CAP_S = 60.0

BUILD_LIMIT_S = 300.0
"""The longest that building one result set may take."""


class OtherVersion(Problem):
    """The job wants a version of its pipeline that is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """All that a job means, from one snapshot of the database."""

    spec: Spec
    rows: Sequence[InstanceRow]
    profiles: dict[str, Profile]
    series_numbers: dict[str, int]
    supersedes: dict[str, Supersedes | None]
    """What each result set takes the place of."""
    completeness: str
    kept: Kept | None
    """What an earlier attempt, or the same work under another identity, has found."""


def serve(node: Node, stop: threading.Event, *, inside: Sequence[str] = INSIDE) -> None:
    """Run inference jobs until `stop` is set; the one in hand is finished first. `inside` starts the process.

    Raises:  ToldProblem, when the configured device is not there
    """
    settings = node.settings.inference
    with (
        Resident(device=settings.device, threads=settings.threads, command=inside) as resident,
        Resident(device=settings.device, threads=settings.threads, command=inside) as beside,
    ):
        resident.start()
        turns = Turns(node, resident, beside)
        Loop(
            node=node,
            lane=Lane.INFER,
            work=turns.take,
            overtaking=1,
            lease_s=settings.lease_s,
            retry_first_s=RETRY_FIRST_S,
            retry_cap_s=RETRY_CAP_S,
        ).serve(stop)


class Turns:
    """Whose turn it is on the device: one job at a time, but a stat job does not wait for one that is none.

    The overtaken job's process stands still and keeps all it has; the stat job runs in a process of its own, which is
    started when it is first needed.
    """

    def __init__(self, node: Node, resident: Resident, beside: Resident) -> None:
        self.node, self.resident, self.beside = node, resident, beside
        self.free = threading.Lock()
        self.priority = 0
        """Of the job that has the resident process."""

    def take(self, hand: InHand) -> Ending:
        """Run the job when it may.

        Raises:  Problem, Lost
        """
        wait_s = 0.0
        while not self.free.acquire(timeout=wait_s):
            wait_s = LOOK_S
            hand.check()
            if hand.job.priority <= Priority.STAT < self.priority:
                with self.resident.standing_still():
                    return infer(self.node, hand, self.beside)
        try:
            self.priority = hand.job.priority
            return infer(self.node, hand, self.resident)
        finally:
            self.free.release()


def infer(node: Node, hand: InHand, resident: Resident) -> Ending:
    """Run the job's pipeline, unless its findings are kept already, and build every result set that is wanted.

    Raises:  Problem, Lost
    """
    job = hand.job
    assigned = assignment(node, job)
    found = recalled(node, assigned, hand, resident) or resident.run(
        Run(
            paths=sets.paths(node, assigned.rows),
            pipeline=assigned.spec.name,
            settings=dict(job.settings or {}),
            policy=node.settings.inference.policy,
        ),
        hand,
        limit_s=assigned.spec.time_limit_s,
    )
    if isinstance(found, Failure):
        return refusal(job, found)
    kept = keep(node, job, assigned, found.findings)
    hand.progress("building", 1.0)
    made = []
    for canonical, profile in assigned.profiles.items():
        number = assigned.series_numbers[canonical]
        order = sets.order(
            node,
            job,
            kept,
            profile=profile,
            rows=assigned.rows,
            series_number=number,
            supersedes=assigned.supersedes[canonical],
        )
        with sets.looked_over(node, job):
            built = resident.build(order, hand, limit_s=BUILD_LIMIT_S).built
        made.append(sets.keep(node, canonical, built))
    return Ending(
        outcome=Outcome.RESULT,
        record=lambda connection: record(connection, node, job, made, found.measurements),
        rings=(Lane.DELIVER, Lane.BUILD),
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
    rows = sets.inputs(node, job, job)
    with reading(node.engine) as connection:
        profiles = outbox.profiles(connection, job)
        numbers = sets.series_numbers(connection, job, range(len(profiles)), node.settings.results.series_number_base)
        kept = findings.of_same_work(connection, job)
        supersedes = {
            one: supersede.told(connection, node, job, one, rejecting=outbox.rejecting(connection, job, one))
            for one in profiles
        }
    with writing(node.engine) as connection:  # before the first byte is read
        audit.write(
            connection,
            "infer",
            "series.read",
            job.study_instance_uid,
            job=job.id,
            series=job.series_instance_uid,
            instances=len(rows),
            attempt=job.attempt,
        )
    return Assignment(
        spec=spec,
        rows=rows,
        profiles=profiles,
        series_numbers=dict(zip(profiles, numbers, strict=True)),
        supersedes=supersedes,
        completeness=job.completeness or "It is not known how the series was found to be complete.",
        kept=kept,
    )


def recalled(node: Node, assigned: Assignment, hand: InHand, resident: Resident) -> Found | None:
    """What the same work has found before; None where that is not to be had, so that the pipeline must run."""
    if assigned.kept is None or not intact(node, assigned.kept):
        return None
    request = Recall(
        paths=sets.paths(node, assigned.rows),
        findings=node.store.path(assigned.kept.path),
        policy=node.settings.inference.policy,
    )
    try:
        found = resident.run(request, hand, limit_s=BUILD_LIMIT_S)
    except ToldProblem as problem:
        log.warning("findings.not_recalled", findings_of=assigned.kept.job_id, problem=problem.name)
        return None
    assert isinstance(found, Found)
    log.info("findings.recalled", findings_of=assigned.kept.job_id)
    return found


def keep(node: Node, job: Job, assigned: Assignment, content: bytes) -> Kept:
    """Keep what the run found, durably, so that whatever comes next needs no other run; as it was kept first."""
    if assigned.kept is not None and assigned.kept.job_id == job.id and intact(node, assigned.kept):
        return assigned.kept
    kept = Kept(
        job_id=job.id,
        path=node.store.keep(content, suffix=".findings"),
        digest=hashlib.sha256(content).hexdigest(),
        title=assigned.spec.title,
        research=assigned.spec.research_use,
        completeness=assigned.completeness,
    )
    with writing(node.engine) as connection:
        findings.keep(connection, kept)
    return kept


def record(
    connection: Connection, node: Node, job: Job, made: Sequence[KeptSet], measurements: Sequence[MeasurementRow]
) -> None:
    """Results, numbers, deliveries and audit, in the transaction that finishes the job.

    A form that a rule came to want meanwhile is a job of its own.

    Raises:  OtherBytes
    """
    for one in made:
        sets.record(connection, job, one)
    results.add_measurements(connection, job.id, measurements)
    deliveries = outbox.plan(connection, job.id, max_attempts=node.settings.delivery.max_attempts)
    audit.write(
        connection,
        "infer",
        "results.produced",
        job.study_instance_uid,
        job=job.id,
        pipeline=job.pipeline,
        instances=[built.sop_instance_uid for one in made for built, _ in one.objects],
        deliveries=deliveries,
    )


def refusal(job: Job, why: Failure) -> Ending:
    """The job is done, and came to nothing, for a reason that people read."""
    reason = f"{why.what}. {why.remedy}"

    def note(connection: Connection) -> None:
        audit.write(
            connection,
            "infer",
            "run.refused",
            job.study_instance_uid,
            job=job.id,
            outcome=audited.Outcome.REFUSED,
            pipeline=job.pipeline,
            reason=reason,
        )

    return Ending(outcome=Outcome.REFUSED, reason=reason, record=note)
