"""A destination that does not answer at all: nothing is tried on it until its echo comes, and no attempt is spent.

The rows say it all, so a restart changes nothing: a queued delivery whose last problem was Unreachable keeps all for
its destination waiting (`db.circuits.keep_waiting`). This page asks such destinations by the clock, and lets everything
go on as soon as one answers, or says that it does not want us. A delivery knocks by itself now and then, too.
"""

import time

import structlog

from router import destinations
from router.db import alerts, circuits
from router.db.engine import reading, writing
from router.destinations import Context, Rejected, Unreachable
from router.domain.alarms import DESTINATION
from router.domain.job import Lane
from router.node import Node
from router.work.outbox import in_force

log = structlog.get_logger()

PATIENCE_S = 10.0
"""The longest wait for one echo."""


class Circuits:
    """What this process knows beyond the rows: since when each destination has been silent."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}

    def ask(self, node: Node) -> None:
        """Ask every destination for which deliveries wait whether it is back."""
        with reading(node.engine) as connection:
            waiting = circuits.unreachable(connection)
            known = in_force(connection) if waiting else {}
            over = alerts.stands(connection, DESTINATION).keys() - set(waiting)
        for name in waiting:
            destination = known.get(name)
            try:
                if destination is not None:
                    destinations.find(destination.kind).echo(destination, context(node))
            except Unreachable as problem:
                self.silent(node, name, problem)
            except Rejected:  # it answers; the next delivery is told why it does not want us
                self.back(node, name)
            else:
                self.back(node, name)
        for name in self.since.keys() - set(waiting):
            self.since.pop(name)
        if over:
            with writing(node.engine) as connection:
                for name in over:
                    alerts.end(connection, DESTINATION, name)

    def silent(self, node: Node, name: str, problem: Unreachable) -> None:
        """It does not answer; after a while somebody should know."""
        at = time.monotonic()
        silent_s = at - self.since.setdefault(name, at)
        after_min = node.settings.alerts.destination_down_min
        if after_min is None or silent_s < after_min * 60:
            return
        with reading(node.engine) as connection:
            known = name in alerts.stands(connection, DESTINATION)
        if known:
            return
        log.error("destination.down", destination=name, silent_s=round(silent_s), reason=problem.what)
        what = f"destination {name} has not answered for {silent_s / 60:.0f} min, and deliveries wait for it"
        with writing(node.engine) as connection:
            alerts.raise_(connection, DESTINATION, name, what=what, remedy=problem.remedy)

    def back(self, node: Node, name: str) -> None:
        """It answers: what waited is due."""
        with writing(node.engine) as connection:
            number = circuits.go_on(connection, name)
            alerts.end(connection, DESTINATION, name)
        log.info("destination.up", destination=name, deliveries=number)
        self.since.pop(name, None)
        node.bell.ring(Lane.DELIVER)


def context(node: Node) -> Context:
    """What we bring to an echo."""
    settings = node.settings
    return Context(
        calling_ae_title=settings.delivery.calling_ae_title or settings.ae_title,
        timeout_s=min(PATIENCE_S, settings.delivery.timeout_s),
        tls=settings.tls,
    )
