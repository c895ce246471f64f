"""A phantom that each entry of the catalogue accepts, and what the entry says of it, each made once."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_sr.nouns import Findings, Measurement, Volume
from pipelines import anatomy, catalog, phantom, phantom_head, phantom_nodules
from pipelines.anatomy import Nodule
from tests.pipelines.lungs import chest
from tests.pipelines.radiographs import shadow, volume_of, write


def example(name: str) -> Volume:
    """A volume that this entry takes."""
    return volume_of(shadow()) if name == "cr_quality" else made(name).volume


def written(name: str, folder: Path) -> list[Path]:
    """That volume as DICOM files."""
    return [write(example(name), folder)] if name == "cr_quality" else phantom.write(made(name), folder)


def made(name: str) -> phantom.Phantom:
    """The phantom that this entry takes."""
    if name == "ct_lung_nodule_demo":
        return nodules()
    return head() if name == "ct_head_hyperdense" else chest()


@cache
def nodules() -> phantom.Phantom:
    """A cube of the right lung with nodules of 16, 10 and 6 mm."""
    places = ((-92.0, 8.0, 36.0), (-62.0, -16.0, 4.0), (-92.0, -20.0, 0.0))
    return phantom_nodules.box(
        [Nodule(centre=at, semi=(r, r, r), hu=40.0) for at, r in zip(places, (8.0, 5.0, 3.0), strict=True)]
    )


@cache
def head(variant: phantom_head.Variant = "dense", orientation: phantom.Orientation = "axial") -> phantom.Phantom:
    return phantom_head.head(variant, orientation=orientation)


def run(name: str, volume: Volume, **settings: Any) -> Findings:
    entry = catalog.find(name)
    return entry.runner(volume, entry.spec.settings(**settings))


@cache
def said_of(name: str) -> Findings:
    """What an entry says of its own example."""
    return run(name, example(name))


@cache
def painted(orientation: phantom.Orientation = "axial") -> NDArray[np.float32]:
    """The chest phantom before a scanner has seen it, in HU."""
    volume = chest(orientation=orientation).volume
    canvas = anatomy.Canvas(anatomy.Grid(volume.affine, volume.array.shape))
    anatomy.paint(canvas, anatomy.Anatomy("normal", 0, 7.0))
    return canvas.hu


def heights(volume: Volume) -> NDArray[np.float64]:
    """How far towards the head each voxel lies, in mm."""
    k, j, i = np.indices(volume.array.shape, sparse=True)
    row = volume.affine[2]
    return np.asarray(np.broadcast_to(row[0] * k + row[1] * j + row[2] * i + row[3], volume.array.shape))


def segment(findings: Findings, label: str) -> NDArray[np.bool_]:
    """Where a structure was found."""
    number = next(segment.number for segment in findings.segments if segment.label == label)
    return np.asarray(findings.layer(number) == number)


def numbers(findings: Findings, label: str) -> dict[str, Measurement]:
    """The measurements of one group by their names."""
    group = next(group for group in findings.groups if group.label == label)
    return {measurement.name.meaning: measurement for measurement in group.measurements}
