"""`why`: what really happened to a study, and for which reasons: one page, from what the database kept of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from router.db import breakers, decisions, jobs, receipts, results, studies
from router.db.breakers import Paused
from router.db.decisions import Decision
from router.domain.delivery import Standing
from router.domain.facts import restore
from router.domain.job import Job, Lane
from router.domain.study import Series, Study, StudyState
from router.views import waits_for

SHOWN = ("kind", "plane", "instances", "slice_spacing", "slice_gaps", "body_part", "kernel", "contrast", "algorithm")
"""Facts of a series that the page shows; all of them are in the JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All that is known of one study, in the order in which it happened. It names no patient."""

    study: Study
    series: tuple[Series, ...]
    decisions: tuple[Decision, ...]
    jobs: tuple[Job, ...]
    receipts: dict[int, list[dict[str, object]]]
    objects: dict[int, list[str]]
    standings: dict[int, Standing]
    """How much of its set each delivery's destination has."""
    paused: dict[str, Paused]
    """Pipelines of which no job starts, by name."""

    def as_json(self) -> dict[str, Any]:
        """The explanation as `--json` prints it."""
        study = self.study
        return {
            "study_instance_uid": study.study_instance_uid,
            "state": str(study.state),
            "held_reason": study.held_reason,
            "attention": study.attention,
            "generation": study.generation,
            "calling_ae_title": study.calling_ae_title,
            "first_instance_at": study.first_instance_at,
            "last_instance_at": study.last_instance_at,
            "completed_at": study.completed_at,
            "decide_at": study.decide_at,
            "witnesses": study.witnesses,
            "series": [
                {
                    "series_instance_uid": one.series_instance_uid,
                    "modality": one.modality,
                    "series_description": one.series_description,
                    "generation": one.facts_generation,
                    "completed_at": one.completed_at,
                    "witnesses": one.witnesses,
                    "facts": {key: kept for key, kept in (one.facts or {}).items() if key not in IDENTITY},
                }
                for one in self.series
            ],
            "decisions": [
                {name: getattr(one, name) for name in Decision.__slots__ if name != "study_instance_uid"}
                for one in self.decisions
            ],
            "jobs": [_job_json(job, self) for job in self.jobs],
        }

    def lines(self, zone: ZoneInfo) -> Iterator[str]:
        """The page, line by line, with times in this zone."""
        yield from _arrival(self.study, zone)
        for one in self.series:
            yield from _series(one, zone)
        for generation in sorted({one.generation for one in self.decisions}):
            made = [decision for decision in self.decisions if decision.generation == generation]
            yield f"Decisions of generation {generation}, by revision {made[0].revision} of the rules:"
            for decision in made:
                yield from _decision(decision)
        for job in sorted(self.jobs, key=lambda job: job.id):
            yield from _job(job, self, zone)


