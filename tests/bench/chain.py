"""A whole bundle, ours beside MONAI's own, on the same weights: `python -m tests.bench.chain`.

Prints rows as it goes, a table and JSON with the time of each phase (before the network, network, after it, all), the
ratios, and how well the labels agree. Rounds are paired, and a ratio is the median of theirs. Both sides work on the
volume in memory; reading and writing files is not counted. Goals: pre at least 4x, post 3x, the whole 3x, Dice at least
0.9999, for 2 and for 14 classes. The network is small, as the goal is about the chain around it; on a machine that
others use, ratios of processor seconds (`--cpu`) are the steadier ones. No round begins after `--minutes`.
"""

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tests.bundles import toys
from tests.bundles.toys import ARGMAX, SOFTMAX, TURN, WINDOW, inverted

CLOCK = time.perf_counter
GOALS = {"pre": 4.0, "post": 3.0, "whole": 3.0}
SPACE = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"}


def network(classes: int) -> toys.Config:
    return {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": classes,
        "channels": [4, 8, 16],
        "strides": [2, 2],
        "num_res_units": 1,
        "norm": "batch",
    }


def scan(slices: int, size: int) -> Any:
    """Smooth values on an axial grid of 0.78 x 0.78 x 2.5 mm."""
    from dataclasses import replace

    made = toys.volume(shape=(slices, size, size), noise=0.0)
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 0.78], [0, 0.78, 0], [2.5, 0, 0]]
    return replace(made, affine=affine)


def ours(folder: Path, volume: Any) -> tuple[dict[str, float], Any]:
    """Seconds of each phase, and the findings; the network is loaded before the clock starts."""
    from pipelines import bundles

    found = toys.pipeline(folder)
    marks: list[tuple[str, float]] = []

    def progress(phase: str, fraction: float) -> None:
        if not marks or marks[-1][0] != phase:
            marks.append((phase, CLOCK()))

    bundle = bundles.read(folder)
    bundles.resident(bundle.root, bundle.name, bundle.digest, "cpu")
    began = CLOCK()
    findings = found.runner(volume, bundles.BundleSettings(), progress=progress)
    ended = CLOCK()
    at = dict(marks)
    phases = {"pre": at["network"] - at["pre"], "network": at["post"] - at["network"], "post": ended - at["post"]}
    return {**phases, "whole": ended - began}, findings


def monais(folder: Path, volume: Any) -> tuple[dict[str, float], Any]:
    """Seconds of each phase, and the labels (slice, row, column), by MONAI's own transforms and inferer."""
    import torch
    from monai.bundle import ConfigParser
    from monai.data import MetaTensor
    from monai.transforms import Compose

    from pipelines.geometry import in_ras

    parser = ConfigParser(json.loads((folder / "configs" / "inference.json").read_text()))
    parser["preprocessing"]["transforms"] = parser["preprocessing"]["transforms"][2:]
    net = parser.get_parsed_content("network_def").eval()
    net.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    before: Compose = parser.get_parsed_content("preprocessing")
    inferer, after = parser.get_parsed_content("inferer"), parser.get_parsed_content("postprocessing")
    clock = [CLOCK()]
    with torch.inference_mode():
        array = torch.from_numpy(volume.array).permute(2, 1, 0)[None].float().contiguous()
        data = before({"image": MetaTensor(array, affine=torch.from_numpy(in_ras(volume.affine)))})
        clock.append(CLOCK())
        answer = inferer(data["image"][None], net)
        clock.append(CLOCK())
        data["pred"] = MetaTensor(
            answer[0], meta=data["image"].meta, applied_operations=data["image"].applied_operations
        )
        labels = toys.back(after(data)["pred"])[0]
        clock.append(CLOCK())
    phases = dict(zip(("pre", "network", "post"), np.diff(clock).tolist(), strict=True))
    return {**phases, "whole": clock[-1] - clock[0]}, labels


def compared(classes: int, slices: int, size: int, rounds: int, until: float) -> dict[str, Any]:
    """Rounds of both sides, one after the other: medians, the median of the ratios, and the worst Dice of a class."""
    after = [SOFTMAX, inverted(), ARGMAX]
    inferer = {**toys.TILES, "roi_size": [96, 96, 64], "overlap": 0.25, "sw_batch_size": 4}
    names = ["background", *(f"structure {n}" for n in range(1, classes))]
    mine: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as place:
        written = toys.config(network(classes), [TURN, SPACE, WINDOW], after, inferer)
        folder = toys.save(Path(place) / "bench", written, toys.metadata(names), gain=2)
        volume, small = scan(slices, size), scan(20, 160)
        ours(folder, small)
        monais(folder, small)
        while len(mine) < rounds and (not mine or time.monotonic() < until):
            took, findings = ours(folder, volume)
            mine.append(took)
            took, labels = monais(folder, volume)
            theirs.append(took)
            if len(mine) == 1:
                dice = worst(findings, labels, names)
            print(f"  {classes:2} classes, round {len(mine)}: {told(mine[-1])} | MONAI {told(theirs[-1])}", flush=True)
            del findings, labels
    return {
        "classes": classes,
        "volume": list(volume.array.shape),
        "rounds": len(mine),
        "ours_s": middle(mine),
        "monai_s": middle(theirs),
        "ratio": middle([{phase: b[phase] / a[phase] for phase in a} for a, b in zip(mine, theirs, strict=True)]),
        "worst_dice": dice,
    }


def worst(findings: Any, labels: Any, names: list[str]) -> float:
    """Dice of the class that agrees least."""
    numbers = {segment.label: segment.number for segment in findings.segments}
    return min(
        toys.dice(findings.labels == numbers.get(name, 255), labels == channel)
        for channel, name in enumerate(names)
        if channel
    )


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians, phase by phase."""
    return {phase: float(np.median([one[phase] for one in rounds])) for phase in rounds[0]}


def told(phases: dict[str, float]) -> str:
    return ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in phases.items())


def main() -> None:
    """Runs both numbers of classes and says whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=120)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--classes", type=int, nargs="*", default=[2, 14])
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--cpu", action="store_true", help="count processor seconds instead of the time on the wall")
    options = parser.parse_args()
    global CLOCK
    CLOCK = time.process_time if options.cpu else time.perf_counter
    warnings.simplefilter("ignore")
    runs, began = [], time.monotonic()
    for number, classes in enumerate(options.classes, start=1):
        until = began + 60 * options.minutes * number / len(options.classes)
        run = compared(classes, options.slices, options.size, options.rounds, until)
        print(f"{classes} classes, {run['volume']}, worst Dice {run['worst_dice']:.6f}")
        print(f"  {'phase':8} {'ours s':>8} {'MONAI s':>8} {'ratio':>7}  goal")
        for phase, ratio in run["ratio"].items():
            goal = f">= {GOALS[phase]:g}" if phase in GOALS else ""
            print(
                f"  {phase:8} {run['ours_s'][phase]:8.2f} {run['monai_s'][phase]:8.2f} {ratio:7.1f}  {goal}", flush=True
            )
        runs.append(run)
    print(json.dumps({"runs": runs, "goals": GOALS}, indent=2))


if __name__ == "__main__":
    main()
