"""Who may come in: known AE titles from known addresses, as many as there are slots, while the disk has room.

The sources are a numbered revision in the database; a new one is in force with the next association, no restart needed.
"""

import ipaddress
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from router import rulebook
from router.config import Settings
from router.db import beats, revisions
from router.db.engine import reading
from router.domain import heartbeat
from router.domain.disk import Mark
from router.ingest.status import Rejection
from router.rulebook import Source, User
from router.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks for an association: AE titles without outer blanks, names of a certificate that TLS has verified, and
    the user that it names."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    certificate_names: tuple[str, ...] = ()
    user: User | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a caller is turned away, in the standard's terms and in ours."""

    rejection: Rejection
    reason: str


class Sources:
    """The sources that are in force, read anew when their revision changes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.number = -1
        self.known: dict[str, list[Source]] = {}
        self.lock = threading.Lock()

    def of(self, ae_title: str) -> Sequence[Source]:
        """Sources of this AE title."""
        with self.lock, reading(self.engine) as connection:
            try:
                revision = revisions.current(connection, revisions.Kind.SOURCES)
            except revisions.UnknownRevision:
                return ()
            if revision.number != self.number:
                self.known = read(revision.body)
                self.number = revision.number
            return self.known.get(ae_title, ())

    def beats(self, caller: "Caller") -> bool:
        """Whether this is the heartbeat of this node: from this machine, with the passcode of the cycle that goes on.

        Nobody can be made a source of this AE title.
        """
        if caller.user is None or not ipaddress.ip_address(caller.address.partition("%")[0]).is_loopback:
            return False
        with reading(self.engine) as connection:
            return beats.is_ours(connection, caller.user.passcode)


def read(body: rulebook.Body) -> dict[str, list[Source]]:
    """Sources by AE title, from the body of their revision."""
    known: dict[str, list[Source]] = {}
    for source in rulebook.sources(body):
        known.setdefault(source.ae_title, []).append(source)
    return known


class Admission:
    """Decides on every association request, and counts those that are open."""

    def __init__(self, settings: Settings, sources: Sources, store: Store) -> None:
        self.settings = settings
        self.sources = sources
        self.store = store
        self.open: Counter[str] = Counter()
        self.lock = threading.Lock()

    def admit(self, caller: Caller) -> Source | Refusal:
        """The source that calls, whose slot is then taken until `leave`; or why it may not.

        Raises:  UnreadablePasscode
        """
        if caller.called_ae_title != self.settings.ae_title:
            return Refusal(
                rejection=Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED,
                reason=f"called {caller.called_ae_title!r}, we are {self.settings.ae_title!r}",
            )
        if caller.calling_ae_title == heartbeat.AE_TITLE:
            if self.sources.beats(caller):
                return self._take_slot(rulebook.HEARTBEAT)
            reason = "only this node's own heartbeat may call so"
            return Refusal(rejection=Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED, reason=reason)
        named = self.sources.of(caller.calling_ae_title)
        here = [source for source in named if source.calls_from(caller.address)]
        shown = [source for source in here if source.is_named(caller.certificate_names)]
        known = next((source for source in shown if source.is_user(caller.user)), None)
        if known is None:
            reason = "unknown AE title"
            if shown:
                reason = "known AE title and address, wrong user or passcode"
            elif here:
                names = ", ".join(caller.certificate_names) or "none"
                reason = f"known AE title and address, unknown certificate ({names})"
            elif named:
                reason = "known AE title, unknown address"
            return Refusal(rejection=Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED, reason=reason)
        if self.settings.storage.marks.reached(self.store.free_bytes()) >= Mark.REJECT:
            return Refusal(rejection=Rejection.TEMPORARY_CONGESTION, reason="the store's disk is full")
        return self._take_slot(known)

    def _take_slot(self, source: Source) -> Source | Refusal:
        limits = self.settings.listener
        with self.lock:
            if self.open.total() >= limits.max_associations:
                reason = f"{limits.max_associations} associations are open"
            elif self.open[source.ae_title] >= limits.max_associations_per_ae:
                reason = f"{limits.max_associations_per_ae} associations of this AE are open"
            else:
                self.open[source.ae_title] += 1
                return source
        return Refusal(rejection=Rejection.LOCAL_LIMIT_EXCEEDED, reason=reason)

    def leave(self, source: Source) -> None:
        """Its association has ended; the slot is free."""
        with self.lock:
            self.open[source.ae_title] -= 1
            if not self.open[source.ae_title]:
                del self.open[source.ae_title]
