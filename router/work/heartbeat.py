"""The heartbeat: a phantom of known volume goes from door to door, and its number must come back. Role `tick`.

The rows say all: a cycle goes on after a restart. The phantom comes in by the node's own listener, under a calling AE
title and a passcode that only this cycle has; one rule of its own routes it to a folder of its own; and whatever
happened, nothing of it stays.
"""

import math
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import structlog
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from pipelines import phantom, phantom_beat
from router.db import alerts, beats, commands, forgetting, instances, jobs, studies
from router.db.beats import Beat
from router.db.engine import now, reading, writing
from router.domain import heartbeat as domain
from router.domain.heartbeat import AE_TITLE, KIND, PATIENT_ID, REMEDIES, Seen, Stage, Stands
from router.domain.job import Job, Lane, State
from router.node import Node
from router.requestor import steady

log = structlog.get_logger()

SECOND = 1_000_000
PATIENCE_S = 20.0
"""The longest wait for one answer of our own listener."""
SETTLED = 60 * SECOND
KEEP = 30 * 24 * 3600 * SECOND
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def step(node: Node, *, at: int | None = None) -> None:
    """What is to be done now: begin a cycle that is due, send its phantom, look where it is, clear up behind it."""
    at = now() if at is None else at
    with reading(node.engine) as connection:
        going = beats.going_on(connection)
        last = beats.list_(connection, limit=1)
        left = beats.phantoms(connection)
    clear(node, [uid for uid in left if going is None or uid != going.study_instance_uid])
    every_min = node.settings.heartbeat.every_min
    if going is None and every_min is not None and (not last or last[0].began_at + every_min * 60 * SECOND <= at):
        ask(node, asked_by="timetable")
        with reading(node.engine) as connection:
            going = beats.going_on(connection)
    if going is not None:
        follow(node, going, at)


def ask(node: Node, *, asked_by: str) -> str | None:
    """Begin a cycle; its StudyInstanceUID, None where one goes on already."""
    uid, wanted = f"2.25.{uuid4().int}", node.settings.heartbeat
    with writing(node.engine) as connection:
        beats.forget(connection, before=now() - KEEP)
        begun = beats.begin(connection, uid, asked_by=asked_by, folder=wanted.folder, deadline_s=wanted.deadline_s)
    return uid if begun else None


