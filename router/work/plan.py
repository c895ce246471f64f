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
from router.db import evidence, instances, revisions, studies
from router.db.engine import reading
from router.db.instances import InstanceRow
from router.db.revisions import Kind
from router.domain.completeness import SECOND, Complete, Policy, Stuck, Wait, decide
from router.domain.facts import Fact
from router.domain.routing import Judged, judge_study
from router.domain.rules import Rule, Verdict
from router.domain.study import Study, mixed_patients
from router.node import Node


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
