"""Fat of the trunk in CT, without weights: under the skin, and, as an estimate, within the wall of the trunk.

Fat is what lies between -190 and -30 HU. The wall is what muscle and bone enclose, upright slice by slice, with gaps of
up to 50 mm between them closed; fat outside it lies under the skin, fat inside it is visceral, or lies between muscles
and in marrow. The second cannot be told apart by values alone, so it is marked as an estimate wherever it is said.
There is no figure for muscle: HU ranges fail there.

Failure modes, as far as they are known: arms that touch the trunk count to it, the fat around their muscles as fat
under the skin; breast tissue counts as fat under the skin as far as it is fat; a wall that is broken over more than
50 mm (hernia, surgery, wasting) lets fat within count as fat under the skin; fat inside bowel and in fatty marrow
counts as fat within; so does fat next to gas under the skin; oedema is no longer as light as fat; skin folds outside
the field of view are missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from dicom_sr import codes
from dicom_sr.nouns import Algorithm, Findings, LabelMap, Measurement, MeasurementGroup, NotFound, Volume
from pipelines import measure, runtime, steps, suitable, thorax
from pipelines.kernels import Sharpness, sharpness
from pipelines.measure import Distribution
from pipelines.spec import OutputMeasurement, OutputSegment, Progress, Refused, Spec, silent
from pipelines.steps import Mask, Upright

if TYPE_CHECKING:
    from torch import Tensor

FAT_FROM, FAT_TO = -190, -30
"""Fat, both ends included. Unit: HU."""
WALL_FROM, GAS_BELOW = -25.0, -300.0
UPRIGHT_MM = 2.5
SKIN_MM = 5.0
BRIDGED_MM = 25.0
"""Gaps in the wall are closed that are up to twice as wide."""
WALL_SHARE = 0.05
"""Of the largest piece of a slice's wall; what is smaller lies in the fat, as vessels do."""
TOO_THICK_MM = 8.0
METAL_MAX_ML = 2.0
LENGTH_MIN_MM = 50.0
TRUNK_MIN_CM2 = 250.0
"""No head, neck or limb has so large a cross-section (as in detect_body)."""
CUT_SHARE = 0.02
"""Share of a slice's outline over which the trunk may meet the sides of the scan."""
NAMES = ("volume", "mean_attenuation")
STRUCTURES = ("subcutaneous_fat", "inner_fat")
ESTIMATE = "estimate: visceral fat is not told from fat between muscles and in marrow"


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SPEC = Spec(
    name="ct_body_fat",
    version="1.0.0",
    title="Fat of the trunk in CT: under the skin, and within (estimate)",
    intended_use="Research: volume of the fat under the skin, and an estimate of that within the trunk, in the part of "
    "the trunk that was scanned",
    limitations=(
        "Not validated on patients; volumes are of what was scanned, so only equal ranges can be compared",
        "Fat within the trunk is an estimate: visceral fat is not told from fat between muscles and in marrow",
        "No muscle is measured: HU ranges do not tell it from organs and bowel",
        "Arms that touch the trunk, and breasts, count to it",
    ),
    modalities=("CT",),
    needs=(
        f"The trunk in its whole width over at least {LENGTH_MIN_MM:g} mm; slices that cut it off are left out",
        f"Slices at most {TOO_THICK_MM:g} mm apart, in any orientation",
        "A kernel that is not known to be sharp",
        f"At most {METAL_MAX_ML:g} ml of metal in the body",
        "Values in HU",
    ),
    segments=tuple(OutputSegment(label=fat.label, type=fat.type) for fat in map(codes.structure, STRUCTURES)),
    measurements=tuple(
        OutputMeasurement(name=quantity.concept, unit=quantity.unit)
        for quantity in map(codes.quantity, (*NAMES, "scanned_length"))
    ),
    settings=Settings,
    time_limit_s=120.0,
    device_memory_mb=500,
)


def runner(volume: Volume, settings: BaseModel, *, device: str = "cpu", progress: Progress = silent) -> Findings:
    """Delineates fat under the skin and within the wall of the trunk, and measures both.

    Raises:  Refused, Cancelled (from progress)
    """
    suitable.ct_slices(volume, SPEC.name, apart_mm=TOO_THICK_MM)
    _not_sharp(volume)
    with runtime.settled():
        progress("seeing upright", 0.0)
        view = steps.upright(volume, step=UPRIGHT_MM, device=device)
        with runtime.at_most(1):
            trunk = thorax.body(view)
        suitable.hounsfield(view, trunk)
        first, last = _whole_slices(view, trunk)
        progress("finding the wall", 0.3)
        within = wall(view, trunk)
        trunk[:first], trunk[last + 1 :] = False, False
        progress("delineating", 0.6)
        inside = suitable.on_grid(volume, view, trunk)
        suitable.no_metal(volume, inside, at_most_ml=METAL_MAX_ML)
        labels, found = _fat(volume, inside, suitable.on_grid(volume, view, within))
        progress("measuring", 0.8)
        spread = measure.distributions(volume, labels, len(found), device=device)
    progress("done", 1.0)
    return Findings(
        algorithm=Algorithm(name=SPEC.name, version=SPEC.version),
        labels=labels if found else None,
        segments=tuple(codes.structure(name).segment(number) for number, name in enumerate(found, start=1)),
        groups=tuple(
            _group(name, number, one, (last - first + 1) * view.step)
            for number, (name, one) in enumerate(zip(found, spread, strict=True), start=1)
        ),
        not_found=tuple(_missing(name) for name in STRUCTURES if name not in found),
        remarks=(_reach(view, first, last),),
    )


