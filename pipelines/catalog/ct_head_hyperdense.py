"""Dense regions inside the skull in a head CT, without weights: candidates to be looked at, and nothing more.

The inside of the skull is found upright. What is, averaged over 6 mm, clearly denser than the brain around it and lies
between 40 and 90 HU over most of its volume is a candidate. It may be blood, and it may be a venous sinus, the
tentorium, a tumour, a dense vessel, a pale calcification or an artefact: nothing here tells them apart, and no report
says haemorrhage.

Failure modes, as far as they are known: the outer 4 mm next to the skull are not searched, so a thin subdural or
epidural collection is missed, and so is anything smaller than 1 ml, blood of less than about 45 HU (old, or in
anaemia), and subarachnoid blood in thin sulci; beam hardening between the petrous bones looks dense; venous sinuses
that are wide are candidates; what is calcified is left out and said; below the base of the skull nothing is searched.
An answer without candidates does not exclude anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from dicom_sr import codes
from dicom_sr.nouns import Algorithm, Box, Code, Findings, LabelMap, MeasurementGroup, NotFound, Volume
from pipelines import measure, runtime, skull, steps, suitable
from pipelines.kernels import Sharpness, sharpness
from pipelines.skull import Intracranial
from pipelines.spec import OutputMeasurement, OutputSegment, Progress, Refused, Spec, silent
from pipelines.steps import Mask, Upright

LOW, HIGH = 40.0, 90.0
"""A candidate lies between these. Unit: HU."""
SEED_ABOVE, GROW_ABOVE = 16.0, 10.0
"""So much denser than the median of the brain is a candidate's middle, and all of it. Unit: HU."""
MOSTLY = 0.8
"""Share of a region that lies below HIGH; of a calcification less does."""
SKULL_MM = 4.0
UPRIGHT_MM = 2.0
PIECE_MIN_ML = 1.0
MOST = 10
"""More candidates than this are an artefact or a disease of the whole brain; no list helps then."""
TOO_THICK_MM = 6.0
NOISE_MAX = 12.0
METAL_MAX_ML = 0.05
CANDIDATES = codes.structure("hyperdense_candidates")
ONLY = "candidate only: not told from venous sinus, calcification, tumour or artefact"


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SPEC = Spec(
    name="ct_head_hyperdense",
    version="1.0.0",
    title="Dense regions inside the skull in CT: candidates",
    intended_use="Research: places inside the skull that are denser than the brain around them, for a person to look "
    "at; no statement about haemorrhage",
    limitations=(
        "Candidates only: blood, venous sinus, tentorium, tumour, pale calcification and artefact are not told apart",
        f"Not searched: the outer {SKULL_MM:g} mm next to the skull, and anything below {PIECE_MIN_ML:g} ml",
        "No candidate does not mean no haemorrhage",
        "Not validated on patients; tried on phantoms only, never on a real head",
    ),
    modalities=("CT",),
    needs=(
        "The whole head in the volume, from the base of the skull to the vertex, the skull closed",
        "No contrast agent; where the headers do not say, the result is marked",
        f"Slices at most {TOO_THICK_MM:g} mm apart, in any orientation",
        "A kernel that is not known to be sharp; no metal inside the skull",
        "Values in HU",
    ),
    segments=(OutputSegment(label=CANDIDATES.label, type=CANDIDATES.type),),
    measurements=tuple(
        OutputMeasurement(name=quantity.concept, unit=quantity.unit)
        for quantity in map(codes.quantity, ("candidates", "volume", "mean_attenuation"))
    ),
    settings=Settings,
    time_limit_s=120.0,
    device_memory_mb=500,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One region: its size and density on the volume's own voxels, its side and the box around it."""

    volume_ml: float
    mean: float
    side: Code
    box: Box


def runner(volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent) -> Findings:
    """Looks for dense regions inside the skull.

    Raises:  Refused, Cancelled (from progress)
    """
    suitable.ct_slices(volume, SPEC.name, apart_mm=TOO_THICK_MM)
    remarks = suitable.no_contrast(volume, "vessels and membranes are then as dense as blood")
    made = volume.acquisition
    if sharpness(made.manufacturer, made.convolution_kernel) is Sharpness.SHARP:
        raise Refused(
            f"kernel {made.convolution_kernel} is sharp, and its noise is larger than what is looked for",
            remedy="Send the reconstruction with a soft kernel",
        )
    with runtime.settled():
        progress("seeing upright", 0.0)
        view = steps.upright(volume, step=UPRIGHT_MM, device=device)
        progress("finding the skull", 0.2)
        with runtime.at_most(1):
            within = skull.see(view)
            suitable.no_metal(volume, _closed(volume, view, within), at_most_ml=METAL_MAX_ML)
            _not_noisy(within)
            progress("looking for dense regions", 0.6)
            regions, denser = _regions(view, within)
        progress("measuring", 0.8)
        labels, found = _candidates(volume, view, regions, within, device)
    progress("done", 1.0)
    if denser:
        remarks += (f"{denser} regions denser than {HIGH:g} HU (calcification, bone or metal) were left out",)
    return _findings(labels, found, remarks)


def _closed(volume: Volume, view: Upright, within: Intracranial) -> Mask:
    """The inside of the skull on the volume's own grid, with what is too dense for brain inside it."""
    from scipy import ndimage

    filled = ndimage.binary_closing(within.mask, iterations=round(8 / view.step))
    return suitable.on_grid(volume, view, _eroded(filled, round(SKULL_MM / view.step)))


def _eroded(mask: Mask, count: int) -> Mask:
    """The mask without its outer cubes."""
    import torch

    eroded: Mask = steps.eroded(torch.from_numpy(mask), count).numpy()
    return eroded


def _not_noisy(within: Intracranial) -> None:
    """Refuses a head in which noise or artefact is as large as what is looked for.

    Raises:  Refused
    """
    if within.noise > NOISE_MAX:
        raise Refused(
            f"cubes of {UPRIGHT_MM:g} mm scatter by {within.noise:.0f} HU inside the skull, at most {NOISE_MAX:g} HU "
            "can be worked with (noise, motion or streaks)",
            remedy="Send a reconstruction with thicker slices or a softer kernel",
        )


def _regions(view: Upright, within: Intracranial) -> tuple[Mask, int]:
    """Upright, all that is dense enough and of some size, and how many regions were too dense.

    Raises:  Refused
    """
    from scipy import ndimage

    searched = _eroded(ndimage.binary_closing(within.mask, iterations=4), round(SKULL_MM / view.step))
    smooth = view.smooth().cpu().numpy()
    grow = searched & (smooth >= max(LOW, within.median + GROW_ABOVE))
    seed = grow & (smooth >= max(LOW, within.median + SEED_ABOVE))
    labels, counts = steps.components(grow)
    seeds = np.bincount(labels[seed], minlength=len(counts))
    pale = np.bincount(labels[grow & (smooth <= HIGH)], minlength=len(counts))
    large = (counts * view.voxel_ml >= PIECE_MIN_ML) & (seeds > 0)
    dense = large & (pale < MOSTLY * counts)
    kept = large & ~dense
    kept[0] = dense[0] = False
    if kept.sum() > MOST:
        raise Refused(
            f"{int(kept.sum())} dense regions lie inside the skull, which is no list of candidates any more",
            remedy="Look at the images; streaks, motion or contrast agent do this",
        )
    found: Mask = kept[labels]
    return found, int(dense.sum())


def _candidates(
    volume: Volume, view: Upright, regions: Mask, within: Intracranial, device: str
) -> tuple[LabelMap | None, tuple[Candidate, ...]]:
    """The regions on the volume's own grid, the largest first, and as one label."""
    if not regions.any():
        return None, ()
    parts, counts = steps.components(suitable.on_grid(volume, view, regions))
    order = [int(n) for n in np.argsort(counts)[::-1] if counts[n] * volume.voxel_ml >= PIECE_MIN_ML / 2]
    numbered = np.zeros(len(counts), dtype=np.uint8)
    numbered[order] = np.arange(1, len(order) + 1)
    each: LabelMap = numbered[parts]
    if not order:
        return None, ()
    middle = float(view.affine[0, 3] + view.step * np.argwhere(within.mask)[:, 2].mean())
    spread = measure.distributions(volume, each, len(order), device=device)
    found = []
    for number, one in enumerate(spread, start=1):
        places = np.c_[np.argwhere(each == number), np.ones(one.voxels)] @ volume.affine[:3].T
        low, high = places.min(axis=0), places.max(axis=0)
        found.append(
            Candidate(
                volume_ml=one.volume_ml,
                mean=one.mean,
                side=codes.find("left" if places[:, 0].mean() > middle else "right"),
                box=Box(
                    minimum=(float(low[0]), float(low[1]), float(low[2])),
                    maximum=(float(high[0]), float(high[1]), float(high[2])),
                ),
            )
        )
    return (each > 0).astype(np.uint8), tuple(found)


def _findings(labels: LabelMap | None, found: tuple[Candidate, ...], remarks: tuple[str, ...]) -> Findings:
    algorithm = Algorithm(name=SPEC.name, version=SPEC.version)
    finding, site = CANDIDATES.type, codes.find("cranial_cavity")
    if labels is None:
        reason = f"no region of at least {PIECE_MIN_ML:g} ml is denser than the brain around it; this excludes nothing"
        missing = NotFound(label=CANDIDATES.label, finding=finding, reason=reason)
        return Findings(algorithm=algorithm, not_found=(missing,), remarks=remarks)
    together = sum(one.volume_ml for one in found)
    whole = MeasurementGroup(
        label=CANDIDATES.label,
        finding=finding,
        site=site,
        segment_number=1,
        measurements=(
            codes.quantity("candidates").measured(float(len(found))),
            codes.quantity("volume").measured(together, remark=ONLY),
            codes.quantity("mean_attenuation").measured(sum(one.mean * one.volume_ml for one in found) / together),
        ),
    )
    each = tuple(
        MeasurementGroup(
            label=f"Candidate {number}",
            finding=finding,
            site=site,
            laterality=one.side,
            box=one.box,
            measurements=(
                codes.quantity("volume").measured(one.volume_ml, remark=ONLY),
                codes.quantity("mean_attenuation").measured(one.mean),
            ),
        )
        for number, one in enumerate(found, start=1)
    )
    return Findings(
        algorithm=algorithm,
        labels=labels,
        segments=(CANDIDATES.segment(1),),
        groups=(whole, *each),
        remarks=remarks,
    )
