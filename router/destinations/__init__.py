"""Ways out: one file each, found by listing this folder; nothing is registered by hand.

A destination kind is a module that exports `Settings` (its form), `look`, `send`, `confirm` and `echo`, and `commit`
where it knows storage commitment. Sending is per instance: an instance that is refused gives a Receipt that says so,
only a far side that cannot be reached raises. As far as it can be asked, it is looked at before, for whose study it has
there, and read back after.
"""

import importlib
import pkgutil
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from pydantic import Field

from dicom_sr.problem import Problem
from router.config import Section, Tls
from router.destinations._profile import Chosen
from router.destinations._profile import Profile as Profile
from router.domain.delivery import Commitment, Outgoing, Receipt, Subject


class UnknownDestinationKind(Problem):
    """No destination kind has this name."""


class Unreachable(Problem):
    """Nobody can be reached there, whatever is to be sent: everything for this destination waits until it answers."""

    retryable = True
    spends_attempt = False


class Interrupted(Unreachable):
    """The far side was there and went away in the middle; perhaps for what it was sent."""

    spends_attempt = True


class Rejected(Problem):
    """The far side is there and does not want us as we are; a person must change something."""


class Destination(Section):
    """What the settings of all destination kinds have."""

    kind: str
    name: str = Field(min_length=1, description="What rules call it")
    profile: Chosen = Field(Profile(), description="What it gets: the name of a ready profile, or fields of its own")


class CannotCommit(Problem):
    """The far side does not take requests for storage commitment, or not this one."""


class Unheard(CannotCommit):
    """The far side takes requests for storage commitment, and has never yet reported on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What this node brings to any destination."""

    calling_ae_title: str
    timeout_s: float
    tls: Tls = field(default_factory=Tls)
    """Who we are where connections are encrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """The far side has taken the request and is to report within so many seconds; else it is asked again."""

    wait_s: float


class Send(Protocol):
    """Sends instances in order and gives one Receipt for each.

    Raises:  Unreachable, Rejected
    """

    def __call__(
        self, settings: Destination, outgoing: Sequence[Outgoing], context: Context
    ) -> Generator[Receipt, None, None]: ...


class Confirm(Protocol):
    """SOPInstanceUIDs of those that the far side shows when it is asked; None where it cannot be asked.

    Raises:  Unreachable, Rejected
    """

    def __call__(
        self, settings: Destination, outgoing: Sequence[Outgoing], context: Context
    ) -> frozenset[str] | None: ...


class Commit(Protocol):
    """Ask the far side to commit to keep these; its report where it came at once.

    `unanswered` earlier requests were never reported on; `heard` is whether it has ever reported to us on any.

    Raises:  Unheard (read it back; where that cannot be, ask as if it had been heard), CannotCommit, Unreachable,
             Rejected
    """

    def __call__(
        self,
        settings: Destination,
        outgoing: Sequence[Outgoing],
        transaction_uid: str,
        context: Context,
        *,
        unanswered: int,
        heard: bool,
    ) -> Commitment | Awaited: ...


class Look(Protocol):
    """What the far side has of this study and source instance; None where it cannot be asked.

    Raises:  Unreachable
    """

    def __call__(self, settings: Destination, subject: Subject, context: Context) -> Subject | None: ...


class Echo(Protocol):
    """Returns when the far side answers.

    Raises:  Unreachable, Rejected
    """

    def __call__(self, settings: Destination, context: Context) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A way out: its form and its hands."""

    settings: type[Destination]
    send: Send
    confirm: Confirm
    look: Look
    echo: Echo
    commit: Commit | None
    """None for a kind that knows no storage commitment."""


@cache
def names() -> tuple[str, ...]:
    """Names of all destination kinds, sorted; a module whose name begins with _ is what several of them share."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")))


def find(name: str) -> Kind:
    """The destination kind of this name.

    Raises:  UnknownDestinationKind
    """
    if name not in names():
        raise UnknownDestinationKind(
            f"there is no destination kind {name!r}", remedy=f"Choose one of: {', '.join(names())}"
        )
    module = importlib.import_module(f"{__name__}.{name}")
    return Kind(
        settings=module.Settings,
        send=module.send,
        confirm=module.confirm,
        look=module.look,
        echo=module.echo,
        commit=getattr(module, "commit", None),
    )
