"""What people and programs are shown of the nouns: the same fields on the command line, in the API and the console."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from router.db import breakers, receipts, results, studies
from router.db import jobs as queue
from router.db.alerts import Alert
from router.db.breakers import Paused
from router.db.engine import now
from router.db.revisions import Revision
from router.domain.audit import Row
from router.domain.job import Job, Lane, State
from router.domain.study import Study, StudyState

if TYPE_CHECKING:
    from pipelines.spec import Spec

When = Callable[[int | None], str]
"""A time of the database as it is shown."""


def utc(microseconds: int | None) -> str:
    """A time for programs: ISO 8601 in UTC, or nothing."""
    if microseconds is None:
        return ""
    return datetime.fromtimestamp(microseconds / 1e6, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def study(one: Study, when: When = utc) -> dict[str, Any]:
    """A study's line."""
    return {
        "study_instance_uid": one.study_instance_uid,
        "state": str(one.state),
        "generation": one.generation,
        "patient_id": one.patient.patient_id,
        "study_date": one.study_date,
        "study_description": one.study_description,
        "calling_ae_title": one.calling_ae_title,
        "last_instance": when(one.last_instance_at),
        "completed": when(one.completed_at),
        "needs_person": one.held_because or one.attention,
        "note": one.held_because or one.attention or one.completeness,
    }


def job(one: Job, when: When = utc) -> dict[str, Any]:
    """A job's line."""
    return {
        "id": one.id,
        "lane": str(one.lane),
        "state": str(one.state),
        "outcome": one.outcome and str(one.outcome),
        "work": one.work,
        "study_instance_uid": one.study_instance_uid,
        "series_instance_uid": one.series_instance_uid,
        "generation": one.generation,
        "run": one.run,
        "attempt": one.attempt,
        "max_attempts": one.max_attempts,
        "phase": one.phase,
        "percent": None if one.fraction is None else round(100 * one.fraction),
        "wanted_by": when(one.deadline),
        "late": bool(one.late_by(now())),
        "reason": one.reason or ("superseded: its series has changed since" if one.stale_at else None),
        "superseded": when(one.stale_at),
        "problem": one.problem,
        "created": when(one.created_at),
        "started": when(one.started_at),
        "finished": when(one.finished_at),
    }


def waits_for(one: Job, of: Study | None, paused: Mapping[str, Paused]) -> str | None:
    """Why a queued job does not start, where that is its study or its pipeline."""
    if one.state is not State.QUEUED:
        return None
    if of is not None and of.held_reason is not None:
        how = "is held. It" if of.state is StudyState.HELD else "was held and is looked at again. It then"
        return f"its study {how} waits for `isocenter studies release {of.study_instance_uid}`"
    stopped = paused.get(one.pipeline or "")
    return None if stopped is None else stopped.sentence


def job_in_full(connection: Connection, job_id: int, when: When = utc) -> dict[str, Any]:
    """Everything about one job: its line, settings, measurements, objects, and each destination's answers.

    Raises:  UnknownJob
    """
    found = queue.find(connection, job_id)
    if found is None:
        raise queue.UnknownJob(f"there is no job {job_id}", remedy="See `isocenter jobs list`")
    values = job(found, when) | {"settings": found.settings, "pixels_digest": found.pixels_digest}
    waits = waits_for(found, studies.find(connection, found.study_instance_uid), breakers.paused(connection))
    if waits is not None:
        values["waits_for"] = waits
    if found.lane is Lane.INFER:
        values["measurements"] = [
            {"label": m.label, "name": m.name, "value": m.value, "unit": m.unit, "remark": m.remark}
            for m in results.measurements_of(connection, job_id)
        ]
        values["objects"] = [
            {"kind": one.kind, "sop_instance_uid": one.sop_instance_uid, "path": one.path}
            for result_set in results.sets_of_job(connection, job_id)
            for one in results.of_set(connection, result_set.id)
        ]
    else:
        values["standing"] = receipts.standing_of(connection, found)
        values["receipts"] = receipts.of_job(connection, job_id)
    return values


def alert(one: Alert, when: When = utc) -> dict[str, Any]:
    """An alert's line."""
    return {
        "id": one.id,
        "kind": one.kind,
        "subject": one.subject,
        "what": one.what,
        "remedy": one.remedy,
        "raised": when(one.raised_at),
        "times": one.times,
        "ended": when(one.ended_at),
    }


def card(spec: "Spec") -> dict[str, Any]:
    """The model card as plain values."""
    values = asdict(spec)
    values["settings"] = spec.settings.model_json_schema()["properties"] if spec.settings.model_fields else {}
    return values


def revision(one: Revision, when: When = utc) -> dict[str, Any]:
    """A revision's line."""
    return {"number": one.number, "at": when(one.created_at), "author": one.author, "note": one.note}


def act(one: Row) -> dict[str, Any]:
    """A line of the audit; it names no patient."""
    return {
        "id": one.id,
        "at": utc(one.at),
        "who": one.who,
        "act": one.act,
        "outcome": one.outcome,
        "study_instance_uid": one.study_instance_uid,
        "job": one.job_id,
        "patient_key": one.patient_key,
        "detail": dict(one.detail),
    }


def detail(said: Mapping[str, Any]) -> str:
    """What a line of the audit says besides, in one line."""
    return ", ".join(f"{name} {value}" for name, value in said.items())
