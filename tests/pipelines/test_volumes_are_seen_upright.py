"""The upright copy shows the patient however the slices lie, and its codes find their way back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_sr.nouns import Acquisition, Volume
from pipelines import steps

MADE = Acquisition(modality="CT", series_instance_uid="1")


def rotation(a: float, b: float, c: float) -> np.ndarray:
    """Turned about the three axes."""
    turned = np.eye(3)
    for axis, angle in enumerate((a, b, c)):
        one = np.eye(3)
        i, j = (n for n in range(3) if n != axis)
        one[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turned = turned @ one
    return turned


def ramp(axes: np.ndarray, spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> Volume:
    """A volume whose value is a linear function of the place: 2 x left - 3 x back + 5 x up."""
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = (11.0, -7.0, 3.0)
    places = np.einsum("ij,jkmn->ikmn", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]
    values = np.einsum("i,ikmn->kmn", np.array([2.0, -3.0, 5.0]), places)
    return Volume(array=values.astype(np.float32), affine=affine, acquisition=MADE)


ANGLES = st.floats(-3.2, 3.2)
SPACINGS = st.tuples(*[st.floats(0.7, 6.0)] * 3)


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(ANGLES, ANGLES, ANGLES, SPACINGS)
def test_places_keep_their_values(a: float, b: float, c: float, spacing: tuple[float, float, float]) -> None:
    view = steps.upright(ramp(rotation(a, b, c), spacing, (18, 20, 22)), step=2.5, device="cpu")
    up, back, left = np.nonzero(view.inside.numpy())
    place = view.affine @ np.stack([up, back, left, np.ones(len(up))])
    expected = 2 * place[0] - 3 * place[1] + 5 * place[2]
    far = np.abs(view.values[up, back, left] - expected)
    assert np.quantile(far, 0.5) < 0.5  # inside; the outermost half voxel holds its neighbour's value
    assert far.max() < 12 * max(*spacing, 2.5)


@settings(max_examples=30, deadline=None)
@given(ANGLES, ANGLES, ANGLES, SPACINGS)
def test_codes_find_their_way_back(a: float, b: float, c: float, spacing: tuple[float, float, float]) -> None:
    volume = ramp(rotation(a, b, c), spacing, (18, 20, 22))
    view = steps.upright(volume, step=2.5, device="cpu")
    codes = torch.zeros_like(view.inside, dtype=torch.uint8)
    middle = tuple(n // 2 for n in codes.shape)
    box = tuple(slice(n - 2, n + 3) for n in middle)
    codes[box] = 7
    back = np.zeros(volume.array.shape, np.uint8)
    for window, part in steps.nearest(view, codes, volume):
        back[window] = part.numpy()
    index = np.stack([*(axis.ravel() for axis in np.indices(volume.array.shape)), np.ones(volume.array.size)])
    where = (np.linalg.inv(view.affine) @ volume.affine @ index)[:3]
    inside = np.abs(where - np.array(middle)[:, None]).max(axis=0)
    assert (back.ravel()[inside < 2.49] == 7).all()
    assert (back.ravel()[inside > 2.51] == 0).all()


def test_what_was_never_measured_is_not_inside() -> None:
    array = np.zeros((12, 12, 12), np.int16)
    array[:, :, 6:] = -2000
    view = steps.upright(
        Volume(array=array, affine=np.diag([2.5, 2.5, 2.5, 1.0])[[2, 1, 0, 3]], acquisition=MADE),
        step=2.5,
        device="cpu",
    )
    assert view.inside[2:-2, 2:-2, 2:5].all()
    assert not view.inside[:, :, 8:].any()
    assert (view.values[:, :, 8:] == steps.FILLED).all()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_growing_and_shrinking_come_close_to_a_ball(count: int) -> None:
    point = torch.zeros((11, 11, 11), dtype=torch.bool)
    point[5, 5, 5] = True
    ball = steps.dilated(point, count)
    far = np.sqrt(((np.argwhere(ball.numpy()) - 5) ** 2).sum(axis=1)).max()
    assert ball[5 + count, 5, 5]
    assert not ball[5 + count + 1 :].any()
    assert far <= 1.6 * count + 0.5
    assert torch.equal(steps.eroded(ball, count), point)


def test_closing_fills_gaps_and_opening_drops_specks() -> None:
    slab = torch.zeros((20, 20, 20), dtype=torch.bool)
    slab[5:15, 5:15, 5:15] = True
    slit = slab.clone()
    slit[:, :, 10] = False
    assert torch.equal(steps.closed(slit, 2) | slab, steps.closed(slit, 2))
    speck = torch.zeros_like(slab)
    speck[9, 9, 9:12] = True
    assert not steps.opened(speck, 1).any()
