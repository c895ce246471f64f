"""Somebody is told in time: what is late, what has moved, and the disk, as alerts; and each alert by every channel.

Role `tick`. The rows say all: an alert stands until it is over, and each channel is told of its begin and of its end
once, however long the channel is out of order meanwhile. A message whose row could not be written is sent again.
"""

import structlog

from router import notify
from router.db import alerts, lateness
from router.db.engine import clock, reading, writing
from router.domain import alarms
from router.domain.alarms import MINUTE, Words
from router.node import Node

log = structlog.get_logger()

DAY = 24 * 60 * MINUTE
BEFORE = 90 * DAY
"""What the last days' results are compared with."""


def look(node: Node, *, at: int | None = None) -> None:
    """Let the alerts on what is late, and on the disk, be as things are now."""
    wanted = node.settings.alerts
    with reading(node.engine) as connection:
        at = clock(connection) if at is None else at
        late = lateness.no_result(connection, at=at)
        urgent = []
        if wanted.stat_waiting_min is not None:
            since_before = at - round(wanted.stat_waiting_min * MINUTE)
            urgent = lateness.stat_waiting(connection, since_before=since_before)
    refuse_at = node.settings.storage.marks.refuse_at
    keep(node, alarms.STAT_WAITING, alarms.stat_waiting(urgent, at))
    keep(node, alarms.NO_RESULT, alarms.no_result(late, at))
    folder = str(node.settings.storage.path)
    keep(node, alarms.DISK, alarms.disk_full(node.store.free_bytes(), refuse_at, folder))


def compare(node: Node, *, at: int | None = None) -> None:
    """Let the alerts on results that are distributed otherwise than before be as things are now."""
    days = node.settings.alerts.results_moved_days
    if days is None:
        keep(node, alarms.MOVED, {})
        return
    with reading(node.engine) as connection:
        at = clock(connection) if at is None else at
        turn = at - round(days * DAY)
        lately = dict(lateness.measured(connection, since=turn, until=at + 1))
        before = dict(lateness.measured(connection, since=turn - BEFORE, until=turn)) if lately else {}
    shifts = {key: alarms.shift(before.get(key, ()), values) for key, values in lately.items()}
    found = {key: one for key, one in shifts.items() if one is not None}
    keep(node, alarms.MOVED, alarms.moved(found, days))


def keep(node: Node, kind: str, found: dict[str, Words]) -> None:
    """Let the alerts of this kind stand that were found; nothing is written where they stand already."""
    with reading(node.engine) as connection:
        if alerts.stands(connection, kind) == found:
            return
    with writing(node.engine) as connection:
        alerts.keep(connection, kind, found)


def tell(node: Node) -> None:
    """Tell every channel what it does not know; one that does not take it is an alert of its own, for the others."""
    for channel, send in notify.channels(node.settings).items():
        with reading(node.engine) as mine:
            if not alerts.alone(mine):
                return
            found = alerts.untold(mine, channel)
            found = [one for one in found if (one.kind, one.subject) != (alarms.NOT_TOLD, channel)]
            if not found:
                continue
            try:
                send(node.settings, [notify.Notice.of(one) for one in found])
            except notify.NotSent as problem:
                log.warning("alerts.not_sent", channel=channel, reason=problem.what)
                keep_one(node, channel, problem)
                continue
            with writing(node.engine) as connection:
                alerts.told(connection, channel, found)
                alerts.end(connection, alarms.NOT_TOLD, channel)
        log.info("alerts.sent", channel=channel, alerts=[one.id for one in found])


def keep_one(node: Node, channel: str, problem: notify.NotSent) -> None:
    """This channel is out of order."""
    with writing(node.engine) as connection:
        if channel not in alerts.stands(connection, alarms.NOT_TOLD):
            alerts.raise_(connection, alarms.NOT_TOLD, channel, what=problem.what, remedy=problem.remedy)
