"""The loop of every lane: claim, keep the lease, work, settle; a killed worker costs an attempt and nothing else.

The work itself touches no job row. It gives an Ending, and the loop makes it true in one transaction: what the work
has to record, and the job's last move. A failure is recorded likewise: tried again where that may help, else final.
"""

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import random
from typing import TypeVar

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from dicom_sr.problem import Problem
from router.config import off_peak
from router.db import breakers, circuits, jobs
from router.db.engine import clock, fault, now, reading, writing
from router.domain.hours import Hours
from router.domain.job import Job, Lane, Outcome, State
from router.domain.retry import wait_s
from router.domain.rules import Priority
from router.node import Node
from router.wake import Ear
from router.work.presence import Presence, forget, gone

log = structlog.get_logger()
T = TypeVar("T")

SAFETY_NET_S = 30.0
"""An idle loop looks by itself this often; it is woken by the bell long before."""

PROGRESS_S = 1.0
"""Progress is written at most this often."""

RENEWAL_S = 2.0
"""A lease is renewed at least this often, which is also how soon a worker learns that its job was cancelled."""

UNREACHABLE_S = 1.0
"""Pause after the database could not be asked."""


class Lost(Problem):
    """The job in hand is no longer ours: cancelled, superseded or claimed by another after its lease ran out."""


class ForPerson(Problem):
    """Only a person can say how this job is to go on: it is held, and goes on when it is released."""


