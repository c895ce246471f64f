"""Reads every file that should be there, and says which are missing or not what they were."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from router.db import instances, results, retention
from router.db.engine import reading
from router.ingest.digest import digests
from router.node import Node

PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One file that was looked at; `fault` says what is wrong with it, None where it is as it was."""

    path: str
    sop_instance_uid: str
    fault: str | None


def look(node: Node) -> Iterator[Looked]:
    """Every file in turn: those received by the digest of their data set, those made by that of the whole file."""
    yield from _received(node)
    yield from _made(node)


def count(node: Node) -> int:
    """How many files there are to look at."""
    with reading(node.engine) as connection:
        return retention.count_stored(connection) + results.count(connection)


def _received(node: Node) -> Iterator[Looked]:
    last = ("", 0)
    while True:
        with reading(node.engine) as connection:
            keys = retention.stored(connection, last, PAGE)
            known = {uid: instances.versions(connection, uid) for uid, _ in keys}
        for uid, version in keys:
            row = next(one for one in known[uid] if one.version == version)
            path = node.store.path(row.path)
            fault = None
            try:
                if path.stat().st_size != row.size:
                    fault = f"{path.stat().st_size} bytes instead of {row.size}"
                elif row.dataset_digest and digests(path, version, row).dataset_digest != row.dataset_digest:
                    fault = "other bytes than were received"
            except FileNotFoundError:
                fault = "missing"
            except OSError as error:
                fault = f"cannot be read: {error.strerror}"
            yield Looked(path=row.path, sop_instance_uid=uid, fault=fault)
        if len(keys) < PAGE:
            return
        last = keys[-1]


def _made(node: Node) -> Iterator[Looked]:
    last = ""
    while True:
        with reading(node.engine) as connection:
            page = results.after(connection, last, PAGE)
        for one in page:
            fault = None
            try:
                if hashlib.sha256(node.store.path(one.path).read_bytes()).hexdigest() != one.digest:
                    fault = "other bytes than were made"
            except FileNotFoundError:
                fault = "missing"
            except OSError as error:
                fault = f"cannot be read: {error.strerror}"
            yield Looked(path=one.path, sop_instance_uid=one.sop_instance_uid, fault=fault)
        if len(page) < PAGE:
            return
        last = page[-1].sop_instance_uid
