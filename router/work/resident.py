"""The resident process seen from the worker: started on demand, asked, and buried when it has died or must.

Once one had to be buried, a second is kept started beside it: whatever killed the first is tried again, and the studies
of others are not to wait each time until torch is imported. It is started anew and not forked from a prepared process:
a fork of one that has begun threads, or has asked CUDA anything, may hang. Before a first death there is none, since a
spare costs some 300 MB.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Protocol

import structlog

from dicom_sr.problem import Problem
from router.work.messages import (
    Build,
    Failure,
    Found,
    Objects,
    Progress,
    Ready,
    Recall,
    Reply,
    Request,
    Run,
    ToldProblem,
)

log = structlog.get_logger()

INSIDE = (sys.executable, "-m", "router.work.inside")
START_S = 300.0
"""The longest start: importing torch from a cold disk."""

STDERR = 2
"""What the process prints is no answer of ours."""

LOOK_S = 0.25
"""How soon a cancelled job, or one out of time, is noticed."""


class ProcessDied(Problem):
    """The resident process ended in the middle of a request: a crash in native code, or out of memory."""

    retryable = True


class OutOfTime(Problem):
    """A run took longer than its pipeline allows."""

    retryable = True


class Watch(Protocol):
    """Who wants to know how a request gets on; both may raise, to end it."""

    def progress(self, phase: str, fraction: float) -> None:
        """It has come so far."""

    def check(self) -> None:
        """Asked several times a second."""


class Unwatched:
    """Nobody wants to know."""

    def progress(self, phase: str, fraction: float) -> None:
        """Nobody listens."""

    def check(self) -> None:
        """Nobody ends it."""


class Resident:
    """One process that works, and after a death a spare. Use as a context manager; one thread at a time, but for
    `standing_still`, which is another's.
    """

    def __init__(self, *, device: str, threads: int, command: Sequence[str] = INSIDE) -> None:
        self.command = [*command]
        self.arguments = [device, str(threads)]
        self.process: subprocess.Popen[bytes] | None = None
        self.wire: Connection
        self.spare: Begun | None = None
        self.buried = 0
        self.stood_s = 0.0
        self.stopped_at: float | None = None

    def __enter__(self) -> "Resident":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        if self.spare is not None:
            bury(self.spare)
            self.spare = None

    def start(self) -> None:
        """Have a process that is ready.

        Raises:  ToldProblem (the device is not there), ProcessDied, OutOfTime
        """
        if self.process is not None:
            return
        spare, self.spare = self.spare, None
        if spare is not None and spare.process.poll() is not None:
            bury(spare)
            spare = None
        begun = spare or self.begin()
        self.process, self.wire = begun.process, begun.wire
        ready = self.reply(START_S, Unwatched())
        log.info(
            "resident.started",
            pid=begun.process.pid,
            device=ready.device if isinstance(ready, Ready) else None,
            spare=spare is not None,
        )
        if self.buried:
            self.spare = self.begin()

    def begin(self) -> "Begun":
        """A process that gets ready by itself."""
        ours, theirs = Pipe()
        with theirs:
            process = subprocess.Popen(
                [*self.command, str(theirs.fileno()), *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
                pass_fds=[theirs.fileno()],
            )
        return Begun(process, ours)

    def run(self, request: Run | Recall, watch: Watch, *, limit_s: float) -> Found | Failure:
        """Run a pipeline, or take up what an earlier run found; a Failure is a refusal.

        Raises:  ToldProblem, ProcessDied, OutOfTime, and whatever `watch` raises: it ends the run
        """
        answer = self.ask(request, watch, limit_s)
        assert isinstance(answer, Found | Failure)
        return answer

    def build(self, request: Build, watch: Watch, *, limit_s: float) -> Objects:
        """Build one result set of what was last run.

        Raises:  ToldProblem, ProcessDied, OutOfTime, and whatever `watch` raises
        """
        answer = self.ask(request, watch, limit_s)
        assert isinstance(answer, Objects)
        return answer

    def ask(self, request: Request, watch: Watch, limit_s: float) -> Reply:
        """The answer to a request."""
        self.start()
        try:
            self.wire.send(request)
        except BrokenPipeError:
            raise self.died() from None
        return self.reply(limit_s, watch)

    def reply(self, limit_s: float, watch: Watch) -> Reply:
        """The next answer that is not mere progress. A process that gives none in time, or no more, is ended.

        While it is made to stand still, its time does not run.
        """
        began = self.clock()
        usable = False
        try:
            while self.clock() - began < limit_s:
                watch.check()
                if not self.wire.poll(LOOK_S):
                    continue
                answer: Reply = self.wire.recv()
                if isinstance(answer, Progress):
                    watch.progress(answer.phase, answer.fraction)
                    continue
                usable = not (isinstance(answer, Failure) and answer.fatal)
                if isinstance(answer, Failure) and not answer.refused:
                    raise ToldProblem(answer)
                return answer
        except (EOFError, ConnectionResetError):
            raise self.died() from None
        finally:
            if not usable:
                self.buried += 1
                self.end()
        raise OutOfTime(
            f"the run was ended after {limit_s:.0f} s", remedy="Give it a faster device, or a pipeline with more time"
        )

    def clock(self) -> float:
        """Seconds in which the process was not made to stand still."""
        stopped_at = self.stopped_at
        return (time.monotonic() if stopped_at is None else stopped_at) - self.stood_s

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """The process, whatever it is doing, does nothing meanwhile, so that another one has the device."""
        process = self.process
        began = self.stopped_at = time.monotonic()
        if process is not None:
            process.send_signal(signal.SIGSTOP)
            log.info("resident.overtaken", pid=process.pid)
        try:
            yield
        finally:
            if process is not None:
                process.send_signal(signal.SIGCONT)
            self.stood_s += time.monotonic() - began
            self.stopped_at = None

    def died(self) -> ProcessDied:
        """Bury the process and say how it ended."""
        assert self.process is not None
        code = self.process.wait(10)
        self.end()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ProcessDied(
            f"the process of the pipeline {how}",
            remedy="SIGKILL means out of memory as a rule, SIGSEGV a fault in native code",
        )

    def end(self) -> None:
        """End the process now; the next request gets a new one."""
        if self.process is None:
            return
        bury(Begun(self.process, self.wire))
        self.process = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A started process and our end of the pipe to it."""

    process: subprocess.Popen[bytes]
    wire: Connection


def bury(begun: Begun) -> None:
    """Have the process gone."""
    begun.process.kill()
    begun.process.wait()
    begun.wire.close()
