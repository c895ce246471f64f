"""A node's index on each engine."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from router.db import migrate
from tests.db.conftest import engine as empty_engine  # noqa: F401


@pytest.fixture
def index(empty_engine: Engine) -> Iterator[Engine]:  # noqa: F811
    """A migrated, empty database on either engine."""
    migrate.upgrade(empty_engine)
    return empty_engine
