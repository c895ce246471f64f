"""A head that never was: skull, brain, and dense regions whose place, size and side are known exactly.

Like the chest of `pipelines.phantom` it is written down in patient millimetres, x to the left, y to the back, z to the
head, and drawn on whatever grid is asked for. A large dense region lies left, in front and high, a small one right,
behind and low, a calcification in the middle, so no flip or swap can hide.
"""

import hashlib
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_sr.nouns import Acquisition, Volume
from pipelines import phantom
from pipelines.anatomy import Canvas, Floats, Grid, Mask, Orientation, Point, directions

Variant = Literal["dense", "plain", "open", "coil"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
"""With two dense regions; without; without, and a part of the skull removed; with metal inside the skull."""

HALF_EXTENT = (88.0, 108.0, 100.0)
SKULL, BRAIN, GREY, FLUID, SKIN = 900.0, 30.0, 38.0, 6.0, 40.0
DENSE = 66.0
REGIONS: tuple[tuple[Point, float], ...] = (((32, -28, 34), 14.0), ((-36, 30, -8), 9.0))
"""Centre and radius of the left and of the right one, in mm."""
LEFT, RIGHT = 1, 2
NOISE = 7.0


def head(
    variant: Variant = "dense", *, orientation: Orientation = "axial", spacing: Point = (3.0, 1.2, 1.2)
) -> phantom.Phantom:
    """The phantom head; `truth` labels the dense regions LEFT and RIGHT.

    Shapes:  spacing (slice, row, column)
    Units:   mm; HU
    """
    canvas = Canvas(_grid(orientation, spacing))
    _paint(canvas, variant)
    random = np.random.default_rng(11)
    image: Floats = ndimage.gaussian_filter(canvas.hu, [0.7 / step for step in spacing], truncate=3.0)
    noise = random.standard_normal(image.shape, dtype=np.float32) * np.float32(NOISE)
    array: NDArray[np.int16] = np.clip(np.round(image + noise), -1024, 3071).astype(np.int16)
    made = Acquisition(
        modality="CT",
        series_instance_uid=phantom.uid(hashlib.sha256(array.tobytes()).hexdigest(), canvas.grid.affine),
        convolution_kernel="H30s",
        manufacturer="SIEMENS",
        slice_thickness=spacing[0],
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    )
    return phantom.Phantom(
        volume=Volume(array=array, affine=canvas.grid.affine, acquisition=made),
        truth=canvas.labels,
        mass=canvas.mass,
        left=None,
        right=None,
        variant="normal",
        orientation=orientation,
        seed=0,
        slice_thickness=spacing[0],
        part="HEAD",
    )


def _grid(orientation: Orientation, spacing: Point) -> Grid:
    row, column = directions(orientation)
    axes = np.stack([np.cross(row, column), column, row], axis=1)
    half = np.sqrt(((axes * np.array(HALF_EXTENT)[:, None]) ** 2).sum(axis=0))
    shape = (2 * np.round(half / np.array(spacing))).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)
    affine[:3, 3] = np.round(-affine[:3, :3] @ ((shape - 1) / 2) + (0.5, 1.5, -4.0), 4)
    return Grid(affine, (int(shape[0]), int(shape[1]), int(shape[2])))


def _paint(canvas: Canvas, variant: Variant) -> None:
    x, y, z = canvas.whole()
    hu = canvas.hu

    def egg(a: float, b: float, c: float) -> Mask:
        inside: Mask = (x / a) ** 2 + ((y - 4) / b) ** 2 + ((z - 8) / c) ** 2 < 1
        return inside

    neck = (x / 52) ** 2 + ((y - 12) / 58) ** 2 < 1
    hu[egg(80, 98, 88) | (neck & (z < -30))] = SKIN
    hu[egg(75, 93, 83)] = SKULL
    hu[egg(68, 86, 76)] = GREY
    hu[egg(63, 81, 71)] = BRAIN
    canal = ((x / 13) ** 2 + ((y - 20) / 14) ** 2 < 1) & (z < -50)
    hu[np.broadcast_to(canal, hu.shape)] = BRAIN
    for side in (1, -1):
        window, inside = canvas.ball((side * 11.0, 0.0, 14.0), (6.0, 28.0, 10.0))
        hu[window][inside] = FLUID
    window, inside = canvas.ball((3.0, 22.0, 4.0), (4.0, 4.0, 4.0))
    hu[window][inside] = 240.0
    if variant == "dense":
        for number, (centre, radius) in enumerate(REGIONS, start=1):
            window, inside = canvas.ball(centre, (radius, radius, radius))
            hu[window][inside] = DENSE
            canvas.labels[window][inside] = number
            canvas.mass[window] |= inside
    if variant == "open":
        gone = (x < -20) & (np.abs(y - 4) < 55) & (np.abs(z - 20) < 50)
        hu[np.broadcast_to(gone, hu.shape) & (hu == SKULL)] = SKIN
    if variant == "coil":
        window, inside = canvas.ball((-12.0, -30.0, -10.0), (4.0, 4.0, 4.0))
        hu[window][inside] = 3071.0
    window, inside = canvas.ball((0.0, -62.0, -52.0), (16.0, 18.0, 14.0))
    hu[window][inside] = -1000.0
