"""What has just changed in the database, for pages and streams of events: one look every tenth of a second for all.

A look asks only whether anybody has committed; what changed is read when somebody did.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from router.db import overview
from router.db.engine import fault, reading
from router.db.overview import Glance

log = structlog.get_logger()

EVERY_S = 0.1


class Live:
    """Follows the database. `version` grows with each change; whoever shows something compares it with their own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.version = 0
        self.moved = asyncio.Condition()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow while the application runs."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _follow(self) -> None:
        seen: object = None
        while True:
            try:
                with self.engine.connect() as connection:
                    while True:
                        mark = await asyncio.to_thread(overview.mark, connection)
                        connection.rollback()
                        if mark != seen:
                            seen = mark
                            await self._tell()
                        await asyncio.sleep(EVERY_S)
            except OperationalError as error:
                log.error("live.database", error=fault(error))
                await asyncio.sleep(1)

    async def _tell(self) -> None:
        async with self.moved:
            self.version += 1
            self.moved.notify_all()

    async def next(self, version: int) -> int:
        """The version that follows this one, once there is one."""
        async with self.moved:
            await self.moved.wait_for(lambda: self.version > version)
            return self.version

    def glance(self, before: Glance | None) -> Glance:
        """What is going on now."""
        with reading(self.engine) as connection:
            return overview.glance(connection, before)


def differences(before: Glance, now: Glance) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each job and study that is new or says something else, as (event, what it says)."""
    for uid, study in now.studies.items():
        if before.studies.get(uid) != study:
            yield "study", study
    for number, job in now.jobs.items():
        if before.jobs.get(number) != job:
            yield "job", job
