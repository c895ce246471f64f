"""All work that is done by the clock, on one page. Role `tick`."""

import threading
from collections.abc import Callable
from functools import partial

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from router import query
from router.db.engine import fault
from router.node import Node
from router.work import heartbeat, retain, watch
from router.work.circuit import Circuits
from router.work.loop import sweep, wake_overdue
from router.work.seal import seal_due

log = structlog.get_logger()

TIMETABLE: tuple[tuple[str, float, Callable[[Node], object]], ...] = (
    ("leases.sweep", 5.0, sweep),
    ("destinations.echo", 10.0, Circuits().ask),
    ("commitments.overdue", 5.0, wake_overdue),
    ("commitments.report", 60.0, query.report_due),
    ("audit.seal", 30.0, seal_due),
    ("heartbeat.step", 2.0, heartbeat.step),
    ("alerts.watch", 10.0, watch.look),
    ("alerts.results", 3600.0, watch.compare),
    ("alerts.tell", 10.0, watch.tell),
    ("retention.run", 300.0, retain.run),
)
"""Name, seconds between two runs, and what is run."""


def serve(node: Node, stop: threading.Event) -> None:
    """Keep the timetable until `stop` is set; what runs then is finished."""
    scheduler = BackgroundScheduler(job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None})
    for name, every_s, act in TIMETABLE:
        scheduler.add_job(partial(run, name, act, node), "interval", seconds=every_s, id=name)
    scheduler.start()
    stop.wait()
    scheduler.shutdown(wait=True)


def run(name: str, act: Callable[[Node], object], node: Node) -> None:
    """One entry of the timetable, once; it comes again whatever happens."""
    try:
        act(node)
    except Exception as error:  # noqa: BLE001 - one of the three places: recorded, and the timetable goes on
        log.error("timetable.failed", entry=name, error=fault(error))
