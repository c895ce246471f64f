"""Nodules in a chest CT by a small network that was trained on drawn chests: it shows the learned path, nothing else.

The network and its whole chain are a MONAI bundle that ships with the package (`pipelines/shipped/`), run as any
installed bundle is run: in the declarative profile, from safetensors, its tree checked by digest. What it delineates is
parted into candidates, each with its volume, its density, the probability that the network gave to its voxels and, when
asked for, how well runs on mirrored images agree.

It has seen no patient: `python -m pipelines.nodule_training` drew what it learned from. So nothing that it says of a
patient has any weight, and its objects are marked for research.

Failure modes, as far as they are known: real lungs look otherwise in every respect; nodules that touch the wall of the
chest, ground glass, calcified nodules and anything over 30 mm were not among those that it learned from; thick slices
lose the small ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dicom_sr import codes
from dicom_sr.nouns import Algorithm, Box, Findings, LabelMap, Measurement, MeasurementGroup, NotFound, Volume
from pipelines import bundles, suitable
from pipelines.spec import OutputMeasurement, OutputSegment, Progress, Refused, Spec, freeze, silent
from pipelines.steps import Mask

BUNDLE = Path(__file__).parent.parent / "shipped" / "ct_lung_nodule_demo"
DIGEST = "cd92debeed4f4f8ff9eda712a0468df91c7654f74da895f66dca11ff579c9a43"
"""SHA-256 of the bundle's tree (`pipelines.trust.digest`); a tree that differs is not run."""
SMALLEST_ML = 0.05
"""A candidate is no smaller: about a ball of 4.6 mm."""
SURE_FROM = 0.94
"""Least mean probability of a candidate's voxels, chosen by `python -m pipelines.nodule_training choose`."""
AROUND_MM, AERATED_HU, AERATED_FROM = (1.5, 4.0), -500, 0.75
"""Of the voxels so far from a candidate, this share is aerated at least: what it learned lies within a lung. Vessels at
the hila look like nodules otherwise and have half of it (validation scans: nodules at least 0.97, hila at most 0.55).
"""
MOST = 100
TOO_THICK_MM = 3.0
LUNG_HU = (-950, -650)
LUNG_MIN_ML = 40.0
"""With less aerated lung in it, a volume is no chest."""
SEEN = "Trained on procedural phantoms only: this model has seen no patient"
CUT = (
    "Candidates left out since they reach the edge of the images, where tissue that is cut off looks like a nodule: {}"
)
CANDIDATES = codes.structure("nodule_candidates")


