"""Proof that a worker process lives: a lock on a file of its name, which the kernel drops with the process.

So the jobs of a process that was killed are free again as soon as anyone looks, not only when their leases run out. A
worker on another machine leaves no file here; its lease decides.
"""

import fcntl
import os
import secrets
import socket
from pathlib import Path
from types import TracebackType

STARTING = ".starting"


class Presence:
    """This process as a worker, for as long as the context lasts; `name` is what its jobs say."""

    def __init__(self, folder: Path) -> None:
        self.name = f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
        self.path = folder / self.name

    def __enter__(self) -> "Presence":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        starting = self.path.with_name(f"{STARTING}{self.name}")
        self.file = starting.open("wb")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        starting.rename(self.path)  # locked before anyone can see it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)
        self.file.close()


def gone(folder: Path) -> list[str]:
    """Names of workers of this machine that have ended without a goodbye; `forget` them once their jobs are free."""
    found = []
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.name.startswith(STARTING):
            continue
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):
            continue
        found.append(path.name)
    return found


def forget(folder: Path, names: list[str]) -> None:
    """Remove what is left of these workers."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
