"""The role decide: when is a study complete, what do the rules say to it, and which runs follow.

Everything is worked out from a snapshot first; then one short transaction writes generation, facts, decisions, jobs
and audit, if the study is still as it was seen. What has changed meanwhile is simply looked at again.
"""

import hashlib
import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from dicom_sr.problem import Problem
from dicom_sr.uids import pixels_digest
from pipelines import catalog
from pipelines.spec import Spec, UnknownPipeline, freeze
from router import examine, rulebook
from router.db import audit, decisions, evidence, instances, jobs, revisions, studies
from router.db.engine import now, reading, writing
from router.db.instances import InstanceRow
from router.db.revisions import Kind
from router.domain.completeness import SECOND, Complete, Policy, Stuck, Wait, decide
from router.domain.facts import Fact
from router.domain.routing import Judged, judge_study
from router.domain.rules import Rule, Verdict
from router.domain.study import Study, mixed_patients
from router.node import Node
from router.wake import Ear

log = structlog.get_logger()

TOPIC = "decide"
SAFETY_NET_S = 30.0
"""An idle decide looks by itself this often."""

PACE_S = 0.05
"""Rings that come closer together than this count as one: a sender rings with every instance."""

TROUBLE_S = 30.0
"""A study whose decision failed is tried again after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A pipeline on one series, as a job will be known by it."""

    series_instance_uid: str
    pixels_digest: str
    spec: Spec
    settings: dict[str, Any]
    settings_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One decision to be written, and the run that it asks for."""

    judged: Judged
    pipeline: str
    verdict: Verdict
    run: Run | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that completing a study means."""

    witnesses: dict[str, Any]
    revision: int
    facts: dict[str, dict[str, Fact]]
    digests: dict[str, str]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """What arrived changed nothing that is read: the study is as complete as before."""


Outcome = Wait | Stuck | Unchanged | Plan


class Book:
    """The rules and sources in force, parsed once a revision."""

    def __init__(self) -> None:
        self.rules: tuple[int, tuple[Rule, ...]] = (0, ())
        self.sources: tuple[int, tuple[rulebook.Source, ...]] = (0, ())

    def refresh(self, connection: Connection) -> None:
        """Take up what was imported meanwhile.

        Raises:  UnknownRevision, WrongRulebook
        """
        found = revisions.current(connection, Kind.RULES)
        if found.number != self.rules[0]:
            self.rules = (found.number, rulebook.rules(found.body))
        found = revisions.current(connection, Kind.SOURCES)
        if found.number != self.sources[0]:
            self.sources = (found.number, rulebook.sources(found.body))

    def policy(self, node: Node, calling_ae_title: str) -> Policy:
        """How long to wait for this sender."""
        usual = node.settings.completeness
        mine = [source for source in self.sources[1] if source.ae_title == calling_ae_title]
        quiet = next((one.quiet_period_s for one in mine if one.quiet_period_s is not None), usual.quiet_period_s)
        deadline = next((one.deadline_s for one in mine if one.deadline_s is not None), usual.deadline_s)
        return Policy(quiet=round(quiet * SECOND), deadline=round(deadline * SECOND))


def serve(node: Node, stop: threading.Event) -> None:
    """Decide on studies as they become complete, until `stop` is set."""
    book = Book()
    with Ear(node.wake_folder, TOPIC) as ear:
        while not stop.is_set():
            try:
                wait_s = turn(node, book)
            except (SQLAlchemyError, Problem) as error:
                log.error("decide.stalled", error=type(error).__name__)
                wait_s = 1.0
            ear.wait(wait_s)
            stop.wait(PACE_S)


def turn(node: Node, book: Book) -> float:
    """Look at every study that is due; seconds until the next one is."""
    with reading(node.engine) as connection:
        due = studies.due(connection, now())
        if due:
            book.refresh(connection)
    for study in due:
        with structlog.contextvars.bound_contextvars(study=study.study_instance_uid):
            settle(node, book, study)
    with reading(node.engine) as connection:
        following = studies.next_decide_at(connection)
    return SAFETY_NET_S if following is None else min(SAFETY_NET_S, max(0.0, (following - now()) / SECOND))


