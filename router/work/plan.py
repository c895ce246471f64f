"""What completing a study, or a series, means: is it complete, what is it, what do the rules say; from one snapshot.

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
from router.db import instances, revisions, studies
from router.db.engine import reading
from router.db.instances import InstanceRow
from router.db.revisions import Kind
from router.domain import completeness, heartbeat
from router.domain.completeness import Complete, Stuck, Wait
from router.domain.facts import Fact
from router.domain.pauses import longest_pause
from router.domain.routing import Judged, about_series, judge_study
from router.domain.rules import Rule, Scope, Verdict
from router.domain.study import Series, Study, identity_digest, mixed_patients
from router.node import Node
from router.rulebook import Source
from router.work import completion
from router.work.completion import Ask, Snapshot


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
    instances: int
    completeness: str
    """How it was known that the series is complete, for the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One decision to be written, and the run that it asks for."""

    judged: Judged
    pipeline: str
    verdict: Verdict
    run: Run | None
    inputs: str
    """Digest of the series, or the study, that was decided on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that completing a study means; or that of some series while their study goes on, then `witnesses` is None.

    `series` tells how each series was known to be complete, and of which instances. `pauses` are the longest one of
    the study and the longest one within a series, in microseconds. `emptied` are series that have no image any more.
    """

    witnesses: dict[str, Any] | None
    revision: int
    facts: dict[str, dict[str, Fact]]
    inputs: dict[str, Inputs]
    series: dict[str, dict[str, Any]]
    pauses: tuple[int, int]
    answers: tuple[Answer, ...]
    emptied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Partly:
    """Some series are complete, and their study is not."""

    plan: Plan
    then: Wait | Ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """What arrived changed nothing that is read: the study is as complete as before, or has no image any more."""

    emptied: tuple[str, ...] = ()


Outcome = Wait | Ask | Partly | Stuck | Unchanged | Plan


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
        if calling_ae_title == heartbeat.AE_TITLE:
            return rulebook.HEARTBEAT
        named = (source for source in self.sources[1] if source.ae_title == calling_ae_title)
        return next(named, Source(ae_title=calling_ae_title or "UNKNOWN", addresses=["any"]))

    def rules_for(self, source: Source) -> tuple[int, tuple[Rule, ...]]:
        """The revision and rules that studies of this source are asked; the heartbeat's phantom has its own rule."""
        number, rules = self.rules
        return number, rulebook.heartbeat_rules() if source is rulebook.HEARTBEAT else rules


