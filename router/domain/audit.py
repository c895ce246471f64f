"""The audit as values: what acts there are, and the chain that shows whether a written row has been touched.

A batch of rows is sealed by a MAC over the seal before it and over each row's own MAC, under a key that the database
never sees. Whoever changes, removes or adds a sealed row breaks its seal; whoever cuts the end off, or makes the whole
chain anew with a key of their own, contradicts the heads that have left the machine.
"""

import hmac
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

from dicom_sr.problem import Problem


class UnknownAct(Problem):
    """An audit row tells of an act that this version does not know."""


class Act(StrEnum):
    """What can be done to patient data, or to what decides over it."""

    RECEIVED = "received"
    READ = "read"
    ROUTED = "routed"
    PRODUCED = "produced"
    SENT = "sent"
    VIEWED = "viewed"
    QUERIED = "queried"
    EXPORTED = "exported"
    DELETED = "deleted"
    CONFIGURED = "configured"
    COMMANDED = "commanded"
    LOGGED_IN = "logged in"
    TURNED_AWAY = "turned away"
    AUDIT_USED = "audit used"


class Outcome(StrEnum):
    """How an act came out."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


EVENTS: Mapping[str, Act] = {
    "study.received": Act.RECEIVED,
    "step.in_progress": Act.RECEIVED,
    "step.completed": Act.RECEIVED,
    "step.discontinued": Act.RECEIVED,
    "series.read": Act.READ,
    "study.completed": Act.ROUTED,
    "study.held": Act.ROUTED,
    "study.released": Act.COMMANDED,
    "study.attended": Act.COMMANDED,
    "series.completed": Act.ROUTED,
    "results.produced": Act.PRODUCED,
    "results.built": Act.PRODUCED,
    "results.rejected": Act.PRODUCED,
    "run.refused": Act.PRODUCED,
    "results.sent": Act.SENT,
    "results.refused": Act.SENT,
    "study.sent": Act.SENT,
    "study.viewed": Act.VIEWED,
    "study.queried": Act.QUERIED,
    "find.denied": Act.QUERIED,
    "query.denied": Act.QUERIED,
    "study.retrieved": Act.EXPORTED,
    "retrieval.ended": Act.EXPORTED,
    "retrieve.denied": Act.EXPORTED,
    "study.exported": Act.EXPORTED,
    "commitment.requested": Act.QUERIED,
    "commitment.reported": Act.QUERIED,
    "commitment.not_reported": Act.QUERIED,
    "commit.denied": Act.QUERIED,
    "study.purged": Act.DELETED,
    "results.purged": Act.DELETED,
    "facts.purged": Act.DELETED,
    "patient.forgotten": Act.DELETED,
    "rules.changed": Act.CONFIGURED,
    "sources.changed": Act.CONFIGURED,
    "destinations.changed": Act.CONFIGURED,
    "models.changed": Act.CONFIGURED,
    "users.changed": Act.CONFIGURED,
    "job.hold": Act.COMMANDED,
    "job.release": Act.COMMANDED,
    "job.cancel": Act.COMMANDED,
    "job.revive": Act.COMMANDED,
    "job.rerun": Act.COMMANDED,
    "pipeline.paused": Act.COMMANDED,
    "pipeline.resumed": Act.COMMANDED,
    "alert.ended": Act.COMMANDED,
    "user.logged_in": Act.LOGGED_IN,
    "user.logged_out": Act.LOGGED_IN,
    "association.rejected": Act.TURNED_AWAY,
    "audit.read": Act.AUDIT_USED,
    "audit.exported": Act.AUDIT_USED,
}
"""What a row's `act` may be; a test finds every name that is written anywhere here. A new name is added in one line."""


