"""Sealing the audit, by the clock: new rows into the chain, and each new head off the machine.

The key lies outside the database. One that is lost is never replaced by itself: a chain that goes on under another key
could not be told from one that somebody has made anew.
"""

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import httpx
import structlog
from sqlalchemy import Connection, Engine

from dicom_sr.problem import Problem
from router import syslog
from router.config import Audit, Settings
from router.db import alerts, audit
from router.db.engine import now, reading, writing
from router.domain.audit import Seal, Verifier, seal
from router.node import Node

log = structlog.get_logger()

BATCH = 1000
"""Rows that one seal holds at most."""

VARIABLE = "ISOCENTER_AUDIT_KEY"
SHORTEST_KEY = 32
TIMEOUT_S = 10.0


class NoAuditKey(Problem):
    """The audit's chain cannot go on, or be verified, without its key."""


class HeadNotSent(Problem):
    """A head of the audit's chain has not left the machine; it is tried again."""

    retryable = True


def seal_due(node: Node) -> int:
    """Seal every row that is not sealed yet, and send the heads that have not been sent; how many seals are new.

    Raises:  NoAuditKey, HeadNotSent
    """
    with reading(node.engine) as connection:
        waiting = bool(audit.unsealed(connection, 1))
    try:
        made = seal_all(node.engine, node.settings.audit) if waiting else 0
    except NoAuditKey as error:
        complain(node, "audit.not_sealed", error)
        raise
    if made:
        settle(node, "audit.not_sealed")
    send_heads(node)
    return made


def seal_all(engine: Engine, settings: Audit) -> int:
    """Rows that no seal holds go into seals, a batch in a transaction; how many seals.

    Raises:  NoAuditKey
    """
    made = 0
    while True:
        with writing(engine) as connection:
            rows = audit.unsealed(connection, BATCH)
            if not rows:
                return made
            last = audit.last_seal(connection)
            fresh, macs = seal(key_of(settings, new=last is None), last, rows, now())
            audit.add_seal(connection, fresh, macs)
        made += 1
        if len(rows) < BATCH:
            return made


def key_of(settings: Audit, *, new: bool = False) -> bytes:
    """The key of the chain: from the environment, else from its file, which is made where the chain is `new`.

    Raises:  NoAuditKey
    """
    given = os.environ.get(VARIABLE, "").encode()
    where = settings.key_file
    if not given and new and not where.exists():
        make_key(where)
    try:
        key = given or where.read_bytes().strip()
    except OSError as error:
        raise NoAuditKey(
            f"the audit's key {where} cannot be read: {error.strerror}",
            remedy=f"Put it back from where you keep it, or set {VARIABLE}; without it the chain cannot be verified",
        ) from None
    if len(key) < SHORTEST_KEY:
        raise NoAuditKey(
            f"the audit's key has {len(key)} characters", remedy=f"It has at least {SHORTEST_KEY}; put it back"
        )
    return key


def make_key(where: Path) -> None:
    """A random key, readable for us alone; one that is there stays."""
    try:
        fd = os.open(where, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    with os.fdopen(fd, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(fd)
    log.warning("audit.key_made", path=str(where))


def send_heads(node: Node) -> None:
    """Send what has not left the machine, where somewhere to send it is configured.

    Raises:  HeadNotSent
    """
    settings = node.settings.audit
    if not (settings.heads_file or settings.heads_url or settings.heads_syslog):
        return
    with reading(node.engine) as connection:
        heads = audit.unsent(connection)
    if not heads:
        return
    try:
        send(node, heads)
    except (OSError, httpx.HTTPError) as error:
        told = HeadNotSent(
            f"heads of the audit's chain cannot leave the machine ({type(error).__name__})",
            remedy="Look at audit.heads_file, heads_url and heads_syslog; it is tried again by itself",
        )
        complain(node, "audit.heads_not_sent", told)
        raise told from error
    with writing(node.engine) as connection:
        audit.sent(connection, heads[-1].number)
        alerts.end(connection, "audit.heads_not_sent", node.node_id)


def send(node: Node, heads: Sequence[Seal]) -> None:
    """Every head to every place that is configured, the oldest first.

    Raises:  OSError, httpx.HTTPError
    """
    settings = node.settings.audit
    lines = [json.dumps(as_json(node.node_id, head)) for head in heads]
    if settings.heads_file:
        with settings.heads_file.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
    if settings.heads_url:
        for line in lines:
            answer = httpx.post(
                settings.heads_url, content=line, headers={"Content-Type": "application/json"}, timeout=TIMEOUT_S
            )
            answer.raise_for_status()
    if settings.heads_syslog:
        syslog.send(settings.heads_syslog, lines, kind="audit-head", ca_file=settings.syslog_ca_file)


def as_json(node_id: str, head: Seal) -> dict[str, object]:
    """A head as it leaves the machine."""
    return {"node": node_id, "seal": head.number, "at": head.at, "rows": head.rows, "mac": head.mac}


def heads_in(path: Path, node_id: str) -> dict[int, str]:
    """Heads of this node in a file of them, one JSON object a line, by the number of their seal.

    Raises:  UnreadableHeads
    """
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        return {int(line["seal"]): str(line["mac"]) for line in lines if line["node"] == node_id}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableHeads(
            f"{path} holds no heads of an audit's chain ({type(error).__name__})",
            remedy="Name the file that audit.heads_file has written, or the collected lines of heads_syslog",
        ) from error


class UnreadableHeads(Problem):
    """A file that should hold the heads of a chain does not."""

    exit_code = 2


def verifier(connection: Connection, settings: Settings, heads: dict[int, str]) -> Verifier:
    """Who walks this node's chain. Before the first seal there need be no key: there is nothing to compute with it.

    Raises:  NoAuditKey
    """
    sealed = audit.last_seal(connection) is not None
    return Verifier(key=key_of(settings.audit) if sealed else b"", heads=heads)


def complain(node: Node, kind: str, problem: Problem) -> None:
    """Let the alert stand."""
    with writing(node.engine) as connection:
        alerts.raise_(connection, kind, node.node_id, what=problem.what, remedy=problem.remedy)


def settle(node: Node, kind: str) -> None:
    """The alert is over."""
    with writing(node.engine) as connection:
        alerts.end(connection, kind, node.node_id)
