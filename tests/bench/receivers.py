"""The receivers that are compared: each a process with a folder, a port and a way to say what it has stored."""

import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from router.ingest import part10
from tests.conftest import DATA, REPOSITORY, until
from tests.servers import free_port

TICKS = os.sysconf("SC_CLK_TCK")
PROTOTYPE = DATA.parent / "prototypes" / "fast_scp.py"
"""Shows what pynetdicom can be made to do; not part of this repository."""
CPU_FIELDS, NICE_FIELD = (11, 12, 13, 14), 16
"""Fields of /proc/PID/stat after the command's name."""


@dataclass(slots=True)
class Receiver:
    """A running receiver."""

    name: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    stored: Callable[[Path, set[Path]], Iterator[str]]
    seen: set[Path] = field(default_factory=set)

    def cpu_s(self) -> tuple[float, float]:
        """CPU seconds of the process with its children; and how much of it those of low priority took (hashing)."""
        whole, hashing = cpu_of(self.process.pid)[0], 0.0
        for child in _children(self.process.pid):
            with suppress(OSError):
                seconds, nice = cpu_of(child)
                whole += seconds
                hashing += seconds if nice > 0 else 0.0
        return whole, hashing

    def high_water_mb(self) -> float:
        """Most resident memory that it ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024

    def new_digests(self) -> set[str]:
        """sha256 of every data set that it has stored since it was last asked."""
        return set(self.stored(self.folder, self.seen))

    def settle(self) -> None:
        """Until it has nothing more to do: our digester lags behind a burst and is not to disturb the next round."""
        database = self.folder / "isocenter.db"
        if database.exists():
            with closing(sqlite3.connect(database)) as connection:
                count = "SELECT count(*) FROM instance WHERE dataset_digest IS NULL"
                until(lambda: connection.execute(count).fetchone()[0] == 0, deadline_s=120, what="all is digested")


def cpu_of(pid: int) -> tuple[float, int]:
    """CPU seconds of a process and of its children that have ended; its niceness."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[at]) for at in CPU_FIELDS) / TICKS, int(fields[NICE_FIELD])


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _of_part10(folder: Path, seen: set[Path]) -> Iterator[str]:
    """Digests of the data sets in new Part 10 files anywhere below."""
    for path in folder.rglob("*"):
        if path in seen or not path.is_file() or path.stat().st_size < 200:
            continue
        with path.open("rb") as file:
            start = file.read(1024)
            if start[128:132] == b"DICM":
                seen.add(path)
                file.seek(part10.dataset_offset(start))
                yield hashlib.file_digest(file, "sha256").hexdigest()


def _of_ours(folder: Path, seen: set[Path]) -> Iterator[str]:
    return _of_part10(folder / "store" / "instances", seen)


def _of_orthanc(folder: Path, seen: set[Path]) -> Iterator[str]:
    return _of_part10(folder / "db", seen)


def _of_plain(folder: Path, seen: set[Path]) -> Iterator[str]:
    for path in folder.iterdir():
        if path not in seen:
            seen.add(path)
            with path.open("rb") as file:
                yield hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _running(
    name: str, folder: Path, port: int, command: list[str], stored: Callable[[Path, set[Path]], Iterator[str]]
) -> Iterator[Receiver]:
    environment = os.environ | {"TCP_NODELAY": "1", "PYTHONPATH": str(DATA.parent / "load")}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: _listens(port), deadline_s=60, what=f"{name} listens")
        yield Receiver(name, port, folder, process, stored)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def isocenter(folder: Path, *, fsync: bool, audit: bool = True) -> Iterator[Receiver]:
    """Us, with the product's defaults: hashes, index, admission and audit on."""
    folder.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "tests.ingest.door_process", str(folder), str(port), f"fsync={str(fsync).lower()}"]
    command += [] if audit else ["audit=off"]
    with _running("isocenter", folder, port, command, _of_ours) as made:
        yield made


@contextmanager
def sink(folder: Path) -> Iterator[Receiver]:
    """A bare Python sink."""
    folder.mkdir(parents=True)
    port = free_port()
    with _running(
        "sink", folder, port, [sys.executable, "-m", "tests.bench.sink", str(port), str(folder)], _of_plain
    ) as made:
        yield made


@contextmanager
def prototype(folder: Path) -> Iterator[Receiver]:
    """The prototype with an index of six columns: no checks, no facts, no admission, no audit."""
    folder.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, str(PROTOTYPE), str(port), str(folder), "--index", "wal", "--quickack"]
    with _running("prototype", folder, port, command, _of_part10) as made:
        yield made


@contextmanager
def storescp(folder: Path, *, fork: bool) -> Iterator[Receiver]:
    """DCMTK's storescp, writing data sets as received."""
    folder.mkdir(parents=True)
    port = free_port()
    command = ["storescp", *(["--fork"] if fork else []), "+B", "-pdu", "131072", "-od", str(folder), str(port)]
    with _running("storescp --fork" if fork else "storescp", folder, port, command, _of_part10) as made:
        yield made


@contextmanager
def orthanc(folder: Path, *, fsync: bool) -> Iterator[Receiver]:
    """Orthanc with its defaults; SyncStorageArea as asked."""
    folder.mkdir(parents=True)
    port, http = free_port(), free_port()
    settings = folder / "orthanc.json"
    settings.write_text(
        json.dumps(
            {
                "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "DicomPort": port,
                "HttpPort": http, "DicomAet": "ISOCENTER", "SyncStorageArea": fsync, "AuthenticationEnabled": False,
                "DicomAlwaysAllowStore": True, "RemoteAccessAllowed": False, "Plugins": [],
            }
        )
    )  # fmt: skip
    binary = shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin") or "Orthanc"
    with _running("orthanc", folder, port, [binary, str(settings)], _of_orthanc) as made:
        yield made
