"""STOW-RS: instances come in by HTTP on the way on which they come in by C-STORE: file, fsync, row, and only then told.

A body is read piece by piece and goes to the disk as it comes; no object is ever in memory as a whole. A request is an
association in the index: it vetoes that its studies are complete, is in the audit, and who sent it can be seen.

Source:  PS3.18 10.5 (Store Transaction), I (Store Instances Response Module)
"""

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from router.db import associations
from router.db.associations import Ending
from router.db.engine import now, writing
from router.domain.access import Person
from router.ingest import part10
from router.ingest.digester import TOPIC
from router.ingest.offers import contexts
from router.ingest.quiet import MALFORMED, quietly
from router.ingest.receive import Answer, Command, Receiver, Refused, out_of_resources, read_header
from router.ingest.status import StoreStatus
from router.node import Node
from router.store import Part, write_all
from router.web.api.words import Asking
from router.web.dicomweb.asked import JSON, Broken, NotMultipart, TooManyAtOnce, root_of

log = structlog.get_logger()

DICOM = "application/dicom"
AT_ONCE = 8
"""Requests that store at the same time; each holds a file open."""
LONGEST_META = 1 << 16
"""Bytes of preamble and File Meta Information; real ones have 500."""
SYNTAX_NOT_SUPPORTED = 0xC122
"""Failure reason of PS3.18 I.2.2; the others are C-STORE's."""


@dataclass(slots=True, kw_only=True)
class Told:
    """What is answered: the stored instances as (SOP class, SOP instance, where it is), and the others with reasons."""

    stored: list[tuple[str, str, str]] = field(default_factory=list)
    failed: list[tuple[str, str, int]] = field(default_factory=list)
    nameless: list[int] = field(default_factory=list)
    """Reasons of parts of which not even the UIDs could be read."""

    @property
    def status(self) -> int:
        """HTTP's status: all, some or none stored.  Source: PS3.18 10.5.3.1"""
        if not self.stored:
            return 409
        return 202 if self.failed or self.nameless else 200

    def as_json(self, root: str, studies: list[str]) -> str:
        """The Store Instances Response Module."""
        with quietly():
            made = Dataset()
            made.RetrieveURL = f"{root}/studies/{studies[0]}" if len(studies) == 1 else None
            made.ReferencedSOPSequence = [_item(*uids, RetrieveURL=url) for *uids, url in self.stored]
            made.FailedSOPSequence = [_item(*uids, FailureReason=reason) for *uids, reason in self.failed]
            made.OtherFailuresSequence = [_item(FailureReason=reason) for reason in self.nameless]
            for keyword in ("ReferencedSOPSequence", "FailedSOPSequence", "OtherFailuresSequence"):
                if not made[keyword].value:
                    del made[keyword]
            return str(made.to_json())


def _item(sop_class_uid: str = "", sop_instance_uid: str = "", **more: str | int) -> Dataset:
    item = Dataset()
    if sop_instance_uid:
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item


class Inlet:
    """Where instances come in by HTTP, one a process."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.receiver = Receiver(node.settings, node.store, node.engine)
        self.name = f"{node.node_id}/web"
        offered = contexts(node.settings.listener.private_sop_classes)
        self.syntaxes = {str(one.abstract_syntax): set(map(str, one.transfer_syntax)) for one in offered}
        self.largest = round(node.settings.web.largest_instance_mb * 1e6)
        self.room = threading.BoundedSemaphore(AT_ONCE)

    def begin(self) -> None:
        """Close what an earlier life has left open; call it before anything comes in."""
        with writing(self.node.engine) as connection:
            associations.close_all_of(connection, self.name, now())

    def end(self) -> None:
        """Give back what is held; nothing comes in any more."""
        self.receiver.new.close()

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Room for one request.

        Raises:  TooManyAtOnce
        """
        if not self.room.acquire(blocking=False):
            raise TooManyAtOnce(f"{AT_ONCE} requests store at this moment", remedy="Send it again in a while")
        try:
            yield
        finally:
            self.room.release()


