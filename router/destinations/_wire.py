"""An association for C-STORE and nothing else: a file's bytes go to the socket as they lie, large PDUs, one thread.

Negotiation is pynetdicom's, as PDUs without its state machine; what comes after is a request, its data set in P-DATA
fragments without a pause, and one response. TCP_NODELAY and TCP_QUICKACK keep both ends from waiting for each other,
and the next file is read while the far side has yet to answer.

Source:  PS3.8 9.3 (DICOM Upper Layer Protocol for TCP/IP), PS3.7 9.3.1 (C-STORE)
"""

import os
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

from dicom_sr.uids import ISOCENTER

ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = 2, 3, 4, 5, 6, 7
HEADER = struct.Struct(">BBI")
"""Type, reserved and length of a PDU."""
P_DATA_HEADER = struct.Struct(">BBIIBB")
"""The same, with length, presentation context and message control header of its one fragment."""
OVERHEAD = 6
"""Bytes of a P-DATA-TF PDU's length that are not its fragment's."""
COMMAND, LAST = 1, 2
"""Bits of the message control header (PS3.8 E.2)."""

TRANSFER_SYNTAXES_NOT_TAKEN = 4
"""Result of a presentation context whose abstract syntax is taken (PS3.8 9.3.3.2)."""

LARGEST_PDU = 1 << 17
"""What we send at most where the far side would take more, and what we take ourselves."""
AT_ONCE = 1 << 20
"""Bytes of a file that are handed to the socket in one call."""
MOST_PDUS = 400
"""PDUs in one such call; each needs two entries of the vector, which may have 1024."""
LONGEST_ANSWER = 1 << 20

C_STORE_RQ, HAS_DATA_SET, MEDIUM = 0x0001, 0x0001, 0x0000
QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class WireBrokenError(OSError):
    """The far side aborted or released, closed the connection, or said what nobody may say here."""


class NotAcceptedError(OSError):
    """There is no association; `rejection` says why, and is None where the far side aborted or hung up."""

    def __init__(self, rejection: Any = None) -> None:
        super().__init__("the association was not accepted")
        self.rejection = rejection


