"""Retention: pixels that were kept long enough, or that the disk has no room for, go; files first, then their rows.
Results and findings go likewise when they were kept for longer than that.

Files are removed in the transaction that says so. A kill in between leaves rows whose files are gone: the study is
still planned, so the next run goes on with it; and what is sent again meanwhile finds no file, and is stored.
"""

from dataclasses import replace

import structlog
from sqlalchemy import Connection

from router.db import audit, feeds, retention
from router.db.engine import now, reading, writing
from router.domain.retention import DAY, Purge, plan, plan_results
from router.node import Node

log = structlog.get_logger()

AT_ONCE = 200
"""Files that are removed in one transaction: receiving waits for no more."""


def planned(node: Node) -> list[Purge]:
    """What would go now."""
    keep = node.settings.retention
    with reading(node.engine) as connection:
        held = retention.held(connection)
        made = retention.made(connection, before=now() - round(keep.keep_results_days * DAY))
        going = plan_results(made, keep_results_days=keep.keep_results_days, now=now())
        results = [sized(node, connection, one) for one in going]
    lacking = node.settings.storage.marks.to_purge(node.store.free_bytes())
    return [*results, *plan(held, keep_days=keep.keep_days, lacking=lacking, now=now())]


def sized(node: Node, connection: Connection, one: Purge) -> Purge:
    """The same, with the size of the files that go."""
    paths = [node.store.path(path) for path in retention.made_files(connection, one.held.study_instance_uid)]
    return replace(one, held=replace(one.held, size=sum(path.stat().st_size for path in paths if path.exists())))


def run(node: Node, *, who: str = "tick") -> list[Purge]:
    """Let go what is to go; what went."""
    going = [one for one in planned(node) if (purge_made if one.results else purge)(node, one, who=who)]
    before = now() - round(node.settings.retention.keep_facts_days * DAY)
    with writing(node.engine) as connection:
        series, files = retention.forget_facts(connection, before), feeds.forget(connection, before)
    if series or files:
        log.info("facts.purged", series=series, fetched_files=files)
    return going


def purge_made(node: Node, one: Purge, *, who: str) -> bool:
    """Remove a study's results and findings, unless they have come to be needed since; whether they are gone."""
    study_instance_uid = one.held.study_instance_uid
    with writing(node.engine) as connection:
        is_now = retention.made(connection, before=one.held.since + 1, only=study_instance_uid)
        if not is_now or not is_now[0].settled or is_now[0].since != one.held.since:
            return False
        paths = retention.made_files(connection, study_instance_uid)
        for path in paths:
            node.store.discard(path)
        retention.made_gone(connection, study_instance_uid, now())
        audit.write(connection, who, "results.purged", study_instance_uid, files=len(paths), why=one.why)
    log.info("results.purged", study=study_instance_uid, files=len(paths), bytes=one.held.size, why=one.why)
    return True


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
