"""Who this node is: one row, made by `init`, part of every UID that the node derives."""

from pathlib import Path
from uuid import uuid4

from sqlalchemy import Engine, insert, inspect, select

from dicom_sr.problem import Problem
from router.db import tables
from router.db.engine import now, reading, writing


class NotInitialised(Problem):
    """The database has no node yet."""


def node_id(engine: Engine) -> str:
    """The node's own id.

    Raises:  NotInitialised
    """
    found = None
    if _exists(engine):
        with reading(engine) as connection:
            found = connection.execute(select(tables.node.c.node_id)).scalar_one_or_none()
    if found is None:
        raise NotInitialised(
            f"the database {engine.url.render_as_string()} holds no node yet",
            remedy="Run `isocenter init DIR` first, or correct database.url",
        )
    return str(found)


def exists(engine: Engine) -> bool:
    """Whether this database has its node already."""
    with reading(engine) as connection:
        return connection.execute(select(tables.node.c.node_id)).scalar_one_or_none() is not None


def _exists(engine: Engine) -> bool:
    """Whether there is a schema at all; looking must not make an empty SQLite file."""
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and not Path(file).exists():
        return False
    return inspect(engine).has_table(tables.node.name)


def create(engine: Engine) -> str:
    """Give this database its node, once; the id it has from now on."""
    with writing(engine) as connection:
        found = connection.execute(select(tables.node.c.node_id)).scalar_one_or_none()
        if found is None:
            found = str(uuid4())
            connection.execute(insert(tables.node).values(node_id=found, created_at=now()))
    return str(found)
