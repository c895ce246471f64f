"""From a complete `.part` to an answer: parsed, compared with its command, durable, indexed, and only then Success.

The order never changes: bytes to `.part`, rename, fsync, row committed, status. Whatever fails on the way, nothing
half is kept, and nothing is acknowledged that is not there.
"""

import os
import re
import time
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from types import TracebackType

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, SQLAlchemyError

from dicom_sr.header import is_ours
from dicom_sr.problem import Problem
from router.config import Settings
from router.db import instances
from router.db.engine import fault, now, reading, writing
from router.db.versions import Arrival
from router.domain.disk import Mark
from router.ingest import again, headers, part10
from router.ingest.again import Outcome, Verdict
from router.ingest.digest import identity_digest
from router.ingest.headers import Header
from router.ingest.index import Index
from router.ingest.status import StoreStatus
from router.ingest.walker import NotParseable
from router.store import Part, Store, write_all

log = structlog.get_logger()

LONGEST_UID = 128
"""Twice what PS3.5 9.1 allows: a value's form is no reason to refuse, but an index key has an end."""
UID = re.compile(rf"[!-.0-\[\]-~]{{1,{LONGEST_UID}}}")
"""What can be a key, whether it is a conformant UID or not: printable, neither blank nor slash."""
LOOK_S = 0.1
"""How long the store's disk counts as having room, once it had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a C-STORE request says about the data set that follows, UIDs verbatim, and over what it came."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    association_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The status of a C-STORE response, and its ErrorComment where there is something to say."""

    status: StoreStatus
    comment: str = ""
    study_instance_uid: str | None = None


class Refused(Problem):
    """An instance that is not taken, with the status that says so."""

    def __init__(self, status: StoreStatus, what: str, *, remedy: str) -> None:
        super().__init__(what, remedy=remedy)
        self.status = status

    def answer(self) -> Answer:
        """What the sender is told."""
        return Answer(status=self.status, comment=self.what)


class Receiver:
    """Takes instances in for one process, in the thread of whoever calls; safe to be called from many."""

    def __init__(self, settings: Settings, store: Store, engine: Engine) -> None:
        self.settings = settings
        self.marks = settings.storage.marks
        self.store = store
        self.engine = engine
        self.new = Index(engine)
        self.has_room_until = 0.0

    def open(self, command: Command) -> tuple[Part, bytes]:
        """A file, and what has to be written into it before the data set.

        Raises:  Refused (the disk is full, read-only or failing; the command's UIDs cannot be stored)
        """
        _check_uid(command.sop_instance_uid)
        _check_uid(command.sop_class_uid)
        self._check_room()
        beginning = part10.beginning(
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=command.transfer_syntax_uid,
            calling_ae_title=command.calling_ae_title,
        )
        with out_of_resources():
            return self.store.open_part(), beginning

    def begin(self, command: Command) -> Part:
        """A file that already holds everything before the data set.

        Raises:  Refused (as `open`)
        """
        part, beginning = self.open(command)
        with out_of_resources():
            try:
                write_all(part.fd, beginning)
            except OSError:
                part.drop()
                raise
        return part

    def _check_room(self) -> None:
        """That the disk's second mark is not reached; a disk that had room is not asked again at once.

        Raises:  Refused
        """
        now_s = time.monotonic()
        if now_s < self.has_room_until:
            return
        if self.marks.reached(self.store.free_bytes()) >= Mark.REFUSE:
            raise Refused(
                StoreStatus.OUT_OF_RESOURCES, "the store's disk is full", remedy="Free space, or lower refuse_free_gb"
            )
        self.has_room_until = now_s + LOOK_S

    def finish(self, part: Part, command: Command, *, header: Header | None = None, size: int | None = None) -> Answer:
        """What to answer for a part that is complete; afterwards it is kept and indexed, or gone without a trace.

        `header` is given when it has been read from the bytes as they passed, `size` when they were counted.
        """
        try:
            return self._finish(part, command, header, size)
        except Refused as error:
            log.warning("instance.refused", instance=command.sop_instance_uid, status=error.status.name, why=error.what)
            return error.answer()
        finally:
            part.drop()

    def _finish(self, part: Part, command: Command, header: Header | None, size: int | None) -> Answer:
        with out_of_resources():
            size = os.fstat(part.fd).st_size if size is None else size
            header = header or read_header(part, command.transfer_syntax_uid)
            check(header, command, size)
            arrival = arrived(header, command, path=part.keep(header.text("StudyInstanceUID")), size=size)
        try:
            with out_of_resources():
                return self.index(arrival)
        except Refused:
            self.store.discard(arrival.path)
            raise

    def index(self, arrival: Arrival) -> Answer:
        """Index a durable file, whether its UID is new or not; a repeat's file is removed.

        Raises:  OSError, SQLAlchemyError
        """
        if self.new.add(arrival):
            log.debug("instance.stored", **_about(arrival))
            return Answer(status=StoreStatus.SUCCESS, study_instance_uid=arrival.study_instance_uid)
        while True:
            with reading(self.engine) as connection:
                known = instances.versions(connection, arrival.sop_instance_uid)
            outcome = again.compare(arrival, known, self.store)
            with writing(self.engine) as connection:
                if instances.versions(connection, arrival.sop_instance_uid, lock=True) == known:
                    again.write(connection, outcome)
                    break
        return self._told(outcome)

    def _told(self, outcome: Outcome) -> Answer:
        """Log what came again, remove what is superfluous, and answer."""
        log_it = log.warning if outcome.verdict is Verdict.CONFLICT else log.info
        log_it(f"instance.{outcome.verdict}", **_about(outcome.arrival))
        if outcome.verdict is Verdict.REPEAT:
            self.store.discard(outcome.arrival.path)
        if outcome.verdict is Verdict.CONFLICT and self.settings.listener.on_conflict == "refuse":
            return Answer(
                status=StoreStatus.CANNOT_UNDERSTAND, comment="other pixels are stored under this SOPInstanceUID"
            )
        return Answer(status=StoreStatus.SUCCESS, study_instance_uid=outcome.arrival.study_instance_uid)


