"""What the worker and its resident process say to each other, pickled over a pipe between the two."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dicom_sr.kinds import Built, Order, SRClass, Supersedes, Tracking
from dicom_sr.nouns import Findings
from dicom_sr.problem import Problem
from dicom_sr.source import STRICT, Policy, SourceSeries
from dicom_sr.uids import derived_uid
from router.domain.delivery import MeasurementRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Gives every UID of one result set; called with a name and an ordinal."""

    node: str
    input_digest: str
    pipeline: str
    version: str
    weights: str
    settings: str
    encoding: str
    run: int

    def __call__(self, name: str, ordinal: int) -> str:
        return derived_uid(
            node=self.node,
            input_digest=self.input_digest,
            pipeline=self.pipeline,
            version=self.version,
            weights=self.weights,
            settings=self.settings,
            kind=name,
            encoding=self.encoding,
            ordinal=ordinal,
            run=self.run,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Read the series that these files are, and run the pipeline on it."""

    paths: tuple[Path, ...]
    pipeline: str
    settings: dict[str, Any]
    policy: Policy = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Read the series that these files are, and take the findings of an earlier run on it from this file."""

    paths: tuple[Path, ...]
    findings: Path
    policy: Policy = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Build these kinds, in this order, of what the last Run or Recall found, and look them over."""

    kinds: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    sr: SRClass
    tracking: Tracking
    uid: Naming
    made_at: datetime
    series_number: int
    pipeline: str
    title: str
    research: bool
    completeness: str
    supersedes: Supersedes | None = None

    def order(self, findings: Findings, series: SourceSeries) -> Order:
        """The same as a writer gets it."""
        return Order(
            findings=findings,
            source=series,
            uid=self.uid,
            made_at=self.made_at,
            series_number=self.series_number,
            pipeline=self.pipeline,
            title=self.title,
            research=self.research,
            completeness=self.completeness,
            supersedes=self.supersedes,
            settings=self.settings,
            sr=self.sr,
            tracking=self.tracking,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The process is there, on this device."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The last Run has come so far."""

    phase: str
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The run has ended well; these are its numbers, and its findings as they are kept."""

    measurements: tuple[MeasurementRow, ...]
    findings: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """What was built, each looked over."""

    built: tuple[Built, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A Problem that came up in there; `refused` when the series or the pipeline declines, so no attempt helps."""

    name: str
    what: str
    remedy: str
    retryable: bool
    refused: bool = False
    fatal: bool = False
    """Whether the process ends with it."""
    objects: tuple[Built, ...] = ()
    """Those before which the gate closed."""


Request = Run | Recall | Build
Reply = Ready | Progress | Found | Objects | Failure


class ToldProblem(Problem):
    """A Problem of the resident process, as it told it; `name` is its class there."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.what, remedy=failure.remedy)
        self.name, self.objects = failure.name, failure.objects
        self.retryable = failure.retryable
