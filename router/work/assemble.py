"""The role decide: when is a study or a series complete, what do the rules say to it, and which runs follow.

Everything is worked out from a snapshot first; then one short transaction writes generation, facts, decisions, jobs
and audit, if the study is still as it was seen. What has changed meanwhile is simply looked at again.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from dicom_sr.problem import Problem
from router.db import audit, decisions, jobs, pauses, studies
from router.db.engine import fault, now, reading, writing
from router.domain import heartbeat
from router.domain.completeness import SECOND, Stuck, Wait
from router.domain.job import Lane, State
from router.domain.rules import Mode, Rule
from router.domain.study import Study
from router.node import Node
from router.query.scu import Peer
from router.wake import Ear
from router.work import notes, outbox
from router.work import supersede as stale
from router.work.completion import Ask
from router.work.count import Counter
from router.work.loop import told
from router.work.plan import Answer, Book, Inputs, Partly, Plan, Run, Unchanged, work_out

log = structlog.get_logger()

TOPIC = "decide"
SAFETY_NET_S = 30.0
"""An idle decide looks by itself this often."""

PACE_S = 0.05
"""Rings that come closer together than this count as one: a sender rings with every instance."""

TROUBLE_S = 30.0
"""A study whose decision failed is tried again after this."""

FOREIGN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a header that nobody foresaw may do to us: one such study must not keep the others waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The job behind a decision, if any, and whether it is new."""

    job_id: int | None = None
    created: bool = False


def serve(node: Node, stop: threading.Event) -> None:
    """Decide on studies as they become complete, until `stop` is set."""
    book, counter = Book(), Counter(node)
    with closing(counter), Ear(node.wake_folder, TOPIC) as ear:
        while not stop.is_set():
            try:
                wait_s = turn(node, book, counter)
            except (SQLAlchemyError, Problem) as error:
                log.error("decide.stalled", error=fault(error))
                wait_s = 1.0
            ear.wait(wait_s)
            stop.wait(PACE_S)


def turn(node: Node, book: Book, counter: Counter) -> float:
    """Look at every study that is due; seconds until the next one is."""
    with reading(node.engine) as connection:
        due = studies.due(connection, now())
        if due:
            book.refresh(connection)
    for study in due:
        with structlog.contextvars.bound_contextvars(study=study.study_instance_uid):
            settle(node, book, counter, study)
    with reading(node.engine) as connection:
        following = studies.next_decide_at(connection)
    return SAFETY_NET_S if following is None else min(SAFETY_NET_S, max(0.0, (following - now()) / SECOND))


def settle(node: Node, book: Book, counter: Counter, study: Study) -> None:
    """Decide on one study and make it so."""
    begun = time.monotonic()
    try:
        outcome = work_out(node, book, study, now())
    except (Problem, *FOREIGN) as error:
        log.error("study.undecided", problem=type(error).__name__, reason=told(error))
        outcome = Wait(until=now() + round(TROUBLE_S * SECOND), reason=told(error))
    then = outcome.then if isinstance(outcome, Partly) else outcome
    if isinstance(then, Ask):
        peer = Peer(
            ae_title=then.peer.ae_title,
            host=then.peer.host,
            port=then.peer.port,
            calling_ae_title=node.settings.ae_title,
        )
        counter.ask(study, peer)
    with writing(node.engine) as connection:
        if isinstance(outcome, Wait | Ask):
            studies.postpone(connection, study, outcome.until)
            return
        if studies.lock(connection, study.study_instance_uid) != study:
            return  # something arrived meanwhile: it is due again
        made = write(connection, node, study, outcome)
    for topic in made:
        node.bell.ring(topic)
    log.info(EVENTS[type(outcome)], took_ms=round((time.monotonic() - begun) * 1000), **shown(outcome))


EVENTS = {
    Stuck: "study.held",
    Unchanged: "study.unchanged",
    Partly: "series.complete",
    Plan: "study.complete",
}


def shown(outcome: Stuck | Unchanged | Partly | Plan) -> dict[str, Any]:
    """What the log says of an outcome."""
    if isinstance(outcome, Stuck):
        return {"reason": outcome.reason}
    if isinstance(outcome, Unchanged):
        return {}
    if isinstance(outcome, Partly):
        return {"decisions": len(outcome.plan.answers), "series": sorted(outcome.plan.series)}
    return {"decisions": len(outcome.answers), "witness": (outcome.witnesses or {}).get("witness")}


