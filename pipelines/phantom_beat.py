"""The heartbeat's phantom: two rods of bone in an oval body, small enough to be sent all day, its volume known.

It has neither noise nor blur: bone is what was painted, voxel by voxel, so a pipeline that finds more or less is wrong.
"""

from functools import cache

import numpy as np

from dicom_sr.nouns import Acquisition, Volume
from pipelines.phantom import SOFT_KERNEL, Phantom, uid

SLICES, SIDE = 24, 96
SPACING = (3.0, 2.5, 2.5)
"""Slice, row, column.  Unit: mm."""
AIR, SOFT, BONE = -1000, 40, 700
RODS = ((-40.0, 10.0, 16.0), (35.0, -20.0, 11.0))
"""Column, row and radius of each rod, in mm from the middle; they run through all slices."""


@cache
def bone() -> Phantom:
    """The phantom; the same each time."""
    place = (np.arange(SIDE) - (SIDE - 1) / 2) * SPACING[1]
    row, column = np.meshgrid(place, place, indexing="ij")
    plane = np.where((column / 100) ** 2 + (row / 75) ** 2 < 1, SOFT, AIR).astype(np.int16)
    for across, down, radius in RODS:
        plane[(column - across) ** 2 + (row - down) ** 2 < radius**2] = BONE
    array = np.repeat(plane[np.newaxis], SLICES, axis=0)
    affine = np.eye(4)
    affine[:3, :3] = np.array([(0, 0, SPACING[2]), (0, SPACING[1], 0), (SPACING[0], 0, 0)])
    affine[:3, 3] = (place[0], place[0], 0.0)
    volume = Volume(
        array=array,
        affine=affine,
        acquisition=Acquisition(
            modality="CT",
            series_instance_uid=uid("heartbeat"),
            convolution_kernel=SOFT_KERNEL,
            manufacturer="PHANTOM",
            slice_thickness=SPACING[0],
            image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        ),
    )
    truth = (array == BONE).astype(np.uint8)
    return Phantom(
        volume=volume,
        truth=truth,
        mass=np.zeros(array.shape, bool),
        left=None,
        right=None,
        variant="normal",
        orientation="axial",
        seed=0,
        slice_thickness=SPACING[0],
        part="HEARTBEAT",
    )


def volume_ml() -> float:
    """How much bone there is."""
    found = bone()
    return float(found.truth.sum()) * found.volume.voxel_ml
