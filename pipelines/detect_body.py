"""What part of the body a CT series shows, worked out from its pixels without any trained weights.

A score of slices, evenly spaced from feet to head, is looked at on a grid of about 4 mm: the cross-section of the
body, how much of it is lung (air between -960 and -400 HU), how much is bone and how far that bone lies from the
middle, and how much of it a ring of bone encloses. Which slices are lung, belly, pelvis or skull, over how many
millimetres, and in which order along the body, gives the regions.

Only numpy and scipy's ndimage are used; the role decide runs it. What it was tried on stands in
`deploy/decisions/0012-what-the-pixels-show.md`: chest, abdomen and pelvis on real CTs, the head on drawn skulls only,
neck and extremities on nothing, which is why those two are never said with confidence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_sr import pixels
from dicom_sr.planes import Plane, planes
from dicom_sr.refusals import UnreadablePixels

Image = NDArray[np.float32]

MOST_SLICES = 20
"""Slices that are looked at; neighbours of a whole-body scan then lie 5 cm apart."""
FEWEST_SLICES = 5
SHORTEST_MM = 50.0
"""Over less than this nothing is said."""
GRID_MM = 4.0

AIR, LUNG_FLOOR, SKIN, BONE = -400.0, -960.0, -250.0, 250.0
"""HU: below AIR is gas; below LUNG_FLOOR it is bowel gas rather than lung; above SKIN is body, above BONE is bone."""

LUNG_SLICE = 0.10
"""From this share of the body on, a slice is one of the lungs."""
CHEST_MM, CHEST_SURE_MM = 100.0, 150.0
"""The bases of the lungs in an abdominal CT reach over less than this; a chest has more."""
ABDOMEN_MM, ABDOMEN_BELOW_CHEST_MM, PELVIS_MM, HEAD_MM = 80.0, 140.0, 60.0, 50.0
"""A chest CT ends some way below the lungs; only from 140 mm on that is an abdomen of its own."""
WHOLE_MM = 750.0

SURE, FAIR, DOUBTFUL = 0.95, 0.8, 0.6


class NothingToSee(UnreadablePixels):
    """These pixels say nothing about the body: too few slices show one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of the body, in the words of `router.domain.body_part`, how sure that is (0 to 1), and what shows it."""

    name: str
    confidence: float
    shown_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one slice shows. Shares are of the cross-section of the body.

    Units:  z mm to the head, area cm2, width mm
    """

    z: float
    area: float
    width: float
    lung: float
    bone: float
    bone_spread: float
    """How far bone lies from its middle, left to right: standard deviation over half the width."""
    enclosed: float
    """Share that lies within a ring of bone."""
    edge: float
    """Largest share of a border of the image that is body: a field of view that cuts the body off."""
    beside: float
    """Size of the next largest part, such as a second leg, relative to the first."""


def look(paths: Iterable[Path]) -> tuple[Region, ...]:
    """Regions of the axial CT series whose files these are, or some of its files; the surest ones first.

    Raises:  NothingToSee, UnusableSeries, OSError
    """
    found = [plane for path in paths for plane in planes(path)[1]]
    axial = [plane for plane in found if is_axial(plane)]
    axial.sort(key=lambda plane: plane.position[2])
    chosen = [axial[index] for index in spread(len(axial))]
    return regions([made for plane in chosen if (made := section(values(plane), plane.spacing, plane.position[2]))])


def spread(count: int, most: int = MOST_SLICES) -> list[int]:
    """Indices of at most so many of `count` slices, evenly spaced, both ends among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist())) if count else []


def is_axial(plane: Plane) -> bool:
    """Whether a plane lies within 30 degrees of axial."""
    normal = np.cross(plane.orientation[:3], plane.orientation[3:])
    return bool(abs(normal[2]) > np.cos(np.radians(30)))


def values(plane: Plane) -> Image:
    """HU of one plane; what was never measured is air.

    Raises:  UnreadablePixels, OSError
    """
    slot: Image = np.empty((1, plane.pixels.rows, plane.pixels.columns), np.float32)
    unmeasured = pixels.fill_block((plane,), slot, pixels.fragments((plane,)))
    if unmeasured is not None:
        slot[unmeasured] = -1000
    image: Image = slot[0]
    return image


def section(image: Image, spacing: Sequence[float], z: float) -> Section | None:
    """What one axial slice shows; None where there is no body in it.

    Shapes:  image (row, column)
    Units:   image HU, spacing (row, column) and z mm
    """
    from scipy import ndimage  # here, since whoever only asks for facts of an MR need not wait for it

    image, (high, wide) = coarse(image, spacing)
    cm2 = high * wide / 100
    solid = ndimage.binary_opening(image > SKIN)
    parts, count = ndimage.label(solid)
    if not count:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    first, *others = np.sort(sizes)[::-1]
    body = ndimage.binary_fill_holes(parts == int(sizes.argmax()))
    pixels_of = int(body.sum())
    columns = np.flatnonzero(body.any(axis=0))
    width = float((np.ptp(columns) + 1) * wide)
    inside = ndimage.binary_erosion(body, iterations=2)
    bone = body & (image > BONE)
    ring = ndimage.binary_fill_holes(ndimage.binary_closing(bone)) & ~bone
    across = np.nonzero(bone)[1]
    borders = (body[0], body[-1], body[:, 0], body[:, -1])
    return Section(
        z=z,
        area=pixels_of * cm2,
        width=width,
        lung=share(inside & (image < AIR) & (image > LUNG_FLOOR), pixels_of),
        bone=share(bone, pixels_of),
        bone_spread=float(np.std(across) * wide / (width / 2)) if across.size else 0.0,
        enclosed=share(ring, pixels_of),
        edge=max(float(border.mean()) for border in borders),
        beside=float(others[0] / first) if others else 0.0,
    )


def coarse(image: Image, spacing: Sequence[float]) -> tuple[Image, tuple[float, float]]:
    """The image averaged over blocks of about 4 mm, and the size of these."""
    down, across = (max(1, round(GRID_MM / step)) for step in spacing)
    rows, columns = image.shape[0] // down, image.shape[1] // across
    blocks = image[: rows * down, : columns * across].reshape(rows, down, columns, across)
    averaged: Image = blocks.mean(axis=(1, 3))
    return averaged, (down * spacing[0], across * spacing[1])


def share(mask: NDArray[np.bool_], whole: int) -> float:
    """How much of the whole the mask is."""
    return float(mask.sum()) / whole


def is_torso(one: Section) -> bool:
    """Whether a cross-section is as large as a trunk's."""
    return one.area >= 250 and one.width >= 180


