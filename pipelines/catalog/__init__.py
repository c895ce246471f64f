"""The catalogue of pipelines: one file an entry, found by listing this folder; nothing is registered by hand.

Beside its own entries it has the bundles that a site has installed (`pipelines.models`), once it knows where they lie.
"""

import importlib
import os
import pkgutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.engines.kserve import SERVER
from pipelines.ledger import ROOM

if TYPE_CHECKING:
    from pipelines.spec import Pipeline
    from pipelines.trust import AllowList

MODELS = "ISOCENTER_MODELS"
"""Environment variable with the folder of installed bundles; processes that are spawned inherit it."""


ALLOW_LIST, ALLOW_LIST_KEY = "ISOCENTER_ALLOW_LIST", "ISOCENTER_ALLOW_LIST_KEY"
"""Environment variables with the signed allow-list of bundles that run code of their own, and the public key to it."""


def look_in(
    root: Path | None,
    *,
    allow_list: Path | None = None,
    key: Path | None = None,
    server: str | None = None,
    gigabytes: float | None = None,
) -> None:
    """Where installed bundles lie, for this process and those that it will spawn; None: there are none.

    `allow_list` is the administrator's list of bundles that may run code of their own, `key` the public key to it;
    `server` is the address of the site's model server, `gigabytes` what networks that are kept in memory may take.
    """
    paths = {MODELS: root, ALLOW_LIST: allow_list, ALLOW_LIST_KEY: key}
    told = {name: None if path is None else str(path.resolve()) for name, path in paths.items()}
    told |= {SERVER: server, ROOM: None if gigabytes is None else str(gigabytes)}
    for name, value in told.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def allowed() -> "AllowList":
    """The digests that an administrator has signed for; none where there is no list.

    Raises:  Untrusted
    """
    from pipelines import trust

    path, key = os.environ.get(ALLOW_LIST), os.environ.get(ALLOW_LIST_KEY)
    return trust.allowed(Path(path), public_key=Path(key)) if path and key else trust.AllowList()


@cache
def own() -> tuple[str, ...]:
    """Names of the entries in this folder, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def names() -> tuple[str, ...]:
    """Names of all entries, installed bundles included, sorted."""
    from pipelines import models, trust

    root = _root()
    try:
        signed = allowed()
    except trust.Untrusted:  # what is wrong with the list is told by whoever asks for one of its bundles
        signed = trust.AllowList()
    return tuple(sorted({*own(), *(models.names(root, allowed=signed) if root else ())}))


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
        return models.pipeline(root, name, allowed=allowed())
    raise UnknownPipeline(f"there is no pipeline {name!r}", remedy=f"Choose one of: {', '.join(names())}")


def _root() -> Path | None:
    found = os.environ.get(MODELS)
    return Path(found) if found else None
