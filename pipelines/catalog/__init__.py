"""The catalogue of pipelines: one file an entry, found by listing this folder; nothing is registered by hand.

Beside its own entries it has the bundles that a site has installed (`pipelines.models`), once it knows where they lie.
"""

import importlib
import os
import pkgutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.spec import Pipeline

MODELS = "ISOCENTER_MODELS"
"""Environment variable with the folder of installed bundles; processes that are spawned inherit it."""


def look_in(root: Path | None) -> None:
    """Where installed bundles lie, for this process and those that it will spawn; None: there are none."""
    if root is None:
        os.environ.pop(MODELS, None)
    else:
        os.environ[MODELS] = str(root.resolve())


@cache
def own() -> tuple[str, ...]:
    """Names of the entries in this folder, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def names() -> tuple[str, ...]:
    """Names of all entries, installed bundles included, sorted."""
    from pipelines import models

    root = _root()
    return tuple(sorted({*own(), *(models.names(root) if root else ())}))


def find(name: str) -> "Pipeline":
    """The entry of this name.

    Raises:  UnknownPipeline, Untrusted when an installed bundle is no longer what was installed
    """
    from pipelines import models
    from pipelines.spec import Pipeline, UnknownPipeline

    if name in own():
        module = importlib.import_module(f"{__name__}.{name}")
        return Pipeline(spec=module.SPEC, runner=module.runner)
    root = _root()
    if root and any(installed.name == name for installed in models.list_(root)):
        return models.pipeline(root, name)
    raise UnknownPipeline(f"there is no pipeline {name!r}", remedy=f"Choose one of: {', '.join(names())}")


def _root() -> Path | None:
    found = os.environ.get(MODELS)
    return Path(found) if found else None
