"""Logging in and being known afterwards: passwords, sessions of browsers, tokens of programs."""

import ipaddress
import math
from dataclasses import dataclass

from sqlalchemy import Engine

from dicom_sr.problem import Problem
from router import passwords
from router.config import Web
from router.db import accounts, audit, tokens
from router.db.engine import now, reading, writing
from router.domain.access import SCOPES, SECOND, USER_NAME, WITH_ADDRESS, WITH_NAME, Person
from router.domain.audit import Outcome
from router.web.oidc import Known, NotLetIn

NOTED_EVERY = 60 * SECOND
"""How often the use of a session or a token is written down."""


class WrongPassword(Problem):
    """There is no such user, or this is not their password; which of both is not said."""


class TooManyAttempts(Problem):
    """After wrong passwords the next one is looked at only later."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = max(1, math.ceil(wait_s))
        super().__init__(
            f"too many wrong passwords; the next one is looked at in {self.wait_s} s",
            remedy="Wait, or ask an admin to set another password",
        )


def log_in(engine: Engine, name: str, password: str, address: str) -> str:
    """The secret of a new session. A failure is counted before the password is looked at, so haste does not help.

    Raises:  WrongPassword, TooManyAttempts
    """
    name = name.strip().lower()[:80]
    keys = {f"name:{passwords.digest(name)}": WITH_NAME, f"address:{neighbourhood(address)}": WITH_ADDRESS}
    with writing(engine) as connection:
        accounts.lock_failures(connection)
        at = now()
        for key, patience in keys.items():
            failures, last_at = accounts.failures(connection, key, at)
            left_s = (last_at - at) / SECOND + patience.wait_s(failures)
            if left_s > 0:
                raise TooManyAttempts(left_s)
        for key in keys:
            accounts.count_failure(connection, key, at)
        found = accounts.find(connection, name)
    fits = passwords.fits(found.password_hash if found else None, password)
    by_name, by_address = keys
    with writing(engine) as connection:
        if found is None or not fits:
            # a name that nobody has may be a password in the wrong field, so it is kept nowhere
            who = f"user:{name}" if found else "nobody"
            audit.write(connection, who, "user.logged_in", outcome=Outcome.REFUSED, refused=True, address=address)
        else:
            secret = passwords.secret()
            accounts.forgive(connection, by_name)
            accounts.forgive_one(connection, by_address)
            accounts.open_session(connection, name, passwords.digest(secret))
            audit.write(connection, f"user:{name}", "user.logged_in", address=address)
            return secret
    raise WrongPassword("the name or the password is wrong", remedy="Try again, or ask an admin for another password")


def log_in_from_elsewhere(engine: Engine, known: Known, address: str) -> str:
    """The secret of a new session for somebody whom the provider knows.

    Raises:  UserExists, NotLetIn
    """
    if not USER_NAME.fullmatch(known.name):
        raise NotLetIn("the provider gives this account no name that a user can have", remedy="See web.oidc.name_claim")
    secret = passwords.secret()
    with writing(engine) as connection:
        name = accounts.from_elsewhere(connection, known.name, known.subject, known.role)
        accounts.open_session(connection, name, passwords.digest(secret))
        audit.write(connection, f"user:{name}", "user.logged_in", address=address, by="oidc")
    return secret


def log_out(engine: Engine, secret: str) -> None:
    """The session is over."""
    with writing(engine) as connection:
        accounts.close_session(connection, passwords.digest(secret))


def neighbourhood(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that one IPv6 customer has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network(f"{found}/64", strict=False)) if found.version == 6 else str(found)


@dataclass(frozen=True, slots=True)
class Register:
    """Looks up who is asking."""

    engine: Engine
    web: Web

    def by_session(self, secret: str) -> Person | None:
        """Whose browser has this secret, unless it was idle or open for too long."""
        return self.by_session_digest(passwords.digest(secret))

    def by_session_digest(self, digest: str) -> Person | None:
        """The same, for one who kept only the digest."""
        at = now()
        made_before = at - round(self.web.session_hours * 3600 * SECOND)
        seen_before = at - round(self.web.idle_minutes * 60 * SECOND)
        with reading(self.engine) as connection:
            found = accounts.session_of(connection, digest)
        if found is None:
            return None
        if found.created_at < made_before or found.seen_at < seen_before:
            with writing(self.engine) as connection:
                accounts.drop_old_sessions(connection, made_before=made_before, seen_before=seen_before)
            return None
        if found.seen_at < at - NOTED_EVERY:
            with writing(self.engine) as connection:
                accounts.saw(connection, digest, at)
        return Person(who=f"user:{found.account}", name=found.account, scopes=SCOPES[found.role], role=found.role)

    def by_token(self, secret: str) -> Person | None:
        """Which program has this secret."""
        at = now()
        with reading(self.engine) as connection:
            found = tokens.of_digest(connection, passwords.digest(secret), at)
        if found is None:
            return None
        if found.used_at is None or found.used_at < at - NOTED_EVERY:
            with writing(self.engine) as connection:
                tokens.used(connection, found.name, at)
        return Person(who=f"token:{found.name}", name=found.name, scopes=frozenset(found.scopes))
