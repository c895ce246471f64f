"""What must be true at the end, whatever has died: each fault is a sentence, and there should be none."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pydicom
from sqlalchemy import Connection, select

from router.config import load
from router.db.engine import connect, reading
from router.db.tables import alert, association, audit, instance, job, result, result_set, study
from router.domain.job import Lane, State
from router.store import Store
from tests.chaos.scene import SLICES, Scene
from tests.servers import isocenter

BUSY = (State.QUEUED, State.RUNNING, State.WAITING)


def busy(made: Scene) -> str:
    """What is still going on; empty when nothing is."""
    with _reading(made) as connection:
        receiving = list(connection.scalars(select(study.c.study_instance_uid).where(study.c.state == "receiving")))
        jobs = Counter(
            (lane, state)
            for lane, state in connection.execute(select(job.c.lane, job.c.state).where(job.c.state.in_(BUSY)))
        )
        known = len(list(connection.scalars(select(study.c.study_instance_uid))))
    said = [f"{len(made.studies) - known} studies are unknown"] if known < len(made.studies) else []
    said += [f"{len(receiving)} studies are receiving"] if receiving else []
    return ", ".join([*said, *(f"{count} {lane} {state}" for (lane, state), count in jobs.items())])


def faults(made: Scene) -> Iterator[str]:
    """Everything that is not as it must be, when the node is quiet."""
    with _reading(made) as connection:
        yield from _stuck(connection)
        expected = dict(_expected(connection, made))
        yield from _received(connection, made)
        for uid in made.studies:
            yield from _trail(connection, uid, made)
        yield from _at_pacs(made, expected)
    for command in (("verify",), ("audit", "verify")):
        done = isocenter(*command, "--config", made.node.config, "--json", check=False)
        if done.returncode:
            yield f"isocenter {' '.join(command)}: {done.stdout[-600:]} {done.stderr[-600:]}"


def summary(made: Scene) -> dict[str, Any]:
    """Figures for the record."""
    with _reading(made) as connection:
        states = Counter(f"{lane} {state}" for lane, state in connection.execute(select(job.c.lane, job.c.state)))
        attempts = list(connection.scalars(select(job.c.attempt)))
        generations = Counter(connection.scalars(select(study.c.generation)))
        alerts = Counter(connection.scalars(select(alert.c.kind).where(alert.c.ended_at.is_(None))))
    return {
        "jobs": dict(states),
        "attempts": sum(attempts),
        "studies_by_generation": {str(number): count for number, count in sorted(generations.items())},
        "alerts_that_stand": dict(alerts),
        "objects_at_pacs": len(made.pacs.instances()),
    }


@contextmanager
def _reading(made: Scene) -> Iterator[Connection]:
    engine = connect(load(made.node.config).database.url)
    try:
        with reading(engine) as connection:
            yield connection
    finally:
        engine.dispose()  # else the disk could not be taken away


def _stuck(connection: Connection) -> Iterator[str]:
    for row in connection.execute(select(job).where(job.c.state.not_in([State.DONE, State.SUPERSEDED]))):
        yield f"job {row.id} ({row.lane}) is {row.state}: {row.reason}"
    for row in connection.execute(select(study).where(study.c.state != "complete")):
        yield f"study {row.study_instance_uid} is {row.state}: {row.held_reason}"
    for row in connection.execute(select(association).where(association.c.closed_at.is_(None))):
        yield f"association {row.id} of {row.calling_ae_title} was never closed"


def _received(connection: Connection, made: Scene) -> Iterator[str]:
    there = Counter(connection.scalars(select(instance.c.study_instance_uid).where(instance.c.status == "current")))
    others = list(connection.scalars(select(instance.c.status).where(instance.c.status != "current")))
    for uid in made.studies:
        if there[uid] < SLICES:
            yield f"study {uid}: {there[uid]} of {SLICES} acknowledged instances are here"
    if others:
        yield f"instances that should not be: {dict(Counter(others))}"


def _expected(connection: Connection, made: Scene) -> Iterator[tuple[str, str]]:
    """Path of each object that the PACS should have got from us, by SOPInstanceUID: what one run of each study made."""
    rows = connection.execute(
        select(result.c.sop_instance_uid, result.c.path, result_set.c.study_instance_uid)
        .join(result_set, result.c.result_set_id == result_set.c.id)
        .join(job, (job.c.result_set_id == result_set.c.id) & (job.c.lane == Lane.DELIVER))
        .where(job.c.state == State.DONE)
    )
    for row in rows:
        if row.study_instance_uid in made.studies:
            yield row.sop_instance_uid, row.path


def _at_pacs(made: Scene, expected: dict[str, str]) -> Iterator[str]:
    held = {item["SOPInstanceUID"]: item["ID"] for item in made.pacs.instances()}
    sources = {f"{uid}.2.{index}" for uid in made.studies for index in range(SLICES)}
    for uid in sorted(held.keys() - sources - expected.keys()):
        yield f"the PACS has {uid}, which nobody should have sent"
    for uid in sorted((sources | expected.keys()) - held.keys()):
        yield f"the PACS does not have {uid}"
    store = Store(load(made.node.config).storage.path)
    kinds: Counter[tuple[str, str]] = Counter()
    for uid in expected.keys() & held.keys():
        theirs = pydicom.dcmread(io.BytesIO(made.pacs.file(held[uid])))
        kinds[theirs.StudyInstanceUID, theirs.Modality] += 1
        if theirs != pydicom.dcmread(store.path(expected[uid])):
            yield f"the PACS has another {uid} than was built"
    for study_uid in made.studies:
        for modality in ("SEG", "SR"):
            if kinds[study_uid, modality] != 1:
                yield f"the PACS has {kinds[study_uid, modality]} {modality} of study {study_uid}"


def _trail(connection: Connection, uid: str, made: Scene) -> Iterator[str]:
    rows = list(connection.execute(select(audit).where(audit.c.study_instance_uid == uid).order_by(audit.c.id)))
    acts = Counter(row.act for row in rows)
    received = sum(row.detail["instances"] for row in rows if row.act == "study.received")
    if received < SLICES:
        yield f"the audit of {uid} knows of {received} received instances: {json.dumps(acts)}"
    for act in ("study.completed", "series.read", "results.produced", "results.sent"):
        if not acts[act]:
            yield f"the audit of {uid} has no {act}: {json.dumps(acts)}"
    for act in ("results.produced", "results.sent"):
        if acts[act] > 1:
            yield f"the audit of {uid} has {acts[act]} {act}"
