"""A job's life: one table, and nothing else in the program assigns a state."""

from enum import StrEnum

from dicom_sr.problem import Problem


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
        (state, Event.SUPERSEDE): State.SUPERSEDED
        for state in (State.QUEUED, State.HELD, State.RUNNING, State.WAITING)
    },
}
"""The transition table. A lost lease spends an attempt; at `max_attempts` the event is GIVE_UP. A re-run is a new job."""


class Outcome(StrEnum):
    """What a job that is done came to."""

    RESULT = "result"
    REFUSED = "refused"
    DELIVERED = "delivered"


class Lane(StrEnum):
    """Which room works on a job."""

    INFER = "infer"
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
