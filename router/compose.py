"""The one place that builds everything: a node from its settings, and the processes that are its roles."""

import ctypes
import importlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import structlog

from dicom_sr.problem import Problem
from pipelines import catalog
from router import telemetry
from router.config import Settings, load
from router.db.engine import connect
from router.db.migrate import upgrade
from router.db.node import node_id
from router.db.place import refuse_foreign, refuse_network
from router.node import Node
from router.store import Store
from router.wake import Bell

log = structlog.get_logger()

ROLES: dict[str, str] = {
    "listen": "router.ingest.listener",
    "decide": "router.work.assemble",
    "infer": "router.work.infer",
    "build": "router.work.build",
    "deliver": "router.work.deliver",
    "tick": "router.work.timetable",
    "web": "router.web.server",
}
"""Each role is a module with `serve(node, stop)`; only `infer` ever imports torch, and only in its worker."""

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
UNFORESEEN = 70
"""Exit code after an error that nobody foresaw (EX_SOFTWARE); 1 and 2 say why starting again would change nothing."""
DRAIN_S = 60.0
RESTART_FIRST_S = 0.5
RESTART_CAP_S = 30.0


def open_node(settings: Settings) -> Node:
    """The node that these settings describe, its database brought to this version's schema.

    Raises:  Problem (database out of reach, store not writable, not initialised)
    """
    catalog.look_in(**settings.inference.shelf)
    refuse_network(settings.database.url)
    refuse_foreign(settings.database.url)
    engine = connect(settings.database.url)
    upgrade(engine)
    return Node(
        node_id=node_id(engine),
        settings=settings,
        engine=engine,
        store=Store(settings.storage.path),
        bell=Bell(settings.run_path / "wake"),
    )


def run_role(settings: Settings, role: str) -> None:
    """Run one role in this process until SIGTERM or SIGINT; it finishes what it has in hand and returns."""
    telemetry.configure(settings.log, role=role)
    sys.excepthook = crash
    node = open_node(settings)
    stop = threading.Event()

    def ask_to_stop(*_: object) -> None:
        stop.set()
        node.bell.ring(role)  # a role that waits for its bell must hear of it

    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    serve: Callable[[Node, threading.Event], None] = importlib.import_module(ROLES[role]).serve
    telemetry.take_over()
    log.info("role.started", pid=os.getpid())
    try:
        serve(node, stop)
    except Problem as problem:
        if not problem.retryable:
            raise
        log.error("role.failed", problem=getattr(problem, "name", type(problem).__name__), reason=str(problem))
        raise SystemExit(UNFORESEEN) from problem  # it may be over by the next start
    log.info("role.stopped")


def crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End a role after an error that nobody foresaw, with an exit code that lets the supervisor start it again."""
    log.error("role.failed", exc_info=(kind, error, trace))
    os._exit(UNFORESEEN)


def become(role: str, supervisor: int) -> None:
    """What a fresh copy of the supervisor does first: a name of its own, no standard input, and an end with its parent.

    The kernel ends it when the supervisor dies, so that a killed node leaves no half of itself.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NAME, f"isocenter-{role}".encode())  # as `top` and `ps -o comm` show it, cut to 15 characters
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:  # it died before we could ask
        raise SystemExit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


class Child:
    """One role's process, started again after a crash with growing pauses."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.pause_s = RESTART_FIRST_S
        self.start_at = 0.0
        self.starts = 0
        self.pid: int | None = None

    def start(self) -> bool:
        """Fork; whether this is the new process.

        What the role imports is imported before: what roles share is then read once and not by each, and a role that
        is started again runs at once, on the same code.
        """
        importlib.import_module(ROLES[self.role])
        self.started = time.monotonic()
        self.starts += 1
        supervisor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            become(self.role, supervisor)
        return self.pid == 0

    def due(self) -> bool:
        """Whether it is to be started now."""
        return self.pid is None and time.monotonic() >= self.start_at

    def ended(self, *, within_s: float = 0) -> int | None:
        """Its exit code, told once, if it ends within this time; negative after a signal."""
        if self.pid is None:
            return None
        handle = os.pidfd_open(self.pid)
        try:
            over, _, _ = select.select([handle], [], [], within_s)
        finally:
            os.close(handle)
        if not over:
            return None
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = None
        lived_s = time.monotonic() - self.started
        self.pause_s = RESTART_FIRST_S if lived_s > 2 * RESTART_CAP_S else min(self.pause_s * 2, RESTART_CAP_S)
        self.start_at = time.monotonic() + self.pause_s
        return code


def supervise(config: Path, roles: list[str]) -> int:
    """Run these roles as processes of their own until SIGTERM or SIGINT; the exit code of `isocenter serve`.

    Each is a copy of this process (fork), which has one thread and no open database then; in the copy this function
    runs the role and returns. A role that crashes is started again. One that says at the node's start why it cannot run
    (exit code 1 or 2: a taken port, a store that is not writable) ends the node with the same code. Once the node runs,
    the same words end nothing: what stood in the way of the role's next start may pass (a full disk), and the others
    work meanwhile.
    """
    settings = load(config)
    telemetry.configure(settings.log, role="supervisor")
    open_node(settings).engine.dispose()  # migrate once, before the roles come, and fail here if nothing can work
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends | {signal.SIGCHLD})
    children = [Child(role) for role in roles]
    log.info("node.started", roles=roles, pid=os.getpid())
    code = 0
    while True:
        for child in children:
            if child.due() and child.start():
                run_role(settings, child.role)
                return 0
            ended = child.ended()
            if ended in (1, 2) and child.starts == 1:
                log.error("role.cannot_run", role_ended=child.role)
                code = ended
                break
            if ended is not None:
                log.error("role.crashed", role_ended=child.role, exit_code=ended, restart_in_s=child.pause_s)
        received = signal.sigtimedwait(ends | {signal.SIGCHLD}, 1.0 if any(c.pid is None for c in children) else 60)
        if code or (received is not None and received.si_signo in ends):
            break
    stop_all(children)
    log.info("node.stopped", exit_code=code)
    return code


def stop_all(children: list[Child]) -> None:
    """Ask every role to drain, and end those that have not within the time for it."""
    running = [(child, child.pid) for child in children if child.pid is not None]
    for _, pid in running:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DRAIN_S
    for child, pid in running:
        if child.ended(within_s=max(0.1, deadline - time.monotonic())) is None:
            log.error("role.killed", pid=pid, after_s=DRAIN_S)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def serve(config: Path, role: str) -> int:
    """What `isocenter serve` does; the exit code.

    Raises:  Problem
    """
    if role == "all":
        return supervise(config, list(ROLES))
    run_role(load(config), role)
    return 0


class UnknownRole(Problem):
    """There is no such role."""

    exit_code = 2
