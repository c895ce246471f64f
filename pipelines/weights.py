"""A bundle's weights: which file, and tensors out of it without running anything that it holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.declared import Declaration, walk
from pipelines.engines import TABLES
from pipelines.trust import Untrusted, check_checkpoint

if TYPE_CHECKING:
    from torch import nn

WRAPPERS = ("model", "net", "network", "state_dict", "model_state_dict")
"""Under which names a checkpoint may keep the state dict, beside the one that its config gives."""


def find(root: Path, declaration: Declaration) -> tuple[Path, str | None, bool]:
    """The weights file, the name under which it keeps the state dict (or None), and whether it must fit exactly.

    The config's checkpoint loader says which file; safetensors of the same name come first.

    Raises:  Untrusted
    """
    loader = _loader(declaration)
    stated, wrapper = _stated(root, declaration, loader), next(iter(_plain_dict(loader.get("load_dict"))), None)
    strict = str(loader.get("strict", True)).strip().lower() != "false"
    candidates = [stated.with_suffix(".safetensors"), stated] if stated else []
    candidates += [root / "models" / f"model{suffix}" for suffix in TABLES]
    candidates += sorted(path for suffix in TABLES for path in (root / "models").glob(f"*{suffix}"))
    for path in candidates:
        if path.suffix in TABLES and path.is_file():
            return path, wrapper, strict
    raise Untrusted("the bundle has no weights", remedy="Put models/model.safetensors or models/model.pt into it")


def _loader(declaration: Declaration) -> dict[str, Any]:
    for place, item in walk(declaration.config):
        target = str(item.get("_target_", "")) if isinstance(item, dict) else ""
        if target.rpartition(".")[2] == "CheckpointLoader" and place.split("::")[0] != "network_def":
            return dict(item)
    return {}


def _stated(root: Path, declaration: Declaration, loader: dict[str, Any]) -> Path | None:
    """The file that the config names, when it names one inside the bundle in words that we understand."""
    given = loader.get("load_path")
    if not isinstance(given, str):
        return None
    try:
        named = Declaration({**declaration.config, "_path_": given}).get("_path_")
    except Untrusted:
        return None
    path = Path(str(named))
    path = path if path.is_absolute() else root / path
    return path if path.resolve().is_relative_to(root.resolve()) else None


def _plain_dict(item: Any) -> dict[str, Any]:
    return item if isinstance(item, dict) else {}


def check(path: Path) -> None:
    """Refuses a weights file that could hold anything but tensors; torch is not needed for that.

    Raises:  Untrusted
    """
    if path.suffix != ".safetensors":
        check_checkpoint(path)


def load(
    network: "nn.Module", path: Path, *, wrapper: str | None = None, strict: bool = True, unpickle: bool = False
) -> None:
    """Puts the file's tensors into the network; `unpickle` in a process that is walled in only.

    Raises:  Untrusted when the file is no table of tensors or does not fit the network
    """
    state = _tensors(path, unpickle)
    for name in (wrapper, *WRAPPERS):
        if name in state and isinstance(state[name], dict):
            state = state[name]
            break
    state = {name.removeprefix("module."): value for name, value in state.items()}
    try:
        network.load_state_dict(state, strict=strict)
    except (RuntimeError, AttributeError, TypeError) as misfit:
        raise Untrusted(
            f"{path.name} does not fit the bundle's network: {str(misfit)[:300]}",
            remedy="Give the weights that were trained with this network_def",
        ) from None


def _tensors(path: Path, unpickle: bool) -> dict[str, Any]:
    import pickle

    import torch
    from safetensors import SafetensorError

    if not unpickle:
        check(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=not unpickle))
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, EOFError, SafetensorError) as broken:
        raise Untrusted(
            f"{path.name} is no table of weights: {str(broken).splitlines()[0][:200]}",
            remedy="Save the state dict alone, best as safetensors",
        ) from None
