"""A torso of made-up organs on a CT series of any size, for timing: ragged ellipsoids that share planes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_sr import codes
from dicom_sr.kinds import Order
from dicom_sr.nouns import Findings, MeasurementGroup, Segment
from tests.objects import conftest as make

LENGTH_MM = 560.0


@dataclass(frozen=True, slots=True)
class Organ:
    """Centre and half axes as fractions of the volume along (slice, row, column)."""

    centre: NDArray[np.float64]
    half: NDArray[np.float64]


def organs(number: int, seed: int = 7) -> list[Organ]:
    """So many organs, large ones first, so that small ones survive; about a seventh of the slices each."""
    chance = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        half = np.array([chance.uniform(0.03, 0.11), chance.uniform(0.02, 0.10), chance.uniform(0.02, 0.12)])
        made.append(Organ(chance.uniform(half + 0.02, 0.98 - half), half))
    return sorted(made, key=lambda organ: -float(np.prod(organ.half)))


def labels(shape: tuple[int, int, int], number: int) -> NDArray[np.uint8]:
    """Label map of these organs, every one present, with borders as ragged as a network's."""
    made = np.zeros(shape, np.uint8)
    chance = np.random.default_rng(8)
    for index, organ in enumerate(organs(number), start=1):
        low = np.maximum(0, np.floor((organ.centre - organ.half) * shape)).astype(int)
        high = np.minimum(shape, np.ceil((organ.centre + organ.half) * shape).astype(int) + 1)
        z, y, x = (
            (np.arange(low[axis], high[axis]) / shape[axis] - organ.centre[axis]) / organ.half[axis]
            for axis in range(3)
        )
        ragged = chance.standard_normal((y.size, x.size)) * 0.03
        inside = z[:, None, None] ** 2 + (y[:, None] ** 2 + x**2 + ragged) < 1
        made[low[0] : high[0], low[1] : high[1], low[2] : high[2]][inside] = index
        made[int(organ.centre[0] * shape[0]), int(organ.centre[1] * shape[1]), int(organ.centre[2] * shape[2])] = index
    return made


def order(folder: Path, slices: int, segments: int, side: int = 512) -> Order:
    """An order for a BINARY SEG and a report with volume and mean attenuation of every segment.

    The CT is written to the folder where it does not lie there yet.
    """
    paths = sorted(folder.glob("*.dcm"))
    if len(paths) != slices:
        paths = make.ct_series(folder, shape=(slices, side, side), step=round(LENGTH_MM / slices, 4))
    lung = codes.structure("left_lung")
    made = labels((slices, side, side), segments)
    named = tuple(
        Segment(
            number=number,
            label=f"Organ {number}",
            category=lung.category,
            type=lung.type,
            rgb=(number, 255 - number, 128),
        )
        for number in range(1, segments + 1)
    )
    algorithm = make.findings_of(None).algorithm
    counts = np.bincount(made.ravel(), minlength=segments + 1)
    plain = make.order_of(paths, Findings(algorithm=algorithm, labels=made, segments=named))
    voxel_ml = abs(float(np.linalg.det(plain.source.affine[:3, :3]))) / 1000
    groups = tuple(
        MeasurementGroup(
            label=segment.label,
            finding=segment.type,
            site=segment.type,
            segment_number=segment.number,
            measurements=(
                codes.quantity("volume").measured(float(counts[segment.number]) * voxel_ml),
                codes.quantity("mean_attenuation").measured(-500.0 + segment.number),
            ),
        )
        for segment in named
    )
    findings = Findings(algorithm=algorithm, labels=made, segments=named, groups=groups)
    return make.order_of(paths, findings)
