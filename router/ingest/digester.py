"""The thread that computes what nobody waits for: digests of new instances, also of those from before a restart.

It also rings for decide, so that a burst of instances wakes the next room a few times a second, not at each.
"""

import os
import struct
import threading
import time
from collections.abc import Sequence

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from router.db import instances
from router.db.engine import reading, writing
from router.db.instances import Digests, InstanceRow
from router.ingest.digest import digests
from router.store import Store
from router.wake import Bell

log = structlog.get_logger()

BATCH = 32
LOOK_S = 30.0
RING_S = 0.1
NICENESS = 10
"""Hashing yields to receiving: the digests of a burst may lag behind it."""


class Digester:
    """Start it once a process; `stop` ends it after the file in hand."""

    def __init__(self, store: Store, engine: Engine, bell: Bell) -> None:
        self.store = store
        self.engine = engine
        self.bell = bell
        self.stopped = False
        self.arrived = threading.Event()
        self.changed = threading.Event()
        self.threads = [
            threading.Thread(target=self._digest, name="digester", daemon=True),
            threading.Thread(target=self._ring, name="ringer", daemon=True),
        ]

    def start(self) -> None:
        """Begin with what was left undone."""
        self.arrived.set()
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """End both threads; returns when they have ended."""
        self.stopped = True
        self.arrived.set()
        self.changed.set()
        for thread in self.threads:
            thread.join()

    def stored(self) -> None:
        """An instance was committed: digest it, and tell decide."""
        self.arrived.set()
        self.changed.set()

    def tell(self) -> None:
        """Decide has something to look at."""
        self.changed.set()

    def _ring(self) -> None:
        while not self.stopped:
            self.changed.wait()
            self.changed.clear()
            self.bell.ring("decide")
            time.sleep(RING_S)
        self.bell.ring("decide")

    def _digest(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self.stopped:
            self.arrived.wait(LOOK_S)
            self.arrived.clear()
            while not self.stopped and self._batch():
                self.changed.set()

    def _batch(self) -> bool:
        """Digest the longest waiting instances; False when none is left, or none can be done now."""
        try:
            with reading(self.engine) as connection:
                waiting = instances.undigested(connection, limit=BATCH)
            done, lost = self._read(waiting)
            if done or lost:
                with writing(self.engine) as connection:
                    instances.set_digests(connection, done)
                    instances.mark_lost(connection, lost)
        except (OSError, SQLAlchemyError) as error:
            log.error("digester.cannot_read", why=str(error))
            return False
        return bool(done or lost)

    def _read(self, waiting: Sequence[InstanceRow]) -> tuple[list[Digests], list[str]]:
        """Digests of those whose files are whole, and paths of the others.

        Raises:  OSError
        """
        done: list[Digests] = []
        lost: list[str] = []
        for row in waiting:
            if self.stopped:
                break
            try:
                done.append(digests(self.store.path(row.path), row.version, row))
            except (FileNotFoundError, struct.error):
                lost.append(row.path)
                log.error("instance.file_missing", path=row.path, instance=row.sop_instance_uid)
        return done, lost
