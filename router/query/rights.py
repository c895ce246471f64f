"""Who may ask for what: rights are per AE title, address and service; who may send may not thereby read.

A retrieval hands out pictures, so it wants more than a name that anybody can give: a source that is listed with
addresses, or with the names of its TLS certificate.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from router.rulebook import User


class Service(StrEnum):
    """What a source may ask of the node."""

    STORE = "store"
    ECHO = "echo"
    QUERY = "query"
    RETRIEVE = "retrieve"
    COMMIT = "commit"
    MPPS = "mpps"


class Source(Protocol):
    """What is asked of a source of the rulebook."""

    @property
    def addresses(self) -> Collection[str]:
        """Where it calls from; "any" is everywhere."""

    @property
    def certificate_names(self) -> Collection[str]:
        """What its TLS certificate must be called; none where it need not show one."""

    @property
    def services(self) -> Collection[str]:
        """What it may ask for."""

    def admits(self, ae_title: str, address: str, certificate_names: Collection[str], user: User | None) -> bool:
        """Whether a caller of this AE title, address, verified certificate and user is this source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, what its TLS certificate is called where one was verified, and the user that it names."""

    calling_ae_title: str
    address: str
    certificate_names: tuple[str, ...] = ()
    user: User | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """It may."""


@dataclass(frozen=True, slots=True)
class Denied:
    """It may not, and why."""

    reason: str


def decide(sources: Iterable[Source], caller: Caller, service: Service) -> Allowed | Denied:
    """Whether this caller may use this service."""
    asked = (caller.calling_ae_title, caller.address, caller.certificate_names, caller.user)
    known = [source for source in sources if source.admits(*asked)]
    if not known:
        return Denied("no source has this AE title, address, certificate and user")
    granted = [source for source in known if service in source.services]
    if not granted:
        return Denied(f"this source has no right to {service}")
    proven = any("any" not in source.addresses or source.certificate_names for source in granted)
    if service is Service.RETRIEVE and not proven:
        return Denied("retrieve asks for a source with addresses or certificate names")
    return Allowed()
