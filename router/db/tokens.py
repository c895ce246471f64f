"""Statements on tokens: programs that may use the API, each with some scopes; only a digest of the secret is kept."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select, update

from dicom_sr.problem import Problem
from router.db import audit
from router.db.engine import insert_into, now
from router.db.tables import token
from router.domain.access import SECOND, Scope


class UnknownToken(Problem):
    """No token has this name."""

    exit_code = 2


class TokenExists(Problem):
    """A token of this name is there already."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One program's key. Times are microseconds since 1970 UTC."""

    name: str
    scopes: tuple[Scope, ...]
    created_by: str
    created_at: int
    expires_at: int | None
    used_at: int | None


COLUMNS = [column for column in token.c if column is not token.c.digest]


def add(
    connection: Connection, name: str, digest: str, scopes: Iterable[Scope], *, who: str, days: float | None = None
) -> None:
    """A new token, for so many days or until it is removed.

    Raises:  TokenExists
    """
    at = now()
    kept = sorted(map(str, set(scopes)))
    made = insert_into(connection, token).values(
        name=name,
        digest=digest,
        scopes=kept,
        created_by=who,
        created_at=at,
        expires_at=None if days is None else at + round(days * 86_400 * SECOND),
    )
    if connection.scalar(made.on_conflict_do_nothing().returning(token.c.name)) is None:
        raise TokenExists(f"there is a token {name} already", remedy="Choose another name, or remove that one")
    audit.write(connection, who, "users.changed", change="token added", token=name, scopes=kept)


def of_digest(connection: Connection, digest: str, at: int) -> Token | None:
    """The token of this digest, unless it has expired."""
    alive = or_(token.c.expires_at.is_(None), token.c.expires_at > at)
    row = connection.execute(select(*COLUMNS).where(token.c.digest == digest, alive)).mappings().first()
    return Token(**{**row, "scopes": tuple(map(Scope, row["scopes"]))}) if row else None


def used(connection: Connection, name: str, at: int) -> None:
    """Note that the token was used."""
    connection.execute(update(token).where(token.c.name == name).values(used_at=at))


def list_(connection: Connection) -> list[Token]:
    """All tokens by name."""
    rows = connection.execute(select(*COLUMNS).order_by(token.c.name)).mappings()
    return [Token(**{**row, "scopes": tuple(map(Scope, row["scopes"]))}) for row in rows]


def remove(connection: Connection, name: str, *, who: str) -> None:
    """Make a token worthless, at once.

    Raises:  UnknownToken
    """
    if not connection.execute(delete(token).where(token.c.name == name)).rowcount:
        raise UnknownToken(f"there is no token {name}", remedy="See `isocenter tokens list`")
    audit.write(connection, who, "users.changed", change="token removed", token=name)