class Wire:
    """An established association.

    Raises, from every method:  OSError (TimeoutError, WireBrokenError, or the system's own)
    """

    def __init__(
        self,
        connection: socket.socket,
        accepted: dict[tuple[str, str], int],
        longest: int,
        *,
        otherwise: frozenset[str] = frozenset(),
    ) -> None:
        self.connection = connection
        self.accepted = accepted
        """Presentation context by (abstract, transfer) syntax."""
        self.otherwise = otherwise
        """Abstract syntaxes that the far side takes, but in no transfer syntax that was offered."""
        self.room = ((min(longest, LARGEST_PDU) if longest else LARGEST_PDU) - OVERHEAD) & ~1
        self.buffer, self.spare = (bytearray(min(AT_ONCE // self.room + 1, MOST_PDUS) * self.room) for _ in range(2))
        self.ahead: tuple[Path, int, int] | None = None
        """File, offset and bytes of what lies in `spare` already."""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            if kind is None or not issubclass(kind, OSError):
                self.release()
            else:
                self.connection.sendall(HEADER.pack(ABORT, 0, 4) + bytes(4))
        self.connection.close()

    def store(
        self,
        context_id: int,
        command: bytes,
        source: Path | bytes,
        offset: int = 0,
        *,
        then: tuple[Path, int] | None = None,
    ) -> int:
        """Send one request with the data set that begins at `offset` of `source`; the status that is answered.

        `then` is the file that comes next, and where its data set begins.
        """
        begin = P_DATA_HEADER.pack(P_DATA_TF, 0, len(command) + OVERHEAD, len(command) + 2, context_id, COMMAND | LAST)
        first: list[bytes | memoryview] = [begin, command]
        for piece, is_last in self._pieces(source, offset):
            self._send([*first, *self._fragments(context_id, piece, is_last=is_last)])
            first = []
        if then is not None:
            self._read_ahead(*then)
        return self._status()

    def _pieces(self, source: Path | bytes, offset: int) -> Iterator[tuple[memoryview, bool]]:
        """The data set in pieces, each a whole number of PDUs but the last; a piece is valid until the next."""
        if isinstance(source, bytes):
            yield memoryview(source)[offset:], True
            return
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead[:2] == (source, offset):
            count = ahead[2]
            is_whole = os.stat(source).st_size == offset + count  # raises where it is gone meanwhile
            self.buffer, self.spare = self.spare, self.buffer
            yield memoryview(self.buffer)[:count], is_whole
            if is_whole:
                return
            offset += count
        with source.open("rb", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size - offset
            while left > 0:
                wanted = min(left, len(self.buffer))
                if os.preadv(file.fileno(), [memoryview(self.buffer)[:wanted]], offset) != wanted:
                    raise WireBrokenError(f"{source} became shorter while it was sent")
                offset, left = offset + wanted, left - wanted
                yield memoryview(self.buffer)[:wanted], left == 0

    def _read_ahead(self, source: Path, offset: int) -> None:
        """The beginning of the next file; one that cannot be read says so when it is sent."""
        with suppress(OSError), source.open("rb", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size - offset
            count = os.preadv(file.fileno(), [self.spare], offset)
            if count == min(left, len(self.spare)) > 0:
                self.ahead = source, offset, count

    def _fragments(self, context_id: int, piece: memoryview, *, is_last: bool) -> Iterator[bytes | memoryview]:
        for at in range(0, len(piece), self.room):
            part = piece[at : at + self.room]
            last = LAST if is_last and at + self.room >= len(piece) else 0
            yield P_DATA_HEADER.pack(P_DATA_TF, 0, len(part) + OVERHEAD, len(part) + 2, context_id, last)
            yield part

    def _send(self, vector: Sequence[bytes | memoryview]) -> None:
        """All of it, as the socket takes it."""
        if isinstance(self.connection, ssl.SSLSocket) or len(vector) > 2 * MOST_PDUS + 2:
            for part in vector:  # TLS has no vectors; a data set in memory may be longer than one
                self.connection.sendall(part)
            return
        left = list(vector)
        while left:
            sent = self.connection.sendmsg(left)
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = memoryview(left[0])[sent:]

    def _status(self) -> int:
        command = b""
        while True:
            kind, content = read_pdu(self.connection)
            if kind != P_DATA_TF:
                raise WireBrokenError("aborted" if kind == ABORT else f"PDU {kind} instead of an answer")
            at = 0
            while at + OVERHEAD <= len(content):
                (length,) = struct.unpack_from(">I", content, at)
                command += content[at + OVERHEAD : at + 4 + length]
                if content[at + 5] & LAST:
                    return status_of(command)
                at += 4 + max(length, 2)

    def release(self) -> None:
        """End the association properly."""
        self.connection.sendall(HEADER.pack(RELEASE_RQ, 0, 4) + bytes(4))
        kind = P_DATA_TF
        while kind not in (RELEASE_RP, ABORT):
            kind, _ = read_pdu(self.connection)


def connect(host: str, port: int, *, timeout_s: float, tls: ssl.SSLContext | None) -> socket.socket:
    """A connection to the far side.

    Raises:  OSError
    """
    connection = socket.create_connection((host, port), timeout_s)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection if tls is None else tls.wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


@contextmanager
def associated(
    connection: socket.socket, contexts: Iterable[PresentationContext], *, calling: str, called: str
) -> Iterator[Wire]:
    """An association over this connection, which it ends.

    Raises:  NotAcceptedError, OSError
    """
    try:
        wire = negotiate(connection, list(contexts), calling=calling, called=called)
    except BaseException:
        connection.close()
        raise
    with wire:
        yield wire


def negotiate(connection: socket.socket, contexts: list[PresentationContext], *, calling: str, called: str) -> Wire:
    """Ask for an association.

    Raises:  NotAcceptedError, OSError
    """
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    request = A_ASSOCIATE()
    request.application_context_name = UID("1.2.840.10008.3.1.1.1")
    request.calling_ae_title, request.called_ae_title = calling, called
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    version = ImplementationVersionNameNotification()
    length.maximum_length_received = LARGEST_PDU
    implementation.implementation_class_uid = UID(f"2.25.{ISOCENTER.int}")
    version.implementation_version_name = "ISOCENTER"
    request.user_information = [length, implementation, version]
    request.presentation_context_definition_list = contexts
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    connection.sendall(pdu.encode())
    kind, content = read_pdu(connection)
    if kind == ASSOCIATE_RJ:
        rejected = A_ASSOCIATE_RJ()
        rejected.decode(HEADER.pack(kind, 0, len(content)) + content)
        raise NotAcceptedError(rejected.to_primitive())
    if kind != ASSOCIATE_AC:
        raise NotAcceptedError
    accepted = A_ASSOCIATE_AC()
    accepted.decode(HEADER.pack(kind, 0, len(content)) + content)
    answer = accepted.to_primitive()
    by_id = {context.context_id: context for context in contexts}
    agreed = {
        (str(by_id[one.context_id].abstract_syntax), str(one.transfer_syntax[0])): int(one.context_id)
        for one in answer.presentation_context_definition_results_list
        if one.result == 0x00 and one.context_id in by_id
    }
    said: dict[str, set[int]] = {}
    for one in answer.presentation_context_definition_results_list:
        if one.context_id in by_id:
            said.setdefault(str(by_id[one.context_id].abstract_syntax), set()).add(int(one.result))
    otherwise = frozenset(abstract for abstract, results in said.items() if results == {TRANSFER_SYNTAXES_NOT_TAKEN})
    return Wire(connection, agreed, int(answer.maximum_length_received or 0), otherwise=otherwise)


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Type and content of the next PDU.

    Raises:  OSError
    """
    kind, _, length = HEADER.unpack(exactly(connection, HEADER.size))
    if length > LONGEST_ANSWER:
        raise WireBrokenError("an answer of megabytes")
    return kind, exactly(connection, length)


def exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes.

    Raises:  OSError
    """
    received = b""
    while len(received) < count:
        if QUICKACK is not None:
            connection.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)  # else a far side with Nagle waits 40 ms for it
        more = connection.recv(count - len(received))
        if not more:
            raise WireBrokenError("the far side closed the connection")
        received += more
    return received


def _number(keyword: str) -> int:
    return (tag_for_keyword(keyword) or 0) & 0xFFFF


def _element(keyword: str, value: bytes) -> bytes:
    return _beginning(keyword, len(value)) + value


def _uid(value: str) -> bytes:
    encoded = value.encode("ascii", "replace")
    return encoded + b"\0" * (len(encoded) % 2)


def _us(value: int) -> bytes:
    return struct.pack("<H", value)


@cache
def _beginning(keyword: str, length: int) -> bytes:
    return struct.pack("<HHI", 0, _number(keyword), length)


def store_request(
    sop_class_uid: str, sop_instance_uid: str, message_id: int, originator: tuple[str, int] | None = None
) -> bytes:
    """The command set of a C-STORE request; `originator` is the AE title and message id of the C-MOVE behind it.

    Source:  PS3.7 9.3.1.1
    """
    content = (
        _element("AffectedSOPClassUID", _uid(sop_class_uid))
        + _element("CommandField", _us(C_STORE_RQ))
        + _element("MessageID", _us(message_id))
        + _element("Priority", _us(MEDIUM))
        + _element("CommandDataSetType", _us(HAS_DATA_SET))
        + _element("AffectedSOPInstanceUID", _uid(sop_instance_uid))
    )
    if originator is not None:
        title, number = originator
        content += _element("MoveOriginatorApplicationEntityTitle", title.ljust(16).encode("ascii", "replace"))
        content += _element("MoveOriginatorMessageID", _us(number))
    return _element("CommandGroupLength", struct.pack("<I", len(content))) + content


def status_of(command: bytes) -> int:
    """The status in a response.

    Raises:  WireBrokenError
    """
    at = 0
    while at + 8 <= len(command):
        _, number, length = struct.unpack_from("<HHI", command, at)
        if number == _STATUS and length == 2:
            return int(struct.unpack_from("<H", command, at + 8)[0])
        at += 8 + length
    raise WireBrokenError("an answer without a status")


_STATUS = _number("Status")
