"""A pipeline whose setting says how it behaves: it finds both lungs, declines, crashes, hangs, dies on
its way, or says a number that is wrong.
"""

import ctypes
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dicom_sr import codes
from dicom_sr.nouns import Algorithm, Findings, MeasurementGroup, Volume
from pipelines.spec import Progress, Refused, Spec, silent


class Settings(BaseModel):
    """How it feels today."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mood: Literal["fine", "declines", "raises", "segfaults", "out_of_memory", "hangs", "miscounts"] = Field(
        "fine", description="x"
    )
    wait_for: str = Field("", description="File without which it does not go on")
    number: int = Field(0, description="Makes two runs differ")


SPEC = Spec(
    name="moody",
    version="1.0",
    title="Moody",
    intended_use="Tests",
    limitations=(),
    modalities=("CT",),
    needs=(),
    segments=(),
    measurements=(),
    settings=Settings,
    time_limit_s=20.0,
)


def runner(volume: Volume, settings: Settings, *, device: str = "cpu", progress: Progress = silent) -> Findings:
    """Do as the setting says."""
    progress("looking", 0.5)
    while settings.wait_for and not Path(settings.wait_for).exists():
        time.sleep(0.02)
    if settings.mood == "declines":
        raise Refused("the volume is not to its taste", remedy="Send a better one")
    if settings.mood == "raises":
        raise ValueError(f"SECRET^PATIENT has {volume.array.size} voxels")
    if settings.mood == "segfaults":
        ctypes.string_at(0)
    if settings.mood == "out_of_memory":
        os.kill(os.getpid(), signal.SIGKILL)
    while settings.mood == "hangs":
        time.sleep(1)
    findings = found(volume)
    if settings.mood == "miscounts":
        too_much = codes.quantity("volume").measured(77.0)
        findings = replace(findings, groups=tuple(replace(one, measurements=(too_much,)) for one in findings.groups))
    return findings


def found(volume: Volume) -> Findings:
    """Two boxes, the left one larger."""
    labels = np.zeros(volume.array.shape, np.uint8)
    rows, columns = labels.shape[1:]
    labels[1:, 2 : rows - 2, columns // 2 + 1 : columns - 1] = 1
    labels[1:-1, 3 : rows - 3, 1 : columns // 2 - 1] = 2
    structures = [codes.structure("left_lung"), codes.structure("right_lung")]
    return Findings(
        algorithm=Algorithm(name=SPEC.name, version=SPEC.version),
        labels=labels,
        segments=tuple(one.segment(number) for number, one in enumerate(structures, start=1)),
        groups=tuple(
            MeasurementGroup(
                label=one.label,
                finding=one.type,
                site=one.type,
                segment_number=number,
                laterality=one.laterality,
                measurements=(
                    codes.quantity("volume").measured(float((labels == number).sum()) * volume.voxel_ml),
                    codes.quantity("perc15").withheld("Slices are too thick"),
                ),
            )
            for number, one in enumerate(structures, start=1)
        ),
    )