def work_out(node: Node, book: Book, study: Study, at: int) -> Outcome:
    """What is to happen with this study, from one snapshot of the database and the files.

    Raises:  Problem
    """
    source = book.source(study.calling_ae_title)
    number, rules = book.rules_for(source)
    with reading(node.engine) as connection:
        seen = completion.take(connection, node.settings.completeness, source, study)
        verdict = seen.of_study(at)
        if isinstance(verdict, Stuck):
            return verdict
        looked = {uid: seen.of_series(uid, at) for uid in seen.series} if about_series(rules) else {}
        if isinstance(verdict, Wait):
            then = no_later(completion.ask(study, source, seen.study, verdict, at), looked.values())
            if not any(isinstance(one, Complete) for one in looked.values()):
                return then
        rows = instances.of_study(connection, study.study_instance_uid)
        known = {one.series_instance_uid: one for one in studies.series_of(connection, study.study_instance_uid)}
        shared = studies.other_studies_with(
            connection, study.study_instance_uid, sorted({row.series_instance_uid for row in rows})
        )
        emptied = tuple(instances.emptied_series(connection, study.study_instance_uid))
    moving = study.last_instance_at + seen.policy.quiet
    if shared and at < moving:
        return Wait(until=moving, reason="a series of it is in another study, too; it may be on its way there")
    trouble = mixed_patients(map(identity, rows)) or in_two_studies(shared)
    whole = Whole(node=node, study=study, number=number, rules=rules, read=by_series(rows), known=known)
    if isinstance(verdict, Wait):
        return Stuck(reason=trouble) if trouble else early(whole, seen, looked, then, at)
    inputs = inputs_digest(rows)
    if not rows or (study.witnesses or {}).get("inputs") == inputs:
        return Unchanged(emptied=emptied)
    if trouble:
        return Stuck(reason=trouble)
    facts = facts_of(whole, whole.read)
    verdict = seen.of_study(at, gaps=gaps_in(facts.values()))
    if not isinstance(verdict, Complete):
        return verdict
    return replace(plan(whole, facts, verdict, inputs), emptied=emptied)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A study with everything that belongs to deciding on it."""

    node: Node
    study: Study
    number: int
    rules: tuple[Rule, ...]
    read: dict[str, list[InstanceRow]]
    known: Mapping[str, Series]

    def decided(self, series_instance_uid: str, inputs: str, *, generation: int | None = None) -> bool:
        """Whether rules were asked about the series as it is now (in this generation)."""
        one = self.known.get(series_instance_uid)
        if one is None or (one.witnesses or {}).get("inputs") != inputs:
            return False
        return generation is None or one.facts_generation == generation


def no_later(wait: Wait | Ask, series: Iterable[Wait | Complete | Stuck]) -> Wait | Ask:
    """The wait, ended by the first series that may be complete before."""
    return replace(wait, until=min([wait.until, *(one.until for one in series if isinstance(one, Wait))]))


def early(
    whole: Whole, seen: Snapshot, looked: Mapping[str, Wait | Complete | Stuck], then: Wait | Ask, at: int
) -> Wait | Ask | Partly:
    """What the series that are complete by now mean, while their study is not."""
    digests = {uid: inputs_digest(rows) for uid, rows in whole.read.items()}
    fresh = [uid for uid, verdict in looked.items() if isinstance(verdict, Complete)]
    fresh = [uid for uid in fresh if not whole.decided(uid, digests[uid])]
    facts = facts_of(whole, fresh)
    verdicts = {uid: seen.of_series(uid, at, gaps=gaps_in([facts[uid]])) for uid in fresh}
    then = no_later(then, verdicts.values())
    done = {uid: verdict for uid, verdict in verdicts.items() if isinstance(verdict, Complete)}
    if not done:
        return then
    return Partly(
        plan=Plan(
            witnesses=None,
            revision=whole.number,
            facts={uid: facts[uid] for uid in done},
            inputs={uid: inputs_of(whole.read[uid]) for uid in done},
            series={uid: known_by(verdict, "Series", digests[uid]) for uid, verdict in done.items()},
            pauses=(0, 0),
            answers=tuple(
                answer
                for uid, verdict in done.items()
                for judged in judge_study(about_series(whole.rules), {uid: facts[uid]})
                for answer in answers(judged, whole.read, in_report(verdict, "Series", whole.read), digests[uid])
            ),
        ),
        then=then,
    )


def known_by(verdict: Complete, scope: str, inputs: str) -> dict[str, Any]:
    """How completeness was known, as the database keeps it."""
    return {**verdict.as_json(), "scope": scope, "inputs": inputs}


def in_report(verdict: Complete, scope: str, read: Mapping[str, Sequence[InstanceRow]]) -> Mapping[str, str]:
    """How completeness was known, as the report of a run on each series says it."""
    return {uid: completeness.in_report(verdict, scope=scope, used=len(rows)) for uid, rows in read.items()}


def gaps_in(series: Iterable[Mapping[str, Fact]]) -> int:
    """How many series have slices missing between others."""
    return sum(bool(facts["slice_gaps"].highest) for facts in series if "slice_gaps" in facts)


def plan(whole: Whole, facts: dict[str, dict[str, Fact]], verdict: Complete, inputs: str) -> Plan:
    """Every rule's answer with the run that it asks for; what was decided early is not asked again."""
    digests = {uid: inputs_digest(rows) for uid, rows in whole.read.items()}
    generation = whole.study.generation + 1
    before = {uid for uid in digests if whole.decided(uid, digests[uid], generation=generation)}
    alone = {rule.name for rule in about_series(whole.rules)}
    said = in_report(verdict, "Study", whole.read)
    return Plan(
        witnesses=known_by(verdict, "Study", inputs),
        revision=whole.number,
        facts={uid: one for uid, one in facts.items() if uid not in before},
        inputs={uid: inputs_of(rows) for uid, rows in whole.read.items()},
        series={uid: known_by(verdict, "Study", digests[uid]) for uid in facts if uid not in before},
        pauses=(
            longest_pause(row.received_at for rows in whole.read.values() for row in rows),
            max(longest_pause(row.received_at for row in rows) for rows in whole.read.values()),
        ),
        answers=tuple(
            answer
            for judged in judge_study(whole.rules, facts)
            if not (judged.rule.name in alone and judged.series_instance_uid in before)
            for answer in answers(
                judged,
                whole.read,
                said,
                digests[judged.series_instance_uid] if judged.rule.scope is Scope.SERIES else inputs,
            )
        ),
    )


def answers(
    judged: Judged, read: Mapping[str, Sequence[InstanceRow]], said: Mapping[str, str], inputs: str
) -> list[Answer]:
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
                    inputs=inputs_of(read[judged.series_instance_uid]),
                    spec=spec,
                    settings=settings,
                    settings_digest=revisions.digest(settings),
                    instances=len(read[judged.series_instance_uid]),
                    completeness=said[judged.series_instance_uid],
                )
            except (UnknownPipeline, ValidationError) as error:
                verdict = Verdict(holds=False, asked=f"this version runs {wanted.pipeline} so", seen=str(error))
        made.append(Answer(judged=judged, pipeline=wanted.pipeline, verdict=verdict, run=run, inputs=inputs))
    return made or [Answer(judged=judged, pipeline="", verdict=judged.verdict, run=None, inputs=inputs)]


def by_series(rows: Iterable[InstanceRow]) -> dict[str, list[InstanceRow]]:
    """The instances of each series, in the order of their arrival."""
    found: dict[str, list[InstanceRow]] = {}
    for row in rows:
        found.setdefault(row.series_instance_uid, []).append(row)
    return found


def facts_of(whole: Whole, series: Iterable[str]) -> dict[str, dict[str, Fact]]:
    """Facts of each of these series."""
    wanted = examine.keywords_of(whole.rules)
    given = {"calling_ae_title": whole.study.calling_ae_title}
    seen = {
        uid: [examine.Seen(header=row.header, path=whole.node.store.path(row.path)) for row in whole.read[uid]]
        for uid in series
    }
    return {uid: examine.series(rows, wanted=wanted, given=given) for uid, rows in seen.items()}


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
