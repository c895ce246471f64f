"""Whatever workers, people and the clock do to the queue in whatever order, no job is lost and none is in two hands."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from router.db import commands, jobs
from router.db.engine import connect, reading, writing
from router.db.tables import audit, audit_patient, breaker, job, metadata, study
from router.domain.job import LIFE, Event, IllegalMove, Job, Lane, Outcome, State

MOST = 3
"""Attempts of every job here."""


class Queue(RuleBasedStateMachine):
    """A queue on SQLite beside a model of it: number -> state, attempts spent."""

    numbers: Bundle[int] = Bundle("numbers")
    hands: Bundle[Job] = Bundle("hands")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = connect(f"sqlite:///{Path(self.folder.name) / 'queue.db'}", durable=False)
        metadata.create_all(self.engine, tables=[audit, audit_patient, breaker, job, study])
        self.states: dict[int, tuple[State, int]] = {}
        self.held: dict[int, Job] = {}

    def teardown(self) -> None:
        self.engine.dispose()
        self.folder.cleanup()

    def do(self, act: Any, *arguments: Any, **named: Any) -> Any:
        with writing(self.engine) as connection:
            return act(connection, *arguments, **named)

    def move(self, number: int, event: Event) -> None:
        state, attempt = self.states[number]
        self.states[number] = LIFE[state, event], 0 if event is Event.REVIVE else attempt
        if state is State.RUNNING:
            del self.held[number]

    @rule(target=numbers, priority=st.sampled_from([10, 50, 90]))
    def add(self, priority: int) -> int:
        number, made = self.do(
            jobs.add_inference, study_instance_uid="1", series_instance_uid="2", generation=1,
            pixels_digest=str(len(self.states)), pipeline="p", pipeline_version="1", weights_digest=None, settings={},
            settings_digest="s", priority=priority, max_attempts=MOST,
        )  # fmt: skip
        assert made
        self.states[number] = State.QUEUED, 0
        return int(number)

    @rule(target=hands, worker=st.sampled_from(["a", "b"]))
    def claim(self, worker: str) -> Job | None:
        held: Job | None = self.do(jobs.claim, Lane.INFER, worker, 60)
        assert (held is None) == (State.QUEUED not in {state for state, _ in self.states.values()})
        if held is not None:
            state, attempt = self.states[held.id]
            assert (state, held.attempt) == (State.QUEUED, attempt + 1)
            self.states[held.id] = State.RUNNING, held.attempt
            self.held[held.id] = held
        return held

    def settled(self, held: Job | None, event: Event, act: Any, **named: Any) -> None:
        if held is None:
            return
        ours = self.held.get(held.id) == held
        assert self.do(act, held, **named) == ours
        if ours:
            self.move(held.id, event)

    @rule(held=consumes(hands))
    def finish(self, held: Job | None) -> None:
        self.settled(held, Event.FINISH, lambda c, h: jobs.finish(c, h, Outcome.RESULT))

    @rule(held=consumes(hands))
    def retry(self, held: Job | None) -> None:
        self.settled(held, Event.RETRY, jobs.retry, wait_s=0, reason="r", problem="p")

    @rule(held=hands)
    def give_up(self, held: Job | None) -> None:
        self.settled(held, Event.GIVE_UP, jobs.give_up, reason="r", problem="p")

    @rule(held=hands)
    def beat(self, held: Job | None) -> None:
        if held is not None:
            assert self.do(jobs.heartbeat, held, 60) == (self.held.get(held.id) == held)

    @rule(worker=st.sampled_from(["a", "b"]))
    def die(self, worker: str) -> None:
        for moved in self.do(jobs.lose_leases, gone=[worker]):
            assert self.held[moved.id].worker == worker
            self.move(moved.id, Event.GIVE_UP if moved.attempt >= MOST else Event.LEASE_LOST)
        assert worker not in {held.worker for held in self.held.values()}

    @rule(number=numbers, event=st.sampled_from([Event.HOLD, Event.RELEASE, Event.CANCEL, Event.REVIVE]))
    def command(self, number: int, event: Event) -> None:
        try:
            self.do(getattr(commands, event), number, who="anna")
        except IllegalMove:
            assert (self.states[number][0], event) not in LIFE
        else:
            self.move(number, event)

    @invariant()
    def the_table_is_as_the_model(self) -> None:
        with reading(self.engine) as connection:
            found = jobs.list_(connection, limit=1000)
        assert {one.id: (one.state, one.attempt) for one in found} == self.states
        for one in found:
            assert (one.state is State.RUNNING) == (one.worker is not None) == (one.lease_until is not None)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
