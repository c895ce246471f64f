"""One request on an association and the responses to it: encoded here, handed to the DUL as whole P-DATA-TF PDUs.

pynetdicom's own service classes make a data set and four objects of every response (1500 matches a second) and want
each retrieved object decoded and in memory. This takes their place above its state machine, which stays in charge of
the socket. What is used of its inside is named in `SEAMS` and pinned by a test.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from dicom_sr.problem import Problem

SEAMS = {
    "Association": ("_serve_request", "_accepted_cx", "_is_paused", "acse", "dimse", "dul"),
    "DIMSEServiceProvider": ("cancel_req", "maximum_pdu_size", "get_msg"),
    "DULServiceProvider": ("send_pdu", "to_provider_queue", "socket", "_idle_timer"),
    "ACSE": ("is_aborted", "is_release_requested"),
}
"""What of pynetdicom, public and private, this room relies on."""

COMMAND_FIELDS = {C_FIND: 0x8020, C_MOVE: 0x8021, C_GET: 0x8010}
"""Command Field of the response to each request (PS3.7 E.1)."""
COMMAND_LAST, DATA_LAST, COMMAND, DATA = 0x03, 0x02, 0x01, 0x00
"""Message Control Headers (PS3.8 E.2)."""
DATA_SET, NO_DATA_SET = 0x0001, 0x0101
"""Command Data Set Type: a data set follows, or none (PS3.7 E.1)."""
PDV_HEADER = 6
"""Bytes of a Presentation Data Value item before its fragment (PS3.8 9.3.5.1)."""
WAITING = 128
"""Messages that may wait for a slow peer before we wait as well."""


class PeerGone(Problem):
    """The peer has aborted, released or lost the association, or takes no more data."""

    retryable = True


class Exchange:
    """A request and its responses. Not for more than one thread."""

    def __init__(self, association: Association, context_id: int, request: Any) -> None:
        self.association = association
        self.context_id = context_id
        self.message_id: int = request.MessageID
        self.sop_class_uid = str(request.AffectedSOPClassUID)
        self.command_field = COMMAND_FIELDS[type(request)]
        context = association._accepted_cx[context_id]
        self.explicit: bool = context.transfer_syntax[0] == ExplicitVRLittleEndian
        self.content: bytes = request.Identifier.getvalue() if request.Identifier else b""
        self._pending: dict[int, bytes] = {}

    @property
    def caller(self) -> str:
        """Who asks: its AE title and address, for the audit."""
        requestor = self.association.requestor
        return f"{requestor.ae_title.strip()}@{requestor.address}"

    @property
    def cancelled(self) -> bool:
        """Whether the peer has sent a C-CANCEL for this request."""
        return self.message_id in self.association.dimse.cancel_req

    def pending(self, status: int, identifier: bytes) -> None:
        """Send one match.

        Raises:  PeerGone
        """
        if status not in self._pending:
            self._pending[status] = self._command(status, data_set=True)
        self._send(self._pending[status], identifier)

    def respond(self, status: int, identifier: bytes = b"", /, **attributes: int | str) -> None:
        """Send a response with these further attributes of the command set, by keyword.

        Raises:  PeerGone
        """
        self._send(self._command(status, data_set=bool(identifier), **attributes), identifier)

    def refuse(self, status: int, comment: str) -> None:
        """Send a final response that says why; at most 64 characters are allowed (PS3.7 C.4.2)."""
        self.respond(status, ErrorComment=comment[:64].encode("ascii", "replace").decode())

    def _command(self, status: int, *, data_set: bool, **attributes: int | str) -> bytes:
        command = Dataset()
        command.AffectedSOPClassUID = self.sop_class_uid
        command.CommandField = self.command_field
        command.MessageIDBeingRespondedTo = self.message_id
        command.CommandDataSetType = DATA_SET if data_set else NO_DATA_SET
        command.Status = status
        for keyword, value in attributes.items():
            setattr(command, keyword, value)
        return command_set(command)

    def _send(self, command: bytes, data: bytes) -> None:
        self.check()
        for values in pdus(self.context_id, command, data, self.association.dimse.maximum_pdu_size):
            primitive = P_DATA()
            primitive.presentation_data_value_list.extend(values)
            self.association.dul.send_pdu(primitive)
        self.association.dul._idle_timer.restart()  # a peer that listens to us for minutes is not silent
        self._let_it_take()

    def check(self) -> None:
        """Go on only while there is somebody to answer.

        Raises:  PeerGone
        """
        acse = self.association.acse
        if not self.association.is_established or acse.is_aborted() or acse.is_release_requested():
            raise PeerGone(f"{self.caller} ended the association", remedy="It will ask again if it wants the rest")

    def _let_it_take(self) -> None:
        """Wait while the peer is slower than we are, as long as it takes anything at all.

        Until nothing waits any more: as long as something is to be sent, pynetdicom does not look whether a C-CANCEL or
        an abort has come.
        """
        waiting = self.association.dul.to_provider_queue
        if waiting.qsize() <= WAITING:
            return
        least, since = waiting.qsize(), time.monotonic()
        patience_s = self.association.network_timeout or 60
        while waiting.qsize():
            self.check()
            if waiting.qsize() < least:
                least, since = waiting.qsize(), time.monotonic()
            elif time.monotonic() - since > patience_s:
                self.association.dul.socket.close()
                raise PeerGone(f"{self.caller} takes no data", remedy="Look at its network and its load")
            time.sleep(0.0005)


def command_set(command: Dataset) -> bytes:
    """A command set with its group length (PS3.7 6.3.1)."""
    content = encode(command, is_implicit_vr=True, is_little_endian=True)
    if content is None:
        raise ValueError("a command set that cannot be encoded")
    length = Dataset()
    length.CommandGroupLength = len(content)
    return bytes(encode(length, is_implicit_vr=True, is_little_endian=True) or b"") + bytes(content)


def pdus(context_id: int, command: bytes, data: bytes, longest: int) -> Iterator[list[tuple[int, bytes]]]:
    """The message as the values of P-DATA-TF PDUs of at most `longest` bytes; 0 sets no limit. One, where it fits."""
    whole = len(command) + len(data) + 2 * PDV_HEADER
    if not longest or whole <= longest:
        values = [(context_id, bytes((COMMAND_LAST,)) + command)]
        yield [*values, (context_id, bytes((DATA_LAST,)) + data)] if data else values
        return
    for content, more, last in ((command, COMMAND, COMMAND_LAST), (data, DATA, DATA_LAST)):
        for piece, is_last in _pieces(content, (longest - PDV_HEADER) & ~1):  # fragments are of even length
            yield [(context_id, bytes((last if is_last else more,)) + piece)]


def _pieces(content: bytes, size: int) -> Iterable[tuple[bytes, bool]]:
    starts: Sequence[int] = range(0, len(content), size)
    return [(content[start : start + size], start + size >= len(content)) for start in starts]
