"""The engines that every promise of the database is tried on: SQLite always, PostgreSQL where it is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from router.db.engine import connect, writing
from tests.conftest import component


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server of our own, reached by a Unix socket; it goes with the session."""
    component("PostgreSQL")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    home = Path("/tmp") / f"isocenter-pg-{os.getpid()}"  # short: a socket's path is limited to 107 bytes
    home.mkdir()
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    if user:
        shutil.chown(home, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run([str(binaries / program), *arguments], check=True, capture_output=True, user=user, cwd=home)

    run("initdb", "-D", f"{home}/data", "-U", "isocenter", "--auth=trust", "-E", "UTF8", "--no-sync")
    run("pg_ctl", "-D", f"{home}/data", "-w", "-l", f"{home}/log", "-o", f"-k {home} -c listen_addresses= -F", "start")
    yield f"postgresql+psycopg://isocenter@/postgres?host={home}"
    run("pg_ctl", "-D", f"{home}/data", "-m", "immediate", "stop")
    shutil.rmtree(home)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine on an empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/isocenter.db"
    else:
        url = request.getfixturevalue("postgresql")
    made = connect(url)
    if request.param == "postgresql":
        with writing(made) as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    yield made
    made.dispose()
