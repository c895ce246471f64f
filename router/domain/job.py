"""A job's life: one table, and nothing else in the program assigns a state."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dicom_sr.problem import Problem
from router.domain.delivery import note_for


class IllegalMove(Problem):
    """A job was asked to do what its state does not allow."""


class State(StrEnum):
    """Where a job stands. `waiting` means that the far side has been asked to commit; `held` that a person must act."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    HELD = "held"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class Event(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    HOLD = "hold"
    RELEASE = "release"
    FINISH = "finish"
    PARK = "park"
    RETRY = "retry"
    LEASE_LOST = "lease_lost"
    GIVE_UP = "give_up"
    CONFIRM = "confirm"
    REVIVE = "revive"
    CANCEL = "cancel"
    SUPERSEDE = "supersede"


LIFE: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.CLAIM): State.RUNNING,
    (State.QUEUED, Event.HOLD): State.HELD,
    (State.HELD, Event.RELEASE): State.QUEUED,
    (State.RUNNING, Event.FINISH): State.DONE,
    (State.RUNNING, Event.PARK): State.WAITING,
    (State.RUNNING, Event.RETRY): State.QUEUED,
    (State.RUNNING, Event.LEASE_LOST): State.QUEUED,
    (State.RUNNING, Event.GIVE_UP): State.FAILED,
    (State.WAITING, Event.CONFIRM): State.DONE,
    (State.WAITING, Event.RETRY): State.QUEUED,
    (State.FAILED, Event.REVIVE): State.QUEUED,
    **{
        (state, Event.CANCEL): State.CANCELLED
        for state in (State.QUEUED, State.HELD, State.RUNNING, State.WAITING, State.FAILED)
    },
    **{
        (state, Event.SUPERSEDE): State.SUPERSEDED for state in (State.QUEUED, State.HELD, State.RUNNING, State.WAITING)
    },
}
"""The transition table. A lost lease spends an attempt; at `max_attempts` it is GIVE_UP. A re-run is a new job."""


class Outcome(StrEnum):
    """What a job that is done came to."""

    RESULT = "result"
    REFUSED = "refused"
    DELIVERED = "delivered"


class Lane(StrEnum):
    """Which room works on a job."""

    INFER = "infer"
    BUILD = "build"
    DELIVER = "deliver"


def after(state: State, event: Event) -> State:
    """The state that follows.

    Raises:  IllegalMove
    """
    try:
        return LIFE[state, event]
    except KeyError:
        raise IllegalMove(
            f"a {state} job cannot {event}",
            remedy=f"It can: {', '.join(sorted(e for s, e in LIFE if s is state)) or 'nothing any more'}",
        ) from None


def before(event: Event) -> tuple[State, ...]:
    """The states from which an event is possible; the UPDATE repeats them in its WHERE."""
    return tuple(state for state, possible in LIFE if possible is event)


def target(event: Event) -> State:
    """The one state to which an event leads, from wherever it is possible."""
    (state,) = {following for (_, possible), following in LIFE.items() if possible is event}
    return state


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of work. `id`, `worker` and `attempt` together are the fencing token of who claimed it.

    Times are microseconds since 1970 UTC. The fields from `series_instance_uid` to `settings_digest` belong to the
    infer lane, `findings_job_id` and `profile` to the build lane, `result_set_id` and `destination` to the deliver
    lane.
    """

    id: int
    lane: Lane
    state: State
    priority: int
    study_instance_uid: str
    series_instance_uid: str | None
    generation: int
    pixels_digest: str | None
    identity_digest: str | None
    pipeline: str | None
    pipeline_version: str | None
    weights_digest: str | None
    settings: Mapping[str, Any] | None
    settings_digest: str | None
    run: int
    completeness: str | None
    instances: int | None
    stale_at: int | None
    result_set_id: int | None
    destination: str | None
    findings_job_id: int | None
    profile: str | None
    attempt: int
    max_attempts: int
    not_before: int
    deadline: int | None
    worker: str | None
    lease_until: int | None
    phase: str | None
    fraction: float | None
    outcome: Outcome | None
    reason: str | None
    problem: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None

    def late_by(self, at: int) -> int:
        """Microseconds by which its deadline is past, at its end or at this moment; 0 where it is not."""
        if self.deadline is None or self.state in (State.CANCELLED, State.SUPERSEDED):
            return 0
        return max(0, (self.finished_at or at) - self.deadline)

    @property
    def work(self) -> str:
        """What is done, in words."""
        if self.lane is Lane.INFER:
            return f"{self.pipeline} {self.pipeline_version}"
        if self.lane is Lane.BUILD:
            note = note_for(self.profile)
            what = "build of" if note is None else f"note to {note} that rejects the results of"
            return f"{what} job {self.findings_job_id}"
        return f"{'forwarding' if self.is_forward else 'delivery'} to {self.destination}"

    @property
    def is_forward(self) -> bool:
        """Whether it sends the study itself, as it was received, and not results."""
        return self.lane is Lane.DELIVER and self.result_set_id is None

    @property
    def last_attempt(self) -> bool:
        """Whether a failure of the attempt in hand is final."""
        return self.attempt >= self.max_attempts
