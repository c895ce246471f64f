"""Mineralised bone in CT, without weights: what is as dense as bone, inside the body, in pieces of some size.

Every voxel above 160 HU that hangs together with voxels above 300 HU is bone; marrow is not filled in. It works on the
volume's own voxels, so the kernel's sharpness moves the surface by less than a voxel.

Failure modes, as far as they are known: contrast agent in vessels, bowel or urinary tract is as dense as bone, so
series with contrast are refused, and those that do not say are marked; osteoporotic trabecular bone under 160 HU is
missing while its cortex is there; calcified plaques, stones, teeth, calcified cartilage, dense tablets and small
implants count as bone; thin cortex is lost where slices are thick; bones are cut where the scan ends.
"""

import numpy as np
from pydantic import BaseModel, ConfigDict

from dicom_sr import codes
from dicom_sr.nouns import Algorithm, Findings, LabelMap, MeasurementGroup, NotFound, Volume
from pipelines import measure, runtime, steps, suitable, thorax
from pipelines.spec import OutputMeasurement, OutputSegment, Progress, Spec, silent
from pipelines.steps import Mask

BONE_FROM = 160
CORE_FROM = 300
"""A piece of bone has cortex, which is at least as dense. Unit: HU."""
CORE_SHARE = 0.05
PIECE_MIN_ML = 0.5
UPRIGHT_MM = 2.5
TOO_THICK_MM = 6.0
METAL_MAX_ML = 2.0
NAMES = ("volume", "mean_attenuation")
BONE = codes.structure("bone")


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SPEC = Spec(
    name="ct_bone",
    version="1.0.0",
    title="Bone in CT: volume and density",
    intended_use="Research: volume and mean attenuation of the mineralised bone that a CT without contrast shows",
    limitations=(
        "Not validated on patients; no single bone is named, and no fracture or lesion is looked for",
        "Marrow is not part of it, nor is trabecular bone under 160 HU",
        "Calcified plaques, stones, teeth, calcified cartilage and small implants count as bone",
        "The scan cuts bones off, so the volume is that of what was scanned and no property of the patient",
    ),
    modalities=("CT",),
    needs=(
        "No contrast agent; where the headers do not say, the result is marked",
        f"Slices at most {TOO_THICK_MM:g} mm apart, in any orientation",
        f"At most {METAL_MAX_ML:g} ml of metal",
        "Values in HU",
    ),
    segments=(OutputSegment(label=BONE.label, type=BONE.type),),
    measurements=tuple(
        OutputMeasurement(name=quantity.concept, unit=quantity.unit) for quantity in map(codes.quantity, NAMES)
    ),
    settings=Settings,
    time_limit_s=120.0,
    device_memory_mb=500,
)


def runner(volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent) -> Findings:
    """Delineates bone and measures it.

    Raises:  Refused, Cancelled (from progress)
    """
    suitable.ct_slices(volume, SPEC.name, apart_mm=TOO_THICK_MM)
    remarks = suitable.no_contrast(volume, "vessels, bowel and urinary tract are then as dense as bone")
    with runtime.settled():
        progress("seeing upright", 0.0)
        view = steps.upright(volume, step=UPRIGHT_MM, device=device)
        with runtime.at_most(1):
            body = thorax.body(view)
        suitable.hounsfield(view, body)
        progress("delineating", 0.3)
        inside = suitable.on_grid(volume, view, body)
        suitable.no_metal(volume, inside, at_most_ml=METAL_MAX_ML)
        labels = _bone(volume, inside)
        progress("measuring", 0.8)
        spread = measure.distributions(volume, labels, 1, device=device)[0] if labels.any() else None
    progress("done", 1.0)
    algorithm = Algorithm(name=SPEC.name, version=SPEC.version)
    if spread is None:
        reason = f"no piece of at least {PIECE_MIN_ML:g} ml is as dense as bone"
        missing = NotFound(label=BONE.label, finding=BONE.type, reason=reason)
        return Findings(algorithm=algorithm, not_found=(missing,), remarks=remarks)
    values = {"volume": spread.volume_ml, "mean_attenuation": spread.mean}
    group = MeasurementGroup(
        label=BONE.label,
        finding=BONE.type,
        site=BONE.type,
        segment_number=1,
        measurements=tuple(codes.quantity(name).measured(values[name]) for name in NAMES),
    )
    return Findings(algorithm=algorithm, labels=labels, segments=(BONE.segment(1),), groups=(group,), remarks=remarks)


def _bone(volume: Volume, inside: Mask) -> LabelMap:
    """1 where bone is, on the volume's own grid."""
    parts, counts = steps.components(inside & (volume.array >= BONE_FROM))
    cores = np.bincount(parts[volume.array >= CORE_FROM], minlength=len(counts))
    kept = (counts * volume.voxel_ml >= PIECE_MIN_ML) & (cores >= CORE_SHARE * counts)
    kept[0] = False
    bone: LabelMap = kept[parts].astype(np.uint8)
    return bone
