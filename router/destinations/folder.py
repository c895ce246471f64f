"""A folder: each object a file, whole or not there at all."""

import filecmp
import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from router.destinations import Context, Destination, Unreachable
from router.domain.delivery import Outgoing, Receipt, Subject, Verdict


class Settings(Destination):
    """Where the folder is."""

    kind: Literal["folder"]
    path: Path = Field(description="Folder that exists, on any file system with atomic rename")


def send(settings: Settings, outgoing: Sequence[Outgoing], context: Context) -> Generator[Receipt, None, None]:
    """Put each file under its SOPInstanceUID.

    Raises:  Unreachable
    """
    echo(settings, context)
    for item in outgoing:
        name = settings.path / f"{item.sop_instance_uid}.dcm"
        try:
            put(item.path, name)
        except OSError as error:
            raise Unreachable(
                f"destination {settings.name}: {settings.path} cannot be written ({error.strerror})",
                remedy="Make it writable, or free some space; the delivery goes on by itself",
            ) from error
        yield Receipt(sop_instance_uid=item.sop_instance_uid, verdict=Verdict.ACCEPTED, detail=name.name)


def confirm(settings: Settings, outgoing: Sequence[Outgoing], context: Context) -> frozenset[str]:
    """Those that lie there as the bytes that were sent.

    Raises:  Unreachable
    """
    echo(settings, context)
    return frozenset(
        item.sop_instance_uid
        for item in outgoing
        if (there := settings.path / f"{item.sop_instance_uid}.dcm").is_file()
        and filecmp.cmp(item.path, there, shallow=False)
    )


def look(settings: Settings, subject: Subject, context: Context) -> None:
    """A folder knows no studies."""


def put(source: Path, name: Path) -> None:
    """Copy `source` to `name`, which is at no moment half there."""
    part = name.with_suffix(f".{os.getpid()}.part")
    try:
        with source.open("rb") as reader, part.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
        part.replace(name)
        sync(name.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Make the folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def echo(settings: Settings, context: Context) -> None:
    """Return when the folder is there.

    Raises:  Unreachable
    """
    if not settings.path.is_dir():
        raise Unreachable(
            f"destination {settings.name}: {settings.path} is not a folder",
            remedy="Make it, or mount it; the delivery goes on by itself",
        )
