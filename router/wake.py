"""Doors wake the next room at once: a datagram to every process that listens for a topic, after the commit.

A lost datagram loses nothing, since every listener also looks by itself from time to time; so there is no queue, no
acknowledgement and no broker here. Topics are the roles' names.
"""

import contextlib
import os
import select
import socket
from pathlib import Path
from types import TracebackType


def near(folder: int, name: str) -> str:
    """The path of a socket in an open folder, short however deep the folder lies: AF_UNIX takes 107 bytes."""
    return f"/proc/self/fd/{folder}/{name}"


class Bell:
    """Rings for a topic in all processes of this node; `folder` is theirs in common and on a local disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ring(self, topic: str) -> None:
        """Wake whoever waits for this topic; returns at once, and nobody waiting is not an error."""
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # nobody has ever waited here
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as rope:
                for name in os.listdir(folder):
                    if name.startswith(f"{topic}."):
                        self._ring(rope, folder, name)
        finally:
            os.close(folder)

    def _ring(self, rope: socket.socket, folder: int, name: str) -> None:
        try:
            rope.sendto(b"!", near(folder, name))
        except ConnectionRefusedError:  # its process is gone
            (self.folder / name).unlink(missing_ok=True)
        except (FileNotFoundError, BlockingIOError):  # gone meanwhile, or already has rings enough to wake up
            return


class Ear:
    """Waits for a topic's bell. Use as a context manager; one thread at a time."""

    def __init__(self, folder: Path, topic: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = folder / f"{topic}.{os.getpid()}.{id(self):x}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def __enter__(self) -> "Ear":
        self.address.unlink(missing_ok=True)
        folder = os.open(self.address.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.socket.bind(near(folder, self.address.name))
        finally:
            os.close(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self.address.unlink(missing_ok=True)

    def wait(self, timeout_s: float) -> bool:
        """Whether the bell rang within `timeout_s`; all rings so far count as one."""
        ready, _, _ = select.select([self.socket], [], [], max(0.0, timeout_s))
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.recv(16)
        return bool(ready)