class Settings(BaseModel):
    """What a rule may set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    agreement: bool = Field(
        default=False,
        description="Run on mirrored images too, take the mean, and say how well the runs agree; costs eight runs",
    )
    minimum_certainty: float = Field(
        SURE_FROM, ge=0.0, le=1.0, description="Candidates whose voxels are on average less probable are not reported"
    )


SPEC = Spec(
    name="ct_lung_nodule_demo",
    version="1.0.0",
    title="Nodules in drawn lungs: a demonstration",
    intended_use=f"RESEARCH and demonstration only, not for diagnosis. {SEEN}",
    limitations=(
        SEEN,
        "Not validated on anything but phantoms; what it says of a patient has no weight",
        "Solid nodules of 6 to 30 mm that do not touch the wall of the chest are all that it learned",
        "Candidates that reach the edge of the images are left out, nodules among them",
        "No candidate does not mean no nodule",
    ),
    modalities=("CT",),
    needs=(
        f"At least {LUNG_MIN_ML:g} ml of aerated lung in the volume",
        f"Voxels at most {TOO_THICK_MM:g} mm apart, in any orientation",
        "Values in HU",
    ),
    segments=(OutputSegment(label=CANDIDATES.label, type=CANDIDATES.type),),
    measurements=tuple(
        OutputMeasurement(name=quantity.concept, unit=quantity.unit)
        for quantity in map(codes.quantity, ("candidates", "volume", "mean_attenuation", "certainty", "agreement"))
    ),
    settings=Settings,
    weights_digest=DIGEST,
    time_limit_s=300.0,
    device_memory_mb=1500,
)


def runner(volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent) -> Findings:
    """Delineates nodule candidates.

    Raises:  Refused, Untrusted (when the bundle is not what was shipped), Cancelled (from progress)
    """
    chosen = Settings.model_validate(settings.model_dump())
    suitable.ct_slices(volume, SPEC.name, apart_mm=TOO_THICK_MM)
    _holds_lung(volume)
    from pipelines.model import answered  # torch
    from pipelines.reported import Labelled

    options = bundles.BundleSettings(tiles="even", certainty=True, mirrored="all axes" if chosen.agreement else "no")
    network = bundles.resident(BUNDLE, SPEC.name, DIGEST, device)
    answer, remarks = answered(network, volume, options, progress)
    assert isinstance(answer, Labelled)
    algorithm = Algorithm(
        name=SPEC.name,
        version=SPEC.version,
        weights_digest=DIGEST,
        parameters=tuple((name, str(value)) for name, value in freeze(chosen).items()),
    )
    assert answer.sure is not None
    labels, groups, cut = _measured(volume, answer.labels > 0, answer.sure, answer.agreed, chosen.minimum_certainty)
    remarks = (SEEN, *remarks, *([CUT.format(cut)] if cut else []))
    if labels is None:
        reason = f"the network saw none of at least {SMALLEST_ML:g} ml; this excludes nothing"
        missing = NotFound(label=CANDIDATES.label, finding=CANDIDATES.type, reason=reason)
        return Findings(algorithm=algorithm, not_found=(missing,), remarks=remarks)
    return Findings(
        algorithm=algorithm, labels=labels, segments=(CANDIDATES.segment(1),), groups=groups, remarks=remarks
    )


def candidates(mask: Mask) -> tuple[NDArray[np.uint32], int]:
    """The parts of a mask, touching at faces, edges or corners, numbered from 1, and how many there are."""
    import cc3d

    parts, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    return parts, int(count)


def _holds_lung(volume: Volume) -> None:
    """Refuses what shows no aerated lung: another part of the body, or values that are not HU.

    Raises:  Refused
    """
    thinned = volume.array[::2, ::2, ::2]
    millilitres = 8 * volume.voxel_ml * np.count_nonzero((thinned >= LUNG_HU[0]) & (thinned <= LUNG_HU[1]))
    if millilitres < LUNG_MIN_ML:
        raise Refused(
            f"{millilitres:.0f} ml of the volume look like aerated lung, at least {LUNG_MIN_ML:g} ml are needed",
            remedy="Route only CT of the chest to it, with the rescale slope and intercept of the scanner",
        )


def _measured(
    volume: Volume, mask: Mask, sure: LabelMap, agreed: LabelMap | None, least: float
) -> tuple[LabelMap | None, tuple[MeasurementGroup, ...], int]:
    """The candidates that are large, sure, whole and within a lung, as one label; groups of all together, then of each
    by its size; and how many were left out since they are cut off.

    Raises:  Refused
    """
    parts, count = candidates(mask)
    places = np.argwhere(parts)
    if not len(places):
        return None, (), 0
    numbers = parts[tuple(places.T)]
    sizes = np.bincount(numbers, minlength=count + 1)

    def means(values: NDArray[np.generic]) -> NDArray[np.float64]:
        sums = np.bincount(numbers, weights=values[tuple(places.T)], minlength=count + 1)
        return sums / np.maximum(sizes, 1)

    density, certain = means(volume.array), means(sure)
    alike = None if agreed is None else means(agreed)
    kept = (sizes * volume.voxel_ml >= SMALLEST_ML) & (certain >= 255 * least)
    edge = ((places == 0) | (places == np.array(mask.shape) - 1)).any(axis=1)
    cut = kept & (np.bincount(numbers[edge], minlength=count + 1) > 0)
    kept &= ~cut
    for number in np.flatnonzero(kept):
        kept[number] = _aerated_around(volume, parts == number, places[numbers == number]) >= AERATED_FROM
    order = [int(n) for n in np.argsort(-sizes, kind="stable") if kept[n]]
    if len(order) > MOST:
        raise Refused(
            f"{len(order)} candidates are no list any more",
            remedy="Look at the images; noise, motion or a diffuse disease do this",
        )
    if not order:
        return None, (), int(cut.sum())
    quantity = codes.quantity
    whole = MeasurementGroup(
        label=CANDIDATES.label,
        finding=CANDIDATES.type,
        site=codes.find("lung"),
        segment_number=1,
        measurements=(
            quantity("candidates").measured(float(len(order))),
            quantity("volume").measured(float(sizes[order].sum()) * volume.voxel_ml, remark=SEEN),
        ),
    )
    groups = [whole]
    for rank, candidate in enumerate(order, start=1):
        measured: list[Measurement] = [
            quantity("volume").measured(float(sizes[candidate]) * volume.voxel_ml),
            quantity("mean_attenuation").measured(float(density[candidate])),
        ]
        for name, values in (("certainty", certain), ("agreement", alike)):
            if values is not None:
                measured.append(quantity(name).measured(100.0 * float(values[candidate]) / 255))
        groups.append(
            MeasurementGroup(
                label=f"Nodule candidate {rank}",
                finding=CANDIDATES.type,
                site=codes.find("lung"),
                box=_around(volume, places[numbers == candidate]),
                measurements=tuple(measured),
            )
        )
    keep = np.zeros(count + 1, np.uint8)
    keep[order] = 1
    return keep[parts], tuple(groups), int(cut.sum())


def _aerated_around(volume: Volume, mask: Mask, places: NDArray[np.int64]) -> float:
    """Share of the voxels around a candidate, which lies at these places, that are aerated."""
    from scipy import ndimage

    reach = np.ceil(AROUND_MM[1] / np.array(volume.spacing)).astype(int)
    low, high = np.maximum(places.min(axis=0) - reach, 0), places.max(axis=0) + reach + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    far = ndimage.distance_transform_edt(~mask[box], sampling=volume.spacing)
    shell = volume.array[box][(far > AROUND_MM[0]) & (far <= AROUND_MM[1])]
    return float((shell < AERATED_HU).mean()) if shell.size else 0.0


def _around(volume: Volume, places: NDArray[np.int64]) -> Box:
    """The box along the patient's axes about these voxels' centres."""
    points = places @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    low, high = points.min(axis=0), points.max(axis=0)
    return Box(
        minimum=(float(low[0]), float(low[1]), float(low[2])),
        maximum=(float(high[0]), float(high[1]), float(high[2])),
    )
