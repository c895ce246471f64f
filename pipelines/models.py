"""The folder of installed bundles: added whole or not at all, listed, verified and removed.

    <root>/<name>/installed.json      what was installed, when, from where, and its digest
    <root>/<name>/bundle/...          the bundle's tree, never written to again

A bundle is unpacked beside its place, judged there, and put in place by one rename; a crash leaves a folder whose name
begins with a dot, which the next addition clears away.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from pipelines import archive, bundles, trust
from pipelines.spec import Pipeline
from pipelines.trust import AllowList, Untrusted

RECORD = "installed.json"
TREE = "bundle"
INCOMING = ".incoming-"


class UnknownModel(Untrusted):
    """No bundle of this name is installed."""


class AlreadyInstalled(Untrusted):
    """Another bundle has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One installed bundle."""

    name: str
    version: str
    title: str
    task: str
    digest: str
    added_at: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify` found; `fault` is None when the bundle is as it was installed and still acceptable."""

    name: str
    digest: str
    fault: str | None


def add(
    source: Path, root: Path, *, name: str | None = None, trial: bool = True, allowed: AllowList = bundles.NOBODY
) -> Installed:
    """Installs a bundle from its folder or zip file; the same bundle again is no change.

    With `trial` the network is built and its weights are put into it, so that what cannot run is refused now.

    Raises:  Untrusted (with every reason), AlreadyInstalled
    """
    root.mkdir(parents=True, exist_ok=True)
    with _incoming(root) as place:
        tree = _fetched(source, place)
        found = bundles.read(tree, allowed=allowed)
        chosen = bundles.slug(name or (tree.name if tree.name != TREE else source.stem))
        known = {installed.name: installed for installed in list_(root)}.get(chosen)
        if known is not None and known.digest == found.digest:
            return known
        _check_name(chosen)
        if known is not None:
            raise AlreadyInstalled(
                f"another bundle is installed as {chosen}", remedy=f"Remove {chosen} first, or give this one a name"
            )
        if trial:
            _tried(found)
        record = Installed(
            name=chosen,
            version=found.version,
            title=bundles.spec(found).title,
            task=found.task,
            digest=found.digest,
            added_at=datetime.now(UTC).isoformat(timespec="seconds"),
            source=source.name,
        )
        _put_in_place(tree, record, place, root)
        return record


def list_(root: Path) -> tuple[Installed, ...]:
    """Every installed bundle, by name."""
    records = sorted(root.glob(f"[!.]*/{RECORD}")) if root.is_dir() else []
    return tuple(Installed(**json.loads(record.read_text(encoding="utf-8"))) for record in records)


def verify(root: Path, name: str | None = None, *, allowed: AllowList = bundles.NOBODY) -> tuple[Verdict, ...]:
    """Whether the installed bundles, or one, are what was installed, file by file, and would be accepted today.

    Raises:  UnknownModel
    """
    chosen = [find(root, name)] if name else list_(root)
    return tuple(_verified(root, installed, allowed) for installed in chosen)


def remove(root: Path, name: str) -> Installed:
    """Takes a bundle away.

    Raises:  UnknownModel
    """
    found = find(root, name)
    with _incoming(root) as place:
        (root / found.name).rename(place / found.name)
        _sync(root)
    return found


def find(root: Path, name: str) -> Installed:
    """The installed bundle of this name.

    Raises:  UnknownModel
    """
    for installed in list_(root):
        if installed.name == name:
            return installed
    known = ", ".join(installed.name for installed in list_(root)) or "none"
    raise UnknownModel(f"no model {name!r} is installed", remedy=f"Installed are: {known}")


def pipeline(root: Path, name: str, *, allowed: AllowList = bundles.NOBODY) -> Pipeline:
    """An installed bundle as a pipeline; torch is first imported when it runs, and its digest is checked then.

    Raises:  UnknownModel, Untrusted
    """
    return _pipeline(root, name, find(root, name).digest, allowed)


def names(root: Path, *, allowed: AllowList = bundles.NOBODY) -> tuple[str, ...]:
    """Names of the installed bundles that can be read; what is wrong with another one, `verify` tells."""
    return tuple(installed.name for installed in list_(root) if _is_sound(root, installed, allowed))


@lru_cache(maxsize=64)
def _pipeline(root: Path, name: str, digest: str, allowed: AllowList) -> Pipeline:
    return bundles.pipeline(bundles.read(_tree(root, name), digest=digest, name=name, allowed=allowed))


def _is_sound(root: Path, installed: Installed, allowed: AllowList) -> bool:
    try:
        _pipeline(root, installed.name, installed.digest, allowed)
    except Untrusted:
        return False
    return True


def _tree(root: Path, name: str) -> Path:
    return root / name / TREE


def _fetched(source: Path, place: Path) -> Path:
    """A copy of the bundle's tree inside `place`, whose last part is the bundle's own name."""
    if source.is_dir():
        trust.survey(source)
        target = place / (source.resolve().name or TREE)
        shutil.copytree(source, target, symlinks=True)
        trust.survey(target)
        return target
    if not source.is_file():
        raise Untrusted(f"there is no bundle at {source.name}", remedy="Give a bundle's folder or its zip file")
    unpacked = place / "unpacked" / TREE
    unpacked.mkdir(parents=True)
    return archive.unpack(source, unpacked)


def _check_name(name: str) -> None:
    from pipelines import catalog

    if name in catalog.own():
        raise AlreadyInstalled(f"{name} is a pipeline of the catalogue", remedy="Give the bundle another name")


def _tried(bundle: bundles.Bundle) -> None:
    from pipelines import isolated, model

    if bundle.isolated:
        isolated.try_it(bundle)
        return
    model.load(bundle, "cpu")


def _put_in_place(tree: Path, record: Installed, place: Path, root: Path) -> None:
    ready = place / "ready"
    ready.mkdir()
    tree.rename(ready / TREE)
    (ready / RECORD).write_text(json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in (*trust.survey(ready / TREE), ready / RECORD):
        file.chmod(0o644)
        _sync(file)
    for folder in (*(Path(where) for where, _, _ in os.walk(ready)), ready):
        _sync(folder)
    ready.rename(root / record.name)
    _sync(root)


def _verified(root: Path, installed: Installed, allowed: AllowList) -> Verdict:
    tree, fault = _tree(root, installed.name), None
    try:
        if trust.digest(tree) != installed.digest:
            fault = "its files are not those that were installed"
        else:
            bundles.read(tree, digest=installed.digest, allowed=allowed)
    except Untrusted as refused:
        fault = refused.what
    return Verdict(name=installed.name, digest=installed.digest, fault=fault)


@contextmanager
def _incoming(root: Path) -> Iterator[Path]:
    """A folder on the same disk that is gone afterwards; those of crashed additions older than a day go too."""
    now = datetime.now(UTC).timestamp()
    for left in root.glob(f"{INCOMING}*"):
        if now - left.stat().st_mtime > 86400:
            shutil.rmtree(left, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=INCOMING, dir=root))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