class Visit:
    """One request, from its first byte to what it is told. Its methods are called by one thread at a time."""

    def __init__(self, inlet: Inlet, person: Person, address: str, study: str | None, root: str) -> None:
        self.inlet = inlet
        self.study = study
        self.root = root
        self.told = Told()
        self.studies: Counter[str] = Counter()
        self.is_whole = False
        self.association = associations.Association(
            id=uuid.uuid4().hex,
            calling_ae_title=f"STOW {person.name}"[:16],
            called_ae_title=inlet.node.settings.ae_title,
            address=address,
            listener=inlet.name,
            opened_at=now(),
        )
        self._forget()

    def _forget(self) -> None:
        self.head = bytearray()
        self.part: Part | None = None
        self.command: Command | None = None
        self.reason = 0
        self.size = 0

    def callbacks(self) -> dict[str, object]:
        """For the parser."""
        return {
            "on_part_begin": self._forget,
            "on_part_data": lambda data, start, end: self.take(memoryview(data)[start:end]),
            "on_part_end": self.end,
            "on_end": lambda: setattr(self, "is_whole", True),
        }

    def opened(self) -> None:
        """Something begins to come in."""
        with writing(self.inlet.node.engine) as connection:
            associations.opened(connection, self.association)

    def closed(self) -> None:
        """Nothing more comes; what is half here is gone."""
        if self.part is not None:
            self.part.drop()
        with writing(self.inlet.node.engine) as connection:
            associations.closed(
                connection, self.association.id, ending=Ending.RELEASE if self.is_whole else Ending.LOST,
                instances=len(self.told.stored), studies=self.studies, at=now(),
            )  # fmt: skip
        self._ring()

    def _ring(self) -> None:
        self.inlet.node.bell.ring("decide")
        self.inlet.node.bell.ring(TOPIC)

    def take(self, piece: memoryview) -> None:
        """Some bytes of the part that is coming."""
        self.size += len(piece)
        if self.reason:
            return
        if self.part is not None:
            self._write(piece)
        else:
            self.head += piece
            start = _dataset_offset(self.head)
            if start is None:
                if len(self.head) > LONGEST_META:
                    self._refuse(StoreStatus.CANNOT_UNDERSTAND, "it does not begin as a DICOM file")
            elif len(self.head) >= start:
                self._begin(bytes(self.head[:start]))
                if not self.reason:
                    self._write(memoryview(self.head)[start:])

    def _begin(self, beginning: bytes) -> None:
        try:
            with quietly():
                meta = dcmread(BytesIO(beginning)).file_meta
            command = self.command = Command(
                sop_class_uid=str(meta.MediaStorageSOPClassUID),
                sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
                transfer_syntax_uid=str(meta.TransferSyntaxUID),
                calling_ae_title=self.association.calling_ae_title,
                association_id=self.association.id,
            )
        except (InvalidDicomError, *MALFORMED):
            self._refuse(StoreStatus.CANNOT_UNDERSTAND, "its File Meta Information cannot be read")
            return
        syntaxes = self.inlet.syntaxes.get(command.sop_class_uid)
        if syntaxes is None:
            self._refuse(StoreStatus.SOP_CLASS_NOT_SUPPORTED, "its SOP class is not stored here")
        elif command.transfer_syntax_uid not in syntaxes:
            self._refuse(SYNTAX_NOT_SUPPORTED, "its transfer syntax is not stored here")
        else:
            try:
                with self.inlet.node.store.shared():
                    self.part = self.inlet.receiver.begin(command)
            except Refused as error:
                self._refuse(error.status, error.what)
            except BlockingIOError:
                self._refuse(StoreStatus.OUT_OF_RESOURCES, "the node looks through its store at this moment")

    def _write(self, piece: memoryview) -> None:
        assert self.part is not None
        if self.size > self.inlet.largest:
            self._refuse(StoreStatus.OUT_OF_RESOURCES, "it is larger than web.largest_instance_mb")
            return
        try:
            with out_of_resources():
                write_all(self.part.fd, piece)
        except Refused as error:
            self._refuse(error.status, error.what)

    def _refuse(self, reason: int, why: str) -> None:
        """Nothing of this part is kept; what else comes of it is passed over."""
        log.warning("instance.refused", association=self.association.id, reason=f"{reason:04X}", why=why)
        self.reason = reason
        if self.part is not None:
            self.part.drop()
            self.part = None

    def end(self) -> None:
        """The part is complete: store it, and note what to answer."""
        command = self.command
        if self.part is not None and command is not None:
            try:
                with self.inlet.node.store.shared():
                    self._keep(self.part, command)
            except BlockingIOError:
                self._refuse(StoreStatus.OUT_OF_RESOURCES, "the node looks through its store at this moment")
            self.part = None
        elif not self.reason:
            self._refuse(StoreStatus.CANNOT_UNDERSTAND, "it does not begin as a DICOM file")
        if self.reason and command is not None:
            self.told.failed.append((command.sop_class_uid, command.sop_instance_uid, self.reason))
        elif self.reason:
            self.told.nameless.append(self.reason)

    def _keep(self, part: Part, command: Command) -> None:
        try:
            header = read_header(part, command.transfer_syntax_uid)
        except Refused as error:
            self._refuse(error.status, error.what)
            return
        study, series = header.text("StudyInstanceUID"), header.text("SeriesInstanceUID")
        if self.study is not None and study != self.study:
            self._refuse(StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "it belongs to another study than the request")
            return
        answer: Answer = self.inlet.receiver.finish(part, command, header=header)
        if answer.status is not StoreStatus.SUCCESS:
            self.reason = answer.status
            return
        self.studies[study] += 1
        url = f"{self.root}/studies/{study}/series/{series}/instances/{command.sop_instance_uid}"
        self.told.stored.append((command.sop_class_uid, command.sop_instance_uid, url))
        self._ring()


