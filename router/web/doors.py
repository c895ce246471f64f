"""Every route of the window and what it needs: one table, and what is not in it is shut. A test walks it."""

import re
from dataclasses import dataclass, field
from typing import Literal

from router.domain.access import Scope

OPEN: Literal["open"] = "open"
"""For anybody, also one who has not logged in."""

READING = ("GET", "HEAD")
API = "/api/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A path, with {name} for one segment and {name:rest} for all that follow; its methods, and who may."""

    path: str
    methods: tuple[str, ...] = READING
    needs: Scope | Literal["open"]
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = re.sub(r"\{\w+:rest\}", ".+", re.sub(r"\{\w+\}", "[^/]+", self.path))
        object.__setattr__(self, "pattern", re.compile(words))


def _doors(needs: Scope, methods: tuple[str, ...], *paths: str) -> tuple[Door, ...]:
    return tuple(Door(path=path, methods=methods, needs=needs) for path in paths)


DOORS: tuple[Door, ...] = (
    Door(path="/health", needs=OPEN),
    Door(path="/metrics", needs=Scope.METRICS),
    Door(path="/login", methods=("GET", "HEAD", "POST"), needs=OPEN),
    Door(path="/logout", methods=("POST",), needs=Scope.READ),
)
"""All of them."""


def door(path: str, method: str) -> Door | None:
    """The door that this request knocks at; None where there is only wall."""
    return next((one for one in DOORS if method in one.methods and one.pattern.fullmatch(path)), None)


def leads_somewhere(path: str) -> bool:
    """Whether any method is answered here."""
    return any(one.pattern.fullmatch(path) for one in DOORS)
