"""The index of what is durable: rows are committed together when they come together, without a thread of their own.

Whoever comes while another commits waits its turn; whoever gets the turn commits for all that wait. One association
alone commits each row by itself and hands nothing over.
"""

import threading
import time
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import DataError, OperationalError, SQLAlchemyError

from router.db import filing, instances
from router.db.engine import writing
from router.db.versions import Arrival

REMEMBERED_S = 10.0
"""How long a series counts as filed; a row that somebody removes meanwhile comes back after that."""


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
        self.connection: PoolProxiedConnection | None = None
        self.cursor: Any = None
        self.turn = threading.Lock()
        self.filed: set[tuple[str, str]] = set()
        self.forget_at = 0.0
        self.queueing = threading.Lock()
        self.waiting: list[_Waiting] = []

    def add(self, arrival: Arrival) -> bool:
        """Whether the instance was new; its row is committed then.

        Raises:  SQLAlchemyError; DataError where it is the row that cannot be held, not the database that cannot write
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
                self.cursor.close()
                self.connection.close()
                self.connection = self.cursor = None

    def _commit(self, batch: list[_Waiting]) -> None:
        arrivals = [one.arrival for one in batch]
        try:
            late = set() if self._commit_plain(arrivals) else self._commit_any(arrivals)
            for one in batch:
                one.is_fresh = one.arrival.path not in late
            self._remember(arrivals)
        except DataError as error:
            if len(batch) == 1:
                batch[0].error = error
            else:  # one row must not spoil the others
                for one in batch:
                    self._commit([one])
        except SQLAlchemyError as error:
            for one in batch:
                one.error = error
        finally:
            for one in batch:
                one.is_done = True

    def _commit_plain(self, arrivals: list[Arrival]) -> bool:
        """Commit rows of instances that are all new, by the driver alone; False when some are not."""
        dialect = self.engine.dialect
        try:
            if self.connection is None:
                self.connection = self.engine.raw_connection()
                self.cursor = self.connection.cursor()
            if dialect.name == "sqlite":
                self.cursor.execute("BEGIN IMMEDIATE")
            if filing.record_plain(self.cursor, dialect, arrivals, self.filed):
                self.connection.commit()
                return True
            self.connection.rollback()
        except (dialect.loaded_dbapi.DataError, dialect.loaded_dbapi.IntegrityError, ValueError) as error:
            self._forget_connection()  # ValueError: text that the driver cannot encode
            raise DataError("the index", None, error) from error
        except dialect.loaded_dbapi.Error as error:
            self._forget_connection()
            raise OperationalError("the index", None, error) from error
        return False

    def _remember(self, arrivals: list[Arrival]) -> None:
        """Series and studies that were filed just now need not be filed again with each instance, for a while."""
        now = time.monotonic()
        if now > self.forget_at:
            self.filed.clear()
            self.forget_at = now + REMEMBERED_S
        self.filed.update((one.series_instance_uid, one.study_instance_uid) for one in arrivals)

    def _commit_any(self, arrivals: list[Arrival]) -> set[str]:
        """Commit the rows; gives the paths of those of which another was there first."""
        with writing(self.engine) as connection:
            return {one.path for one in instances.record_new(connection, arrivals)}

    def _forget_connection(self) -> None:
        """It may be in any state: the next commit takes another."""
        if self.connection is not None:
            with suppress(self.engine.dialect.loaded_dbapi.Error):
                self.connection.rollback()
            self.connection.invalidate()
            self.connection = self.cursor = None