def settle(node: Node, book: Book, study: Study) -> None:
    """Decide on one study and make it so."""
    begun = time.monotonic()
    try:
        outcome = work_out(node, book, study, now())
    except Problem as problem:
        log.error("study.undecided", problem=type(problem).__name__, reason=str(problem))
        outcome = Wait(until=now() + round(TROUBLE_S * SECOND), reason=str(problem))
    with writing(node.engine) as connection:
        if isinstance(outcome, Wait):
            studies.postpone(connection, study, outcome.until)
            return
        if studies.lock(connection, study.study_instance_uid) != study:
            return  # something arrived meanwhile: it is due again
        made = write(connection, node, study, outcome)
    for topic in made:
        node.bell.ring(topic)
    log.info(
        "study.held" if isinstance(outcome, Stuck) else "study.complete",
        unchanged=isinstance(outcome, Unchanged),
        took_ms=round((time.monotonic() - begun) * 1000),
        **(
            {"decisions": len(outcome.answers), "witness": outcome.witnesses["witness"]}
            if isinstance(outcome, Plan)
            else {"reason": outcome.reason}
            if isinstance(outcome, Stuck)
            else {}
        ),
    )


def work_out(node: Node, book: Book, study: Study, at: int) -> Outcome:
    """What is to happen with this study, from one snapshot of the database and the files.

    Raises:  Problem
    """
    policy = book.policy(node, study.calling_ae_title)
    with reading(node.engine) as connection:
        seen = evidence.of(connection, study)
        verdict = decide(seen, policy, at)
        if not isinstance(verdict, Complete):
            return verdict
        rows = instances.of_study(connection, study.study_instance_uid)
        shared = studies.other_studies_with(
            connection, study.study_instance_uid, sorted({row.series_instance_uid for row in rows})
        )
    inputs = inputs_digest(rows)
    if not rows or (study.witnesses or {}).get("inputs") == inputs:
        return Unchanged()
    trouble = mixed_patients(map(identity, rows)) or in_two_studies(shared)
    if trouble:
        return Stuck(reason=trouble)
    number, rules = book.rules
    facts = facts_of(node, study, rows, rules)
    verdict = decide(replace(seen, gaps=gaps_in(facts.values())), policy, at)
    return plan(rows, facts, number, rules, verdict, inputs) if isinstance(verdict, Complete) else verdict


def gaps_in(series: Iterable[Mapping[str, Fact]]) -> int:
    """How many series have slices missing between others."""
    return sum(bool(facts["slice_gaps"].highest) for facts in series if "slice_gaps" in facts)


def plan(
    rows: Sequence[InstanceRow],
    facts: dict[str, dict[str, Fact]],
    number: int,
    rules: tuple[Rule, ...],
    verdict: Complete,
    inputs: str,
) -> Plan:
    """Every rule's answer with the run that it asks for."""
    digests = {
        uid: pixels_digest(
            (row.sop_instance_uid, row.pixel_digest or "") for row in rows if row.series_instance_uid == uid
        )
        for uid in facts
    }
    return Plan(
        witnesses={**verdict.as_json(), "inputs": inputs},
        revision=number,
        facts=facts,
        digests=digests,
        answers=tuple(answer for judged in judge_study(rules, facts) for answer in answers(judged, digests)),
    )


def answers(judged: Judged, digests: Mapping[str, str]) -> list[Answer]:
    """One answer a pipeline of the rule; a pipeline that this version cannot run does not fire, and says why."""
    made = []
    for wanted in judged.rule.pipelines:
        verdict, run = judged.verdict, None
        if judged.fires:
            try:
                spec = catalog.find(wanted.pipeline).spec
                settings = dict(freeze(spec.settings.model_validate(wanted.settings)))
                run = Run(
                    series_instance_uid=judged.series_instance_uid,
                    pixels_digest=digests[judged.series_instance_uid],
                    spec=spec,
                    settings=settings,
                    settings_digest=revisions.digest(settings),
                )
            except (UnknownPipeline, ValidationError) as error:
                verdict = Verdict(holds=False, asked=f"this version runs {wanted.pipeline} so", seen=str(error))
        made.append(Answer(judged=judged, pipeline=wanted.pipeline, verdict=verdict, run=run))
    return made or [Answer(judged=judged, pipeline="", verdict=judged.verdict, run=None)]


