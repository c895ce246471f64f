"""What no pipeline on CT slices can work with, refused in the same words by all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dicom_sr.nouns import Volume
from pipelines.spec import Refused
from pipelines.steps import Mask

if TYPE_CHECKING:
    from pipelines.steps import Upright

METAL_FROM = 2500
"""No bone and no tooth is denser. Unit: HU."""
SOFT_TISSUE = (-150.0, 150.0)
"""Between these lies the median of any part of a body without the air in it. Unit: HU."""


def ct_slices(volume: Volume, name: str, *, apart_mm: float) -> None:
    """Refuses what is no volume of CT slices, or whose slices lie too far apart.

    Raises:  Refused
    """
    made = volume.acquisition
    if made.modality != "CT":
        raise Refused(f"the series is {made.modality or 'of no modality'}, not CT", remedy=f"Route only CT to {name}")
    if "LOCALIZER" in made.image_type:
        raise Refused("the series is a localizer", remedy=f"Route the series of slices of the study to {name} instead")
    if max(volume.spacing) > apart_mm:
        raise Refused(
            f"slices lie {max(volume.spacing):.1f} mm apart, at most {apart_mm:g} mm can be measured",
            remedy="Send a reconstruction with thinner slices",
        )


def no_contrast(volume: Volume, why: str) -> tuple[str, ...]:
    """Refuses a series with contrast agent; where the headers say nothing, a remark that says so.

    Raises:  Refused
    """
    if volume.acquisition.contrast:
        raise Refused(f"a contrast agent was given, and {why}", remedy="Route the series without contrast agent")
    if volume.acquisition.contrast is None:
        return (f"The headers do not say whether a contrast agent was given; with one, {why}",)
    return ()


def no_metal(volume: Volume, inside: Mask, *, at_most_ml: float) -> None:
    """Refuses a volume with more metal than this inside the body: its streaks move every value around it.

    Raises:  Refused
    """
    found = float(np.count_nonzero((volume.array >= METAL_FROM) & inside)) * volume.voxel_ml
    if found > at_most_ml:
        raise Refused(
            f"{found:.1f} ml of metal (at least {METAL_FROM} HU) lie in the body, and its streaks around it",
            remedy="Send a reconstruction with metal artefact reduction, or look at the images",
        )


def on_grid(volume: Volume, view: Upright, upright: Mask) -> Mask:
    """An upright mask on the volume's own grid, without what was never measured."""
    import torch

    from pipelines import steps

    found = np.zeros(volume.array.shape, dtype=bool)
    codes = torch.from_numpy(upright).to(view.hu.device).to(torch.uint8)
    for box, code in steps.nearest(view, codes, volume):
        found[box] = code.cpu().numpy() > 0
    return found if volume.padding is None else found & ~volume.padding


def hounsfield(view: Upright, body: Mask) -> None:
    """Refuses a volume in which there is no body, or whose values are not HU.

    Raises:  Refused
    """
    from pipelines.thorax import AIR_BELOW

    tissue = view.values[body & (view.values > AIR_BELOW)]
    if tissue.size * view.voxel_ml < 100:
        raise Refused("no body is seen in the volume", remedy="Look at the images; route the series that shows it")
    middle = float(np.median(tissue))
    if not SOFT_TISSUE[0] <= middle <= SOFT_TISSUE[1]:
        raise Refused(
            f"the values are not HU: the median of the body is {middle:.0f}",
            remedy="Send images with the rescale slope and intercept of the scanner",
        )
