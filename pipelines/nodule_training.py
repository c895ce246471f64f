"""Trains the network of `ct_lung_nodule_demo` on drawn chests, and says how well it finds nodules in others.

    python -m pipelines.nodule_training train --out FOLDER    the bundle, the same from the same seed
    python -m pipelines.nodule_training choose                its least certainty, from validation phantoms
    python -m pipelines.nodule_training evaluate              the figures of the one that ships, on held-out phantoms

Training takes about ten minutes on two cores: one computes, the other draws. It is deterministic for a seed and a
version of torch, since the network is computed on one thread and every patch has a seed of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dicom_sr import codes
from dicom_sr.nouns import Findings, MeasurementGroup
from pipelines import phantom, phantom_nodules, runtime, trust
from pipelines.catalog import ct_lung_nodule_demo as demo

if TYPE_CHECKING:
    from torch import nn

SEED = 7
CHESTS = 8
STEPS, BATCH, EDGE = 1500, 4, 40
FASTEST = 6e-3
"""Greatest learning rate."""
VALIDATION = tuple(range(301, 307))
"""Seeds of the scans by which the least certainty of a candidate was chosen."""
HELD_OUT = tuple(range(701, 707))
"""Seeds of the scans on which the figures are counted; nobody looked at them before, and no choice was made by them."""
HIT = 0.5
"""Dice of a candidate and a nodule from which the nodule counts as found."""

SEEN = "Trained on procedural phantoms only; this model has seen no patient"
METADATA: dict[str, Any] = {
    "version": demo.SPEC.version,
    "name": demo.SPEC.title,
    "task": "Delineates solid nodules of 6 to 30 mm in drawn lungs",
    "description": f"{SEEN}. A demonstration of the learned path from slices to objects",
    "intended_use": "Research and demonstration only, not for diagnosis. " + SEEN,
    "license": "Apache-2.0",
    "monai_version": "1.5.0",
    "network_data_format": {
        "inputs": {
            "image": {
                "type": "image",
                "format": "hounsfield",
                "modality": "CT",
                "num_channels": 1,
                "spatial_shape": [96, 96, 96],
                "dtype": "float32",
                "value_range": [0, 1],
                "is_patch_data": True,
                "channel_def": {"0": "image"},
            }
        },
        "outputs": {
            "pred": {
                "type": "image",
                "format": "segmentation",
                "num_channels": 2,
                "spatial_shape": [96, 96, 96],
                "dtype": "float32",
                "value_range": [0, 1],
                "is_patch_data": True,
                "channel_def": {"0": "background", "1": "nodule"},
            }
        },
    },
}
WINDOW = {"a_min": -1000.0, "a_max": 400.0, "b_min": 0.0, "b_max": 1.0, "clip": True}
CONFIG: dict[str, Any] = {
    "bundle_root": ".",
    "dataset_dir": "/workspace/data",
    "output_dir": "$@bundle_root + '/eval'",
    "device": "cpu",
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [8, 16, 32, 32],
        "strides": [1, 2, 2],
        "num_res_units": 0,
        "norm": "batch",
        "act": "relu",
    },
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [phantom_nodules.STEP_MM] * 3, "mode": "bilinear"},
            {"_target_": "ScaleIntensityRanged", "keys": "image", **WINDOW},
            {"_target_": "EnsureTyped", "keys": "image"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96], "sw_batch_size": 1, "overlap": 0.25},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
                "to_tensor": True,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        ],
    },
}

# ---------------------------------------------------------------- training


def train(
    seed: int,
    *,
    steps: int = STEPS,
    batch: int = BATCH,
    chests: tuple[phantom_nodules.Chest, ...] = (),
    workers: int = 1,
    told: Any = print,
) -> nn.Module:
    """The network, trained on patches that this seed gives; of `chests` when some are given, else of those it draws."""
    import torch
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet
    from torch.utils.data import DataLoader

    chests = chests or tuple(phantom_nodules.chest(1000 * seed + number) for number in range(CHESTS))
    patches: Any = DataLoader(Drawn(chests, seed, steps * batch), batch_size=batch, num_workers=workers)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    network: nn.Module = UNet(**{name: value for name, value in CONFIG["network_def"].items() if name != "_target_"})
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    best = torch.optim.AdamW(network.parameters(), lr=FASTEST, weight_decay=1e-4)
    pace = torch.optim.lr_scheduler.OneCycleLR(best, max_lr=FASTEST, total_steps=steps, pct_start=0.15)
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    network.train()
    began, recent = time.perf_counter(), 1.0
    with runtime.at_most(1):
        for step, (images, truths) in enumerate(patches):
            best.zero_grad(set_to_none=True)
            wrong = loss(network(images.to(memory_format=torch.channels_last_3d)), truths)
            wrong.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            best.step()
            pace.step()
            recent = 0.98 * recent + 0.02 * float(wrong.detach())
            if step % 50 == 49:
                told(f"step {step + 1:5d}  loss {recent:.3f}  {time.perf_counter() - began:6.0f} s")
    network.eval()
    return network


@dataclass(frozen=True, slots=True)
class Drawn:
    """Patches by number."""

    chests: tuple[phantom_nodules.Chest, ...]
    seed: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if number >= self.count:
            raise IndexError(number)
        hu, truth = phantom_nodules.patch(self.chests, self.seed * 1_000_000 + number, edge=EDGE)
        span = WINDOW["a_max"] - WINDOW["a_min"]
        return np.clip((hu[None] - WINDOW["a_min"]) / span, 0, 1).astype(np.float32), truth[None].astype(np.float32)


def save(network: nn.Module, folder: Path) -> str:
    """Writes the bundle and gives its digest."""
    from safetensors.torch import save_file

    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    for name, content in (("metadata", METADATA), ("inference", CONFIG)):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, folder / "models" / "model.safetensors")
    return trust.digest(folder)


# ---------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How well the nodules of some scans were found; `missed_mm` are the diameters of those that were not."""

    scans: int
    nodules: int
    found: int
    false_positives: int
    dice: float
    missed_mm: tuple[float, ...]

    @property
    def sensitivity(self) -> float:
        """Share of the nodules that were found."""
        return self.found / max(self.nodules, 1)

    @property
    def false_positives_a_scan(self) -> float:
        """Candidates that are no nodule."""
        return self.false_positives / max(self.scans, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One scan: of each candidate its certainty and the number of the nodule that it is, 0 for none; and all missed."""

    candidates: tuple[tuple[float, int], ...]
    nodules: int
    missed_mm: tuple[float, ...]
    dice: float


def counted(made: phantom.Phantom, said: Findings) -> Counted:
    """What of a scan was found; `dice` is of all its nodules together."""
    labels = np.zeros(made.truth.shape, np.uint8) if said.labels is None else said.labels
    parts, count = demo.candidates(labels > 0)
    largest_first = [
        int(n) for n in np.argsort(-np.bincount(parts.ravel(), minlength=count + 1)[1:], kind="stable") + 1
    ]
    is_of = dict.fromkeys(largest_first, 0)
    numbers = [int(number) for number in np.unique(made.truth) if number]
    missed = []
    for number in numbers:
        nodule = made.truth == number
        over = np.bincount(parts[nodule], minlength=count + 1)
        over[0] = 0
        part = int(over.argmax())
        if over[part] and _dice(nodule, parts == part) >= HIT:
            is_of[part] = number
        else:
            missed.append(round(float(np.cbrt(6 / np.pi * nodule.sum() * made.volume.voxel_ml * 1000)), 1))
    certain = [_certainty(group) for group in said.groups[1:]] or [0.0] * count
    return Counted(
        candidates=tuple((sure, is_of[part]) for sure, part in zip(certain, largest_first, strict=True)),
        nodules=len(numbers),
        missed_mm=tuple(missed),
        dice=_dice(made.truth > 0, labels > 0),
    )


def figures(scans: Sequence[Counted]) -> Figures:
    """The sums of some scans; `dice` is the mean over them."""
    hits = [number > 0 for scan in scans for _, number in scan.candidates]
    return Figures(
        scans=len(scans),
        nodules=sum(scan.nodules for scan in scans),
        found=sum(hits),
        false_positives=len(hits) - sum(hits),
        dice=float(np.mean([scan.dice for scan in scans])),
        missed_mm=tuple(size for scan in scans for size in scan.missed_mm),
    )


def chosen(scans: Sequence[Counted]) -> float:
    """The least certainty by which most more nodules than other things are kept: the middle of that gap."""
    ranked = sorted((one for scan in scans for one in scan.candidates), reverse=True)
    gains = np.cumsum([1 if number else -1 for _, number in ranked])
    last = int(len(gains) - 1 - np.argmax(gains[::-1]))
    below = ranked[last + 1][0] if last + 1 < len(ranked) else 0.0
    return round((ranked[last][0] + below) / 2, 3)


def _certainty(group: MeasurementGroup) -> float:
    name = codes.quantity("certainty").concept
    return next(float(one.value or 0) / 100 for one in group.measurements if one.name == name)


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / total if total else 1.0


def scanned(seeds: Sequence[int], settings: demo.Settings, told: Any = print) -> Iterator[Counted]:
    """The catalogue entry, run as a node runs it, on whole chests of these seeds."""
    for seed in seeds:
        made = phantom_nodules.scan(seed)
        began = time.perf_counter()
        one = counted(made, demo.runner(made.volume, settings))
        told(
            f"scan {seed:4d}  {sum(number > 0 for _, number in one.candidates)}/{one.nodules} nodules, "
            f"{sum(number == 0 for _, number in one.candidates)} false, Dice {one.dice:.3f}, missed {one.missed_mm}, "
            f"{time.perf_counter() - began:.1f} s"
        )
        yield one


def main() -> None:
    """Trains, chooses, or evaluates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    training = what.add_parser("train", help="train and write the bundle")
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--seed", type=int, default=SEED)
    training.add_argument("--steps", type=int, default=STEPS)
    what.add_parser("choose", help="the least certainty of a candidate, from the validation scans")
    what.add_parser("evaluate", help="count the figures of the bundle that ships, on the held-out scans")
    options = parser.parse_args()
    if options.what == "train":
        began = time.process_time()
        digest = save(train(options.seed, steps=options.steps), options.out)
        print(f"{digest}  {time.process_time() - began:.0f} s of the training process")
    elif options.what == "choose":
        scans = [*scanned(VALIDATION, demo.Settings(minimum_certainty=0.0))]
        for certainty, number in sorted((one for scan in scans for one in scan.candidates), reverse=True):
            print(f"{certainty:.4f}  {'nodule' if number else 'nothing'}")
        print(f"least certainty: {chosen(scans):g} (that of the entry is {demo.SURE_FROM:g})")
    else:
        told = figures([*scanned(HELD_OUT, demo.Settings())])
        shown = {"sensitivity": told.sensitivity, "false_positives_a_scan": told.false_positives_a_scan}
        print(json.dumps({**asdict(told), **shown}, indent=1))


if __name__ == "__main__":
    main()