def write(connection: Connection, node: Node, study: Study, outcome: Stuck | Unchanged | Plan) -> set[str]:
    """Make the outcome true in this transaction; the topics to ring for after it."""
    uid = study.study_instance_uid
    if isinstance(outcome, Unchanged):
        studies.settle(connection, uid)
        return set()
    if isinstance(outcome, Stuck):
        studies.hold(connection, uid, outcome.reason)
        audit.write(connection, TOPIC, "study.held", uid, reason=outcome.reason)
        return set()
    at = now()
    generation = studies.complete(connection, uid, now=at, witnesses=outcome.witnesses)
    for series_instance_uid, facts in outcome.facts.items():
        kept = {keyword: fact.as_json() for keyword, fact in facts.items()}
        studies.keep_facts(connection, uid, series_instance_uid, kept, generation)
    made = {
        job for answer in outcome.answers for job in record(connection, node, study, outcome, answer, generation, at)
    }
    supersede(connection, uid, outcome.digests)
    audit.write(
        connection,
        TOPIC,
        "study.completed",
        uid,
        generation=generation,
        witness=outcome.witnesses["sentence"],
        revision=outcome.revision,
        new_jobs=sorted(made),
    )
    return {"infer"} if made else set()


def record(
    connection: Connection, node: Node, study: Study, outcome: Plan, answer: Answer, generation: int, at: int
) -> list[int]:
    """Write one decision and tie it to its run; the run's job if it is a new one."""
    rule, run = answer.judged.rule, answer.run
    job_id, created = None, False
    if run is not None:
        job_id, created = jobs.add_inference(
            connection,
            study_instance_uid=study.study_instance_uid,
            series_instance_uid=run.series_instance_uid,
            generation=generation,
            pixels_digest=run.pixels_digest,
            pipeline=run.spec.name,
            pipeline_version=run.spec.version,
            weights_digest=run.spec.weights_digest,
            settings=run.settings,
            settings_digest=run.settings_digest,
            priority=rule.priority,
            max_attempts=node.settings.inference.max_attempts,
        )
    decisions.add(
        connection,
        decisions.Decision(
            study_instance_uid=study.study_instance_uid,
            generation=generation,
            series_instance_uid=answer.judged.series_instance_uid,
            rule=rule.name,
            revision=outcome.revision,
            fires=run is not None,
            mode=rule.mode,
            reasons={"reason": answer.verdict.reason, "verdict": answer.verdict.as_json()},
            pipeline=answer.pipeline,
            destinations=list(rule.destinations),
            job_id=job_id,
            decided_at=at,
        ),
    )
    return [job_id] if created and job_id is not None else []


def supersede(connection: Connection, study_instance_uid: str, digests: Mapping[str, str]) -> None:
    """Unfinished runs on what a series no longer is are superseded."""
    known = jobs.list_(connection, study_instance_uid=study_instance_uid, limit=10_000)
    for series_instance_uid, digest in digests.items():
        mine = [job for job in known if job.series_instance_uid == series_instance_uid]
        if any(job.pixels_digest != digest for job in mine):
            jobs.supersede(
                connection,
                study_instance_uid=study_instance_uid,
                series_instance_uid=series_instance_uid,
                keep=[job.id for job in mine if job.pixels_digest == digest],
            )


def facts_of(
    node: Node, study: Study, rows: Sequence[InstanceRow], rules: Sequence[Rule]
) -> dict[str, dict[str, Fact]]:
    """Facts of each series, in the order of their arrival."""
    wanted = examine.keywords_of(rules)
    series: dict[str, list[examine.Seen]] = {}
    for row in rows:
        seen = examine.Seen(header=row.header, path=node.store.path(row.path))
        series.setdefault(row.series_instance_uid, []).append(seen)
    given = {"calling_ae_title": study.calling_ae_title}
    return {uid: examine.series(seen, wanted=wanted, given=given) for uid, seen in series.items()}


def identity(row: InstanceRow) -> tuple[str, str, str]:
    """PatientID, IssuerOfPatientID and SeriesInstanceUID of an instance."""
    return str(row.header.get("PatientID", "")), str(row.header.get("IssuerOfPatientID", "")), row.series_instance_uid


def in_two_studies(series_instance_uids: list[str]) -> str | None:
    """Why series that another study has, too, cannot be routed."""
    if not series_instance_uids:
        return None
    return f"series {', '.join(series_instance_uids[:3])} came under two StudyInstanceUIDs"


def inputs_digest(rows: Sequence[InstanceRow]) -> str:
    """Digest of everything that the study consists of: which instances, and every byte of them."""
    lines = sorted(f"{row.sop_instance_uid} {row.version} {row.dataset_digest}" for row in rows)
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()
