"""Chests with nodules whose size and place are known: whole scans to try a detector on, and patches to train one.

Both are drawn; no patient is in them. A scan is the phantom chest with nodules of one's own at random places of its
lungs. A patch is cut from such a chest, turned at random, and has nodules put in afterwards, so that a few chests give
as many patches as are wanted; the seeds of both are told apart, so that no patch shows a scan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_sr.nouns import Acquisition, Volume
from pipelines import phantom
from pipelines.anatomy import (
    LEFT_LUNG,
    RIGHT_LUNG,
    Anatomy,
    Canvas,
    Floats,
    Grid,
    Mask,
    Nodule,
    Orientation,
    Point,
    directions,
    grid,
    paint,
)

SMALLEST_MM, LARGEST_MM = 6.0, 30.0
STEP_MM = 1.5
"""Edge of a patch's voxels, which are cubes."""
APART_MM = 4.0
TRIES = 4000
AROUND: NDArray[np.float64] = np.array(list(np.ndindex(3, 3, 3)), np.float64) - 1
AROUND /= np.maximum(np.linalg.norm(AROUND, axis=1, keepdims=True), 1)


def scan(
    seed: int,
    *,
    count: int = 6,
    spacing: Point = (1.5, 1.2, 1.2),
    orientation: Orientation = "axial",
) -> phantom.Phantom:
    """A chest with `count` solid nodules of 6 to 30 mm; `truth` numbers their voxels from 1, `nodules` describes them.

    Shapes:  spacing (slice, row, column)
    Units:   mm; HU
    """
    nodules = _somewhere(seed, count)
    return _scanned(grid(orientation, spacing), nodules, seed, orientation, spacing)


def box(
    nodules: Sequence[Nodule],
    *,
    about: Point = (-75.0, 0.0, 25.0),
    edge: float = 84.0,
    seed: int = 0,
    spacing: Point = (1.5, 1.2, 1.2),
    orientation: Orientation = "axial",
) -> phantom.Phantom:
    """A cube of the chest with these nodules, by default in the right lung: small, so that it is made and read fast."""
    row, column = directions(orientation)
    axes = np.stack([np.cross(row, column), column, row], axis=1)
    count = [round(edge / step) for step in spacing]
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)
    affine[:3, 3] = np.round(np.array(about) - affine[:3, :3] @ ((np.array(count) - 1) / 2), 4)
    return _scanned(Grid(affine, (count[0], count[1], count[2])), tuple(nodules), seed, orientation, spacing)


def _scanned(
    where: Grid, nodules: Sequence[Nodule], seed: int, orientation: Orientation, spacing: Point
) -> phantom.Phantom:
    canvas = Canvas(where)
    paint(canvas, Anatomy("normal", seed, 7.0, nodules))
    array = phantom.scanned(canvas.hu, spacing, seed)
    made = Acquisition(
        modality="CT",
        series_instance_uid=phantom.uid("nodules", hashlib.sha256(array.tobytes()).hexdigest(), where.affine),
        convolution_kernel=phantom.SOFT_KERNEL,
        manufacturer="SIEMENS",
        slice_thickness=spacing[0],
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    )
    return phantom.Phantom(
        volume=Volume(array=array, affine=where.affine, acquisition=made),
        truth=canvas.nodules,
        mass=canvas.nodules > 0,
        left=None,
        right=None,
        variant="normal",
        orientation=orientation,
        seed=seed,
        slice_thickness=spacing[0],
    )


def _somewhere(seed: int, count: int) -> tuple[Nodule, ...]:
    """Nodules inside the lungs, apart from each other; small ones are the most."""
    random = np.random.default_rng([seed, 30])
    anatomy = Anatomy("normal", seed, 7.0)
    found: list[Nodule] = []
    for _ in range(TRIES):
        if len(found) == count:
            break
        nodule = _any(random, tuple(random.uniform((-140, -90, -130), (140, 90, 125))))
        margin = max(nodule.semi) + 1.5
        x, y, z = (np.array(nodule.centre) + margin * AROUND).astype(np.float32).T
        inside = anatomy.lung(x, y, z, "left" if nodule.centre[0] > 3 else "right").all()
        alone = all(
            np.linalg.norm(np.subtract(nodule.centre, other.centre)) > margin + max(other.semi) + APART_MM
            for other in found
        )
        if inside and alone and anatomy.from_airway(np.array(nodule.centre)) > margin + 2:
            found.append(nodule)
    return tuple(found)


