"""A pipeline that weighs its volume and declines it with the sum of its values, so that a bench can verify it."""

import numpy as np
from pydantic import BaseModel, ConfigDict

from dicom_sr.nouns import Findings, Volume
from pipelines.spec import Progress, Refused, Spec, silent


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SPEC = Spec(
    name="weigher",
    version="1.0",
    title="Weigher",
    intended_use="Benchmarks",
    limitations=(),
    modalities=("CT",),
    needs=(),
    segments=(),
    measurements=(),
    settings=Settings,
)


def runner(volume: Volume, settings: Settings, *, device: str = "cpu", progress: Progress = silent) -> Findings:
    """Declines everything."""
    total = sum(int(plane.sum(dtype=np.int64)) for plane in volume.array)
    raise Refused(f"{volume.array.nbytes} bytes, sum {total}", remedy="None is needed")