def routes(inlet: Inlet) -> APIRouter:
    """Of storing, to a study that the path names or to any."""
    router = APIRouter()

    async def store(request: Request, person: Asking) -> Response:
        """Store what comes; told of each instance is whether it is here to stay."""
        boundary = boundary_of(request.headers.get("content-type", ""))
        address = request.client.host if request.client else ""
        study = request.path_params.get("study")
        visit = Visit(inlet, person, address, study, root_of(request))
        parser = MultipartParser(boundary, visit.callbacks())  # type: ignore[arg-type]
        with inlet.seat():
            await run_in_threadpool(visit.opened)
            try:
                async for piece in request.stream():
                    await run_in_threadpool(parser.write, piece)
            except MultipartParseError as error:
                if not visit.told.stored:
                    raise Broken("the body is no multipart message", remedy="Look at its boundary") from error
            except ClientDisconnect:
                return Response(status_code=400)
            finally:
                await run_in_threadpool(visit.closed)
        told = visit.told
        if not visit.is_whole:
            told.nameless.append(int(StoreStatus.CANNOT_UNDERSTAND))
        if not (told.stored or told.failed or told.nameless):
            raise Broken("the body has no part", remedy="Send each instance as a part")
        return Response(told.as_json(visit.root, list(visit.studies)), status_code=told.status, media_type=JSON)

    router.add_api_route("/studies", store, methods=["POST"])
    router.add_api_route("/studies/{study}", store, methods=["POST"])
    return router


def boundary_of(content_type: str) -> bytes:
    """What separates the parts of a body with this Content-Type.

    Raises:  NotMultipart
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    content = options.get(b"type", DICOM.encode()).lower()
    if kind != b"multipart/related" or content != DICOM.encode() or not 0 < len(boundary) <= 70:
        raise NotMultipart(
            "only DICOM files in parts are stored here",
            remedy=f'Send multipart/related; type="{DICOM}"; boundary=...',
        )
    return boundary


def _dataset_offset(head: bytearray) -> int | None:
    """Where the data set begins, once enough of the file is here to know; None before, and where it never begins."""
    if len(head) < part10.GROUP_LENGTH_AT + 4 or head[128:132] != b"DICM":
        return None
    start = part10.dataset_offset(head)
    return start if start <= LONGEST_META else None
