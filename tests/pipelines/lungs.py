"""Phantoms and what ct_lung says of them, each made once."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_sr.nouns import Findings, Measurement, Volume
from pipelines import catalog, phantom
from pipelines.catalog.ct_lung import Settings

LUNG = catalog.find("ct_lung")
SIDES = {"Left lung": phantom.LEFT_LUNG, "Right lung": phantom.RIGHT_LUNG}


@cache
def chest(variant: phantom.Variant = "normal", orientation: phantom.Orientation = "axial") -> phantom.Phantom:
    return phantom.chest(variant, orientation=orientation)


@cache
def said_of(variant: phantom.Variant = "normal", orientation: phantom.Orientation = "axial") -> Findings:
    return run(chest(variant, orientation).volume)


def run(volume: Volume, **settings: Any) -> Findings:
    return LUNG.runner(volume, Settings(**settings))


def numbers(findings: Findings, label: str) -> dict[str, Measurement]:
    """The measurements of one lung by their names."""
    group = next(group for group in findings.groups if group.label == label)
    return {measurement.name.meaning: measurement for measurement in group.measurements}


def segment(findings: Findings, label: str) -> NDArray[np.bool_]:
    """Where one lung was found."""
    number = next(segment.number for segment in findings.segments if segment.label == label)
    assert findings.labels is not None
    return np.asarray(findings.labels == number)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def cropped(volume: Volume, first: int, last: int) -> Volume:
    """Slices first ... last - 1, where they were."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * first
    return replace(volume, array=volume.array[first:last], affine=affine)


def height_and_depth(volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Patient z (up) and y (back) of an axial volume's voxels, broadcastable."""
    k, j, _ = np.indices(volume.array.shape, sparse=True)
    return volume.affine[2, 0] * k + volume.affine[2, 3], volume.affine[1, 1] * j + volume.affine[1, 3]
