"""`isocenter models`: MONAI bundles as pipelines; installed from a folder or a zip, offline, judged before they run."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dicom_sr.problem import Problem
from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, print_rows, talk

models = typer.Typer(help="MONAI bundles as pipelines: install, verify, remove.", no_args_is_help=True)
app.add_typer(models, name="models")

Name = Annotated[str, typer.Argument(help="Its name, from `isocenter models list`")]


class Damaged(Problem):
    """An installed bundle is not what was installed."""


class NotYours(Problem):
    """This account may not write the folder of the node's bundles, or may not read what is to be installed."""


@contextmanager
def allowed_to(root: Path) -> Iterator[None]:
    """Say in our words what this account may not do.

    Raises:  NotYours
    """
    try:
        yield
    except PermissionError as error:
        there = Path(str(error.filename or root))
        account = name_of(os.geteuid())
        if not there.is_relative_to(root):
            raise NotYours(
                f"{there} may not be read by the account {account}", remedy="Copy it to where that account may read"
            ) from error
        owner = name_of(next(one for one in (root, *root.parents) if one.exists()).stat().st_uid)
        raise NotYours(
            f"{there} may not be written by the account {account}; it is {owner}'s",
            remedy=f"Run the command as that account: sudo -u {owner} isocenter models ...",
        ) from error


def name_of(uid: int) -> str:
    """An account of this machine, by its number where it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def root_of(config: Path) -> Path:
    """Where this node's bundles lie; the catalogue knows it, and the signed allow-list, from now on.

    Raises:  Problem (no settings there)
    """
    from pipelines import catalog
    from router.config import load

    inference = load(config).inference
    catalog.look_in(**inference.shelf)
    return inference.models_path


@models.command("add", epilog="Example: isocenter models add spleen_ct_segmentation.zip --name spleen")
def add(
    source: Annotated[Path, typer.Argument(help="A bundle's folder or zip file")],
    config: Config = DEFAULT_CONFIG,
    name: Annotated[str | None, typer.Option(help="What rules call it; by default its own name")] = None,
    trial: Annotated[bool, typer.Option(help="Build the network and load its weights now")] = True,
) -> None:
    """Install a bundle, or refuse it with every reason; code in it runs isolated, and only when it is signed for."""
    from pipelines import catalog
    from pipelines import models as shelf

    root = root_of(config)
    with allowed_to(root):
        installed = shelf.add(source, root, name=name, trial=trial, allowed=catalog.allowed())
    talk.print(f"{installed.name} {installed.version} is installed ({installed.task}, {installed.digest[:12]})")


@models.command("list", epilog="Example: isocenter models list --json")
def list_(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Installed bundles, a line each."""
    from pipelines import models as shelf

    root = root_of(config)
    with allowed_to(root):
        rows = [asdict(one) for one in shelf.list_(root)]
    columns = ("name", "version", "task", "title", "digest", "added_at")
    print_rows(rows, columns, as_json=as_json, empty="No bundle is installed.")


@models.command("verify", epilog="Example: isocenter models verify")
def verify(
    config: Config = DEFAULT_CONFIG,
    name: Annotated[str | None, typer.Argument(help="One bundle; all by default")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether installed bundles are, file by file, what was installed; exits 1 when one is not."""
    from pipelines import catalog
    from pipelines import models as shelf

    root = root_of(config)
    verdicts = shelf.verify(root, name, allowed=catalog.allowed())
    rows = [asdict(one) | {"state": "damaged" if one.fault else "sound"} for one in verdicts]
    print_rows(rows, ("name", "state", "digest", "fault"), as_json=as_json, empty="No bundle is installed.")
    damaged = [one.name for one in verdicts if one.fault]
    if damaged:
        raise Damaged(f"not as installed: {', '.join(damaged)}", remedy="Remove and add them again from their origin")


@models.command("remove", epilog="Example: isocenter models remove spleen")
def remove(name: Name, config: Config = DEFAULT_CONFIG) -> None:
    """Take a bundle away; jobs that want it are refused from then on."""
    from pipelines import models as shelf

    root = root_of(config)
    with allowed_to(root):
        removed = shelf.remove(root, name)
    talk.print(f"{removed.name} {removed.version} is removed")
