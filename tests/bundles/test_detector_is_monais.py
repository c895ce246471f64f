"""A RetinaNet bundle in the zoo's conventions finds MONAI's boxes, in patient millimetres."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bundles import toys
from tests.bundles.toys import SPACE, TURN, WINDOW

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:FutureWarning", "ignore:.*:UserWarning", "ignore:.*:DeprecationWarning"
)

BACKBONE = (
    "$monai.networks.nets.resnet.resnet10(spatial_dims=3,n_input_channels=1,"
    "conv1_t_stride=[2,2,1],conv1_t_size=[7,7,7])"
)
EXTRACTOR = (
    "$monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor(@backbone,3,False,[1,2],None)"
)
SELECT = (
    "$@detector.set_box_selector_parameters(score_thresh=0.02,topk_candidates_per_level=1000,"
    "nms_thresh=0.22,detections_per_img=20)"
)
WORLD = [
    {
        "_target_": "ClipBoxToImaged",
        "box_keys": "box",
        "label_keys": "label",
        "box_ref_image_keys": "image",
        "remove_empty": True,
    },
    {
        "_target_": "AffineBoxToWorldCoordinated",
        "box_keys": "box",
        "box_ref_image_keys": "image",
        "image_meta_key_postfix": "meta_dict",
        "affine_lps_to_ras": True,
    },
    {"_target_": "ConvertBoxModed", "box_keys": "box", "src_mode": "xyzxyz", "dst_mode": "cccwhd"},
    {"_target_": "DeleteItemsd", "keys": ["image"]},
]


def detector(tile: list[int]) -> dict[str, Any]:
    return {
        "infer_patch_size": tile,
        "anchor_generator": {
            "_target_": "monai.apps.detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
            "feature_map_scales": [1, 2, 4],
            "base_anchor_shapes": [[6, 8, 4], [8, 6, 5], [10, 10, 6]],
        },
        "backbone": BACKBONE,
        "feature_extractor": EXTRACTOR,
        "detector": {
            "_target_": "RetinaNetDetector",
            "network": "@network",
            "anchor_generator": "@anchor_generator",
            "debug": False,
        },
        "detector_ops": [
            "$@detector.set_target_keys(box_key='box', label_key='label')",
            SELECT,
            "$@detector.set_sliding_window_inferer(roi_size=@infer_patch_size,overlap=0.25,sw_batch_size=1,"
            "mode='constant',device='cpu')",
        ],
        "evaluator": {"_target_": "scripts.evaluator.DetectionEvaluator", "_requires_": "@detector_ops"},
    }


NETWORK = {
    "_target_": "RetinaNet",
    "spatial_dims": 3,
    "num_classes": 1,
    "num_anchors": 3,
    "feature_extractor": "@feature_extractor",
    "size_divisible": [16, 16, 8],
}
INFERER = {"_target_": "scripts.detection_inferer.RetinaNetInferer", "detector": "@detector"}


def monai_network() -> torch.nn.Module:
    """The config's network as MONAI's own functions build it; its feature pyramid needs torchvision or our layers."""
    from monai.apps.detection.networks import retinanet_network
    from monai.networks.nets import resnet

    from pipelines import detection

    backbone = resnet.resnet10(spatial_dims=3, n_input_channels=1, conv1_t_stride=[2, 2, 1], conv1_t_size=[7, 7, 7])
    try:
        pyramid = retinanet_network.resnet_fpn_feature_extractor(backbone, 3, False, [1, 2], None)
    except Exception:  # noqa: BLE001  (MONAI raises its own error where torchvision is not installed)
        pyramid = detection.resnet_fpn_feature_extractor(backbone, 3, False, [1, 2], None)
    return retinanet_network.RetinaNet(
        spatial_dims=3, num_classes=1, num_anchors=3, feature_extractor=pyramid, size_divisible=[16, 16, 8]
    )


def monai_boxes(network: torch.nn.Module, folder: Path, image: Path, tile: list[int]) -> dict[str, Any]:
    """What MONAI's detector and transforms make of the image; its published evaluator is a script of the bundle."""
    from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
    from monai.apps.detection.transforms.dictionary import AffineBoxToWorldCoordinated, ClipBoxToImaged, ConvertBoxModed
    from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
    from monai.bundle import ConfigParser

    parser = ConfigParser({"preprocessing": {"_target_": "Compose", "transforms": [*toys.LOAD, TURN, SPACE, WINDOW]}})
    data = parser.get_parsed_content("preprocessing")({"image": str(image)})
    anchors = AnchorGeneratorWithAnchorShape(
        feature_map_scales=[1, 2, 4], base_anchor_shapes=[[6, 8, 4], [8, 6, 5], [10, 10, 6]]
    )
    found = RetinaNetDetector(network, anchors).eval()
    found.set_target_keys(box_key="box", label_key="label")
    found.set_box_selector_parameters(
        score_thresh=0.02, topk_candidates_per_level=1000, nms_thresh=0.22, detections_per_img=20
    )
    found.set_sliding_window_inferer(roi_size=tile, overlap=0.25, sw_batch_size=1, mode="constant", device="cpu")
    with torch.no_grad():
        large = data["image"][0].numel() >= np.prod(tile)
        (boxes,) = found([data["image"].as_tensor()], use_inferer=large)
    data = ClipBoxToImaged("box", "label", "image", remove_empty=True)({**boxes, "image": data["image"]})
    data = AffineBoxToWorldCoordinated("box", "image", affine_lps_to_ras=True)(data)
    return dict(ConvertBoxModed("box", src_mode="xyzxyz", dst_mode="cccwhd")(data))


