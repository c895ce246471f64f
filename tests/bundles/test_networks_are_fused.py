"""A network rewritten for a CPU gives what it gave, whatever network of MONAI it is; tiles keep their order."""

import threading
from typing import Any

import pytest
import torch
from monai.networks.blocks import Convolution
from torch import nn

from pipelines import fused, infer, runtime

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:FutureWarning", "ignore:.*:UserWarning", "ignore:.*:DeprecationWarning"
)


def learned(network: nn.Module) -> nn.Module:
    """As if it had been trained: no norm is the identity, and no weight is left as it is when it is made."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.5, 0.9)
    return network.eval()


def same(network: nn.Module, image: torch.Tensor) -> nn.Module:
    """The network, fused, after it was seen to give what it gave before, without changing what it was given."""
    learned(network)
    given = image.clone()
    with torch.inference_mode():
        before = network(image)
        fused.together(fused.fuse(network))
        after = network(image)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert torch.equal(image, given)
    return network


@pytest.mark.parametrize("units", [0, 1, 2])
@pytest.mark.parametrize("act", ["prelu", "relu", ("leakyrelu", {"negative_slope": 0.1}), "elu"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_fused_unet_gives_what_it_gave_in_fewer_steps(units: int, act: Any, norm: str) -> None:
    from monai.networks.nets import UNet

    network = same(
        UNet(3, 1, 3, [4, 6, 8], [2, 2], num_res_units=units, act=act, norm=norm), torch.randn(2, 1, 16, 24, 8)
    )
    assert not any(isinstance(module, nn.BatchNorm3d | nn.ConvTranspose3d) for module in network.modules())


NETWORKS: dict[str, dict[str, Any]] = {
    "AttentionUnet": {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]},
    "BasicUNet": {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "features": [4, 4, 4, 8, 8, 4],
                  "norm": "batch"},
    "DynUNet": {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "kernel_size": [3, 3, 3],
                "strides": [1, 2, [2, 2, 1]], "upsample_kernel_size": [2, [2, 2, 1]], "norm_name": "batch",
                "res_block": True},
    "FlexibleUNet": {"in_channels": 1, "out_channels": 2, "backbone": "efficientnet-b0", "spatial_dims": 2},
    "HighResNet": {"spatial_dims": 3, "in_channels": 1, "out_channels": 2},
    "SegResNet": {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "init_filters": 8, "blocks_down": [1, 1, 1],
                  "blocks_up": [1, 1], "norm": "batch"},
    "SwinUNETR": {"in_channels": 1, "out_channels": 2, "feature_size": 12, "depths": [1, 1, 1, 1]},
    "VNet": {"spatial_dims": 3, "in_channels": 1, "out_channels": 2},
}  # fmt: skip
SHAPES = {"FlexibleUNet": (1, 1, 64, 64), "HighResNet": (1, 1, 16, 16, 16), "SwinUNETR": (1, 1, 64, 32, 32),
          "VNet": (1, 1, 16, 16, 32)}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_any_other_network_of_the_model_zoo_gives_what_it_gave(name: str) -> None:
    from monai.networks import nets

    torch.manual_seed(2)
    same(getattr(nets, name)(**NETWORKS[name]), torch.randn(SHAPES.get(name, (1, 1, 32, 32, 32))))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra"), [(2, 2, 0, 0), (3, 2, 1, 1), (4, 2, 1, 0), (3, 3, 0, 0)]
)
def test_a_transposed_convolution_is_a_convolution_and_a_reordering(
    axes: int, kernel: int, stride: int, padding: int, extra: int
) -> None:
    torch.manual_seed(1)
    kind = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[axes]
    given = kind(3, 5, kernel, stride=stride, padding=padding, output_padding=extra)
    values = torch.randn(2, 3, 4, 5, 6) if axes == 3 else torch.randn(2, 3, 5, 6)
    with torch.inference_mode():
        torch.testing.assert_close(fused.Shuffled(given)(values), given(values), rtol=1e-5, atol=1e-5)


def test_what_is_used_in_two_places_is_left_alone() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Convolution(3, 1, 1, act=None, norm="batch")
            self.other = Convolution(3, 1, 1, act="sigmoid", norm="batch")
            self.other.conv = self.one.conv

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.one(values) + self.other(values)
            return found

    network = same(Twice(), torch.randn(1, 1, 8, 8, 8))
    assert sum(isinstance(module, nn.BatchNorm3d) for module in network.modules()) == 2


def test_what_somebody_listens_to_is_left_alone() -> None:
    heard: list[torch.Tensor] = []
    network = Convolution(3, 1, 2, act="relu", norm="batch")
    network.conv.register_forward_hook(lambda module, given, found: heard.append(found.clone()))
    same(network, torch.randn(1, 1, 8, 8, 8))
    assert torch.equal(heard[0], heard[1])


def test_what_a_network_runs_step_by_step_is_left_alone() -> None:
    class Stepwise(nn.Module):
        """As HoVerNet does: a Sequential that is only a list."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.Sequential(nn.Conv3d(1, 1, 3, padding=1), nn.BatchNorm3d(1), nn.ReLU())

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            for step in self.steps:
                values = values + step(values)
            return values

    same(Stepwise(), torch.randn(1, 1, 8, 8, 8))


def test_a_network_in_training_is_not_fused() -> None:
    with pytest.raises(ValueError, match="evaluation"):
        fused.fuse(nn.Sequential(nn.Conv3d(1, 1, 3)))


# ---------------------------------------------------------------- tiles shared out among threads


def test_no_more_parts_than_allowed_are_in_hand_and_their_results_come_in_order() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def work(part: int) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        torch.ones(50_000).cumsum(0)
        with lock:
            now -= 1
        return part

    with runtime.settled():
        threads = torch.get_num_threads()
        assert list(infer.spread(work, range(40), "cpu", at_once=2)) == [*range(40)]
        assert most <= 2
        assert list(infer.spread(work, range(3), "cpu", at_once=1)) == [0, 1, 2]
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("tiles", "size", "sizes"), [(9, 4, [4, 5]), (8, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1])])
def test_no_tile_is_left_alone_in_the_last_batch(tiles: int, size: int, sizes: list[int]) -> None:
    boxes = [(slice(n, n + 1),) for n in range(tiles)]
    found = infer.batches(boxes, size)
    assert [len(batch) for batch in found] == sizes
    assert [box for batch in found for box in batch] == boxes


def test_a_sum_of_tiles_does_not_depend_on_how_many_threads_there_are() -> None:
    torch.manual_seed(3)
    image = torch.randn(1, 40, 36, 30)
    network = learned(nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3)))
    tiling = infer.Tiling(roi=(16, 16, 16), overlap=(0.5, 0.5, 0.5), gaussian=True, batch=2)

    def answer(threads: int) -> torch.Tensor:
        with runtime.settled(threads):
            return infer.blended(image, network, tiling)

    assert torch.equal(answer(1), answer(2))