def act_of(event: str) -> Act:
    """Which act an audit row tells of.

    Raises:  UnknownAct
    """
    try:
        return EVENTS[event]
    except KeyError:
        raise UnknownAct(
            f"{event} is no act that this version knows", remedy="Add it to EVENTS in router/domain/audit.py"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One act as it was written. `at` is in microseconds since 1970 UTC; `seal` and `mac` are None until sealed."""

    id: int
    at: int
    who: str
    act: str
    outcome: Outcome
    study_instance_uid: str | None
    job_id: int | None
    patient_key: str | None
    detail: Mapping[str, Any]
    seal: int | None = None
    mac: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """One link of the chain; its `mac` is the head of everything up to it. `at` as above."""

    number: int
    at: int
    rows: int
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong with the audit, in a sentence; the row's and the seal's number where there is one."""

    said: str
    seal: int | None = None
    row: int | None = None


def row_mac(key: bytes, row: Row) -> str:
    """The MAC of one row's content, whoever reads it back from whichever engine."""
    said = [row.id, row.at, row.who, row.act, str(row.outcome), row.study_instance_uid, row.job_id, row.patient_key]
    text = json.dumps([*said, row.detail], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, text.encode(), sha256).hexdigest()


def seal_mac(key: bytes, before: str, number: int, at: int, row_macs: Sequence[str]) -> str:
    """The MAC of one link: over the link before it, its own number and time, and its rows in their order."""
    text = json.dumps([before, number, at, len(row_macs), *row_macs], separators=(",", ":"))
    return hmac.new(key, text.encode(), sha256).hexdigest()


def seal(key: bytes, last: Seal | None, rows: Iterable[Row], at: int) -> tuple[Seal, dict[int, str]]:
    """The next link, and the MAC of each of its rows by their numbers. Rows are taken in the order of their numbers."""
    macs = {row.id: row_mac(key, row) for row in sorted(rows, key=lambda row: row.id)}
    number, before = (last.number + 1, last.mac) if last else (1, "")
    return Seal(number=number, at=at, rows=len(macs), mac=seal_mac(key, before, number, at, list(macs.values()))), macs


@dataclass(slots=True)
class Verifier:
    """Walks the chain link by link; `heads` are the MACs that have left the machine, by the number of their seal."""

    key: bytes
    heads: Mapping[int, str] = field(default_factory=dict)
    number: int = 0
    before: str = ""

    def link(self, found: Seal, rows: Sequence[Row]) -> Iterator[Finding]:
        """What is wrong with this link and its rows, given in the order of their numbers."""
        for missing in range(self.number + 1, found.number):
            yield Finding(said=f"seal {missing} is missing", seal=missing)
        expected = [row_mac(self.key, row) for row in rows]
        altered = [row for row, mac in zip(rows, expected, strict=True) if row.mac != mac]
        intact = seal_mac(self.key, self.before, found.number, found.at, expected) == found.mac
        kept = [row.mac or "" for row in rows]
        if not intact and expected and len(altered) == len(rows):
            yield Finding(said=f"seal {found.number} was not made with this key", seal=found.number)
        elif altered:
            for row in altered:
                yield Finding(said=f"row {row.id} was altered", seal=found.number, row=row.id)
            intact = seal_mac(self.key, self.before, found.number, found.at, kept) == found.mac
        if len(rows) < found.rows:
            yield Finding(said=f"{found.rows - len(rows)} of {found.rows} rows were removed", seal=found.number)
        elif len(rows) > found.rows:
            yield Finding(said=f"{len(rows) - found.rows} rows were added to its {found.rows}", seal=found.number)
        elif not intact and not (expected and len(altered) == len(rows)):
            yield Finding(said="it does not follow from the seals before it and its rows", seal=found.number)
        sent = self.heads.get(found.number)
        if sent is not None and sent != found.mac:
            yield Finding(said=f"seal {found.number} is not the one that left the machine", seal=found.number)
        self.number, self.before = found.number, found.mac

    def end(self) -> Iterator[Finding]:
        """What is missing at the end: seals that have left the machine and are not here any more."""
        last = max(self.heads, default=0)
        if last > self.number:
            yield Finding(
                said=f"the end was cut off: seal {last} has left the machine, the last one here is {self.number}",
                seal=last,
            )
