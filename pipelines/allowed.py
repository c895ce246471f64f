"""The declarative profile's allow-list: what a bundle's config may name, and where we take it from.

A name is looked up here and imported from here; the module path that a config writes is only checked for belonging
to MONAI, never followed. What reads or writes files is dropped (a Volume goes in, Findings come out); what runs code
or draws at random is not on the list. Two names stand for our own: a published script that we replace, so that it
need not run, and a MONAI function that would need torchvision for one small class.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["dropped", "transform", "part"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


TRANSFORMS = _names(
    """
    Activations AddCoordinateChannels AdjustContrast AsChannelLast AsDiscrete BorderPad CastToType CenterScaleCrop
    CenterSpatialCrop ClipIntensityPercentiles Compose ConcatItems ConvertToMultiChannelBasedOnBratsClasses CopyItems
    CropForeground DeleteItems DistanceTransformEDT DivisiblePad EnsureType FillHoles Flip ForegroundMask
    FromMetaTensor GaussianSharpen GaussianSmooth HistogramNormalize Identity Invert KeepLargestConnectedComponent
    LabelFilter LabelToContour LabelToMask MapLabelValue MaskIntensity MeanEnsemble MedianSmooth NormalizeIntensity
    Orientation Pad ProbNMS RemoveRepeatedChannel RemoveSmallObjects RepeatChannel ResampleToMatch Resize
    ResizeWithPadOrCrop Rotate Rotate90 ScaleIntensity ScaleIntensityFixedMean ScaleIntensityRange
    ScaleIntensityRangePercentiles SelectItems ShiftIntensity SobelGradients Spacing SpatialCrop SpatialPad
    SpatialResample SplitDim SqueezeDim StdShiftIntensity ThresholdIntensity ToDevice ToMetaTensor ToNumpy ToTensor
    Transpose VoteEnsemble Zoom
    """
)
BOX_TRANSFORMS = _names(
    """
    AffineBoxToImageCoordinate AffineBoxToWorldCoordinate ClipBoxToImage ConvertBoxMode ConvertBoxToStandardMode
    StandardizeEmptyBox
    """
)
DROPPED = _names(
    """
    LoadImage SaveImage SaveClassification WriteFileMapping
    EnsureChannelFirst AddChannel AsChannelFirst
    """
)
"""Readers and writers, and what puts the channel axis in front: volumes arrive with it."""
KEPT_ARGUMENTS = {
    "LoadImage": ("keys", "ensure_channel_first"),
    "EnsureChannelFirst": ("keys",),
    "Invert": ("keys", "orig_keys", "nearest_interp"),
}
"""What we still ask of a step that is left out or replaced by our own; its other arguments are not even computed."""
CODE = _names("Lambda RandLambda")

NETWORKS = _names(
    """
    AHNet AttentionUnet AutoEncoder BasicUNet BasicUNetPlusPlus BasicUnet BasicUnetPlusPlus Classifier DAF3D DenseNet
    DenseNet121 DenseNet169 DenseNet201 DenseNet264 DiNTS DynUNet DynUnet EfficientNet EfficientNetBN FlexUNet
    FlexibleUNet FullyConnectedNet HighResNet HoVerNet MILModel MedNeXt MedNeXtB MedNeXtBase MedNeXtL MedNeXtLarge
    MedNeXtM MedNeXtMedium MedNeXtS MedNeXtSmall Quicknat RegUNet Regressor ResNet SENet SENet154 SEResNeXt101
    SEResNeXt50 SEResNet101 SEResNet152 SEResNet50 SEResNext101 SEResNext50 SegResNet SegResNetDS SegResNetDS2
    SegResNetVAE SwinUNETR TopologyInstance TorchVisionFCModel UNETR UNet Unet VNet ViT VoxelMorphUNet densenet121
    densenet169 densenet201 densenet264 resnet10 resnet101 resnet152 resnet18 resnet200 resnet34 resnet50 senet154
    seresnet101 seresnet152 seresnet50 seresnext101 seresnext50
    """
)
INFERERS = _names("SimpleInferer SliceInferer SlidingWindowInferer SlidingWindowInfererAdapt")
DETECTION = {
    "RetinaNet": "monai.apps.detection.networks.retinanet_network",
    "RetinaNetDetector": "monai.apps.detection.networks.retinanet_detector",
    "AnchorGenerator": "monai.apps.detection.utils.anchor_utils",
    "AnchorGeneratorWithAnchorShape": "monai.apps.detection.utils.anchor_utils",
}
OURS = {
    "scripts.detection_inferer.RetinaNetInferer": "RetinaNetInferer",
    "monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor": "resnet_fpn_feature_extractor",
    "resnet_fpn_feature_extractor": "resnet_fpn_feature_extractor",
}
"""Names for which `pipelines.detection` has its own."""

OUR_TRANSFORMS = {"KeepLargestConnectedComponent": "pipelines.components"}

DOWNLOADS = ("pretrained", "pretrained_url", "weights", "progress")
"""Arguments that fetch weights; always off, since the bundle's own weights are loaded over every parameter."""
RETIRED: dict[str, dict[str, str | None]] = {
    "SwinUNETR": {"img_size": None},
    "UNETR": {"pos_embed": "proj_type"},
    "ViT": {"pos_embed": "proj_type"},
}
"""Arguments that published configs still give: gone without effect (None), or renamed."""
TORCHVISION_MODEL = re.compile(
    r"(alexnet|convnext|densenet|efficientnet|googlenet|inception|mnasnet|mobilenet|regnet|resnet|resnext|"
    r"shufflenet|squeezenet|swin|vgg|vit|wide_resnet)\w*"
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Something that a config may name: `name` in `module`; `keyed` says that it works on dictionaries."""

    kind: Kind
    name: str
    module: str
    keyed: bool = False

    def arguments(self, given: Iterable[str]) -> tuple[str, ...]:
        """Which of the given arguments are wanted: all of a part that we use, few of one that we do not."""
        if self.kind == "dropped" or self.name in KEPT_ARGUMENTS:
            return tuple(name for name in given if name in KEPT_ARGUMENTS.get(self.name, ()))
        return tuple(given)


def find(target: str) -> Allowed | str:
    """What stands behind a `_target_` or a called name, or the reason why it is refused."""
    if target in OURS:
        return Allowed("part", OURS[target], "pipelines.detection")
    path, _, name = target.rpartition(".")
    if path and path.split(".")[0] != "monai":
        return f"{target} is not MONAI's"
    base, keyed = _split(name)
    if base in CODE:
        return f"{name} runs code from the config"
    if base in DROPPED:
        return Allowed("dropped", base, "", keyed)
    if base in TRANSFORMS:
        return Allowed("transform", base, OUR_TRANSFORMS.get(base, "monai.transforms"), keyed)
    if base in BOX_TRANSFORMS:
        return Allowed("transform", base, "monai.apps.detection.transforms.dictionary", keyed)
    if name in NETWORKS:
        return Allowed("part", name, "monai.networks.nets")
    if name in INFERERS:
        return Allowed("part", name, "monai.inferers")
    if name in DETECTION:
        return Allowed("part", name, DETECTION[name])
    return f"{target} is not on the allow-list"


def _split(name: str) -> tuple[str, bool]:
    """A transform's plain name, and whether its dictionary form was meant: Spacing, Spacingd, SpacingD, SpacingDict."""
    known = TRANSFORMS | BOX_TRANSFORMS | DROPPED | CODE
    if name in known:
        return name, False
    for suffix in ("Dict", "d", "D"):
        if name.endswith(suffix) and name.removesuffix(suffix) in known:
            return name.removesuffix(suffix), True
    return name, False
