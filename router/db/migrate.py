"""Bring a database to this program's schema: made fresh or migrated, it is the same (a test compares them)."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from dicom_sr.problem import Problem
from router.db.engine import writing

SCRIPTS = Path(__file__).parent / "migrations"
LOCK = 0x150CE
"""Advisory lock under which PostgreSQL migrates, so that two roles that start together do it once."""


class DatabaseTooNew(Problem):
    """A newer Isocenter has already migrated this database."""


def upgrade(engine: Engine) -> None:
    """Migrate to the newest schema, in one transaction; at once when there is nothing to do.

    Raises:  DatabaseTooNew
    """
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        try:
            command.upgrade(configuration(connection), "head")
        except CommandError as error:
            raise DatabaseTooNew(
                f"the database is at a schema that this version does not know ({error})",
                remedy="Run the newer Isocenter that migrated it, or restore the backup made before the upgrade",
            ) from error


def head() -> str:
    """Name of the newest schema."""
    return ScriptDirectory.from_config(configuration(None)).get_current_head() or ""


def schemas() -> list[str]:
    """Names of all schemas that this version knows, the newest first."""
    return [one.revision for one in ScriptDirectory.from_config(configuration(None)).walk_revisions()]


def configuration(connection: Connection | None) -> Config:
    """Alembic's own settings, with the connection that it should use."""
    settings = Config()
    settings.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    settings.attributes["connection"] = connection
    return settings
