"""Both engines, each with an empty schema; and a node with one CT series."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from pipelines import catalog
from router.db.engine import connect, writing
from router.db.tables import metadata
from tests.postgres import Cluster
from tests.work import SHELF
from tests.work.site import Site, close_site, open_site


@pytest.fixture(scope="session")
def postgresql(postgres: Cluster) -> Iterator[Engine]:
    """One schema for the whole session."""
    made = connect(postgres.database())
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


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalogue also lists the pipelines of these tests."""
    monkeypatch.setattr(catalog, "__path__", [*catalog.__path__, SHELF])
    catalog.own.cache_clear()
    yield
    catalog.own.cache_clear()


@pytest.fixture
def site(tmp_path: Path, shelf: None) -> Iterator[Site]:
    """A node with one CT series, and no destination yet."""
    made = open_site(tmp_path)
    made.receive()
    made.destinations()
    yield made
    close_site(made)
