"""A throw-away PostgreSQL on a free port of loopback, run by an unprivileged user and stopped by its pid."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg

from tests.conftest import component, until
from tests.servers import free_port


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running server; each `database()` is new and empty."""

    port: int
    numbers: Iterator[int] = field(default_factory=count)

    def database(self) -> str:
        """SQLAlchemy URL of a new database."""
        name = f"test{next(self.numbers)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://isocenter@127.0.0.1:{self.port}/{name}"

    def address(self, name: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=isocenter dbname={name}"

    def answers(self) -> bool:
        try:
            psycopg.connect(self.address("postgres"), connect_timeout=10).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server of its own, gone with all its data at the end."""
    component("PostgreSQL")
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    folder = Path(tempfile.mkdtemp(prefix="isocenter-postgres-"))
    user = unprivileged()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    identity = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    port = free_port()
    log = (folder.parent / f"{folder.name}.log").open("wb")
    try:
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", "-U", "isocenter", "--auth=trust", "--locale=C", "-E", "UTF8"],
            check=True, stdout=log, stderr=log, cwd=folder, **identity,
        )  # fmt: skip
        server = subprocess.Popen(
            [binaries / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder,
             "-c", "fsync=off", "-c", "max_connections=60"],
            stdout=log, stderr=log, cwd=folder, **identity,
        )  # fmt: skip
        try:
            running = Cluster(port=port)
            until(running.answers, deadline_s=30, what="PostgreSQL's start")
            yield running
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
    finally:
        log.close()
        Path(log.name).unlink()
        shutil.rmtree(folder)


def unprivileged() -> pwd.struct_passwd | None:
    """Who is to run it, since the server refuses root; None where we are no root ourselves."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")
