"""A disk of its own for a test, on a loop device: it can be filled to the last byte, and its power can be cut."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXT4_SHUTDOWN = 0x8004587D
NO_FLUSH = struct.pack("I", 2)
BALLAST = "ballast"


class CannotPretend(Exception):  # noqa: N818  - what a test says when it gives up
    """This machine does not let us make such a disk, or cut its power."""


def mount(image: Path, at: Path, *, megabytes: int = 192) -> None:
    """Mount an ext4 file system that lies in a file; it is made where it is not there.

    Raises:  CannotPretend
    """
    if not image.exists():
        image.touch()
        os.truncate(image, megabytes << 20)
        if not _done("mkfs.ext4", "-q", str(image)):
            raise CannotPretend("this machine has no mkfs.ext4")
    at.mkdir(exist_ok=True)
    if not _done("mount", "-o", "loop", str(image), str(at)):
        raise CannotPretend("this machine lets nobody mount a file system")


def unmount(at: Path) -> None:
    """Take it away again; nobody may have a file of it open."""
    subprocess.run(["umount", str(at)], check=True)


@contextmanager
def ext4(image: Path, at: Path) -> Iterator[None]:
    """The file system for as long as the context lasts.

    Raises:  CannotPretend
    """
    mount(image, at)
    try:
        yield
    finally:
        unmount(at)


def cut_power(at: Path) -> None:
    """Everything that is not on the disk by now is lost, as when the plug is pulled (EXT4_IOC_SHUTDOWN).

    Raises:  CannotPretend
    """
    fd = os.open(at, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, EXT4_SHUTDOWN, NO_FLUSH)
    except OSError:
        raise CannotPretend("this kernel cannot pretend that the power fails") from None
    finally:
        os.close(fd)


def fill(at: Path) -> Path:
    """A file that takes every byte that is left; remove it to have them back."""
    ballast = at / BALLAST
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\1" * size)
            except OSError:
                continue
    return ballast


def _done(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
