"""Detectors: what stands in for a published script and for torchvision, and boxes in patient millimetres.

Importing this module imports torch; only the builder of an allowed part does.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from numpy.typing import NDArray
from torch import Tensor, nn


class Layers(nn.Module):
    """The layers of a ResNet up to the last one wanted, giving what each wanted one gives.

    The names of its parameters are those of the ResNet, as in torchvision's IntermediateLayerGetter, which MONAI would
    import all of torchvision for.
    """

    def __init__(self, backbone: nn.Module, wanted: dict[str, str]) -> None:
        super().__init__()
        self.wanted = wanted
        left = set(wanted)
        for name, module in backbone.named_children():
            if not left:
                break
            self.add_module(name, module)
            left.discard(name)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Feature maps by their new names, finest first."""
        found = OrderedDict()
        for name, module in self.named_children():
            image = module(image)
            if name in self.wanted:
                found[self.wanted[name]] = image
        return found


class Pyramid(nn.Module):
    """A feature pyramid on a ResNet; parameters are named as in MONAI's BackboneWithFPN."""

    def __init__(self, backbone: Any, spatial_dims: int, layers: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        first = backbone.in_planes // 8
        self.body = Layers(backbone, {f"layer{layer}": str(index) for index, layer in enumerate(layers)})
        self.fpn = FeaturePyramidNetwork(
            spatial_dims=spatial_dims,
            in_channels_list=[first * 2 ** (layer - 1) for layer in layers],
            out_channels=channels,
            extra_blocks=LastLevelMaxPool(spatial_dims),
        )
        self.out_channels = channels

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Feature maps of the pyramid, finest first."""
        maps: dict[str, Tensor] = self.fpn(self.body(image))
        return maps


def resnet_fpn_feature_extractor(
    backbone: Any,
    spatial_dims: int,
    pretrained_backbone: bool = False,
    returned_layers: Sequence[int] = (1, 2, 3),
    trainable_backbone_layers: int | None = None,
) -> Pyramid:
    """MONAI's function of this name, for inference: nothing is trained here, so nothing is frozen."""
    return Pyramid(backbone, spatial_dims, sorted(returned_layers))


class RetinaNetInferer:
    """The inferer that MONAI's published detection bundle brings as a script: large images in tiles, others whole."""

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    def __call__(self, inputs: Sequence[Tensor] | Tensor, network: nn.Module) -> list[dict[str, Tensor]]:
        """Boxes (index space of the input, lowest corner then highest), labels and scores of each image."""
        self.detector.network = network
        self.detector.training = False
        tiles = self.detector.inferer
        tile = None if tiles is None else int(np.prod(tiles.roi_size))
        large = tile is not None and any(image[0].numel() >= tile for image in inputs)
        found: list[dict[str, Tensor]] = self.detector(inputs, use_inferer=large)
        return found


def in_patient(boxes: NDArray[Any], affine_ras: NDArray[Any]) -> NDArray[np.float64]:
    """Boxes of index space as boxes along the patient's axes: of an oblique one, the box around its eight corners.

    Shapes:  boxes (n, 6) lowest corner then highest; affine (4, 4) of the image, RAS -> (n, 2, 3) least, greatest
    Units:   mm, patient axes L, P, S
    """
    low, high = np.asarray(boxes, np.float64)[:, :3], np.asarray(boxes, np.float64)[:, 3:]
    choice = np.array(list(np.ndindex(2, 2, 2)), bool)
    corners = np.where(choice[None], high[:, None], low[:, None])
    lps = np.diag([-1.0, -1.0, 1.0]) @ np.asarray(affine_ras, np.float64)[:3]
    placed = corners @ lps[:, :3].T + lps[:, 3]
    return np.stack([placed.min(axis=1), placed.max(axis=1)], axis=1) if len(boxes) else np.zeros((0, 2, 3))
