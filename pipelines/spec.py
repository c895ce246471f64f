"""What a pipeline is: a Spec that says what it accepts and returns, and a Runner that does it.

A catalogue entry is one file in `pipelines/catalog/` that exports `SPEC` and `runner`. The Spec is read by every role
(rules, web, conformance), so importing the entry must not import torch or monai; the runner may, once it is called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from pydantic import BaseModel

from dicom_sr.nouns import Code, Findings, Volume
from dicom_sr.problem import Problem


class Refused(Problem):
    """The pipeline declines this volume rather than be wrong; the job ends with this reason, and no number leaves."""


class Cancelled(Problem):
    """A person cancelled the run while it was going on."""


Progress = Callable[[str, float], None]
"""Told the phase and the fraction of the whole run that is done (0 to 1); may raise Cancelled."""


def silent(phase: str, fraction: float) -> None:
    """A Progress that nobody listens to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSegment:
    """A structure that the pipeline can delineate."""

    label: str
    type: Code
    laterality: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputMeasurement:
    """A number that the pipeline can give."""

    name: Code
    unit: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The model card: everything a person, a rule or a writer needs to know without running the pipeline."""

    name: str
    version: str
    title: str
    intended_use: str
    limitations: tuple[str, ...]
    modalities: tuple[str, ...]
    needs: tuple[str, ...]
    """What a volume must be, in sentences; the runner refuses what is not."""
    segments: tuple[OutputSegment, ...]
    measurements: tuple[OutputMeasurement, ...]
    settings: type[BaseModel]
    """The pydantic model of its settings; every field has a default and a description."""
    research_use: bool = True
    weights_digest: str | None = None
    licence: str = "Apache-2.0"
    time_limit_s: float = 600.0
    device_memory_mb: int = 0


class Runner(Protocol):
    """Runs one pipeline. Raises Refused with a readable reason rather than return something doubtful."""

    def __call__(
        self, volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent
    ) -> Findings: ...


class UnknownPipeline(Problem):
    """No catalogue entry has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A catalogue entry: the card and the hands."""

    spec: Spec
    runner: Runner


def freeze(settings: BaseModel) -> MappingProxyType[str, Any]:
    """The settings as plain JSON values, defaults included, for digests and for the report."""
    return MappingProxyType(settings.model_dump(mode="json"))