def is_skull(one: Section) -> bool:
    """Whether bone encloses a good part of a section of a head's size."""
    return one.enclosed >= 0.35 and 60 <= one.area <= 350


def is_pelvic(one: Section) -> bool:
    """Whether there is as much bone on both sides as ilia and femora make."""
    return one.bone >= 0.02 and one.bone_spread >= 0.33


def regions(sections: Sequence[Section]) -> tuple[Region, ...]:
    """What these slices show together, the surest first.

    Raises:  NothingToSee
    """
    if len(sections) < FEWEST_SLICES:
        raise NothingToSee(f"a body is seen in {len(sections)} slices only", remedy="Nothing; the texts are used")
    stack = sorted(sections, key=lambda one: one.z)
    length = stack[-1].z - stack[0].z
    if length < SHORTEST_MM:
        raise NothingToSee(f"the slices reach over {length:.0f} mm only", remedy="Nothing; the texts are used")
    step = length / (len(stack) - 1)
    found = [*chest(stack, step), *head(stack, step)]
    found += below(stack, step, has_chest=any(one.name == "chest" for one in found))
    found += limbs(stack, step, seen=bool(found))
    names = {one.name for one in found}
    if length >= WHOLE_MM and {"head", "chest", "abdomen", "pelvis"} <= names:
        found.append(Region(name="whole body", confidence=FAIR, shown_by=f"head to pelvis over {length:.0f} mm"))
    return tuple(sorted(found, key=lambda one: -one.confidence))


def chest(stack: Sequence[Section], step: float) -> list[Region]:
    """The chest, where lung is seen over more than the bases that an abdominal CT shows."""
    lung = [one for one in stack if one.lung >= LUNG_SLICE]
    reach, most = len(lung) * step, max((one.lung for one in lung), default=0.0)
    mostly = len(lung) >= 0.5 * len(stack) and reach >= SHORTEST_MM  # a child's, or one that is cut short
    if most < 0.15 or not (reach >= CHEST_MM or mostly):
        return []
    confidence = SURE if reach >= CHEST_SURE_MM else FAIR
    return [Region(name="chest", confidence=confidence, shown_by=f"lung over {reach:.0f} mm, up to {most:.0%}")]


def head(stack: Sequence[Section], step: float) -> list[Region]:
    """The head, where rings of bone enclose what a skull does."""
    reach = sum(map(is_skull, stack)) * step
    return [Region(name="head", confidence=FAIR, shown_by=f"skull over {reach:.0f} mm")] if reach >= HEAD_MM else []


def below(stack: Sequence[Section], step: float, *, has_chest: bool) -> list[Region]:
    """Abdomen and pelvis: a trunk below the lungs, without and with bone on both sides."""
    lungs = [one.z for one in stack if one.lung >= LUNG_SLICE]
    under = [one for one in stack if one.lung < LUNG_SLICE and is_torso(one) and (not lungs or one.z < max(lungs))]
    pelvic = [one for one in under if is_pelvic(one) and (not lungs or one.z < min(lungs) - CHEST_MM)]
    soft = [one for one in under if one not in pelvic]
    cut_off = bool(under) and float(np.median([one.edge for one in under])) > 0.5
    found = []
    if len(soft) * step >= (ABDOMEN_BELOW_CHEST_MM if has_chest else ABDOMEN_MM):
        sure = DOUBTFUL if cut_off else FAIR if has_chest else 0.9
        shown = f"trunk without lung over {len(soft) * step:.0f} mm"
        found.append(Region(name="abdomen", confidence=sure, shown_by=shown))
    if len(pelvic) * step >= PELVIS_MM:
        # shoulders have bone on both sides as well, but a neck above them
        sure = FAIR if is_torso(stack[-1]) and not cut_off else DOUBTFUL
        shown = f"bone on both sides over {len(pelvic) * step:.0f} mm"
        found.append(Region(name="pelvis", confidence=sure, shown_by=shown))
    return found


def limbs(stack: Sequence[Section], step: float, *, seen: bool) -> list[Region]:
    """A neck or an extremity, never with confidence: small sections with bone that is no skull."""
    small = [one for one in stack if one.area < 250 and one.bone > 0.02 and not is_skull(one) and one.lung < LUNG_SLICE]
    reach = len(small) * step
    if seen or len(small) < 0.8 * len(stack):
        return []
    paired = sum(one.beside > 0.3 for one in small) > len(small) / 2
    name = "extremity" if paired or float(np.median([one.area for one in small])) < 100 else "neck"
    return [Region(name=name, confidence=DOUBTFUL, shown_by=f"small sections over {reach:.0f} mm")]
