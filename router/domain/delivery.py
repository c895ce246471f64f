"""What leaves and what the far side says to it: pure nouns, and one table that tells a later try from a refusal."""

from dataclasses import dataclass
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
