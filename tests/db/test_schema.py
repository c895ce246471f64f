"""One schema, however a database came by it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from router.db import migrate
from router.db.engine import reading, writing
from router.db.tables import metadata


def plain(value: Any) -> Any:
    """What an inspector says, comparable: mappings sorted, types by their SQL, blanks in a CHECK not significant."""
    if isinstance(value, Mapping):
        return sorted((str(key), plain(item)) for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return re.sub(r"\s+", " ", str(value))


def schema_of(engine: Engine) -> dict[str, list[Any]]:
    found = inspect(engine)
    parts = (
        "get_columns", "get_pk_constraint", "get_foreign_keys", "get_indexes", "get_unique_constraints",
        "get_check_constraints",
    )  # fmt: skip
    return {
        f"{table}.{part}": sorted(map(plain, answer if isinstance(answer, list) else [answer]))
        for table in found.get_table_names()
        if table != "alembic_version"
        for part in parts
        for answer in [getattr(found, part)(table)]
    }


def empty(engine: Engine) -> None:
    with writing(engine) as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))


def test_a_schema_made_fresh_equals_a_schema_migrated(engine: Engine) -> None:
    migrate.upgrade(engine)
    migrated = schema_of(engine)
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    empty(engine)
    with writing(engine) as connection:
        metadata.create_all(connection)
    assert len(migrated) > 60
    assert schema_of(engine) == migrated


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(engine: Engine) -> None:
    migrate.upgrade(engine)
    before = schema_of(engine)
    migrate.upgrade(engine)
    assert schema_of(engine) == before
    with reading(engine) as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == migrate.head()


def test_a_database_of_a_newer_program_is_left_alone(engine: Engine) -> None:
    migrate.upgrade(engine)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(migrate.DatabaseTooNew, match="9999"):
        migrate.upgrade(engine)


def test_an_upgrade_that_fails_leaves_the_old_schema(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE series (taken INTEGER)"))
    with pytest.raises(Exception, match="series"):
        migrate.upgrade(engine)
    assert inspect(engine).get_table_names() == ["series"]
