"""The heartbeat: how far the phantom has come through the node, and which stage is broken when it has not come back."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from router.domain.job import Job, Lane, Outcome, State

AE_TITLE = "ISOCENTER_BEAT"
"""Calling AE title of the phantom's sender: reserved, whatever the sources say."""

PATIENT_ID = "ISOCENTER-HEARTBEAT"
DESTINATION = "isocenter-heartbeat"
"""Where its results go: a folder of the node's own, reserved, whatever the destinations say."""

KIND = "heartbeat.failed"
"""Of the alert, whose subject is the stage."""

TOLERANCE = 0.01
"""Of the known volume: what reading the number from a decimal string may cost, and no more than that."""

RULE = {
    "name": "heartbeat",
    "when": {"calling_ae_title": AE_TITLE},
    "pipelines": ["ct_bone"],
    "destinations": [DESTINATION],
    "priority": "stat",
}
"""The one rule that is asked about the phantom, which no other rule sees."""


class Stage(StrEnum):
    """A door of the corridor, in their order."""

    LISTEN = "listen"
    DECIDE = "decide"
    INFER = "infer"
    DELIVER = "deliver"
    DESTINATION = "destination"
    NUMBER = "number"


REMEDIES = {
    Stage.LISTEN: "See whether role listen runs and answers on listener.port: `isocenter doctor`",
    Stage.DECIDE: "See whether role decide runs, and what it logs",
    Stage.INFER: "See whether role infer runs, and `isocenter jobs list`; `isocenter doctor` tries the device",
    Stage.DELIVER: "See whether role deliver runs, and what it logs",
    Stage.DESTINATION: "See whether heartbeat.folder is a folder that the node may write",
    Stage.NUMBER: "Trust no result until it is known why: another version, a broken device, other weights?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of one phantom. Volumes in ml; `came_back` is what its report at the destination says."""

    sent: bool
    instances: int
    held: str | None
    jobs: Sequence[Job]
    came_back: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stands:
    """It has not got past this stage; what was seen there."""

    stage: Stage
    what: str


def stands(seen: Seen, *, slices: int, volume_ml: float) -> Stands | None:
    """Where the phantom stands; None when it has come through and its number is right."""
    if not seen.sent or seen.instances < slices:
        taken = f"{seen.instances} of {slices} slices are stored"
        return Stands(stage=Stage.LISTEN, what=taken if seen.instances else "C-STORE to our own listener failed")
    runs = [job for job in seen.jobs if job.lane is Lane.INFER]
    if not runs:
        said = f"the study is held: {seen.held}" if seen.held else "no job was made of the study"
        return Stands(stage=Stage.DECIDE, what=said)
    broken = next((job for job in runs if job.state is not State.DONE or job.outcome is not Outcome.RESULT), None)
    sent = [job for job in seen.jobs if job.lane is Lane.DELIVER]
    if broken is not None or not sent:
        return Stands(stage=Stage.INFER, what=told(broken) if broken else "the run has given nothing to deliver")
    waiting = next((job for job in sent if job.state is not State.DONE), None)
    if waiting is not None:
        stage = Stage.DESTINATION if waiting.problem else Stage.DELIVER
        return Stands(stage=stage, what=told(waiting))
    if seen.came_back is None:
        return Stands(stage=Stage.DESTINATION, what="the report was delivered and is not there")
    if not abs(seen.came_back - volume_ml) <= TOLERANCE * volume_ml:  # NaN is wrong, too
        return Stands(stage=Stage.NUMBER, what=f"{seen.came_back:.2f} ml came back, {volume_ml:.2f} ml were sent")
    return None


def told(job: Job) -> str:
    """A job in one sentence."""
    return f"job {job.id} is {job.outcome or job.state}" + (f": {job.reason}" if job.reason else "")
