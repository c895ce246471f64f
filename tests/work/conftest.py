"""Both engines, each with an empty schema."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from router.db.engine import connect, writing
from router.db.tables import metadata
from tests.postgres import cluster


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Engine]:
    """One PostgreSQL for the whole session."""
    with cluster() as running:
        made = connect(running.database())
        metadata.create_all(made)
        yield made
        made.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine on an empty schema."""
    if request.param == "postgresql":
        made: Engine = request.getfixturevalue("postgresql")
        with writing(made) as connection:
            connection.exec_driver_sql(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY CASCADE")
        yield made
        return
    made = connect(f"sqlite:///{tmp_path / 'queue.db'}")
    metadata.create_all(made)
    yield made
    made.dispose()
