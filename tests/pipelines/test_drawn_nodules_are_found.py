"""ct_lung_nodule_demo on drawn chests: nodules found where they lie, with how sure it is, never without its reserve."""

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from dicom_sr.nouns import Box, Findings, Volume
from pipelines import catalog, nodule_training, phantom, phantom_nodules, trust
from pipelines.anatomy import Nodule
from pipelines.catalog import ct_lung_nodule_demo as demo
from pipelines.spec import Refused
from pipelines.trust import Untrusted
from tests.pipelines.examples import nodules, run, said_of
from tests.pipelines.lungs import dice

NAME = "ct_lung_nodule_demo"
RIGHT = Nodule(centre=(-88.0, 8.0, 34.0), semi=(6.0, 5.5, 6.0), hu=30.0)


@cache
def one(orientation: phantom.Orientation) -> phantom.Phantom:
    return phantom_nodules.box([RIGHT], orientation=orientation)


def middle(box: Box | None) -> np.ndarray:
    assert box is not None
    return (np.array(box.minimum) + np.array(box.maximum)) / 2


@pytest.mark.parametrize("orientation", ["axial", "sagittal_reversed", "oblique_double"])
def test_a_nodule_of_the_right_lung_is_found_there_however_the_slices_lie(orientation: phantom.Orientation) -> None:
    made = one(orientation)
    said = run(NAME, made.volume)
    assert said.labels is not None
    assert dice(said.labels > 0, made.truth > 0) >= 0.85
    (group,) = said.groups[1:]
    assert np.abs(middle(group.box) - RIGHT.centre).max() < 2.0
    measured = {measurement.name.meaning: measurement.value for measurement in group.measurements}
    assert measured["Volume"] == pytest.approx(float((made.truth > 0).sum()) * made.volume.voxel_ml, rel=0.25)
    assert 50 < float(measured["Certainty of Finding"] or 0) <= 100


def test_tissue_that_the_edge_of_the_images_cuts_off_is_no_candidate_and_that_is_said() -> None:
    made = one("axial")
    said = run(NAME, made.volume)
    (remark,) = [remark for remark in said.remarks if "edge of the images" in remark]
    assert remark.endswith(": 1")
    assert said.labels is not None
    assert not any(said.labels.take([0, -1], axis=axis).any() for axis in range(3))


def test_vessels_at_a_hilum_are_no_candidates_however_sure_the_network_is(monkeypatch: pytest.MonkeyPatch) -> None:
    volume = phantom_nodules.box([], about=(-34.0, 24.0, 12.0), seed=5).volume
    assert run(NAME, volume, minimum_certainty=0.0).segments == ()
    monkeypatch.setattr(demo, "AERATED_FROM", 0.0)
    assert run(NAME, volume, minimum_certainty=0.0).segments != ()


def test_several_are_told_apart_the_largest_first_and_the_smallest_of_six_millimetres_too() -> None:
    made, said = nodules(), said_of(NAME)
    volumes = [float(group.measurements[0].value or 0) for group in said.groups[1:]]
    assert len(volumes) == int(made.truth.max()) == 3
    assert volumes == sorted(volumes, reverse=True)
    assert volumes[-1] == pytest.approx(np.pi / 6 * 6**3 / 1000, rel=0.5)


def test_a_lung_without_one_says_that_this_excludes_nothing() -> None:
    said = run(NAME, phantom_nodules.box([], seed=4).volume)
    assert said.segments == ()
    assert "excludes nothing" in said.not_found[0].reason


def test_it_says_wherever_it_speaks_that_it_has_seen_no_patient() -> None:
    spec, said = catalog.find(NAME).spec, said_of(NAME)
    assert spec.research_use
    assert "RESEARCH" in spec.intended_use
    for words in (spec.intended_use, " ".join(spec.limitations), " ".join(said.remarks)):
        assert "has seen no patient" in words
    assert "has seen no patient" in str(said.groups[0].measurements[1].remark)


