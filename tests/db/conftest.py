"""The engines that every promise of the database is tried on: SQLite always, PostgreSQL where it is installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from router.db.engine import connect


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine on an empty database."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/isocenter.db"
    else:
        url = request.getfixturevalue("postgres").database()
    made = connect(url)
    yield made
    made.dispose()
