"""Retention: pixels that were kept long enough, or that the disk has no room for, go; files first, then their rows.

Files are removed in the transaction that says so. A kill in between leaves rows whose files are gone: the study is
still planned, so the next run goes on with it; and what is sent again meanwhile finds no file, and is stored.
"""

import structlog

from router.db import audit, feeds, retention
from router.db.engine import now, reading, writing
from router.domain.retention import DAY, Purge, plan
from router.node import Node

log = structlog.get_logger()

AT_ONCE = 200
"""Files that are removed in one transaction: receiving waits for no more."""


def planned(node: Node) -> list[Purge]:
    """What would go now."""
    with reading(node.engine) as connection:
        held = retention.held(connection)
    return plan(
        held,
        keep_days=node.settings.retention.keep_days,
        lacking=node.settings.storage.marks.to_purge(node.store.free_bytes()),
        now=now(),
    )


def run(node: Node, *, who: str = "tick") -> list[Purge]:
    """Let go what is to go; what went."""
    going = [one for one in planned(node) if purge(node, one, who=who)]
    before = now() - round(node.settings.retention.keep_facts_days * DAY)
    with writing(node.engine) as connection:
        series, files = retention.forget_facts(connection, before), feeds.forget(connection, before)
    if series or files:
        log.info("facts.purged", series=series, fetched_files=files)
    return going


def purge(node: Node, one: Purge, *, who: str) -> bool:
    """Remove a study's files, unless it has come to need them since it was planned; whether all are gone."""
    study_instance_uid = one.held.study_instance_uid
    removed = 0
    while True:
        with writing(node.engine) as connection:
            is_now = retention.held(connection, only=study_instance_uid)
            if is_now and not (is_now[0].settled and is_now[0].since == one.held.since):
                return False
            paths = retention.files(connection, study_instance_uid, AT_ONCE)
            for path in paths:
                node.store.discard(path)
            retention.gone(connection, paths)
            removed += len(paths)
            if len(paths) < AT_ONCE:
                audit.write(connection, who, "study.purged", study_instance_uid, files=removed, why=one.why)
                break
    log.info("study.purged", study=study_instance_uid, files=removed, bytes=one.held.size, why=one.why)
    return True