IDENTITY = frozenset(
    {"PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "ReferringPhysicianName"}
)
"""Facts that say who a patient is; `why` shows none of them."""


def explain(connection: Connection, word: str) -> list[Explanation]:
    """What happened to every study of this StudyInstanceUID, AccessionNumber or PatientID, the newest first.

    Raises:  UnknownStudy
    """
    return [_explain(connection, study) for study in studies.search(connection, word)]


def _explain(connection: Connection, study: Study) -> Explanation:
    uid = study.study_instance_uid
    made = jobs.list_(connection, study_instance_uid=uid, limit=10_000)
    return Explanation(
        study=study,
        series=tuple(studies.series_of(connection, uid)),
        decisions=tuple(decisions.of_study(connection, uid)),
        jobs=tuple(made),
        receipts={
            job.id: [_impersonal(one) for one in receipts.of_job(connection, job.id)]
            for job in made
            if job.lane is Lane.DELIVER
        },
        objects={
            job.id: [
                one.kind
                for found in results.sets_of_job(connection, job.id)
                for one in results.of_set(connection, found.id)
            ]
            for job in made
            if job.lane is Lane.INFER
        },
        paused=breakers.paused(connection),
        standings={job.id: receipts.standing_of(connection, job) for job in made if job.lane is Lane.DELIVER},
    )


def _impersonal(receipt: dict[str, object]) -> dict[str, object]:
    """The receipt without what only `jobs show` tells: of a study that is another patient's there, both identities."""
    keeps = receipt["accepted"] or receipt["status"] is not None
    return receipt if keeps else receipt | {"detail": ""}


def _arrival(study: Study, zone: ZoneInfo) -> Iterator[str]:
    yield f"Study {study.study_instance_uid} is {study.state}, generation {study.generation}"
    first, last = _clock(study.first_instance_at, zone), _clock(study.last_instance_at, zone)
    yield f"  received from {study.calling_ae_title}: {first} to {last}"
    if study.state is StudyState.HELD:
        yield f"  held: {study.held_reason}"
        yield "  nothing of it is routed until a person has put that right: isocenter studies release"
    elif study.held_reason:
        yield f"  was held: {study.held_reason}; a person has let it go on, its jobs start when it is complete"
    if study.attention:
        yield f"  a person should look: {study.attention}"
    if study.completed_at is not None:
        yield f"  complete at {_clock(study.completed_at, zone)}: {study.completeness}"
    if study.decide_at is not None:
        yield f"  looked at again at {_clock(study.decide_at, zone)}"


def _series(one: Series, zone: ZoneInfo) -> Iterator[str]:
    yield f"Series {one.series_instance_uid} {one.modality} {one.series_description!r}"
    facts = restore(one.facts or {})
    shown = [f"{name} {facts[name].text}" for name in SHOWN if name in facts]
    yield f"  {', '.join(shown)}" if shown else "  not decided on yet"
    if one.witnesses and one.completed_at is not None and one.witnesses.get("scope") == "Series":
        yield f"  complete at {_clock(one.completed_at, zone)}, before its study: {one.witnesses['sentence']}"


def _decision(one: Decision) -> Iterator[str]:
    mode = "" if one.mode == "on" else f" ({one.mode})"
    about = f" on series {one.series_instance_uid}" if one.series_instance_uid else ""
    if one.fires:
        to = f" to {', '.join(one.destinations)}" if one.destinations else ""
        yield f"  YES {one.rule}{mode}{about}: {one.pipeline}{to}, job {one.job_id}"
    else:
        yield f"  no  {one.rule}{mode}{about}: {one.reasons.get('reason', '')}"


def _job(job: Job, page: Explanation, zone: ZoneInfo) -> Iterator[str]:
    came = f", {job.outcome}" if job.outcome else ""
    when = f" at {_clock(job.finished_at, zone)}" if job.finished_at else ""
    yield f"Job {job.id} {job.work}: {job.state}{came}{when}, attempt {job.attempt} of {job.max_attempts}"
    if job.reason:
        yield f"  {job.reason}"
    if _waits_for(job, page):
        yield f"  {_waits_for(job, page)}"
    if job.stale_at is not None:
        yield f"  superseded: its series has changed at {_clock(job.stale_at, zone)}"
    if job.id in page.standings:
        yield f"  its set is {page.standings[job.id]} there"
    made = page.objects.get(job.id)
    if made:
        yield f"  made {', '.join(made)}"
    for answer in page.receipts.get(job.id, ()):
        taken = "committed" if answer["committed_at"] else "accepted" if answer["accepted"] else "not accepted"
        yield f"  {answer['sop_instance_uid']}: {taken} ({answer['detail'] or 'see the job'})"


def _job_json(job: Job, page: Explanation) -> dict[str, Any]:
    names: Sequence[str] = (
        "id", "lane", "state", "outcome", "reason", "problem", "generation", "series_instance_uid", "pipeline",
        "pipeline_version", "settings", "run", "stale_at", "destination", "attempt", "max_attempts", "created_at",
        "started_at", "finished_at",
    )  # fmt: skip
    kept = {name: getattr(job, name) for name in names}
    return kept | {
        "objects": page.objects.get(job.id, []),
        "receipts": page.receipts.get(job.id, []),
        "standing": page.standings.get(job.id),
        "waits_for": _waits_for(job, page),
    }


def _waits_for(job: Job, page: Explanation) -> str | None:
    return waits_for(job, page.study, page.paused)


def _clock(microseconds: int, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, zone).strftime("%Y-%m-%d %H:%M:%S")
