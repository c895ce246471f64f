"""Engines: what computes a bundle's network where that is no class of MONAI's. One file an engine, found by listing
this folder; the chain around the network, the labels and the trust are those of any bundle.

A bundle is an engine's when its `models/` holds the engine's file and no table of weights. Each exports

    PATTERN   of its file's name
    check     refuses a file that will not be used, without torch and without running a line of it
    network   what turns a batch of images into the network's answer
"""

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dicom_sr.problem import Problem
from pipelines.trust import Untrusted

if TYPE_CHECKING:
    from pipelines.ladder import Network

TABLES = (".safetensors", ".pt", ".pth")
"""Files that hold weights of a network that MONAI builds; where there is one, it is used."""


class EngineFailed(Problem):
    """What computes a bundle's network, outside of torch, gave no answer."""

    retryable = True


class Engine(Protocol):
    """What a file in this folder exports."""

    PATTERN: str

    def check(self, path: Path) -> None: ...

    def network(self, path: Path, device: str) -> "Network": ...


@cache
def _all() -> tuple[Any, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}") for name in names)


def of(root: Path) -> tuple[Engine, Path] | None:
    """The engine of this bundle and its file; None where MONAI builds the network.

    Raises:  Untrusted
    """
    folder = root / "models"
    if any(path.suffix in TABLES for path in folder.glob("*")):
        return None
    found = [(engine, path) for engine in _all() for path in sorted(folder.glob(engine.PATTERN))]
    if len(found) > 1:
        names = ", ".join(path.name for _, path in found)
        raise Untrusted(f"the bundle has several networks: {names}", remedy="Leave one of them in models/")
    return found[0] if found else None
