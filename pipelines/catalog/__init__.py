"""The catalogue of pipelines: one file an entry, found by listing this folder; nothing is registered by hand."""

import importlib
import pkgutil
from functools import cache

from pipelines.spec import Pipeline, UnknownPipeline


@cache
def names() -> tuple[str, ...]:
    """Names of all catalogue entries, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find(name: str) -> Pipeline:
    """The catalogue entry of this name.

    Raises:  UnknownPipeline
    """
    if name not in names():
        raise UnknownPipeline(f"there is no pipeline {name!r}", remedy=f"Choose one of: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    return Pipeline(spec=module.SPEC, runner=module.runner)
