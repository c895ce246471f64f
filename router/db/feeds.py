"""How far we have followed the changes of archives from which we fetch, and what we have fetched."""

from collections.abc import Collection

from sqlalchemy import Connection, delete, select

from router.db.engine import insert_into, now
from router.db.tables import feed, feed_file


def position(connection: Connection, destination: str) -> int | None:
    """The last change of this archive that was seen to; None where it was never followed."""
    found: int | None = connection.scalar(select(feed.c.position).where(feed.c.destination == destination))
    return found


def move(connection: Connection, destination: str, to: int) -> None:
    """All changes up to this one have been seen to."""
    place = {"position": to, "moved_at": now()}
    fresh = insert_into(connection, feed).values(destination=destination, **place)
    connection.execute(fresh.on_conflict_do_update(index_elements=[feed.c.destination], set_=place))


def fetched(connection: Connection, destination: str, files: Collection[str]) -> frozenset[str]:
    """Those of these files that were fetched before."""
    rows = connection.scalars(
        select(feed_file.c.file).where(feed_file.c.destination == destination, feed_file.c.file.in_(files))
    )
    return frozenset(rows)


def note(connection: Connection, destination: str, files: Collection[str]) -> None:
    """These files were fetched."""
    if files:
        at = now()
        rows = [{"destination": destination, "file": file, "noted_at": at} for file in sorted(files)]
        connection.execute(insert_into(connection, feed_file).values(rows).on_conflict_do_nothing())


def forget(connection: Connection, before: int) -> int:
    """What was fetched before this time is not known any more; how many files.

    Where such a study becomes stable there once more it is fetched once more, and each instance is known as a repeat.
    """
    return int(connection.execute(delete(feed_file).where(feed_file.c.noted_at < before)).rowcount)
