"""Part 10 files on disk: durable or not there, named by a hash, never by a UID; used by ingest, work and query.

Below the root lie `incoming` (`.part` files that are being written), `instances` and `results` (256 folders each, so no
folder is ever made while an object arrives) and `quarantine`. A name once returned stays; a `.part` belongs to
whoever holds its lock, so litter is what nobody holds.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from dicom_sr.problem import Problem

FOLDERS = tuple(f"{number:02x}" for number in range(256))
INSTANCES = "instances"
RESULTS = "results"
INCOMING = "incoming"
QUARANTINE = "quarantine"
JOURNALLING = frozenset({"ext4", "ext3"})
"""File systems on which the fsync of a renamed file also makes its name durable: both are in one journal commit."""


AT_ONCE = 1 << 20
"""Bytes of one write: Linux takes three times as long to copy pages that were never touched in one long write."""


class StoreUnusable(Problem):
    """The folder of the objects cannot be written: read-only, full, foreign or failing."""

    retryable = True


class Part:
    """A file that is being written and that nobody sees until it is kept; use `keep` or `drop`, exactly one."""

    __slots__ = ("_store", "fd", "path", "token")

    def __init__(self, store: "Store") -> None:
        self._store = store
        self.token = secrets.token_hex(16)
        self.path = f"{store.incoming}/{self.token}.part"
        self.fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)
        fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def keep(self, key: str) -> str:
        """The durable file's path below the root, its name a hash of `key` and of this part; `key` picks the folder.

        Renamed first, so that one sync covers the content and the name.

        Raises:  OSError (ENOSPC, EROFS, EIO: nothing is kept then)
        """
        folder = _folder_of(key)
        name = hashlib.sha256(f"{key}\x1f{self.token}".encode("utf-8", "surrogateescape")).hexdigest()[:40]
        relative = f"{INSTANCES}/{folder}/{name}.dcm"
        self._settle(relative)
        return relative

    def _settle(self, relative: str) -> None:
        """Rename to the final name and sync; on failure the file is gone."""
        final = f"{self._store.root}/{relative}"
        try:
            os.rename(self.path, final)
            self.path = final
            if self._store.fsync:
                os.fsync(self.fd)
                if not self._store.names_follow_files:
                    _sync_folder(os.path.dirname(final))
        except OSError:
            self.drop()
            raise
        os.close(self.fd)
        self.fd = -1

    def drop(self) -> None:
        """Forget it: nothing remains."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            with contextlib.suppress(OSError):
                os.unlink(self.path)


class Store:
    """The objects of one node.

    With `fsync=False` nothing is synced: for benchmarks only.

    Raises:  StoreUnusable
    """

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self.root = Path(root)
        self.fsync = fsync
        self.incoming = str(self.root / INCOMING)
        try:
            for folder in (INCOMING, QUARANTINE, *(f"{kind}/{f}" for kind in (INSTANCES, RESULTS) for f in FOLDERS)):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unusable(self.root, error) from error
        self.names_follow_files = file_system(self.root) in JOURNALLING

    def open_part(self) -> Part:
        """A file to write into.

        Raises:  OSError
        """
        return Part(self)

    def keep(self, *content: bytes | memoryview, suffix: str = ".dcm") -> str:
        """Durable file of a produced object, in pieces, named by its content; the same content twice is one file.

        It is written even if a file of this name is there: that one may have been cut short by a power failure.

        Raises:  StoreUnusable
        """
        hashed = hashlib.sha256()
        for piece in content:
            hashed.update(piece)
        digest = hashed.hexdigest()
        relative = f"{RESULTS}/{digest[:2]}/{digest}{suffix}"
        self._written(relative, content)
        return relative

    def _written(self, relative: str, content: Sequence[bytes | memoryview]) -> None:
        try:
            part = Part(self)
            try:
                for piece in content:
                    write_all(part.fd, piece)
            except OSError:
                part.drop()
                raise
            part._settle(relative)
        except OSError as error:
            raise unusable(self.root, error) from error

    def set_aside(self, name: str, *content: bytes | memoryview) -> None:
        """Durable file in quarantine, of what was made and must not leave; another of this name is replaced.

        Raises:  StoreUnusable
        """
        self._written(f"{QUARANTINE}/{name}", content)

    def path(self, relative: str) -> Path:
        """Where a stored file lies."""
        return self.root / relative

    def open(self, relative: str) -> BinaryIO:
        """The stored file, for reading."""
        return self.path(relative).open("rb")

    def has(self, relative: str, *, size: int) -> bool:
        """Whether the file is there whole, as far as its length can tell."""
        try:
            return os.stat(f"{self.root}/{relative}").st_size == size
        except OSError:
            return False

    def discard(self, relative: str) -> None:
        """Remove a file that nothing refers to; none there is not an error."""
        self.path(relative).unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Bytes that an object may still take on this disk."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize

    def quarantine(self, relative: str) -> Path:
        """Move a file that must not be used where a person can look at it; gives its new place."""
        target = self.root / QUARANTINE / relative.replace("/", "-")
        os.replace(self.path(relative), target)
        return target

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Put something in while nobody looks through the whole store: for a process that is not the listener.

        Raises:  BlockingIOError, when somebody does at this moment
        """
        with self._locked(fcntl.LOCK_SH | fcntl.LOCK_NB):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Look through the whole store while nobody puts anything in; waits for those who do."""
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        folder = os.open(self.incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, how)
            yield
        finally:
            os.close(folder)

    def sweep(self) -> int:
        """Remove `.part` files whose writer is gone; how many."""
        removed = 0
        for entry in os.scandir(self.incoming):
            try:
                fd = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)
                removed += 1
            except (BlockingIOError, FileNotFoundError):
                continue
            finally:
                os.close(fd)
        return removed

    def received(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Every folder of received objects with its files: path below the root -> size in bytes."""
        for folder in FOLDERS:
            relative = f"{INSTANCES}/{folder}"
            with os.scandir(self.root / relative) as entries:
                yield relative, {f"{relative}/{entry.name}": entry.stat().st_size for entry in entries}


@lru_cache(maxsize=1024)
def _folder_of(key: str) -> str:
    """Which of the folders holds what has this key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:2]


def digest_of(relative: str) -> str:
    """SHA-256 of the file that `keep` has named so."""
    return Path(relative).stem


def write_all(fd: int, content: bytes | memoryview) -> None:
    """All of `content` into the file, however little one write takes.

    Raises:  OSError
    """
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view[:AT_ONCE]) :]


def file_system(path: Path) -> str:
    """Type of the file system that holds `path`, as the kernel names it; empty where it does not say."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[2] == wanted:
                return fields[fields.index("-") + 1]
    return ""


def unusable(root: Path, error: OSError) -> StoreUnusable:
    """The typed error for what the system said about the store."""
    remedy = {
        errno.EROFS: "Mount it read-write",
        errno.ENOSPC: "Free space on its disk",
        errno.EDQUOT: "Raise the quota of the user that runs Isocenter",
        errno.EACCES: "Give the user that runs Isocenter the right to write there",
        errno.EPERM: "Give the user that runs Isocenter the right to write there",
        errno.ENOTDIR: "Name a folder in storage.path",
        errno.EEXIST: "Name a folder in storage.path",
    }.get(error.errno or 0, "Look at the disk and at storage.path in isocenter.yaml")
    return StoreUnusable(f"the store {root} cannot be written: {os.strerror(error.errno or 0)}", remedy=remedy)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
