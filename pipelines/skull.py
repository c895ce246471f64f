"""The space inside the skull, without weights, on an upright copy of the volume (see `steps`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines import steps
from pipelines.spec import Refused
from pipelines.steps import Mask, Upright

BONE_FROM = 250.0
TISSUE = (-20.0, 130.0)
"""Between these lies all that fills the skull, averaged over 27 cubes. Unit: HU."""
NECK_MM = 17.0
"""What is narrower than twice this, as the great foramen and all others are, does not lead out of the skull."""
CORNERS_MM = 12.0
ENCLOSED = 0.7
"""Where the orbits and the sinuses lie, no slice shows a closed ring."""
VOLUME_ML = (600.0, 2200.0)
CUT_CM2 = 25.0
"""The cord and the great foramen are smaller."""
BRAIN = (15.0, 50.0)
"""Between these lies the median of any brain without contrast agent. Unit: HU."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Intracranial:
    """All within the skull, upright; the density of most of it, and of single cubes how much they scatter (HU)."""

    mask: Mask
    median: float
    noise: float


def see(view: Upright) -> Intracranial:
    """The space inside the skull.

    Raises:  Refused, when it is not whole, not closed or not there
    """
    from scipy import ndimage

    bone = view.values > BONE_FROM
    inside = view.inside.cpu().numpy()
    smooth = view.smooth().cpu().numpy()
    tissue = inside & ~bone & (smooth > TISSUE[0]) & (smooth < TISSUE[1])
    deep = _far(tissue, view.step, NECK_MM)
    labels, counts = steps.components(deep)
    if not counts.any():
        raise _no_head("nothing in the volume is as large and as dense as a brain")
    core = labels == counts.argmax()
    core = tissue & (ndimage.distance_transform_edt(~core) * view.step <= NECK_MM)
    share = float(_ringed(bone, view.step)[core].mean())
    mask: Mask = ndimage.binary_dilation(core, iterations=round(CORNERS_MM / view.step), mask=tissue)
    size = float(mask.sum()) * view.voxel_ml
    if share < ENCLOSED:
        raise _no_head(
            f"bone encloses {100 * share:.0f} % of what could be brain, at least {100 * ENCLOSED:.0f} % are needed"
        )
    if not VOLUME_ML[0] <= size <= VOLUME_ML[1]:
        raise _no_head(
            f"{size:.0f} ml lie inside the skull, {VOLUME_ML[0]:g} to {VOLUME_ML[1]:g} ml are to be expected"
        )
    # the outermost cubes of the scan are averaged with what lies outside, and so are no tissue
    edge = mask & ~ndimage.binary_erosion(inside, iterations=2)
    cut = float(edge.sum()) * view.step**2 / 100
    if cut > CUT_CM2:
        raise Refused(
            f"the head is cut off: {cut:.0f} cm2 of the inside of the skull meet the edge of the volume",
            remedy="Send the whole series, from the base of the skull to the vertex; slices may be missing",
        )
    values = view.values[mask]
    median = float(np.median(values))
    if not BRAIN[0] <= median <= BRAIN[1]:
        raise Refused(
            f"the median inside the skull is {median:.0f} HU, {BRAIN[0]:g} to {BRAIN[1]:g} HU are those of a brain",
            remedy="Send images in HU, without contrast agent",
        )
    scatter = (view.hu - view.smooth()).cpu().numpy()[mask]
    noise = 1.4826 * float(np.median(np.abs(scatter - np.median(scatter))))
    return Intracranial(mask=mask, median=median, noise=noise)


def _no_head(what: str) -> Refused:
    return Refused(
        f"no whole, closed skull is seen: {what}",
        remedy="Route CT of the whole head; a head after craniectomy is not handled",
    )


def _far(mask: Mask, step: float, distance_mm: float) -> Mask:
    """Where everything within this distance belongs to the mask."""
    from scipy import ndimage

    far: Mask = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1] * step > distance_mm
    return far


def _ringed(bone: Mask, step: float) -> Mask:
    """What a ring of bone encloses in its own upright slice."""
    from scipy import ndimage

    ringed = np.zeros_like(bone)
    for height in np.flatnonzero(bone.any(axis=(1, 2))):
        closed = ndimage.binary_closing(np.pad(bone[height], 4), iterations=max(1, round(5 / step)))[4:-4, 4:-4]
        ringed[height] = ndimage.binary_fill_holes(closed)
    return ringed
