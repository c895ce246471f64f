"""Statements that run thousands of times a second: compiled once, then given to the driver as they are.

SQLAlchemy's own work for one statement takes longer than SQLite's. Only the door's hot path is worth this.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Update, bindparam
from sqlalchemy.exc import OperationalError

from router.db.engine import insert_for


class Prepared:
    """An insert or update of named columns, built for a dialect when it is first needed there.

    `build` is given the dialect's insert construct and the columns' names bound to parameters.
    """

    def __init__(self, build: Callable[[Any, dict[str, Any]], Insert | Update]) -> None:
        self.build = build
        self.compiled: dict[str, tuple[str, list[str] | None, Mapping[str, Any]]] = {}

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Execute for each row, in the connection's transaction; how many rows were written in all.

        JSON must be text by now.

        Raises:  SQLAlchemyError
        """
        cursor = connection.connection.cursor()
        try:
            return self.run(cursor, connection.dialect, rows)
        except connection.dialect.loaded_dbapi.Error as error:
            raise OperationalError("", None, error) from error
        finally:
            cursor.close()

    def run(self, cursor: Any, dialect: Dialect, rows: Sequence[Mapping[str, Any]]) -> int:
        """The same on a cursor of the driver, whose errors come as they are."""
        sql, order, constant = self._for(dialect, rows[0])
        full = [{**constant, **row} for row in rows] if constant else rows
        parameters: Any = [tuple(map(row.__getitem__, order)) for row in full] if order else full
        if len(parameters) == 1:
            cursor.execute(sql, parameters[0])
        else:
            cursor.executemany(sql, parameters)
        return int(cursor.rowcount)

    def _for(self, dialect: Dialect, row: Mapping[str, Any]) -> tuple[str, list[str] | None, Mapping[str, Any]]:
        if dialect.name not in self.compiled:
            statement = self.build(insert_for(dialect.name), {name: bindparam(name) for name in row})
            compiled: Any = statement.compile(dialect=dialect)
            constant = {name: value for name, value in compiled.params.items() if value is not None}
            self.compiled[dialect.name] = str(compiled), getattr(compiled, "positiontup", None), constant
        return self.compiled[dialect.name]
