"""What completing a study means, worked out from one snapshot: is it complete, what is it, what do the rules say.

Nothing is written here; `assemble` does that, if the study is still as it was seen.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from dicom_sr.uids import pixels_digest
from pipelines import catalog
from pipelines.spec import Spec, UnknownPipeline, freeze
from router import examine, rulebook
from router.config import Completeness
from router.db import evidence, instances, pauses, revisions, studies
from router.db.engine import reading
from router.db.instances import InstanceRow
from router.db.revisions import Kind
from router.domain.completeness import (
    SECOND,
    Announced,
    Complete,
    Evidence,
    Policy,
    Stuck,
    Wait,
    announced_by_headers,
    decide,
)
from router.domain.counting import ask_at, restore
from router.domain.facts import Fact
from router.domain.pauses import longest_pause, quiet_period
from router.domain.routing import Judged, judge_study
from router.domain.rules import Rule, Verdict
from router.domain.study import Study, identity_digest, mixed_patients
from router.node import Node
from router.rulebook import CountAt, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a run reads, and whose it is: together the input of whatever comes of it."""

    pixels_digest: str
    identity_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A pipeline on one series, as a job will be known by it."""

    series_instance_uid: str
    inputs: Inputs
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
    inputs: dict[str, Inputs]
    longest_pause: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """What arrived changed nothing that is read: the study is as complete as before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The source is to be asked how many instances there are; its answer, or `until`, is waited for."""

    until: int
    peer: CountAt


Outcome = Wait | Ask | Stuck | Unchanged | Plan


class Book:
    """The rules and sources in force, parsed once a revision."""

    def __init__(self) -> None:
        self.rules: tuple[int, tuple[Rule, ...]] = (0, ())
        self.sources: tuple[int, tuple[Source, ...]] = (0, ())

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

    def source(self, calling_ae_title: str) -> Source:
        """The source of this AE title; one without any wish where there is none (any more)."""
        named = (source for source in self.sources[1] if source.ae_title == calling_ae_title)
        return next(named, Source(ae_title=calling_ae_title or "UNKNOWN", addresses=["any"]))


def policy_for(connection: Connection, usual: Completeness, source: Source) -> Policy:
    """How long to wait for this sender: as a person has set for it, else as it has taught us, else as usual."""
    deadline = usual.deadline_s if source.deadline_s is None else source.deadline_s
    policy = Policy(quiet=round(usual.quiet_period_s * SECOND), deadline=round(deadline * SECOND))
    if source.quiet_period_s is not None:
        return replace(policy, quiet=round(source.quiet_period_s * SECOND))
    known = [pause for pause in pauses.of_sender(connection, source.ae_title) if pause < policy.deadline]
    learned = quiet_period(known)
    if learned is None:
        return policy
    return replace(policy, quiet=learned, learned=f", learned from {len(known)} studies of this sender")


def work_out(node: Node, book: Book, study: Study, at: int) -> Outcome:
    """What is to happen with this study, from one snapshot of the database and the files.

    Raises:  Problem
    """
    source = book.source(study.calling_ae_title)
    with reading(node.engine) as connection:
        policy = policy_for(connection, node.settings.completeness, source)
        seen = evidence.of(connection, study)
        seen = replace(seen, announced=announced(connection, study, source))
        verdict = decide(seen, policy, at)
        if isinstance(verdict, Wait):
            return ask(study, source, seen, verdict, at)
        if isinstance(verdict, Stuck):
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


def announced(connection: Connection, study: Study, source: Source) -> Announced | None:
    """How many instances there should be, by the first witness that this source is trusted to give."""
    trusted = source.witnesses
    if "count" in trusted:
        count = restore(study.announced)
        told = count.witness(study.last_instance_at) if count is not None else None
        if told is not None:
            return told
    if "mpps" in trusted:
        told = evidence.performed(connection, study)
        if told is not None:
            return told
    if "commitment" in trusted:
        told = evidence.asked_to_commit(connection, study)
        if told is not None:
            return told
    if "announced" in trusted or "series" in trusted:
        headers = evidence.first_headers(connection, study)
        return announced_by_headers(headers, each_series="series" in trusted)
    return None


def ask(study: Study, source: Source, seen: Evidence, verdict: Wait, at: int) -> Wait | Ask:
    """The wait; with the question to the source's archive where it is time for it, or ended by that time."""
    peer = source.count_at
    if peer is None or seen.open_associations or seen.undigested or seen.announced is not None:
        return verdict
    due = ask_at(restore(study.announced), study.last_instance_at)
    return Ask(until=verdict.until, peer=peer) if due <= at else replace(verdict, until=min(verdict.until, due))


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
    read: dict[str, list[InstanceRow]] = {uid: [] for uid in facts}
    for row in rows:
        read[row.series_instance_uid].append(row)
    digests = {uid: inputs_of(series) for uid, series in read.items()}
    return Plan(
        witnesses={**verdict.as_json(), "inputs": inputs},
        revision=number,
        facts=facts,
        inputs=digests,
        longest_pause=longest_pause(row.received_at for row in rows),
        answers=tuple(answer for judged in judge_study(rules, facts) for answer in answers(judged, digests)),
    )


def answers(judged: Judged, digests: Mapping[str, Inputs]) -> list[Answer]:
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
                    inputs=digests[judged.series_instance_uid],
                    spec=spec,
                    settings=settings,
                    settings_digest=revisions.digest(settings),
                )
            except (UnknownPipeline, ValidationError) as error:
                verdict = Verdict(holds=False, asked=f"this version runs {wanted.pipeline} so", seen=str(error))
        made.append(Answer(judged=judged, pipeline=wanted.pipeline, verdict=verdict, run=run))
    return made or [Answer(judged=judged, pipeline="", verdict=judged.verdict, run=None)]


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


def inputs_of(series: Sequence[InstanceRow]) -> Inputs:
    """What a run on these instances reads."""
    return Inputs(
        pixels_digest=pixels_digest((row.sop_instance_uid, row.pixel_digest or "") for row in series),
        identity_digest=identity_digest(row.header for row in series),
    )


def inputs_digest(rows: Sequence[InstanceRow]) -> str:
    """Digest of everything that the study consists of: which instances, and every byte of them."""
    lines = sorted(f"{row.sop_instance_uid} {row.version} {row.dataset_digest}" for row in rows)
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()
