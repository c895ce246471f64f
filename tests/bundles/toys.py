"""Small bundles written into a folder, small volumes, and MONAI's own run of a bundle to compare with."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dicom_sr.nouns import Acquisition, Findings, Volume
from pipelines import bundles
from pipelines.spec import Pipeline

Config = dict[str, Any]

UNET: Config = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8, 16],
    "strides": [2, 2],
    "num_res_units": 1,
    "norm": "batch",
}
TILES: Config = {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "sw_batch_size": 2, "overlap": 0.5}
LOAD: list[Config] = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
TURN: Config = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"}
SPACE: Config = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.7, 1.7, 2.1], "mode": "bilinear"}
WINDOW: Config = {
    "_target_": "ScaleIntensityRanged",
    "keys": "image",
    "a_min": -300,
    "a_max": 300,
    "b_min": 0.0,
    "b_max": 1.0,
    "clip": True,
}
SOFTMAX: Config = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
SIGMOID: Config = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
ARGMAX: Config = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
HALF: Config = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
SAVE: Config = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"}


def inverted(*, nearest: bool = False) -> Config:
    """MONAI's Invertd as published configs write it."""
    return {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "image",
        "nearest_interp": nearest,
        "to_tensor": True,
    }


def config(
    network: Config,
    before: Sequence[Config],
    after: Sequence[Config],
    inferer: Config | None = None,
    **more: Any,
) -> Config:
    """An inference config in the conventions of the Model Zoo."""
    written = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "/workspace/data",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": [*LOAD, *before]},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": inferer or TILES,
        "postprocessing": {"_target_": "Compose", "transforms": [*after]},
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": False,
        },
        "run": ["$@evaluator.run()"],
        **more,
    }
    return deepcopy(written)


def metadata(names: Mapping[int, str] | Sequence[str], *, form: str = "segmentation", **image: Any) -> Config:
    """A bundle's metadata with these classes."""
    named = dict(enumerate(names)) if not isinstance(names, Mapping) else names
    return {
        "version": "0.3.1",
        "task": "A toy",
        "description": "Random weights",
        "intended_use": "This is an example, not to be used for diagnostic purposes",
        "network_data_format": {
            "inputs": {"image": {"modality": "CT", "num_channels": 1, "spatial_shape": [32, 32, 16], **image}},
            "outputs": {
                "pred": {
                    "format": form,
                    "num_channels": len(named),
                    "channel_def": {str(key): name for key, name in named.items()},
                }
            },
        },
    }


def save(
    folder: Path,
    written: Config,
    described: Config,
    *,
    seed: int = 3,
    gain: float = 1.0,
    network: torch.nn.Module | None = None,
) -> Path:
    """A bundle with random weights, or those of a network; `gain` makes its answers vary."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(written, indent=1))
    (folder / "configs" / "metadata.json").write_text(json.dumps(described, indent=1))
    if network is not None:
        torch.save(network.state_dict(), folder / "models" / "model.pt")
        return folder
    network = built(folder)
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and "running_var" not in name:
            fan = value[0].numel() if value.ndim > 1 else 1
            spread = gain / fan**0.5 if value.ndim > 1 else 0.2
            value.copy_(torch.randn(value.shape, generator=generator) * spread + (1.0 if _is_scale(name, value) else 0))
    torch.save(state, folder / "models" / "model.pt")
    return folder


def _is_scale(name: str, value: torch.Tensor) -> bool:
    return value.ndim == 1 and name.endswith("weight")


def built(folder: Path) -> torch.nn.Module:
    """The network of a bundle's config, built by MONAI."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(json.loads((folder / "configs" / "inference.json").read_text()))
    network: torch.nn.Module = parser.get_parsed_content("network_def")
    return network


def pipeline(folder: Path) -> Pipeline:
    """The bundle as a pipeline."""
    return bundles.pipeline(bundles.read(folder))