def _not_sharp(volume: Volume) -> None:
    """Refuses kernels whose noise moves single voxels in and out of the range of fat.

    Raises:  Refused
    """
    made = volume.acquisition
    if sharpness(made.manufacturer, made.convolution_kernel) is Sharpness.SHARP:
        raise Refused(
            f"kernel {made.convolution_kernel} is sharp, and its noise reaches from fat into muscle and air",
            remedy="Send a reconstruction with a soft kernel",
        )


def _whole_slices(view: Upright, trunk: Mask) -> tuple[int, int]:
    """First and last upright slice of the longest run in which the trunk is seen in its whole width.

    Raises:  Refused
    """
    import torch

    per_slice = view.step**2 / 100
    body, inside = torch.from_numpy(trunk), view.inside.cpu()
    outline = (body & steps.dilated(~body, 1)).sum(dim=(1, 2)).numpy()
    beside = (body & _spread_in_plane(~inside)).sum(dim=(1, 2)).numpy()
    large = trunk.sum(axis=(1, 2)) * per_slice >= TRUNK_MIN_CM2
    if not large.any():
        raise Refused(
            f"no cross-section has the {TRUNK_MIN_CM2:g} cm2 that a trunk has at least",
            remedy="Route CT of chest, abdomen or pelvis",
        )
    whole = large & (beside <= CUT_SHARE * outline)
    begins, ends = np.flatnonzero(np.diff(np.pad(whole.astype(np.int8), 1))).reshape(-1, 2).T
    longest = int(np.argmax(ends - begins)) if begins.size else 0
    length = float(ends[longest] - begins[longest]) * view.step if begins.size else 0.0
    if length < LENGTH_MIN_MM:
        raise Refused(
            f"the trunk is seen in its whole width over {length:.0f} mm only (of {large.sum() * view.step:.0f} mm), "
            f"at least {LENGTH_MIN_MM:g} mm are needed",
            remedy="Send the whole series, or a reconstruction with a larger field of view",
        )
    return int(begins[longest]), int(ends[longest]) - 1


def _spread_in_plane(mask: Tensor) -> Tensor:
    """Each cube or one of its neighbours in its own upright slice."""
    from torch.nn.functional import max_pool2d

    return max_pool2d(mask[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0


def wall(view: Upright, trunk: Mask) -> Mask:
    """All that muscle, bone and gas enclose, upright slice by slice, themselves included.

    Gas lies within the wall, in lung or bowel, and makes a thin wall before it look like fat.
    """
    import torch
    from scipy import ndimage

    outside = torch.from_numpy(~trunk)
    for _ in range(round(SKIN_MM / view.step)):
        outside = _spread_in_plane(outside)
    firm = ((view.values > WALL_FROM) | (view.values < GAS_BELOW)) & ~outside.numpy()
    within = np.zeros_like(trunk)
    reach = int(np.ceil(BRIDGED_MM / view.step)) + 1
    for height in np.flatnonzero(firm.any(axis=(1, 2))):
        pieces, number = ndimage.label(firm[height], structure=np.ones((3, 3)))
        sizes = np.bincount(pieces.ravel(), minlength=number + 1)
        sizes[0] = 0
        plane = np.pad((sizes >= WALL_SHARE * sizes.max())[pieces] & (pieces > 0), reach)
        near = ndimage.distance_transform_edt(~plane) * view.step <= BRIDGED_MM
        near = ndimage.binary_fill_holes(near)
        closed = ndimage.distance_transform_edt(near) * view.step > BRIDGED_MM
        within[height] = ndimage.binary_fill_holes(closed | plane)[reach:-reach, reach:-reach]
    return within & trunk


def _fat(volume: Volume, inside: Mask, within: Mask) -> tuple[LabelMap, tuple[str, ...]]:
    """The label map, and which structures its labels are, in order."""
    import torch

    fat = inside & (volume.array >= FAT_FROM) & (volume.array <= FAT_TO)
    # between gas and tissue lie values of fat that are none
    within_fat = fat & within & ~steps.dilated(torch.from_numpy(volume.array < FAT_FROM), 1).numpy()
    labels = np.zeros(volume.array.shape, dtype=np.uint8)
    found: list[str] = []
    for name, mask in (("subcutaneous_fat", fat & ~within), ("inner_fat", within_fat)):
        if mask.any():
            found.append(name)
            labels[mask] = len(found)
    return labels, tuple(found)


def _reach(view: Upright, first: int, last: int) -> str:
    """Which part of the body the volumes are of."""
    low, high = (view.affine[2, 3] + view.step * height for height in (first - 0.5, last + 0.5))
    return (
        f"Measured over {high - low:.1f} mm of the trunk, where it is seen in its whole width: "
        f"from {low:.1f} to {high:.1f} mm along the patient's axis to the head"
    )


def _group(name: str, number: int, spread: Distribution, length: float) -> MeasurementGroup:
    fat = codes.structure(name)
    remark = ESTIMATE if name == "inner_fat" else None

    def measured(quantity: str, value: float) -> Measurement:
        return codes.quantity(quantity).measured(value, remark=remark)

    return MeasurementGroup(
        label=fat.label,
        finding=fat.type,
        site=codes.find("subcutaneous_tissue") if name == "subcutaneous_fat" else fat.type,
        segment_number=number,
        measurements=(
            measured("volume", spread.volume_ml),
            measured("mean_attenuation", spread.mean),
            codes.quantity("scanned_length").measured(length),
        ),
    )


def _missing(name: str) -> NotFound:
    fat = codes.structure(name)
    return NotFound(label=fat.label, finding=fat.type, reason=f"nothing between {FAT_FROM} and {FAT_TO} HU lies there")
