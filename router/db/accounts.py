"""Statements on users, their sessions, and the wrong passwords that were tried."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, text, update

from dicom_sr.problem import Problem
from router.db import audit
from router.db.engine import insert_into, now
from router.db.tables import account, login_failure, session
from router.domain.access import FORGET_AFTER_S, SECOND, Role

KEPT = 10_000
"""Failures that are remembered; the oldest are forgotten, so that a guesser of names fills no disk."""


class UnknownUser(Problem):
    """No user has this name."""

    exit_code = 2


class UserExists(Problem):
    """A user of this name is there already."""

    exit_code = 2


class LastAdmin(Problem):
    """Without this admin nobody could manage the node any more."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One user. Times are microseconds since 1970 UTC."""

    name: str
    role: Role
    password_hash: str | None
    created_at: int
    password_at: int | None
    subject: str | None = None

    def __repr__(self) -> str:
        return f"Account({self.name}, {self.role})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One browser that is logged in."""

    digest: str
    account: str
    role: Role
    created_at: int
    seen_at: int


def add(connection: Connection, name: str, role: Role, password_hash: str | None, *, who: str) -> None:
    """A new user.

    Raises:  UserExists
    """
    at = now()
    made = insert_into(connection, account).values(
        name=name, role=role, password_hash=password_hash, created_at=at, password_at=at if password_hash else None
    )
    if connection.scalar(made.on_conflict_do_nothing().returning(account.c.name)) is None:
        raise UserExists(f"there is a user {name} already", remedy="Choose another name, or set that user's password")
    audit.write(connection, who, "users.changed", change="added", user=name, role=str(role))


def find(connection: Connection, name: str) -> Account | None:
    """The user of this name."""
    row = connection.execute(select(account).where(account.c.name == name)).mappings().first()
    return Account(**{**row, "role": Role(row["role"])}) if row else None


def list_(connection: Connection) -> list[Account]:
    """All users by name."""
    rows = connection.execute(select(account).order_by(account.c.name)).mappings()
    return [Account(**{**row, "role": Role(row["role"])}) for row in rows]


def from_elsewhere(connection: Connection, name: str, subject: str, role: Role) -> str:
    """Who logs in elsewhere as this subject, with the role that they have there now; the name that they have here.

    The first name is kept whatever the provider calls them later: it is in the audit. A name that another user has is
    never taken over.

    Raises:  UserExists
    """
    known = connection.execute(select(account.c.name, account.c.role).where(account.c.subject == subject)).one_or_none()
    if known is None:
        add(connection, name, role, None, who="oidc")
        connection.execute(update(account).where(account.c.name == name).values(subject=subject))
        return name
    if known.role != role:
        connection.execute(update(account).where(account.c.name == known.name).values(role=role))
        audit.write(connection, "oidc", "users.changed", change="role", user=known.name, role=str(role))
    return str(known.name)


def set_password(connection: Connection, name: str, password_hash: str, *, who: str) -> None:
    """Give a user another password; every browser of theirs has to log in again, and no failure counts any more.

    Raises:  UnknownUser
    """
    changed = connection.execute(
        update(account).where(account.c.name == name).values(password_hash=password_hash, password_at=now())
    )
    _must(changed.rowcount, name)
    connection.execute(delete(session).where(session.c.account == name))
    audit.write(connection, who, "users.changed", change="password", user=name)


def set_role(connection: Connection, name: str, role: Role, *, who: str) -> None:
    """Give a user another role, in force with their next request.

    Raises:  UnknownUser, LastAdmin
    """
    if role is not Role.ADMIN:
        _another_admin(connection, name)
    _must(connection.execute(update(account).where(account.c.name == name).values(role=role)).rowcount, name)
    audit.write(connection, who, "users.changed", change="role", user=name, role=str(role))


def remove(connection: Connection, name: str, *, who: str) -> None:
    """Remove a user and their sessions.

    Raises:  UnknownUser, LastAdmin
    """
    _another_admin(connection, name)
    _must(connection.execute(delete(account).where(account.c.name == name)).rowcount, name)
    audit.write(connection, who, "users.changed", change="removed", user=name)


def open_session(connection: Connection, name: str, digest: str) -> None:
    """A browser has logged in."""
    at = now()
    connection.execute(insert(session).values(digest=digest, account=name, created_at=at, seen_at=at))


def session_of(connection: Connection, digest: str) -> Session | None:
    """The session of this digest, with the role that its user has now."""
    row = connection.execute(
        select(session, account.c.role).join(account, account.c.name == session.c.account).where(
            session.c.digest == digest
        )
    ).mappings().first()  # fmt: skip
    return Session(**{**row, "role": Role(row["role"])}) if row else None


def saw(connection: Connection, digest: str, at: int) -> None:
    """The session was used."""
    connection.execute(update(session).where(session.c.digest == digest).values(seen_at=at))


def close_session(connection: Connection, digest: str) -> None:
    """Its browser has logged out."""
    connection.execute(delete(session).where(session.c.digest == digest))


def drop_old_sessions(connection: Connection, *, made_before: int, seen_before: int) -> None:
    """Forget sessions that nobody can use any more."""
    connection.execute(delete(session).where((session.c.created_at < made_before) | (session.c.seen_at < seen_before)))


def failures(connection: Connection, key: str, at: int) -> tuple[int, int]:
    """How many failures count against this key, and when the last one was."""
    row = connection.execute(select(login_failure).where(login_failure.c.key == key)).one_or_none()
    if row is None or row.last_at < at - FORGET_AFTER_S * SECOND:
        return 0, 0
    return int(row.failures), int(row.last_at)


def count_failure(connection: Connection, key: str, at: int) -> None:
    """One more failure of this key; it is counted before the password is looked at."""
    old, _ = failures(connection, key, at)
    fresh = insert_into(connection, login_failure).values(key=key, failures=old + 1, last_at=at)
    values = {"failures": old + 1, "last_at": at}
    connection.execute(fresh.on_conflict_do_update(index_elements=[login_failure.c.key], set_=values))
    if connection.execute(select(func.count()).select_from(login_failure)).scalar_one() > KEPT:
        oldest = select(func.min(login_failure.c.last_at)).scalar_subquery()
        connection.execute(delete(login_failure).where(login_failure.c.last_at == oldest))


def forgive(connection: Connection, key: str) -> None:
    """Nothing counts against this key any more."""
    connection.execute(delete(login_failure).where(login_failure.c.key == key))


def forgive_one(connection: Connection, key: str) -> None:
    """Take back the failure that was counted beforehand."""
    connection.execute(
        update(login_failure)
        .where(login_failure.c.key == key, login_failure.c.failures > 0)
        .values(failures=login_failure.c.failures - 1)
    )


def lock_failures(connection: Connection) -> None:
    """Nobody else counts failures until this transaction ends (SQLite: it has the only write lock)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE login_failure IN SHARE ROW EXCLUSIVE MODE"))


def _another_admin(connection: Connection, name: str) -> None:
    admins = [one.name for one in list_(connection) if one.role is Role.ADMIN]
    if admins == [name]:
        raise LastAdmin(f"{name} is the only admin", remedy="Make somebody else an admin first")


def _must(changed: int, name: str) -> None:
    if not changed:
        raise UnknownUser(f"there is no user {name}", remedy="See `isocenter users list`")