@pytest.mark.long
@pytest.mark.parametrize("tile", [[512, 512, 192], [32, 32, 16]], ids=["whole", "tiles"])
def test_boxes_are_monais_in_patient_millimetres(tile: list[int], tmp_path: Path) -> None:
    written = toys.config(NETWORK, [TURN, SPACE, WINDOW], WORLD, INFERER, **detector(tile))
    described = toys.metadata({}, form="dict")
    described["network_data_format"]["outputs"]["pred"] |= {"type": "object", "channel_def": {"0": "nodule"}}
    torch.manual_seed(0)
    network = monai_network().eval()
    folder = toys.save(tmp_path / "nodules", written, described, network=network)
    volume = toys.volume(shape=(20, 61, 75))
    peer = monai_boxes(network, folder, toys.nifti(volume, tmp_path / "image.nii"), tile)
    findings = toys.run(folder, volume)
    assert len(findings.groups) == len(peer["label_scores"]) > 3
    order = np.argsort(-np.asarray(peer["label_scores"]), kind="stable")
    for group, index in zip(findings.groups, order, strict=True):
        assert group.measurements[0].value == pytest.approx(100 * float(peer["label_scores"][index]), abs=1e-3)
        assert group.box is not None
        low, high = np.array(group.box.minimum), np.array(group.box.maximum)
        middle, size = np.split(np.asarray(peer["box"][index], float), 2)
        np.testing.assert_allclose((low + high) / 2, middle, atol=2e-3)
        np.testing.assert_allclose(high - low, size, atol=2e-3)


@pytest.mark.long
def test_a_minimum_score_leaves_doubtful_boxes_out(tmp_path: Path) -> None:
    written = toys.config(NETWORK, [TURN, SPACE, WINDOW], WORLD, INFERER, **detector([512, 512, 192]))
    torch.manual_seed(0)
    folder = toys.save(tmp_path / "nodules", written, toys.metadata({}, form="dict"), network=monai_network())
    volume = toys.volume(shape=(20, 61, 75))
    every = [group.measurements[0].value or 0.0 for group in toys.run(folder, volume).groups]
    middle = sorted(every)[len(every) // 2] / 100
    kept = [group.measurements[0].value or 0.0 for group in toys.run(folder, volume, minimum_score=middle).groups]
    assert kept == [value for value in every if value >= 100 * middle]
    assert 0 < len(kept) < len(every)
