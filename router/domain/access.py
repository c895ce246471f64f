"""Who may do what: scopes are the doors of the window, a role is a bunch of keys, a token has only some of them.

How long a wrong password costs is decided here, too: failures are counted for the name and for the address, so that
neither many names from one place nor one name from many places can be tried quickly.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

SECOND = 1_000_000


class Scope(StrEnum):
    """What a request may need."""

    READ = "read"
    OPERATE = "operate"
    CONFIGURE = "configure"
    ADMINISTER = "administer"
    METRICS = "metrics"
    STORE = "store"


class Role(StrEnum):
    """What a person is to this node."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


SCOPES: dict[Role, frozenset[Scope]] = {
    Role.VIEWER: frozenset({Scope.READ, Scope.METRICS}),
    Role.OPERATOR: frozenset({Scope.READ, Scope.METRICS, Scope.OPERATE}),
    Role.ADMIN: frozenset(Scope),
}
"""A viewer looks; an operator also moves jobs; an admin also changes rules, sources, destinations and users."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who is asking: a user of the console, or a program with a token. `who` is what the audit calls them."""

    who: str
    name: str
    scopes: frozenset[Scope]
    role: Role | None = None

    def may(self, scope: Scope) -> bool:
        """Whether this is allowed to them."""
        return scope in self.scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How failures are answered: `free` of them cost nothing, each further one doubles the wait up to `longest_s`."""

    free: int
    longest_s: float

    def wait_s(self, failures: int) -> float:
        """How long after the last of so many failures the next attempt is looked at."""
        over = failures - self.free
        return 0.0 if over <= 0 else min(self.longest_s, 2.0 ** min(over - 1, 30))


WITH_NAME = Patience(free=5, longest_s=60.0)
"""A minute at most, since anybody can keep a person out who knows the name: 1440 guesses a day are not many."""
WITH_ADDRESS = Patience(free=20, longest_s=900.0)
"""Many people may share an address behind one proxy."""
FORGET_AFTER_S = 86_400.0
"""Failures that are a day old count no more."""
USER_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,79}")
SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 256
