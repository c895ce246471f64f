"""Tells others that something was stored, a few times a second at most; and keeps the digester running."""

import subprocess
import sys
import threading
import time
from contextlib import suppress

import structlog

from router.db import instances
from router.db.engine import reading
from router.ingest import digester
from router.ingest.digester import Orders
from router.node import Node

log = structlog.get_logger()

PACE_S = 0.1
"""A burst of instances wakes the next room as often as this, not at each."""
LOOK_S = 5.0
"""How often a digester that has died is noticed. After the first such time it is started without an instance, too:
else it would import what it needs while the first study waits for it."""


class Notice:
    """A thread that rings for decide and for the digester, which it starts and, should that die, starts again."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.changed = threading.Event()
        self.over = threading.Event()
        self.stopped = False
        self.thread = threading.Thread(target=self._run, name="notice", daemon=True)
        self.digester: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; what an earlier life has left undone is digested at once."""
        with reading(self.node.engine) as connection:
            if instances.undigested(connection, limit=1):
                self.changed.set()
        self.thread.start()

    def tell(self) -> None:
        """Something was stored."""
        if not self.changed.is_set():
            self.changed.set()

    def ended(self) -> None:
        """An association has ended: what it carried may be complete, so that nothing is waited for any more."""
        self.over.set()
        self.changed.set()

    def stop(self) -> None:
        """End both, after a last ring."""
        self.stopped = True
        self.changed.set()
        self.thread.join()
        if self.digester is not None:
            self._end(self.digester)

    def _run(self) -> None:
        while not self.stopped:
            if self.changed.wait(LOOK_S):
                self.changed.clear()
                self._ring()
                self._keep_digester()
                time.sleep(PACE_S)
            else:
                self._keep_digester()
        self._ring()

    def _ring(self) -> None:
        self.node.bell.ring("decide")
        self.node.bell.ring(digester.TOPIC)
        if self.over.is_set():
            self.over.clear()
            self.node.bell.ring(digester.AT_ONCE)

    def _keep_digester(self) -> None:
        if self.stopped:
            return
        if self.digester is not None and self.digester.poll() is not None:
            log.error("digester.died", code=self.digester.returncode)
            self._end(self.digester)
            self.digester = None
        self.digester = self.digester or self._start_digester()

    def _start_digester(self) -> subprocess.Popen[bytes]:
        settings = self.node.settings
        orders = Orders(
            database_url=self.node.engine.url.render_as_string(hide_password=False),
            store=str(self.node.store.root),
            wake_folder=str(self.node.wake_folder),
            log_format=settings.log.format,
            log_level=settings.log.level,
        )
        started = subprocess.Popen([sys.executable, "-m", digester.__name__], stdin=subprocess.PIPE)
        with suppress(BrokenPipeError):  # it died at once: seen at the next look
            assert started.stdin is not None
            started.stdin.write(orders.line())
            started.stdin.flush()
        return started

    def _end(self, running: subprocess.Popen[bytes]) -> None:
        """It may be killed at any time: what it had in hand is begun again by the next."""
        running.kill()
        running.wait()
        if running.stdin is not None:
            with suppress(BrokenPipeError):  # of orders that it never read
                running.stdin.close()
