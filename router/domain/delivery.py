"""What leaves and what the far side says to it: pure nouns, and one table that tells a later try from a refusal."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSet:
    """All objects that one run of a pipeline gives to destinations of one profile: built once, kept, sent as a unit."""

    id: int
    job_id: int
    profile: str
    study_instance_uid: str
    generation: int
    built_at: int


NOTE_TO = '{"note to":'
"""How the profile begins of a set that is nothing but a note, which rejects what one destination has."""


def note_to(destination: str) -> str:
    """What stands for a profile where a destination gets a note alone: it has what others may not have."""
    return f"{NOTE_TO}{json.dumps(destination)}}}"


def note_for(profile: str | None) -> str | None:
    """The destination of a note; None where the profile is one of results."""
    return str(json.loads(profile)["note to"]) if profile is not None and profile.startswith(NOTE_TO) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One kept object of a result set. `path` is relative to the store; `digest` is the SHA-256 of the file."""

    sop_instance_uid: str
    result_set_id: int
    ordinal: int
    kind: str
    sop_class_uid: str
    series_instance_uid: str
    path: str
    digest: str
    purged_at: int | None = None
    """When its file went, long after its delivery; the row stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementRow:
    """One measured number as lists show it; without a value, `remark` says why it is withheld."""

    ordinal: int
    label: str
    name: str
    value: float | None
    unit: str
    remark: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One Part 10 file on its way out."""

    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    study_instance_uid: str = ""
    series_instance_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a result set is about, as we know it or as a destination does; whom it names stays out of logs.

    `sop_instance_uid` is an instance of the source series; None where the far side does not have it.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str | None
    patient_id: str = field(repr=False)
    accession_number: str = field(repr=False)


def contradictions(ours: Subject, theirs: Subject) -> tuple[str, ...]:
    """Attributes in which a destination's study is another's; outer blanks are not significant."""
    pairs = (
        ("PatientID", ours.patient_id, theirs.patient_id),
        ("AccessionNumber", ours.accession_number, theirs.accession_number),
    )
    return tuple(keyword for keyword, mine, other in pairs if mine.strip() != other.strip())


NOT_SUPPORTED = 0x0122
"""The answer of a far side that does not take this SOP Class, although it has negotiated it."""

DUPLICATE = 0x0111
"""The answer of an archive that holds an instance of this UID already, and will not compare."""


class Verdict(StrEnum):
    """What an answer means for the instance that was sent."""

    ACCEPTED = "accepted"
    LATER = "later"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a destination answered for one instance; `status` is None where none came or the kind has none."""

    sop_instance_uid: str
    verdict: Verdict
    status: int | None = None
    detail: str = ""
    refused: tuple[str, ...] = ()
    """SOP classes that the far side does not take at all, of this instance or of later ones of its set."""


ANSWERS: tuple[tuple[int, int, Verdict, str], ...] = (
    (0x0000, 0x0000, Verdict.ACCEPTED, "Success"),
    (0x0001, 0x0001, Verdict.ACCEPTED, "Warning"),
    (0x0107, 0x0107, Verdict.ACCEPTED, "Warning: attribute list error"),
    (0x0110, 0x0110, Verdict.LATER, "Processing failure"),
    (0x0111, 0x0111, Verdict.NEVER, "Duplicate SOP Instance"),
    (0x0116, 0x0116, Verdict.ACCEPTED, "Warning: attribute value out of range"),
    (0x0117, 0x0117, Verdict.NEVER, "Invalid SOP Instance"),
    (0x0118, 0x0118, Verdict.NEVER, "No such SOP Class"),
    (0x0119, 0x0119, Verdict.NEVER, "Class-Instance conflict"),
    (0x0122, 0x0122, Verdict.NEVER, "Refused: SOP Class not supported"),
    (0x0124, 0x0124, Verdict.NEVER, "Refused: not authorised"),
    (0x0210, 0x0210, Verdict.LATER, "Duplicate invocation"),
    (0x0211, 0x0211, Verdict.NEVER, "Unrecognised operation"),
    (0x0212, 0x0212, Verdict.NEVER, "Mistyped argument"),
    (0x0213, 0x0213, Verdict.LATER, "Resource limitation"),
    (0xA771, 0xA771, Verdict.NEVER, "Refused for good"),
    (0xA700, 0xA7FF, Verdict.LATER, "Refused: out of resources"),
    (0xA900, 0xA9FF, Verdict.NEVER, "Data Set does not match SOP Class"),
    (0xB000, 0xBFFF, Verdict.ACCEPTED, "Warning"),
    (0xC000, 0xCFFF, Verdict.LATER, "Cannot understand"),
)
"""Answers to C-STORE, first match: from, to, what it means for a retry, and its name.

A warning is stored (PS3.4 B.2.3). Cannot understand is tried again since archives also answer so when their own
database is away. A771 is said by archives that have refused for good, where their kin say A700.

Source:  PS3.4 B.2.3 (C-STORE Service Definition), PS3.7 C (Status Type Encoding)
"""


def judge(status: int, overrides: Mapping[int, Verdict] | None = None) -> Verdict:
    """What this answer means; one that nobody knows is final, so that a person hears of it."""
    if overrides and status in overrides:
        return overrides[status]
    return next((verdict for low, high, verdict, _ in ANSWERS if low <= status <= high), Verdict.NEVER)


def name_of(status: int) -> str:
    """The answer's number and name, for people."""
    meaning = next((name for low, high, _, name in ANSWERS if low <= status <= high), "unknown status")
    return f"{status:04X} ({meaning})"


FAILURES: Mapping[int, tuple[Verdict, str]] = {
    0x0110: (Verdict.LATER, "Processing failure"),
    0x0112: (Verdict.LATER, "No such object instance"),
    0x0119: (Verdict.NEVER, "Class-Instance conflict"),
    0x0122: (Verdict.NEVER, "Referenced SOP Class not supported"),
    0x0131: (Verdict.LATER, "Duplicate transaction UID"),
    0x0213: (Verdict.LATER, "Resource limitation"),
}
"""Why a far side does not commit to keep an instance, and whether sending it again may help.

Source:  PS3.3 C.14.1.1 (Failure Reason)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """A far side's report on a request for storage commitment: SOPInstanceUIDs, and FailureReasons by them.

    Source:  PS3.4 J.3.3 (Storage Commitment Push Model, Notifications)
    """

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int]

    def receipts(self, asked: Iterable[str]) -> tuple[Receipt, ...]:
        """What the report says of those it does not commit to; one that it does not mention may be sent again."""
        found = []
        for uid in asked:
            if uid in self.committed:
                continue
            reason = self.failed.get(uid)
            verdict, name = (
                (Verdict.LATER, "not in the report") if reason is None else FAILURES.get(reason, (Verdict.NEVER, ""))
            )
            said = name if reason is None else f"{reason:04X} ({name or 'unknown reason'})"
            found.append(Receipt(sop_instance_uid=uid, verdict=verdict, status=reason, detail=f"not committed: {said}"))
        return tuple(found)


class Standing(StrEnum):
    """How much of a set a destination has, as people read it."""

    NOTHING = "not sent"
    HALF = "half sent"
    SENT = "sent"
    COMMITTED = "committed"


def standing(*, objects: int, accepted: int, committed: int) -> Standing:
    """How a delivery stands, from what its ledger has accepted and the far side has promised to keep."""
    if objects and committed >= objects:
        return Standing.COMMITTED
    if objects and accepted >= objects:
        return Standing.SENT
    return Standing.HALF if accepted else Standing.NOTHING
