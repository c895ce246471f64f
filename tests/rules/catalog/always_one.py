"""A pipeline for the tests of deciding: it has a card and settings, and it is never run here."""

from pydantic import BaseModel, ConfigDict, Field

from dicom_sr.nouns import Findings, Volume
from pipelines.spec import Progress, Refused, Spec, silent


class Settings(BaseModel):
    """One setting, so that two runs can differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: int = Field(1, ge=1, description="Any number")


SPEC = Spec(
    name="always_one",
    version="1.0",
    title="Test",
    intended_use="Tests",
    limitations=(),
    modalities=("CT", "MR"),
    needs=(),
    segments=(),
    measurements=(),
    settings=Settings,
)


def runner(volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent) -> Findings:
    """Refuse."""
    raise Refused("this pipeline only stands in the catalogue", remedy="Use another")