@pytest.mark.long
def test_runs_on_mirrored_images_give_an_agreement_when_asked_for() -> None:
    def named(said: Findings) -> set[str]:
        return {measurement.name.meaning for measurement in said.groups[1].measurements}

    made = one("axial")
    said = run(NAME, made.volume, agreement=True)
    assert named(said) - named(run(NAME, made.volume)) == {"Agreement of repeated runs"}
    (share,) = (m.value for m in said.groups[1].measurements if m.name.meaning == "Agreement of repeated runs")
    assert share is not None
    assert 50 < share <= 100
    assert said.labels is not None
    assert dice(said.labels > 0, made.truth > 0) >= 0.85


def thick(volume: Volume) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 0] *= 3
    return replace(volume, affine=affine)


def test_thick_slices_and_what_holds_no_lung_are_refused() -> None:
    volume = one("axial").volume
    with pytest.raises(Refused, match=r"4\.5 mm apart"):
        run(NAME, thick(volume))
    with pytest.raises(Refused, match="look like aerated lung"):
        run(NAME, replace(volume, array=np.full_like(volume.array, 40)))


def test_the_bundle_is_what_was_trained_small_and_nothing_else_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = list(trust.survey(demo.BUNDLE))
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) <= 2_000_000
    assert trust.digest(demo.BUNDLE) == demo.DIGEST == catalog.find(NAME).spec.weights_digest
    changed = shutil.copytree(demo.BUNDLE, tmp_path / "bundle")
    (changed / "configs" / "metadata.json").write_text("{}")
    monkeypatch.setattr(demo, "BUNDLE", changed)
    with pytest.raises(Untrusted, match="not those that were installed"):
        run(NAME, one("axial").volume)


# ---------------------------------------------------------------- training


def bank() -> tuple[phantom_nodules.Chest, ...]:
    """A lung that fills a small cube."""
    hu = np.random.default_rng(5).normal(-860, 40, (44, 44, 44)).astype(np.float32)
    return (phantom_nodules.Chest(hu=hu, depth=np.full(hu.shape, 20.0, np.float32)),)


def test_a_seed_gives_the_same_network_and_another_seed_another() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        network = nodule_training.train(seed, steps=3, batch=1, chests=bank(), workers=0, told=lambda line: None)
        return list(network.state_dict().values())

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_what_is_saved_is_the_bundle_that_ships_but_for_its_weights(tmp_path: Path) -> None:
    network = nodule_training.train(3, steps=3, batch=1, chests=bank(), workers=0, told=lambda line: None)
    digest = nodule_training.save(network, tmp_path)
    assert digest == trust.digest(tmp_path) != demo.DIGEST
    for name in ("metadata.json", "inference.json"):
        shipped = demo.BUNDLE / "configs" / name
        assert (tmp_path / "configs" / name).read_text() == shipped.read_text()


def test_figures_count_what_was_found_missed_and_invented() -> None:
    made = nodules()
    labels = np.isin(made.truth, (1, 2)).astype(np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    said = replace(said_of(NAME), labels=labels, groups=())
    one = nodule_training.counted(made, said)
    assert [number for _, number in one.candidates] == [1, 2, 0]
    assert len(one.missed_mm) == 1
    assert one.missed_mm[0] == pytest.approx(6.0, abs=0.7)
    told = nodule_training.figures([one])
    assert (told.scans, told.nodules, told.found, told.false_positives) == (1, 3, 2, 1)
    assert told.sensitivity == pytest.approx(2 / 3)
    perfect = nodule_training.counted(made, replace(said, labels=(made.truth > 0).astype(np.uint8)))
    assert perfect.dice == 1.0


def test_the_least_certainty_is_the_middle_of_the_gap_that_keeps_most_nodules_and_little_else() -> None:
    def scan(*candidates: tuple[float, int]) -> nodule_training.Counted:
        return nodule_training.Counted(candidates=candidates, nodules=2, missed_mm=(), dice=1.0)

    assert nodule_training.chosen([scan((0.99, 1), (0.91, 0)), scan((0.97, 2), (0.95, 1), (0.6, 0))]) == 0.93
    assert nodule_training.chosen([scan((0.9, 1))]) == 0.45


def test_no_scan_is_for_both_choosing_and_telling() -> None:
    assert not set(nodule_training.VALIDATION) & set(nodule_training.HELD_OUT)