def _any(random: np.random.Generator, centre: Sequence[float]) -> Nodule:
    """A solid nodule of any size between the smallest and the largest."""
    diameter = float(np.exp(random.uniform(np.log(SMALLEST_MM), np.log(LARGEST_MM))))
    stretch = random.uniform(0.85, 1.18, 3)
    semi = diameter / 2 * stretch / np.prod(stretch) ** (1 / 3)
    return Nodule(
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        semi=(float(semi[0]), float(semi[1]), float(semi[2])),
        hu=float(random.uniform(-40, 70)),
    )


# ---------------------------------------------------------------- patches


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chest:
    """A chest without nodules on cubes of 1.5 mm, before a scanner saw it.

    `depth` is how far each voxel lies inside a lung, in mm; 0 outside.
    """

    hu: Floats
    depth: Floats


def chest(seed: int) -> Chest:
    """A chest to cut patches from; each seed has its own size, its own turn and its own vessels."""
    from scipy import ndimage

    random = np.random.default_rng([seed, 31])
    orientation: Orientation = ("axial", "coronal", "sagittal", "oblique", "oblique_double")[seed % 5]
    step = float(random.uniform(1.2, 1.8))
    canvas = Canvas(grid(orientation, (step, step, step)))
    paint(canvas, Anatomy("normal", 1_000_000 + seed, float(random.uniform(3, 12)), ()))
    depth = STEP_MM * ndimage.distance_transform_edt(np.isin(canvas.labels, (LEFT_LUNG, RIGHT_LUNG)))
    return Chest(hu=canvas.hu, depth=depth.astype(np.float32))


def patch(chests: Sequence[Chest], seed: int, *, edge: int = 48, most: int = 3) -> tuple[Floats, Mask]:
    """A turned cube of one of the chests as a scanner would give it, in HU, and where its nodules are.

    One in four has none. Each has its own sharpness and noise.

    Shapes:  (edge, edge, edge) both
    """
    from scipy import ndimage

    random = np.random.default_rng([seed, 32])
    chosen = chests[int(random.integers(len(chests)))]
    first = [int(random.integers(0, max(size - edge, 0) + 1)) for size in chosen.hu.shape]
    if random.random() < 0.8:  # about a place in a lung
        places = np.flatnonzero(chosen.depth > 4.0)
        middle = np.unravel_index(int(places[random.integers(len(places))]), chosen.depth.shape)
        spots = [int(m) - int(random.integers(edge // 4, 3 * edge // 4)) for m in middle]
        first = [int(np.clip(spot, 0, size - edge)) for spot, size in zip(spots, chosen.hu.shape, strict=True)]
    cut = tuple(slice(start, start + edge) for start in first)
    hu, depth = chosen.hu[cut].copy(), chosen.depth[cut]
    truth = np.zeros(hu.shape, bool)
    for _ in range(int(random.integers(1, most + 1)) if random.random() < 0.75 else 0):
        _put(hu, depth, truth, random)
    blur = random.uniform(0.35, 1.0, 3)
    image = ndimage.gaussian_filter(hu, blur, truncate=3.0)
    noise = random.standard_normal(hu.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, random.uniform(0.0, 0.8), truncate=3.0)
    image += noise * np.float32(random.uniform(4.0, 22.0) / max(float(noise.std()), 1e-3))
    axes = random.permutation(3)
    turned = [np.transpose(part, axes) for part in (image, truth)]
    for axis in range(3):
        if random.random() < 0.5:
            turned = [np.flip(part, axis) for part in turned]
    return np.ascontiguousarray(turned[0], np.float32), np.ascontiguousarray(turned[1])


def _put(hu: Floats, depth: Floats, truth: Mask, random: np.random.Generator) -> None:
    """One nodule where there is room for it, with the partial volume of its border; or none."""
    nodule = _any(random, (0.0, 0.0, 0.0))
    semi = np.array(nodule.semi) / STEP_MM
    room = np.flatnonzero(depth > max(nodule.semi) + 1.0)
    if not room.size:
        return
    middle = np.array(np.unravel_index(int(room[random.integers(room.size)]), depth.shape)) + random.uniform(
        -0.5, 0.5, 3
    )
    k, j, i = np.ogrid[tuple(slice(0, n) for n in hu.shape)]
    squared = sum(((at - m) / s) ** 2 for at, m, s in zip((k, j, i), middle, semi, strict=True))
    far = np.sqrt(squared)
    if (truth & (far < 1 + 2.5 / semi.min())).any():
        return
    inside = far < 1
    hu[inside] = nodule.hu
    truth |= inside
