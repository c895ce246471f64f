"""On the same weights, a bundle's findings are those of MONAI's own evaluator."""

from pathlib import Path

import numpy as np
import pytest

from dicom_sr.nouns import Findings
from tests.bundles import toys
from tests.bundles.toys import ARGMAX, HALF, SAVE, SIGMOID, SOFTMAX, SPACE, TURN, UNET, WINDOW, inverted

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:FutureWarning", "ignore:.*:UserWarning", "ignore:.*:DeprecationWarning"
)

NAMES = ("background", "spleen", "left kidney")


def agree(findings: Findings, peer: np.ndarray, names: tuple[str, ...]) -> None:
    """Each class of MONAI's label map is the segment of its name; there is more than one class to compare."""
    assert len(np.unique(peer)) > 1
    numbers = {segment.label: segment.number for segment in findings.segments}
    for channel, name in enumerate(names[1:], start=1):
        ours = findings.labels == numbers.get(name, -1)
        assert toys.dice(ours, peer == channel) >= 0.9999, name


CHAINS = {
    "spleen": (
        [TURN, SPACE, WINDOW, {"_target_": "EnsureTyped", "keys": "image"}],
        [SOFTMAX, inverted(), ARGMAX, SAVE],
    ),
    "whole body": (
        [
            {"_target_": "EnsureTyped", "keys": "image"},
            TURN,
            SPACE,
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0},
        ],
        [SOFTMAX, ARGMAX, inverted(nearest=True), SAVE],
    ),
    "spacing first": ([SPACE, TURN, WINDOW], [inverted(), SOFTMAX, ARGMAX]),
    "no turn": ([SPACE, WINDOW], [SOFTMAX, inverted(), ARGMAX]),
    "untouched grid": ([{"_target_": "ScaleIntensityd", "keys": "image"}], [SOFTMAX, ARGMAX]),
    "cropped": (
        [TURN, SPACE, WINDOW, {"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}],
        [SOFTMAX, inverted(), ARGMAX],
    ),
    "window first": ([WINDOW, TURN, SPACE], [SOFTMAX, inverted(), ARGMAX]),
    "values only": ([TURN, SPACE, WINDOW], [SOFTMAX, inverted()]),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_every_published_form_of_chain_gives_monais_labels(chain: str, tmp_path: Path) -> None:
    before, after = CHAINS[chain]
    folder = toys.save(tmp_path / "toy", toys.config(UNET, before, after), toys.metadata(NAMES), gain=3)
    volume = toys.volume()
    peer = toys.back(toys.monai_run(folder, toys.nifti(volume, tmp_path / "image.nii"))["pred"])
    agree(toys.run(folder, volume), peer.argmax(0) if len(peer) > 1 else peer[0], NAMES)


@pytest.mark.parametrize("grid", toys.GRIDS)
def test_labels_are_monais_however_the_slices_lie(grid: str, tmp_path: Path) -> None:
    before, after = CHAINS["spleen"]
    folder = toys.save(tmp_path / "toy", toys.config(UNET, before, after), toys.metadata(NAMES), gain=3)
    volume = toys.volume(grid)
    peer = toys.back(toys.monai_run(folder, toys.nifti(volume, tmp_path / "image.nii"))["pred"])[0]
    agree(toys.run(folder, volume), peer, NAMES)


@pytest.mark.parametrize("late", [False, True], ids=["sigmoid first", "inverse first"])
def test_overlapping_classes_of_a_sigmoid_are_monais_each_for_itself(late: bool, tmp_path: Path) -> None:
    after = [inverted(), SIGMOID, HALF] if late else [SIGMOID, inverted(), HALF, SAVE]
    names = ("Tumor core", "Whole tumor", "Enhancing tumor")
    folder = toys.save(tmp_path / "toy", toys.config(UNET, [TURN, SPACE, WINDOW], after), toys.metadata(names), gain=3)
    volume = toys.volume()
    peer = toys.back(toys.monai_run(folder, toys.nifti(volume, tmp_path / "image.nii"))["pred"]) > 0
    findings = toys.run(folder, volume)
    assert (peer.sum(axis=0) > 1).any(), "the toy's classes should overlap"
    numbers = {segment.label: segment.number for segment in findings.segments}
    for channel, name in enumerate(names):
        if peer[channel].any():
            ours = findings.layer(numbers[name]) == numbers[name]
            assert toys.dice(ours, peer[channel]) >= 0.9999
            assert findings.voxels[numbers[name]] == int(ours.sum())


@pytest.mark.parametrize("gaussian", [False, True])
def test_tiles_are_blended_as_monai_blends_them(gaussian: bool, tmp_path: Path) -> None:
    inferer = {**toys.TILES, "mode": "gaussian", "padding_mode": "replicate"} if gaussian else dict(toys.TILES)
    inferer |= {"roi_size": [48, 32, 32], "overlap": [0.25, 0.5, 0.6]}
    folder = toys.save(
        tmp_path / "toy",
        toys.config(UNET, [TURN, SPACE, WINDOW], [SOFTMAX, inverted(), ARGMAX], inferer),
        toys.metadata(NAMES),
        gain=3,
    )
    volume = toys.volume(shape=(13, 43, 61))
    peer = toys.back(toys.monai_run(folder, toys.nifti(volume, tmp_path / "image.nii"))["pred"])[0]
    agree(toys.run(folder, volume), peer, NAMES)


def test_a_plane_by_plane_network_gives_monais_labels_on_a_volume(tmp_path: Path) -> None:
    flat = {**UNET, "spatial_dims": 2}
    inferer = {"_target_": "SliceInferer", "roi_size": [64, 64], "spatial_dim": 2}
    before = [{"_target_": "ScaleIntensityd", "keys": "image"}]
    folder = toys.save(
        tmp_path / "toy",
        toys.config(flat, before, [SOFTMAX, inverted(), ARGMAX], inferer),
        toys.metadata(NAMES, spatial_shape=[64, 64]),
        gain=3,
    )
    volume = toys.volume()
    peer = toys.back(toys.monai_run(folder, toys.nifti(volume, tmp_path / "image.nii"))["pred"])[0]
    agree(toys.run(folder, volume), peer, NAMES)


def test_a_two_dimensional_network_labels_each_image_of_a_series(tmp_path: Path) -> None:
    flat = {**UNET, "spatial_dims": 2}
    before = [WINDOW, {"_target_": "Resized", "keys": "image", "spatial_size": [64, 48]}]
    folder = toys.save(
        tmp_path / "toy",
        toys.config(flat, before, [SOFTMAX, inverted(), ARGMAX], {"_target_": "SimpleInferer"}),
        toys.metadata(NAMES, spatial_shape=[64, 48]),
        gain=3,
    )
    volume = toys.volume(shape=(3, 50, 57))
    findings = toys.run(folder, volume)
    single = [toys.nifti_plane(volume, index, tmp_path / f"{index}.nii") for index in range(3)]
    peer = np.stack([np.asarray(toys.monai_run(folder, path)["pred"][0]).T for path in single])
    agree(findings, peer, NAMES)


DENSE = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 4}


@pytest.mark.long
@pytest.mark.parametrize(
    "after", [[SIGMOID, HALF], [SOFTMAX, {**ARGMAX, "to_onehot": 4}], [ARGMAX]], ids=["sigmoid", "softmax", "argmax"]
)
def test_a_classifiers_scores_are_monais(after: list[toys.Config], tmp_path: Path) -> None:
    before = [
        {"_target_": "ScaleIntensityd", "keys": "image"},
        {"_target_": "Resized", "keys": "image", "spatial_size": [64, 64]},
    ]
    described = toys.metadata(["A", "B", "C", "D"], form="labels", spatial_shape=[64, 64])
    folder = toys.save(tmp_path / "toy", toys.config(DENSE, before, after, {"_target_": "SimpleInferer"}), described)
    volume = toys.volume(shape=(1, 70, 81))
    values = toys.raw_scores(folder, toys.nifti_plane(volume, 0, tmp_path / "image.nii"), after)
    final = np.asarray(toys.monai_run(folder, tmp_path / "image.nii")["pred"]).ravel()
    findings = toys.run(folder, volume)
    assert [group.label for group in findings.groups] == ["A", "B", "C", "D"]
    ours = [group.measurements[0].value for group in findings.groups]
    assert ours == pytest.approx(100 * values, abs=1e-3)
    chosen = [str(group.evaluations[0].answer).endswith("yes") for group in findings.groups]
    assert chosen == (list(final > 0.5) if len(final) == 4 else [index == final[0] for index in range(4)])