def arrived(header: Header, command: Command, *, path: str, size: int) -> Arrival:
    """The instance in a durable file, ready to be indexed."""
    return Arrival(
        sop_instance_uid=command.sop_instance_uid,
        sop_class_uid=command.sop_class_uid,
        study_instance_uid=header.text("StudyInstanceUID"),
        series_instance_uid=header.text("SeriesInstanceUID"),
        transfer_syntax_uid=command.transfer_syntax_uid,
        path=path,
        size=size,
        pixel_offset=header.pixel_offset,
        pixel_length=header.pixel_length,
        header=header.facts,
        identity_digest=identity_digest(header.facts),
        ours=is_ours(header.facts),
        association_id=command.association_id,
        calling_ae_title=command.calling_ae_title,
        received_at=now(),
    )


class _Resources:
    """A class, since a generator of contextlib takes as long as the system call that it guards."""

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, DataError):
            log.error("instance.not_stored", why=fault(error))
            raise Refused(
                StoreStatus.CANNOT_UNDERSTAND, "a value that the index cannot hold", remedy="Ask the sender's vendor"
            ) from error
        if isinstance(error, OSError | SQLAlchemyError):
            said = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else ""
            log.error("instance.not_stored", why=fault(error))
            raise Refused(
                StoreStatus.OUT_OF_RESOURCES,
                said or "the index cannot be written",
                remedy="Look at the store's disk and the database",
            ) from error


_RESOURCES = _Resources()


def out_of_resources() -> _Resources:
    """Turns what the disk or the database cannot do, inside `with`, into the status that says so."""
    return _RESOURCES


def read_header(part: Part, transfer_syntax_uid: str) -> Header:
    """The header of a part that is complete.

    Raises:  Refused
    """
    with out_of_resources():
        size = os.fstat(part.fd).st_size
    try:
        with mmap(part.fd, size, access=ACCESS_READ) as data:
            return headers.read(data, transfer_syntax_uid, start=part10.dataset_offset(data))
    except NotParseable as error:
        raise Refused(StoreStatus.CANNOT_UNDERSTAND, error.what, remedy=error.remedy) from error


def check(header: Header, command: Command, size: int) -> None:
    """That the data set is whole, is what the command says, and can be filed.

    Raises:  Refused
    """
    if (header.pixel_offset or 0) + (header.pixel_length or 0) > size:
        raise Refused(StoreStatus.CANNOT_UNDERSTAND, "the pixel data is truncated", remedy="Send the object again")
    for keyword, said in (("SOPClassUID", command.sop_class_uid), ("SOPInstanceUID", command.sop_instance_uid)):
        if header.text(keyword) != said:
            raise Refused(
                StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
                f"{keyword} in the data set is not the command's",
                remedy="The sender mixes up its objects: ask its vendor",
            )
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not header.text(keyword):
            raise Refused(
                StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
                f"the data set has no {keyword}",
                remedy="The object belongs to nothing: ask the sender's vendor",
            )
        _check_uid(header.text(keyword))


def _check_uid(uid: str) -> None:
    """That a UID can be a key.

    Raises:  Refused
    """
    if UID.fullmatch(uid) is None:
        raise Refused(
            StoreStatus.CANNOT_UNDERSTAND,
            "a UID is no UID",
            remedy="The object cannot be filed: ask the sender's vendor",
        )


def _about(arrival: Arrival) -> dict[str, str | int]:
    return {
        "study": arrival.study_instance_uid,
        "series": arrival.series_instance_uid,
        "instance": arrival.sop_instance_uid,
        "bytes": arrival.size,
    }