def run(folder: Path, volume: Volume, **settings: Any) -> Findings:
    """The bundle's findings."""
    return pipeline(folder).runner(volume, bundles.BundleSettings(**settings))


# ---------------------------------------------------------------- volumes

GRIDS: dict[str, NDArray[np.float64]] = {
    "axial": np.array([[0, 0, 1.1], [0, 1.3, 0], [2.5, 0, 0]]),
    "axial_from_above": np.array([[0, 0, 1.1], [0, 1.3, 0], [-2.5, 0, 0]]),
    "coronal": np.array([[0, 0, 1.1], [2.5, 0, 0], [0, -1.3, 0]]),
    "sagittal": np.array([[2.5, 0, 0], [0, 0, 1.1], [0, -1.3, 0]]),
}
GRIDS["oblique"] = np.array([[0.96, 0.28, 0], [-0.28, 0.96, 0], [0, 0, 1]]) @ GRIDS["axial"]


def volume(
    grid: str = "axial", shape: tuple[int, int, int] = (22, 50, 57), *, seed: int = 1, noise: float = 20.0
) -> Volume:
    """Smooth, chiral ups and downs with some noise on one of the grids, as int16 HU."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(0, 400, (1, 1, 6, 7, 8)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0, 0].numpy()
    affine = np.eye(4)
    affine[:3, :3] = GRIDS[grid]
    affine[:3, 3] = (-31.0, 17.0, 211.0)
    return Volume(
        array=np.rint(smooth + rng.normal(0, noise, shape)).astype(np.int16),
        affine=affine,
        acquisition=Acquisition(modality="CT", series_instance_uid="2.25.1"),
    )


def nifti(taken: Volume, path: Path) -> Path:
    """The volume as a NIfTI file: (column, row, slice), R A S."""
    import nibabel

    affine = taken.affine[:, [2, 1, 0, 3]].copy()
    affine[:2] *= -1
    nibabel.save(nibabel.Nifti1Image(taken.array.transpose(2, 1, 0), affine), path)
    return path


def nifti_plane(taken: Volume, index: int, path: Path) -> Path:
    """One image of the volume as a flat NIfTI file: (column, row)."""
    import nibabel

    rows, columns = taken.spacing[1:]
    nibabel.save(nibabel.Nifti1Image(taken.array[index].T.copy(), np.diag([columns, rows, 1.0, 1.0])), path)
    return path


# ---------------------------------------------------------------- MONAI's own run


def monai_run(folder: Path, image: Path) -> Any:
    """What MONAI's own evaluator makes of the image: its last output, after postprocessing."""
    from monai.bundle import ConfigParser

    parser = ConfigParser(json.loads((folder / "configs" / "inference.json").read_text()))
    parser["bundle_root"] = str(folder)
    parser["datalist"] = [str(image)]
    kept = [t for t in parser["postprocessing"]["transforms"] if t["_target_"] != "SaveImaged"]
    parser["postprocessing"]["transforms"] = kept
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.run()
    return evaluator.state.output[0]


def raw_scores(folder: Path, image: Path, after: Sequence[Config]) -> NDArray[Any]:
    """A classifier's scores by MONAI's own evaluator, stopped before it decides."""
    path = folder / "configs" / "inference.json"
    written = path.read_text()
    scoring = [step for step in after if "Activations" in step["_target_"]] or [SOFTMAX]
    path.write_text(
        json.dumps({**json.loads(written), "postprocessing": {"_target_": "Compose", "transforms": scoring}})
    )
    try:
        return np.asarray(monai_run(folder, image)["pred"]).ravel()
    finally:
        path.write_text(written)


def back(values: Any) -> NDArray[Any]:
    """MONAI's (class, column, row, slice) as (class, slice, row, column)."""
    return np.asarray(values.detach().cpu()).transpose(0, 3, 2, 1)


def dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Overlap of two masks; 1 when both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / total if total else 1.0