def nothing(connection: Connection) -> None:
    """Nothing to record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How the work on a job ended well; `record` runs in the transaction of the job's last move."""

    outcome: Outcome
    reason: str | None = None
    record: Callable[[Connection], None] = nothing
    rings: tuple[Lane, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The far side has been asked: the job waits for its word, at most `wait_s`; `record` runs in the same move."""

    wait_s: float
    reason: str
    record: Callable[[Connection], None] = nothing


class InHand:
    """A claimed job while it is being worked on."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.lost = threading.Event()
        self.over = threading.Event()
        self.said: tuple[str | None, float | None] = (None, None)

    def progress(self, phase: str, fraction: float) -> None:
        """Say how far the work is; costs nothing.

        Raises:  Lost
        """
        self.said = (phase, fraction)
        self.check()

    def check(self) -> None:
        """Go on only while the job is ours.

        Raises:  Lost
        """
        if self.lost.is_set():
            raise Lost(f"job {self.job.id} is not ours any more", remedy="Its row says who took it")


Work = Callable[[InHand], Ending | Pause]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One lane's worker process: `slots` jobs at once, each a turn of `work`; beside them `overtaking` stat jobs."""

    node: Node
    lane: Lane
    work: Work
    lease_s: float
    retry_first_s: float
    retry_cap_s: float
    slots: int = 1
    overtaking: int = 0

    def serve(self, stop: threading.Event) -> None:
        """Work until `stop` is set, and finish what is in hand then."""
        free, beside = threading.Semaphore(self.slots), threading.Semaphore(self.overtaking)
        with (
            Ear(self.node.wake_folder, self.lane) as ear,
            Presence(workers(self.node)) as presence,
            ThreadPoolExecutor(self.slots + self.overtaking, thread_name_prefix=self.lane) as pool,
        ):
            swept = -SAFETY_NET_S
            while not stop.is_set():
                try:
                    if time.monotonic() - swept >= SAFETY_NET_S:
                        sweep(self.node)
                        swept = time.monotonic()
                    with reading(self.node.engine) as connection:
                        looked = clock(connection)
                    while not stop.is_set() and (taken := self.take(free, beside, presence.name)) is not None:
                        held, slot = taken
                        pool.submit(self.turn, held).add_done_callback(partial(self.make_room, slot))
                    wait = self.idle_s(looked)
                except SQLAlchemyError as error:
                    log.error("queue.unreachable", error=fault(error))
                    wait = UNREACHABLE_S
                ear.wait(wait)

    def take(
        self, free: threading.Semaphore, beside: threading.Semaphore, worker: str
    ) -> tuple[Job, threading.Semaphore] | None:
        """A job and its slot: any in a free one, a stat job beside when none is free.

        Where there is no job, or the database cannot say, the slot stays free.
        """
        for slot, least_urgent in ((free, None), (beside, Priority.STAT)):
            if not slot.acquire(blocking=False):
                continue
            held = None
            try:
                held = self.claim(worker, least_urgent)
            finally:
                if held is None:
                    slot.release()
            return None if held is None else (held, slot)
        return None

    def make_room(self, slot: threading.Semaphore, _: object) -> None:
        """A slot is free again, and perhaps a destination."""
        slot.release()
        self.node.bell.ring(self.lane)

    def claim(self, worker: str, least_urgent: int | None = None) -> Job | None:
        """The most urgent due job, now ours; where a priority is given, none that is less urgent."""
        with writing(self.node.engine) as connection:
            return jobs.claim(
                connection,
                self.lane,
                worker,
                self.lease_s,
                off_peak=self.hours.are_open(now()),
                at_once=self.at_once,
                least_urgent=least_urgent,
            )

    def idle_s(self, looked: int) -> float:
        """How long nothing becomes due by itself; what was due when we looked waits for something else, which rings."""
        with reading(self.node.engine) as connection:
            due, at = jobs.next_due(connection, self.lane, after=looked), clock(connection)
        opens = None if self.hours.are_open(looked) else self.hours.open_at(looked)
        waits = (max(0.0, (moment - at) / jobs.SECOND) for moment in (due, opens) if moment is not None)
        return min((SAFETY_NET_S, *waits))

    @property
    def at_once(self) -> Mapping[str, int]:
        """How many jobs of one pipeline, or deliveries to one destination, may run at a time."""
        settings = self.node.settings
        return settings.delivery.at_once if self.lane is Lane.DELIVER else settings.inference.at_once

    @property
    def hours(self) -> Hours:
        """When off-peak jobs may start."""
        return off_peak(self.node.settings)

    def turn(self, held: Job) -> None:
        """One attempt at one job, from its claim to its next state; nothing that goes wrong in it ends the worker."""
        begun = time.monotonic()
        with structlog.contextvars.bound_contextvars(
            job=held.id, study=held.study_instance_uid, attempt=held.attempt, **subject(held)
        ):
            log.info("job.claimed")
            try:
                with self.keeping(held) as hand:
                    ending = self.work(hand)
                    hand.progress("settle", 1.0)
                    self.settle(held, ending, time.monotonic() - begun)
            except Lost:
                log.warning("job.lost")
            except Exception as error:  # noqa: BLE001 - one of the three places: recorded, and the loop goes on
                self.record(held, error)

    @contextmanager
    def keeping(self, held: Job) -> Iterator[InHand]:
        """The job in hand, its lease renewed and its progress written by a thread of its own."""
        hand = InHand(held)
        pulse = threading.Thread(target=self.pulse, args=(hand,), name=f"pulse-{held.id}", daemon=True)
        pulse.start()
        try:
            yield hand
        finally:
            hand.over.set()
            pulse.join()

    def pulse(self, hand: InHand) -> None:
        """Renew the lease in good time, and whenever there is progress to write."""
        written, renewed = hand.said, time.monotonic()
        renewal_s = min(RENEWAL_S, self.lease_s / 4)
        while not hand.over.wait(min(PROGRESS_S, renewal_s)):
            if hand.said == written and time.monotonic() - renewed < renewal_s:
                continue
            said = hand.said
            try:
                with writing(self.node.engine) as connection:
                    ours = jobs.heartbeat(connection, hand.job, self.lease_s, phase=said[0], fraction=said[1])
            except SQLAlchemyError as error:
                log.warning("job.heartbeat_failed", job=hand.job.id, error=fault(error))
                continue
            written, renewed = said, time.monotonic()
            if not ours:
                hand.lost.set()
                return

    def settle(self, held: Job, ending: Ending | Pause, took_s: float) -> None:
        """Make the ending true, all of it or nothing.

        Raises:  Lost
        """
        with writing(self.node.engine) as connection:
            if isinstance(ending, Pause):
                moved = jobs.park(connection, held, wait_s=ending.wait_s, reason=ending.reason)
            else:
                moved = jobs.finish(connection, held, ending.outcome, reason=ending.reason)
            if not moved:
                raise Lost(f"job {held.id} is not ours any more", remedy="Its row says who took it")
            if held.pipeline is not None:
                breakers.survived(connection, held.pipeline)
            ending.record(connection)
        if isinstance(ending, Pause):
            log.info("job.waiting", reason=ending.reason, took_s=round(took_s, 3))
            return
        log.info(f"job.{ending.outcome}", reason=ending.reason, took_s=round(took_s, 3))
        late = held.late_by(now())
        if late:
            log.warning("job.late", late_s=round(late / jobs.SECOND))
        for lane in ending.rings:
            self.node.bell.ring(lane)

    def record(self, held: Job, error: Exception) -> None:
        """Another attempt later where that may help, else the job has failed."""
        reason, name = told(error), getattr(error, "name", type(error).__name__)
        free = not getattr(error, "spends_attempt", True)
        final = (held.last_attempt and not free) or (isinstance(error, Problem) and not error.retryable)
        first = self.retry_cap_s if free and held.problem == name else self.retry_first_s
        wait = wait_s(held.attempt, first_s=first, cap_s=self.retry_cap_s, chance=random())
        spent = held.attempt - free
        where = [] if isinstance(error, Problem) else places(error)
        aside = isinstance(error, ForPerson)

        def write(connection: Connection) -> tuple[bool, breakers.Paused | None]:
            if aside:
                moved = jobs.set_aside(connection, held, reason=reason, problem=name)
            elif final:
                moved = jobs.give_up(connection, held, reason=reason, problem=name)
            else:
                moved = jobs.retry(connection, held, wait_s=wait, reason=reason, problem=name, attempt=spent)
                if free and held.destination is not None:
                    circuits.keep_waiting(connection, held.destination, wait_s=wait)
            if moved and held.pipeline is not None and name == breakers.DIED:
                return moved, breakers.died(connection, held.pipeline, held.study_instance_uid)
            return moved, None

        written = self.insist(write)
        if written is None:  # its lease runs out, and another attempt is made
            return
        moved, paused = written
        if not moved:
            log.warning("job.lost")
        elif aside:
            log.error("job.held", problem=name, reason=reason)
        elif final:
            log.error("job.failed", problem=name, reason=reason, where=where)
        else:
            log.warning("job.retry", problem=name, reason=reason, where=where, wait_s=round(wait, 1))
        if paused is not None:
            log.error("pipeline.paused", reason=paused.why)

    def insist(self, write: Callable[[Connection], T]) -> T | None:
        """What `write` gives, once the database takes it; None where it has not while the lease surely lasts.

        A disk that is full for a moment would else keep the job, and its destination, until the lease has run out.
        """
        until = time.monotonic() + self.lease_s / 2
        while True:
            try:
                with writing(self.node.engine) as connection:
                    return write(connection)
            except SQLAlchemyError as unreachable:
                log.error("queue.unreachable", error=fault(unreachable))
                if time.monotonic() >= until:
                    return None
                time.sleep(UNREACHABLE_S)


def subject(held: Job) -> dict[str, str | None]:
    """What a job is about, for the log."""
    if held.lane is Lane.INFER:
        return {"pipeline": held.pipeline, "series": held.series_instance_uid}
    if held.lane is Lane.BUILD:
        return {"findings_of": str(held.findings_job_id)}
    return {"destination": held.destination}


def told(error: Exception) -> str:
    """The reason that people read; of an error that is not ours only kind and place: its text may name a patient."""
    if isinstance(error, Problem):
        return str(error)
    return f"{type(error).__name__} at {places(error)[-1]}"


def places(error: Exception) -> list[str]:
    """Where an error came from: file, line and function of each frame."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames] or ["nowhere"]


def workers(node: Node) -> Path:
    """Folder in which the workers of this machine are present."""
    return node.settings.run_path / "workers"


def sweep(node: Node) -> list[Job]:
    """Free the jobs of workers that have fallen silent or are gone; the jobs that moved."""
    lost = gone(workers(node))
    with writing(node.engine) as connection:
        moved = jobs.lose_leases(connection, gone=lost)
    forget(workers(node), lost)
    for job in moved:
        event = log.error if job.state is State.FAILED else log.warning
        event("job.lease_lost", job=job.id, study=job.study_instance_uid, state=job.state, attempt=job.attempt)
    for lane in {job.lane for job in moved if job.state is State.QUEUED}:
        node.bell.ring(lane)
    return moved


def wake_overdue(node: Node) -> None:
    """Let jobs go on for which the far side's word has not come in time."""
    with writing(node.engine) as connection:
        moved = jobs.wake_overdue(connection)
    for job in moved:
        log.warning("job.no_word", job=job.id, study=job.study_instance_uid, destination=job.destination)
        node.bell.ring(job.lane)