def write(connection: Connection, node: Node, study: Study, outcome: Stuck | Unchanged | Partly | Plan) -> set[str]:
    """Make the outcome true in this transaction; the topics to ring for after it."""
    uid = study.study_instance_uid
    if isinstance(outcome, Unchanged):
        studies.settle(connection, uid)
        return abandon(connection, uid, outcome.emptied) | let_go(study)
    if isinstance(outcome, Stuck):
        studies.hold(connection, uid, outcome.reason)
        audit.write(connection, TOPIC, "study.held", uid, reason=outcome.reason)
        return set()
    if isinstance(outcome, Partly):
        rings = follow(connection, node, study, outcome.plan, study.generation + 1)
        studies.postpone(connection, study, outcome.then.until)
        return rings
    at = now()
    generation = studies.complete(connection, uid, now=at, witnesses=outcome.witnesses or {})
    of_study, in_series = outcome.pauses
    if study.calling_ae_title != heartbeat.AE_TITLE:
        pauses.note(connection, uid, study.calling_ae_title, of_study, at, longest_in_series=in_series)
    return follow(connection, node, study, outcome, generation) | let_go(study)


def let_go(study: Study) -> set[str]:
    """The topics to ring for when a study that was held is settled: its jobs may start now."""
    return set() if study.held_reason is None else set(Lane)


def follow(connection: Connection, node: Node, study: Study, outcome: Plan, generation: int) -> set[str]:
    """Facts, decisions, runs and deliveries of what is complete now; the topics to ring for."""
    uid, at = study.study_instance_uid, now()
    for series_instance_uid, facts in outcome.facts.items():
        studies.complete_series(
            connection,
            uid,
            series_instance_uid,
            facts={keyword: fact.as_json() for keyword, fact in facts.items()},
            witnesses=outcome.series[series_instance_uid],
            generation=generation,
            now=at,
        )
    made = [record(connection, node, study, outcome, answer, generation, at) for answer in outcome.answers]
    holds = held_by_rules(outcome.answers, made)
    new_jobs = sorted({one.job_id for one in made if one.job_id is not None and one.created})
    late = sorted({one.job_id for one in made if one.job_id is not None} - set(new_jobs))
    deliveries = [
        delivery
        for job_id in late  # of runs that are done: a later decision may want their results elsewhere, too
        for delivery in late_deliveries(connection, node, job_id, holds.get(job_id))
    ]
    for job_id in new_jobs:
        if job_id in holds:
            jobs.keep_for_person(connection, job_id, reason=holds[job_id])
    deliveries += forwards(connection, node, study, outcome.answers, generation)
    supersede(connection, uid, outcome.inputs)
    notes_asked = abandon(connection, uid, outcome.emptied)
    known = [outcome.witnesses] if outcome.witnesses else list(outcome.series.values())
    audit.write(
        connection,
        TOPIC,
        "study.completed" if outcome.witnesses else "series.completed",
        uid,
        generation=generation,
        series=sorted(outcome.series),
        witness="; ".join(sorted({str(one["sentence"]) for one in known})),
        revision=outcome.revision,
        new_jobs=[*new_jobs, *deliveries],
    )
    return ({"infer"} if new_jobs else set()) | ({"build", "deliver"} if deliveries else set()) | notes_asked


def held_by_rules(answers: Sequence[Answer], made: Sequence[Made]) -> dict[int, str]:
    """Jobs that a person has to release, and why: one decision that wants so is enough, however urgent the others."""
    return {
        one.job_id: answer.judged.hold
        for answer, one in zip(answers, made, strict=True)
        if one.job_id is not None and answer.judged.hold
    }


def forwards(connection: Connection, node: Node, study: Study, answers: Sequence[Answer], generation: int) -> list[int]:
    """New jobs that send the study itself where rules forward it, each place once; the most urgent rule counts."""
    made: list[int] = []
    firing = [one.judged.rule for one in answers if one.judged.fires]
    for rule in sorted(firing, key=lambda rule: rule.priority):
        for destination in rule.destinations if rule.forward and rule.mode is Mode.ON else ():
            job_id, new = jobs.add_forward(
                connection,
                study_instance_uid=study.study_instance_uid,
                generation=generation,
                destination=destination,
                priority=rule.priority,
                max_attempts=node.settings.delivery.max_attempts,
            )
            if new and rule.hold:
                jobs.keep_for_person(connection, job_id, reason=f"rule {rule.name} holds its jobs until released")
            made += [job_id] * new
    return made


