"""The index of what is durable: rows are committed together when they come together, without a thread of their own.

Whoever comes while another commits waits its turn; whoever gets the turn commits for all that wait. One association
alone commits each row by itself and hands nothing over.
"""

import threading

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from router.db import instances
from router.db.instances import Arrival


class _Waiting:
    """One arrival, until its row is committed."""

    __slots__ = ("arrival", "error", "is_done", "is_fresh")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.is_done = False
        self.is_fresh = False
        self.error: SQLAlchemyError | None = None


class Index:
    """Commits rows of new instances."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.connection: Connection | None = None
        self.turn = threading.Lock()
        self.queueing = threading.Lock()
        self.waiting: list[_Waiting] = []

    def add(self, arrival: Arrival) -> bool:
        """Whether the instance was new; its row is committed then.

        Raises:  SQLAlchemyError
        """
        mine = _Waiting(arrival)
        with self.queueing:
            self.waiting.append(mine)
        with self.turn:
            if not mine.is_done:
                with self.queueing:
                    batch, self.waiting = self.waiting, []
                self._commit(batch)
        if mine.error is not None:
            raise mine.error
        return mine.is_fresh

    def close(self) -> None:
        """Give the connection back."""
        with self.turn:
            if self.connection is not None:
                self.connection.close()
                self.connection = None

    def _commit(self, batch: list[_Waiting]) -> None:
        try:
            late = self._write([one.arrival for one in batch])
            for one in batch:
                one.is_fresh = one.arrival.path not in late
        except SQLAlchemyError as error:
            if self.connection is not None:
                self.connection.invalidate()
            for one in batch:
                one.error = error
        finally:
            for one in batch:
                one.is_done = True

    def _write(self, arrivals: list[Arrival]) -> set[str]:
        """Commit the rows; gives the paths of those of which another was there first."""
        if self.connection is None or self.connection.invalidated:
            self.connection = self.engine.connect().execution_options(writes=True)
        with self.connection.begin():
            return {one.path for one in instances.record_new(self.connection, arrivals)}
