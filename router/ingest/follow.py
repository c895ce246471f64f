"""Studies that become stable in an Orthanc are fetched, by the way of C-STORE from the file on: the same admission,
checks, digests, durable store and audit.

One fetch is an association in the index, so it vetoes completeness while it lasts, and what it brought is audited.
The place in the archive's changes is committed after everything before it is stored: a kill repeats, and loses nothing.
"""

import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO

import httpx
import structlog
from pydantic import ValidationError
from pydicom import dcmread
from pyorthanc import Orthanc
from sqlalchemy.exc import SQLAlchemyError

from dicom_sr.problem import Problem
from router import rulebook
from router.db import alerts, associations, feeds, results, revisions
from router.db.associations import Ending
from router.db.engine import fault, now, reading, writing
from router.destinations import Context, Interrupted, Unreachable, orthanc
from router.destinations.orthanc import Remote
from router.ingest import part10
from router.ingest.admission import Admission, Caller, Refusal
from router.ingest.quiet import MALFORMED, quietly
from router.ingest.receive import Command, Receiver, Refused, out_of_resources
from router.ingest.status import StoreStatus
from router.node import Node
from router.rulebook import Source
from router.store import write_all

log = structlog.get_logger()

LOOK_S = 5.0
"""How often it is looked whether an archive is to be followed, where none is."""
NOTED_AT_ONCE = 50
"""Files after which what was fetched is noted; a kill fetches as many again."""
LONGEST_BEGINNING = 1 << 20
FOREIGN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What an answer that nobody foresaw may do to us: it must not end the following of others."""
TROUBLE = "archive.not_followed"
"""The alert that stands while nothing can be fetched from an archive."""


class NotAdmitted(Problem):
    """The node does not take what it was told to fetch: the source that it would come from may not store here."""


@dataclass(slots=True)
class Fetch:
    """One study on its way here, an association in the index."""

    id: str
    settings: orthanc.Settings
    source: Source
    ending: Ending = Ending.LOST
    studies: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)
    """Fetched, and not yet noted as such."""


class Follower:
    """A thread that asks each archive that is to be followed what has become stable there, and fetches it."""

    def __init__(self, node: Node, receiver: Receiver, admission: Admission, stored: Callable[[], None]) -> None:
        self.node = node
        self.receiver = receiver
        self.engine = receiver.engine
        self.admission = admission
        self.stored = stored
        """Called when something was stored, or a fetch has ended."""
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self.webs: dict[str, tuple[orthanc.Settings, Orthanc, ExitStack]] = {}
        self.troubles: dict[str, str] = {}
        self.unclosed: list[Fetch] = []

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def stop(self) -> None:
        """End; the instance in hand is stored first."""
        self.stopping.set()
        self.thread.join()
        for name in list(self.webs):
            self._hang_up(name)

    def _run(self) -> None:
        while not self.stopping.is_set():
            wait_s = LOOK_S
            try:
                for left in list(self.unclosed):
                    self._close(left)
                followed = self._followed()
                wait_s = min((one.pull_every_s for one in followed), default=LOOK_S)
                for settings in followed:
                    self._ask(settings)
            except (SQLAlchemyError, ValidationError) as error:
                log.error("archives.not_followed", why=fault(error))
            self.stopping.wait(wait_s)

    def _followed(self) -> list[orthanc.Settings]:
        with reading(self.engine) as connection:
            try:
                body = revisions.current(connection, revisions.Kind.DESTINATIONS).body
            except revisions.UnknownRevision:
                return []
        if not any(one.get("pull_as") for one in body):
            return []
        known = rulebook.destinations(body)
        return [one for one in known if isinstance(one, orthanc.Settings) and one.pull_as is not None]

    def _ask(self, settings: orthanc.Settings) -> None:
        """Fetch all that has become stable there; what stands in the way is an alert until it is over."""
        try:
            try:
                self._turn_pages(settings)
            except Interrupted:  # a connection that was kept may have been closed there meanwhile
                self._hang_up(settings.name)
                self._turn_pages(settings)
        except (Problem, SQLAlchemyError, httpx.HTTPError, *FOREIGN) as error:
            self._hang_up(settings.name)
            what = error.what if isinstance(error, Problem) else fault(error)
            if self.troubles.get(settings.name) != what:
                log.error(TROUBLE, destination=settings.name, why=what)
                self.troubles[settings.name] = what
                with suppress(SQLAlchemyError), writing(self.engine) as connection:
                    remedy = error.remedy if isinstance(error, Problem) else "See the log; it is tried again by itself"
                    alerts.raise_(connection, TROUBLE, settings.name, what=what, remedy=remedy)
        else:
            if self.troubles.get(settings.name) != "":  # an earlier life may have raised it
                self.troubles[settings.name] = ""
                with suppress(SQLAlchemyError), writing(self.engine) as connection:
                    alerts.end(connection, TROUBLE, settings.name)

    def _turn_pages(self, settings: orthanc.Settings) -> None:
        while not self.stopping.is_set() and self._turn_page(settings, self._web(settings)):
            pass

    def _web(self, settings: orthanc.Settings) -> Orthanc:
        """Connections to it, kept from one question to the next."""
        known = self.webs.get(settings.name)
        if known is not None and known[0] == settings:
            return known[1]
        self._hang_up(settings.name)
        delivery = self.node.settings.delivery
        context = Context(calling_ae_title=self.node.settings.ae_title, timeout_s=delivery.timeout_s)
        stack = ExitStack()
        web = stack.enter_context(orthanc.client(settings, context))
        self.webs[settings.name] = settings, web, stack
        return web

    def _hang_up(self, name: str) -> None:
        if name in self.webs:
            self.webs.pop(name)[2].close()

    def _turn_page(self, settings: orthanc.Settings, web: Orthanc) -> bool:
        """See to the next changes; whether there are more.

        Raises:  Problem, SQLAlchemyError
        """
        with reading(self.engine) as connection:
            position = feeds.position(connection, settings.name)
        if position is None:  # from now on
            with writing(self.engine) as connection:
                feeds.move(connection, settings.name, orthanc.newest(settings, web))
            return False
        page = orthanc.changes(settings, web, position)
        if page.last < position:
            log.warning("archive.is_another", destination=settings.name, position=position, last=page.last)
            with writing(self.engine) as connection:
                feeds.move(connection, settings.name, 0)
            return True
        for study in page.studies:
            self._fetch(settings, web, study)
        if self.stopping.is_set():
            return False
        if page.last != position:
            with writing(self.engine) as connection:
                feeds.move(connection, settings.name, page.last)
        return not page.is_done

    def _fetch(self, settings: orthanc.Settings, web: Orthanc, study: str) -> None:
        """Store what this study has there and was not fetched before; our own results stay where they are."""
        missing = self._missing(settings, orthanc.instances_of(settings, web, study))
        if not missing:
            return
        with self._association(settings) as fetch:
            for remote in missing:
                if self.stopping.is_set():
                    return
                self._store(fetch, web, remote)
                if len(fetch.files) >= NOTED_AT_ONCE:
                    with writing(self.engine) as connection:
                        feeds.note(connection, settings.name, fetch.files)
                    fetch.files = set()
            fetch.ending = Ending.RELEASE

    def _missing(self, settings: orthanc.Settings, remotes: Sequence[Remote]) -> list[Remote]:
        with reading(self.engine) as connection:
            known = feeds.fetched(connection, settings.name, [one.file for one in remotes])
            return [
                one
                for one in remotes
                if one.file not in known and not results.is_ours(connection, one.sop_instance_uid)
            ]

    @contextmanager
    def _association(self, settings: orthanc.Settings) -> Iterator[Fetch]:
        """What C-STORE has an association for: admission, the veto on completeness, the audit.

        Raises:  NotAdmitted
        """
        ours, host = self.node.settings.ae_title, settings.url.host or ""
        calling = settings.pull_as or ""
        address = _address(host)
        admitted = self.admission.admit(Caller(calling_ae_title=calling, called_ae_title=ours, address=address))
        if isinstance(admitted, Refusal) or "store" not in admitted.services:
            why = admitted.reason if isinstance(admitted, Refusal) else "it may not store here"
            if not isinstance(admitted, Refusal):
                self.admission.leave(admitted)
            raise NotAdmitted(
                f"destination {settings.name} is to be fetched from as source {calling} at {address}: {why}",
                remedy=f"Import sources in which {calling} may store from {address}; it is tried again by itself",
            )
        fetch = Fetch(id=uuid.uuid4().hex, settings=settings, source=admitted)
        opened = associations.Association(
            id=fetch.id,
            calling_ae_title=calling,
            called_ae_title=ours,
            address=address,
            listener=self.node.node_id,
            opened_at=now(),
        )
        try:
            with writing(self.engine) as connection:
                associations.opened(connection, opened)
            log.info("association.opened", association=fetch.id, source=calling, fetched_from=settings.name)
            yield fetch
        finally:
            self.admission.leave(admitted)
            self.unclosed.append(fetch)
            self._close(fetch)

    def _close(self, fetch: Fetch) -> None:
        """Write down that a fetch has ended; where that cannot be, it is tried again.

        Raises:  SQLAlchemyError
        """
        with writing(self.engine) as connection:
            feeds.note(connection, fetch.settings.name, fetch.files)
            count = fetch.studies.total()
            associations.closed(
                connection, fetch.id, ending=fetch.ending, instances=count, studies=fetch.studies, at=now()
            )
        self.unclosed.remove(fetch)
        self.stored()
        log.info("association.closed", association=fetch.id, ending=str(fetch.ending), instances=count)

    def _store(self, fetch: Fetch, web: Orthanc, remote: Remote) -> None:
        """One instance, durable and indexed; one that will never be taken is left there, as a sender would be told.

        Raises:  Unreachable, Rejected, Refused (the disk or the index cannot take it now)
        """
        try:
            with orthanc.file_of(fetch.settings, web, remote) as pieces:
                if pieces is None:
                    return
                command, first = beginning(pieces, fetch)
                part = self.receiver.begin(command)
                try:
                    with out_of_resources():
                        write_all(part.fd, first)
                        for piece in pieces:
                            write_all(part.fd, piece)
                except BaseException:
                    part.drop()
                    raise
            answer = self.receiver.finish(part, command)
        except Refused as refused:
            answer = refused.answer()
        if answer.status == StoreStatus.OUT_OF_RESOURCES:
            raise Refused(answer.status, answer.comment, remedy="Free space; it is fetched again by itself")
        fetch.files.add(remote.file)
        if answer.study_instance_uid is not None:
            fetch.studies[answer.study_instance_uid] += 1
            self.stored()
        else:
            log.warning("instance.not_fetched", instance=remote.sop_instance_uid, why=answer.comment)


def beginning(pieces: Iterator[bytes], fetch: Fetch) -> tuple[Command, bytes]:
    """What a C-STORE request would say of this file, and the first bytes of its data set.

    Raises:  Refused
    """
    head, start = b"", LONGEST_BEGINNING
    for piece in pieces:
        head += piece
        if len(head) >= part10.GROUP_LENGTH_AT + 4:
            start = part10.dataset_offset(head)
        if len(head) >= min(start, LONGEST_BEGINNING):
            break
    try:
        if not head.startswith(b"DICM", 128) or len(head) < start:
            raise Refused(StoreStatus.CANNOT_UNDERSTAND, "it is no Part 10 file", remedy="Look at it in the archive")
        with quietly():
            meta = dcmread(BytesIO(head[:start])).file_meta
        command = Command(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            calling_ae_title=fetch.settings.pull_as or "",
            association_id=fetch.id,
        )
    except MALFORMED as error:
        what = "its file meta information cannot be read"
        raise Refused(StoreStatus.CANNOT_UNDERSTAND, what, remedy="Look at it in the archive") from error
    return command, head[start:]


def _address(host: str) -> str:
    """The IP address behind a name in a URL.

    Raises:  Unreachable
    """
    try:
        return str(socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise Unreachable(f"{host} has no address", remedy="Correct the url; it is asked again") from error
