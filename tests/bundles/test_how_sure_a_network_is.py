"""Probability and agreement of a bundle's findings are those of its network, and given only when asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicom_sr.nouns import Findings
from pipelines import saliency
from pipelines.bundles import BundleSettings
from pipelines.spec import Cancelled, Refused
from tests.bundles import toys
from tests.bundles.toys import ARGMAX, HALF, SIGMOID, SOFTMAX, TURN, UNET, WINDOW, inverted

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:FutureWarning", "ignore:.*:UserWarning", "ignore:.*:DeprecationWarning"
)

NAMES = ("background", "spleen", "left kidney")
CERTAINTY, AGREEMENT = "Certainty of Finding", "Agreement of repeated runs"
WHOLE = {"_target_": "SlidingWindowInferer", "roi_size": [64, 64, 32], "sw_batch_size": 1, "overlap": 0.25}
POINTWISE = {**UNET, "channels": [8, 8], "strides": [1], "kernel_size": 1, "up_kernel_size": 1}


def saved(folder: Path, network: toys.Config = UNET) -> Path:
    """A bundle whose network sees the volume whole, on its own voxels."""
    before, after = [TURN, WINDOW], [SOFTMAX, inverted(), ARGMAX]
    return toys.save(folder, toys.config(network, before, after, WHOLE), toys.metadata(NAMES), gain=3)


def figures(findings: Findings, name: str) -> dict[str, float]:
    """A measurement of each structure by its label."""
    return {
        group.label: float(measurement.value or 0)
        for group in findings.groups
        for measurement in group.measurements
        if measurement.name.meaning == name
    }


def logits(folder: Path, image: torch.Tensor) -> torch.Tensor:
    """The network's values for one image, (class, x, y, z), by MONAI's inferer."""
    from monai.inferers import sliding_window_inference

    network = toys.built(folder).eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    with torch.inference_mode():
        found: Any = sliding_window_inference(image[None], WHOLE["roi_size"], 1, network, overlap=0.25)
    return found[0]


def seen() -> torch.Tensor:
    """The toy volume as the network sees it: turned to R, A, S and windowed."""
    array = torch.from_numpy(toys.volume().array.astype(np.float32)).permute(2, 1, 0).flip(0, 1)[None]
    return ((array + 300) / 600).clip(0, 1)


def test_a_structures_certainty_is_the_mean_probability_of_its_voxels(tmp_path: Path) -> None:
    folder = saved(tmp_path / "toy")
    likely = torch.softmax(logits(folder, seen()), dim=0)
    best, chosen = likely.max(dim=0)
    said = figures(toys.run(folder, toys.volume(), certainty=True), CERTAINTY)
    assert len(said) > 0
    for label, value in said.items():
        assert value == pytest.approx(100 * float(best[chosen == NAMES.index(label)].mean()), abs=0.3)


def test_agreement_is_the_share_of_mirrored_runs_that_decide_alike(tmp_path: Path) -> None:
    folder = saved(tmp_path / "toy")
    runs = [logits(folder, seen().flip(axes)).flip(axes) if axes else logits(folder, seen()) for axes in ((), (1,))]
    mean = (runs[0] + runs[1]) / 2
    chosen = mean.argmax(dim=0)
    alike = torch.stack([run.argmax(dim=0) == chosen for run in runs]).float().mean(dim=0)
    findings = toys.run(folder, toys.volume(), mirrored="left and right")
    said = figures(findings, AGREEMENT)
    assert min(said.values()) < 100
    for segment in findings.segments:
        channel = NAMES.index(segment.label)
        ours = torch.from_numpy(findings.layer(segment.number) == segment.number).permute(2, 1, 0).flip(0, 1)
        assert toys.dice(ours.numpy(), (chosen == channel).numpy()) >= 0.9999
        assert said[segment.label] == pytest.approx(100 * float(alike[chosen == channel].mean()), abs=0.3)


def test_a_network_that_sees_no_neighbours_agrees_with_itself_on_all_mirror_images(tmp_path: Path) -> None:
    findings = toys.run(saved(tmp_path / "toy", POINTWISE), toys.volume(), mirrored="all axes")
    assert figures(findings, AGREEMENT)
    assert set(figures(findings, AGREEMENT).values()) == {100.0}


def test_nothing_is_said_of_either_unless_it_was_asked_for(tmp_path: Path) -> None:
    findings = toys.run(saved(tmp_path / "toy"), toys.volume())
    assert {measurement.name.meaning for group in findings.groups for measurement in group.measurements} == {"Volume"}


def test_a_classifiers_runs_on_mirrored_images_give_their_agreement(tmp_path: Path) -> None:
    network = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 3}
    before = [{"_target_": "ScaleIntensityd", "keys": "image"}]
    described = toys.metadata(["A", "B", "C"], form="labels", spatial_shape=[64, 64])
    written = toys.config(network, before, [SOFTMAX, ARGMAX], {"_target_": "SimpleInferer"})
    folder = toys.save(tmp_path / "toy", written, described)
    findings = toys.run(folder, toys.volume(shape=(1, 64, 64)), mirrored="all axes")
    said = figures(findings, AGREEMENT)
    assert set(said) == {"A", "B", "C"}
    assert set(said.values()) <= {0.0, 25.0, 50.0, 75.0, 100.0}
    assert not figures(toys.run(folder, toys.volume(shape=(1, 64, 64))), AGREEMENT)


def test_boxes_are_not_averaged() -> None:
    from types import SimpleNamespace

    from pipelines import model

    detector: Any = SimpleNamespace(task="detection", name="boxes", modalities=())
    with pytest.raises(Refused, match="gives boxes"):
        model._accept(detector, toys.volume(), BundleSettings(mirrored="all axes"))


# ---------------------------------------------------------------- where it looked


@pytest.mark.parametrize("shape", [(40, 32), (20, 16, 24)])
def test_a_score_that_depends_on_one_corner_is_explained_by_that_corner(shape: tuple[int, ...]) -> None:
    corner = tuple(slice(0, n // 4) for n in shape)
    image = torch.rand(1, *shape) + 5 * torch.nn.functional.pad(
        torch.ones(1, *(n // 4 for n in shape)), [side for n in reversed(shape) for side in (0, n - n // 4)]
    )

    def scored(images: torch.Tensor) -> torch.Tensor:
        return images[(slice(None), 0, *corner)].flatten(1).mean(dim=1)

    fall = saliency.occlusion(image, scored, lambda fraction: None)
    assert fall.shape == shape
    assert float(fall[corner].min()) > 0
    far = tuple(slice(n // 2, n) for n in shape)
    assert float(fall[far].max()) == 0


def test_a_classifier_says_on_its_own_image_where_it_looked_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(saliency.ACROSS, 2, 2)
    before = [{"_target_": "ScaleIntensityd", "keys": "image"}]
    before += [{"_target_": "Resized", "keys": "image", "spatial_size": [64, 48]}]
    described = toys.metadata(["A", "B"], form="labels", spatial_shape=[64, 48])
    network = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    written = toys.config(network, before, [SOFTMAX, ARGMAX], {"_target_": "SimpleInferer"})
    folder = toys.save(tmp_path / "toy", written, described)
    volume = toys.volume(shape=(1, 50, 57))
    (seen,) = toys.run(folder, volume, saliency=True).maps
    assert seen.label in ("Saliency of A", "Saliency of B")
    assert seen.values.shape == volume.array.shape
    assert float(seen.values.min()) >= 0
    assert float(seen.values.max()) == pytest.approx(1.0)
    assert toys.run(folder, volume).maps == ()


def test_what_was_asked_for_and_cannot_be_said_is_said(tmp_path: Path) -> None:
    masks = toys.save(
        tmp_path / "masks", toys.config(UNET, [TURN, WINDOW], [SIGMOID, inverted(), HALF]), toys.metadata(NAMES), gain=3
    )
    remarks = " ".join(toys.run(masks, toys.volume(), certainty=True, mirrored="left and right").remarks)
    assert "probability of each structure is not given" in remarks
    assert "agreement of mirrored runs is not given" in remarks
    with pytest.raises(Refused, match="nothing to explain"):
        toys.run(masks, toys.volume(), saliency=True)


def test_a_person_may_cancel_while_it_is_looked_where_a_classifier_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(saliency.ACROSS, 2, 3)
    described = toys.metadata(["A", "B"], form="labels", spatial_shape=[64, 64])
    network = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    before = [{"_target_": "ScaleIntensityd", "keys": "image"}]
    written = toys.config(network, before, [SOFTMAX, ARGMAX], {"_target_": "SimpleInferer"})
    folder, told = toys.save(tmp_path / "toy", written, described), []

    def progress(phase: str, fraction: float) -> None:
        told.append((phase, fraction))
        if phase == "post" and fraction > 0.9:
            raise Cancelled("a person cancelled the run", remedy="Run it again")

    with pytest.raises(Cancelled):
        toys.pipeline(folder).runner(toys.volume(shape=(1, 64, 64)), BundleSettings(saliency=True), progress=progress)
    assert [fraction for _, fraction in told] == sorted(fraction for _, fraction in told)
