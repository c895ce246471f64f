"""A network whose answer lies a known way to the patient's left, back and head puts it there on every grid."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dicom_sr.nouns import Acquisition, Volume
from tests.bundles import toys
from tests.bundles.toys import ARGMAX, SOFTMAX, TURN, WINDOW, inverted

STEP = 2.0
MOVED = np.array([2 * STEP, STEP, STEP])
"""Left, back and up, in mm."""
SHIFTING = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [1, 1],
    "strides": [1],
    "num_res_units": 0,
    "act": None,
    "norm": None,
}


def shifting(folder: Path, before: list[toys.Config]) -> Path:
    """A bundle whose class 1 is what is bright, seen from two voxels right, one front and one below (R A S grid)."""
    folder = toys.save(
        folder, toys.config(SHIFTING, before, [SOFTMAX, inverted(), ARGMAX]), toys.metadata(["background", "ball"])
    )
    network = toys.built(folder)
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    state["model.0.conv.weight"][0, 0, 2, 2, 1] = 1.0
    state["model.2.conv.weight"][0, 1, 0, 1, 2] = 40.0
    state["model.2.conv.bias"][1] = -20.0
    torch.save(state, folder / "models" / "model.pt")
    return folder


def ball(grid: str) -> tuple[Volume, np.ndarray]:
    """A bright ball in the dark, and its middle in patient millimetres."""
    empty = toys.volume(grid, shape=(34, 60, 66))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in empty.array.shape), indexing="ij"), axis=-1)
    places = index @ empty.affine[:3, :3].T + empty.affine[:3, 3]
    middle = (np.array(empty.array.shape) * (0.45, 0.55, 0.4)) @ empty.affine[:3, :3].T + empty.affine[:3, 3]
    bright = np.linalg.norm(places - middle, axis=-1) < 11
    array = np.where(bright, 300, -300).astype(np.int16)
    volume = Volume(
        array=array, affine=empty.affine, acquisition=Acquisition(modality="CT", series_instance_uid="2.25.1")
    )
    return volume, places[bright].mean(axis=0)


@pytest.mark.parametrize("grid", [grid for grid in toys.GRIDS if grid != "oblique"])
@pytest.mark.parametrize("way", ["fast", "published"])
def test_an_answer_to_the_left_lies_to_the_left(way: str, grid: str, tmp_path: Path) -> None:
    space = {"_target_": "Spacingd", "keys": "image", "pixdim": [STEP] * 3, "mode": "bilinear"}
    before = [TURN, space, WINDOW] if way == "fast" else [WINDOW, TURN, space]
    volume, middle = ball(grid)
    findings = toys.run(shifting(tmp_path / "toy", before), volume)
    assert findings.labels is not None
    found = np.argwhere(findings.labels == 1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    np.testing.assert_allclose(found.mean(axis=0) - middle, MOVED, atol=0.25)
