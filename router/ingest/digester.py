"""The process that computes what nobody waits for: digests of new instances, also of those from before a restart.

It is a process of its own, since hashing in a thread would make receiving wait for the interpreter's lock, and a kind
one: it yields to all others. The listener starts it, tells it what it needs on standard input, and keeps that open;
when the listener is gone in whatever way, so is it. `python -m router.ingest.digester` by hand makes no sense.
"""

import json
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from router import telemetry
from router.config import Log
from router.db import instances
from router.db.engine import connect, fault, reading, writing
from router.db.versions import Digests, InstanceRow
from router.ingest.digest import digests
from router.store import Store
from router.wake import Bell, Ear

log = structlog.get_logger()

TOPIC = "digest"
AT_ONCE = "digest-now"
"""An association has ended, and decide waits for nothing but digests."""
BATCH = 32
LOOK_S = 30.0
QUIET_S = 0.25
PATIENCE_S = 5.0
NICENESS = 15
"""Hashing a burst may lag behind it, but on a machine that is busy for hours a study must still become complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the listener tells its digester; on a pipe, since a database's URL may hold a password."""

    database_url: str
    store: str
    wake_folder: str
    log_format: str
    log_level: str

    def line(self) -> bytes:
        """As it goes through the pipe."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Digester:
    """Computes what is missing, the longest waiting first."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self.store = store
        self.engine = engine

    def batch(self) -> bool:
        """Digest some instances; False when none is left, or none can be done now."""
        try:
            with reading(self.engine) as connection:
                waiting = instances.undigested(connection, limit=BATCH)
            done, lost = self._read(waiting)
            if done or lost:
                with writing(self.engine) as connection:
                    instances.set_digests(connection, done)
                    instances.mark_lost(connection, lost)
        except (OSError, SQLAlchemyError) as error:
            log.error("digester.cannot_go_on", why=fault(error))
            return False
        return bool(done or lost)

    def _read(self, waiting: Sequence[InstanceRow]) -> tuple[list[Digests], list[str]]:
        """Digests of those whose files are whole, and paths of the others.

        Raises:  OSError
        """
        done: list[Digests] = []
        lost: list[str] = []
        for row in waiting:
            try:
                done.append(digests(self.store.path(row.path), row.version, row))
            except (FileNotFoundError, struct.error):
                lost.append(row.path)
                log.error("instance.file_missing", path=row.path, instance=row.sop_instance_uid)
        return done, lost


def run(orders: Orders, listener: int) -> None:
    """Digest until the listener closes its end of the pipe."""
    bell = Bell(Path(orders.wake_folder))
    digester = Digester(Store(Path(orders.store)), connect(orders.database_url, durable=False))
    with Ear(bell.folder, TOPIC) as ear, Ear(bell.folder, AT_ONCE) as ended:
        while True:
            while digester.batch():
                bell.ring("decide")
                if select.select([listener], [], [], 0)[0]:
                    return
            ready, _, _ = select.select([ear.socket.fileno(), ended.socket.fileno(), listener], [], [], LOOK_S)
            if listener in ready:
                return
            _let_pass(ear, ended)


def _let_pass(ear: Ear, ended: Ear) -> None:
    """Wait until a burst of instances is over: receiving is faster when nobody hashes beside it.

    Not for ever, and no longer than until an association has `ended`: then somebody waits for the digests.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        ready, _, _ = select.select([ear.socket, ended.socket], [], [], QUIET_S)
        if not ready or ended.socket in ready:
            break
        ear.wait(0)
    ear.wait(0)
    ended.wait(0)


def main() -> None:
    """Read the orders and follow them; only the listener ends this process, so it must not go when all are told to."""
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, signal.SIG_IGN)
    os.nice(NICENESS)
    orders = Orders(**json.loads(sys.stdin.readline()))
    telemetry.configure(Log.model_validate({"format": orders.log_format, "level": orders.log_level}), role="listen")
    run(orders, sys.stdin.fileno())


if __name__ == "__main__":
    main()
