"""An image gets through its network whatever memory there is; only when no rung holds is the job given back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import Tensor, nn

from pipelines import infer, ladder


class Hungry(nn.Module):
    """Doubles its input, and runs out of memory over so many voxels."""

    def __init__(self, most: int, error: Callable[[], BaseException]) -> None:
        super().__init__()
        self.most, self.error = most, error

    def forward(self, image: Tensor) -> Tensor:
        if image.numel() > self.most:
            raise self.error()
        return torch.cat([image, 2 * image], dim=1)


ERRORS: dict[str, Callable[[], BaseException]] = {
    "a GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "a CPU": lambda: RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
    ),
    "Python": MemoryError,
}


@pytest.mark.parametrize("error", ERRORS)
def test_smaller_tiles_are_taken_when_memory_runs_out_and_that_is_said(error: str) -> None:
    image = torch.arange(50 * 40 * 33, dtype=torch.float32).reshape(1, 50, 40, 33)
    answer, remarks = ladder.through(
        image, Hungry(20**3, ERRORS[error]), SlidingWindowInferer([32, 32, 32], overlap=0.5), device="cpu"
    )
    assert remarks == ("Memory ran out, so the network ran in smaller tiles",)
    np.testing.assert_allclose(answer[0, 1], 2 * image[0], rtol=1e-5)


def test_nothing_is_said_when_there_is_memory() -> None:
    image = torch.rand(1, 40, 40, 33)
    _, remarks = ladder.through(
        image, Hungry(40**3, ERRORS["a CPU"]), SlidingWindowInferer([32, 32, 32], overlap=0.5), device="cpu"
    )
    assert remarks == ()


def test_the_job_is_given_back_when_no_rung_holds() -> None:
    with pytest.raises(ladder.OutOfMemory) as lost:
        ladder.through(torch.rand(1, 9, 9, 9), Hungry(10, ERRORS["a CPU"]), SimpleInferer(), device="cpu")
    assert lost.value.retryable


def test_another_error_of_the_network_is_not_taken_for_a_lack_of_memory() -> None:
    network = Hungry(10, lambda: RuntimeError("Sizes of tensors must match"))
    with pytest.raises(RuntimeError, match="Sizes"):
        ladder.through(torch.rand(1, 9, 9, 9), network, SimpleInferer(), device="cpu")


def test_a_gpu_tries_frugal_ways_before_it_leaves_the_work_to_the_cpu() -> None:
    rungs = ladder.rungs("cuda:0", half=False)
    assert [rung.device for rung in rungs] == ["cuda:0"] * 4 + ["cpu"]
    assert not rungs[0].said
    assert all(rung.said for rung in rungs[1:])


@pytest.mark.parametrize(("size", "tile", "overlap"), [(250, 96, 0.5), (97, 96, 0.5), (96, 96, 0.9), (301, 64, 0.25)])
def test_even_tiles_cover_the_axis_with_the_overlap_and_are_no_more_than_published(
    size: int, tile: int, overlap: float
) -> None:
    even, published = (infer.starts(size, tile, overlap, way) for way in ("even", "published"))
    assert even[0] == 0
    assert even[-1] == size - tile
    assert len(even) <= len(published)
    gaps: list[Any] = list(np.diff(even))
    assert all(gap <= max(tile * (1 - overlap), 1) for gap in gaps)
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("size", "tile", "overlap"), [(250, 96, 0.5), (97, 96, 0.5), (96, 96, 0.9), (33, 7, 0.3)])
def test_published_tiles_lie_where_monai_puts_them(size: int, tile: int, overlap: float) -> None:
    from monai.data.utils import dense_patch_slices
    from monai.inferers.utils import _get_scan_interval

    interval = _get_scan_interval((size,), (tile,), 1, (overlap,))
    peer = [box[0].start for box in dense_patch_slices((size,), (tile,), interval)]
    assert list(infer.starts(size, tile, overlap, "published")) == peer
