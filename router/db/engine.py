"""Connections: SQLite (WAL) by default, PostgreSQL by URL; two ways to open a transaction and no third."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import errorcode
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, make_url, select

from dicom_sr.problem import Problem

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

BUSY_TIMEOUT_S = 30


def now() -> int:
    """Whole microseconds since 1970 UTC, the unit of every time in the database."""
    return time.time_ns() // 1000


def clock(connection: Connection) -> int:
    """Now by the database's clock, which all nodes on it share; on SQLite that is this machine's."""
    if connection.dialect.name != "postgresql":
        return now()
    return int(connection.scalar(select(func.extract("epoch", func.clock_timestamp()) * 1_000_000)) or 0)


def insert_for(dialect: str) -> Any:
    """The insert construct of this dialect, which knows ON CONFLICT; the other dialect is not imported."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    return insert


def insert_into(connection: Connection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """An INSERT that offers `on_conflict_do_nothing` and `on_conflict_do_update`, spelt alike in both dialects."""
    made: sqlite.Insert | postgresql.Insert = insert_for(connection.dialect.name)(table)
    return made


def connect(url: str, *, durable: bool = True) -> Engine:
    """An engine on the database at this URL.

    With `durable=False` SQLite commits without an fsync of their own (synchronous=NORMAL): right for the instance
    index, which the start-up scan can rebuild from the files, and for nothing else. Errors never quote parameters,
    since those name patients.
    """
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        return create_engine(address, hide_parameters=True, pool_pre_ping=True, pool_size=5, max_overflow=20)
    engine = create_engine(
        address, hide_parameters=True, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's own begin below decides, not the driver
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes; on SQLite it holds the write lock from its first moment, so never fails midway."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads, from a single snapshot on SQLite; it never blocks a writer."""
    with engine.connect() as connection, connection.begin():
        yield connection


def fault(error: BaseException) -> str:
    """What is wrong, for a log: of the database or the system its own code, as SQLITE_FULL, 53100 or ENOSPC.

    A problem of ours says what it is; of any other error its kind: its text may name a patient.
    """
    if isinstance(error, Problem):
        return error.what
    if isinstance(error, OSError) and error.errno is not None and error.errno in errorcode:
        return errorcode[error.errno]
    said = getattr(error, "orig", None)
    return str(getattr(said, "sqlite_errorname", None) or getattr(said, "sqlstate", None) or type(error).__name__)