def follow(node: Node, going: Beat, at: int) -> None:
    """Send the phantom if that has not been done, and end the cycle when it is back or its time is over."""
    said = None if going.sent_at is not None else deliver_to_ourselves(node, going)
    found = seen(node, going, sent=said is None)
    stands = domain.stands(found, slices=phantom_beat.SLICES, volume_ml=phantom_beat.volume_ml())
    if stands is not None and said is not None:
        stands = Stands(stage=Stage.LISTEN, what=said)
    if stands is not None and at < going.deadline_at and stands.stage is not Stage.NUMBER:
        return
    stage = stands.stage if stands is not None else None
    what = stands.what if stands is not None else None
    with writing(node.engine) as connection:
        for other in Stage:
            if other is not stage:
                alerts.end(connection, KIND, other)
        if stands is not None:
            said = f"the heartbeat's phantom did not get past {stands.stage}: {what}"
            alerts.raise_(connection, KIND, stands.stage, what=said, remedy=REMEDIES[stands.stage])
        beats.end(connection, going.study_instance_uid, stage=stage, what=what, volume_ml=found.came_back)
    log.info("heartbeat.ended", study=going.study_instance_uid, broken=stage, took_ms=(now() - going.began_at) // 1000)
    clear(node, [going.study_instance_uid])


def deliver_to_ourselves(node: Node, going: Beat) -> str | None:
    """Send every slice to our own listener; why that failed, or None. It is tried again with the same slices."""
    with suppress(OSError):  # then the delivery says so
        Path(going.folder).mkdir(parents=True, exist_ok=True)
    passcode = secrets.token_urlsafe(32)
    with writing(node.engine) as connection:
        beats.admit(connection, going.study_instance_uid, passcode)
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.primary_field, identity.secondary_field = AE_TITLE.encode(), passcode.encode()
    settings, limit_s = node.settings, min(PATIENCE_S, node.settings.heartbeat.deadline_s)
    ae = AE(ae_title=AE_TITLE)
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = limit_s
    host = EVERYWHERE.get(settings.listener.host, settings.listener.host)
    try:
        socket.create_connection((host, settings.listener.port), limit_s).close()
    except OSError as error:  # asked before, since pynetdicom leaves a socket open where nobody listens
        return f"nobody listens at {host}:{settings.listener.port} ({error.strerror or error})"
    with tempfile.TemporaryDirectory() as folder:
        uid = going.study_instance_uid
        slices = phantom.write(
            phantom_beat.bone(),
            Path(folder),
            study_instance_uid=uid,
            series_instance_uid=f"{uid}.1",
            patient_name="HEARTBEAT^ISOCENTER",
            patient_id=PATIENT_ID,
            accession_number="",
        )
        association = ae.associate(host, settings.listener.port, ae_title=settings.ae_title, ext_neg=[identity])
        if not association.is_established:
            return f"no association with {settings.ae_title} at {host}:{settings.listener.port}"
        steady(association)
        try:
            for path in slices:
                answer = association.send_c_store(dcmread(path))
                if "Status" not in answer or answer.Status != 0:
                    said = f"answered {answer.Status:04X}" if "Status" in answer else "was not answered"
                    return f"C-STORE {said}"
        finally:
            if association.is_established:
                association.release()
            else:
                association.abort()
    with writing(node.engine) as connection:
        beats.sent(connection, going.study_instance_uid)
    return None


def seen(node: Node, going: Beat, *, sent: bool) -> Seen:
    """What is known of the phantom by now."""
    uid = going.study_instance_uid
    with reading(node.engine) as connection:
        study = studies.find(connection, uid)
        stored = len(instances.of_study(connection, uid))
        queue = jobs.list_(connection, study_instance_uid=uid)
    done = [job for job in queue if job.lane is Lane.DELIVER and job.state is State.DONE]
    return Seen(
        sent=sent,
        instances=stored,
        held=study.held_reason if study else None,
        jobs=queue[::-1],
        came_back=number_in(Path(going.folder), uid) if done else None,
    )


def number_in(folder: Path, study_instance_uid: str) -> float | None:
    """The volume that the phantom's report in this folder says; NaN where there is a report without one."""
    for path in reports_in(folder, study_instance_uid):
        dataset = dcmread(path, stop_before_pixels=True)
        if dataset.Modality == "SR":
            return next(volumes(dataset), math.nan)
    return None


def reports_in(folder: Path, study_instance_uid: str) -> list[Path]:
    """Files of this study in the folder."""
    found = []
    for path in sorted(folder.glob("*.dcm")):
        try:
            dataset = dcmread(path, specific_tags=["StudyInstanceUID"], stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        if dataset.get("StudyInstanceUID") == study_instance_uid:
            found.append(path)
    return found


def volumes(item: Dataset) -> Iterator[float]:
    """Every volume in a report's tree."""
    for content in item.get("ContentSequence", ()):
        if content.ValueType == "NUM" and content.ConceptNameCodeSequence[0].CodeMeaning == "Volume":
            yield float(content.MeasuredValueSequence[0].NumericValue)
        yield from volumes(content)


def clear(node: Node, phantoms: list[str]) -> None:
    """Let nothing stay of these phantoms; of one that is still worked on, once that is cancelled and over."""
    for uid in phantoms:
        with writing(node.engine) as connection:
            folder = beats.folder(connection)
            queue = jobs.list_(connection, study_instance_uid=uid)
            for job in queue:
                if job.state in forgetting.UNFINISHED:
                    commands.cancel(connection, job.id, who="heartbeat", why="its cycle is over")
            if any(job.state in forgetting.UNFINISHED or lately(job) for job in queue):
                continue
            for stored in beats.paths_of(connection, uid):
                node.store.discard(stored)
            beats.erase(connection, uid)
        for path in reports_in(folder, uid) if folder is not None else ():
            path.unlink(missing_ok=True)


def lately(job: Job) -> bool:
    """Whether it was cancelled so lately that its worker may not know it yet."""
    return job.state is State.CANCELLED and (job.finished_at or 0) > now() - SETTLED