def late_deliveries(connection: Connection, node: Node, job_id: int, hold: str | None) -> list[int]:
    """New deliveries of a run that is done already; those, too, wait for a person where a rule wants it."""
    made = outbox.plan(connection, job_id, max_attempts=node.settings.delivery.max_attempts)
    for delivery in made if hold else ():
        jobs.keep_for_person(connection, delivery, reason=hold or "")
    return made


def record(
    connection: Connection, node: Node, study: Study, outcome: Plan, answer: Answer, generation: int, at: int
) -> Made:
    """Write one decision, tied to the run that it asks for."""
    rule = answer.judged.rule
    made = run_of(connection, node, study, answer.run, rule, generation, at) if answer.run else Made()
    decisions.add(
        connection,
        decisions.Decision(
            study_instance_uid=study.study_instance_uid,
            generation=generation,
            series_instance_uid=answer.judged.series_instance_uid,
            rule=rule.name,
            revision=outcome.revision,
            fires=answer.run is not None or (rule.forward and answer.judged.fires),
            mode=rule.mode,
            reasons={
                "reason": answer.verdict.reason,
                "verdict": answer.verdict.as_json(),
                **({"hold": answer.judged.hold} if answer.judged.hold and answer.run else {}),
            },
            pipeline=answer.pipeline,
            destinations=list(rule.destinations),
            job_id=made.job_id,
            decided_at=at,
            inputs=answer.inputs,
        ),
    )
    return made


def run_of(connection: Connection, node: Node, study: Study, run: Run, rule: Rule, generation: int, at: int) -> Made:
    """The one job of this run; where it was superseded or rejected and its inputs are back, the next run of it."""
    number = 0
    deadline = None if rule.deadline_min is None else at + round(rule.deadline_min * 60 * SECOND)
    while True:
        job_id, created = jobs.add_inference(
            connection,
            study_instance_uid=study.study_instance_uid,
            series_instance_uid=run.series_instance_uid,
            generation=generation,
            pixels_digest=run.inputs.pixels_digest,
            identity_digest=run.inputs.identity_digest,
            pipeline=run.spec.name,
            pipeline_version=run.spec.version,
            weights_digest=run.spec.weights_digest,
            settings=run.settings,
            settings_digest=run.settings_digest,
            priority=rule.priority,
            max_attempts=node.settings.inference.max_attempts,
            run=number,
            completeness=run.completeness,
            instances=run.instances,
            deadline=deadline,
        )
        job = jobs.find(connection, job_id)
        if created or job is None or not (job.state is State.SUPERSEDED or notes.is_asked(connection, job)):
            return Made(job_id=job_id, created=created)
        number += 1


def supersede(connection: Connection, study_instance_uid: str, inputs: Mapping[str, Inputs]) -> None:
    """Runs on what a series no longer is: the unfinished are superseded, and so is what follows of the others."""
    known = jobs.list_(connection, study_instance_uid=study_instance_uid, lane=Lane.INFER, limit=10_000)
    for series_instance_uid, now_is in inputs.items():
        mine = [job for job in known if job.series_instance_uid == series_instance_uid]
        fresh = {
            job.id
            for job in mine
            if (job.pixels_digest, job.identity_digest) == (now_is.pixels_digest, now_is.identity_digest)
        }
        if len(fresh) == len(mine) and all(job.stale_at is None for job in mine):
            continue
        where = {"study_instance_uid": study_instance_uid, "series_instance_uid": series_instance_uid}
        jobs.supersede(connection, **where, keep=fresh)
        stale.turn_stale(connection, **where, pixels_digest=now_is.pixels_digest, fresh=fresh)


def abandon(connection: Connection, study_instance_uid: str, emptied: Sequence[str]) -> set[str]:
    """Runs on series whose images were all moved elsewhere: nothing takes their place here.

    Where a destination wants it, what it has of them is rejected. Gives the topics to ring for.
    """
    asked: list[int] = []
    for series_instance_uid in emptied:
        where = {"study_instance_uid": study_instance_uid, "series_instance_uid": series_instance_uid}
        jobs.supersede(connection, **where, keep=(), reason="its images were moved to another series or study")
        for run in stale.turn_stale(connection, **where, pixels_digest=None, fresh=set()):
            asked += notes.ask(connection, run)
    return {"build"} if asked else set()
