"""What arrives on one connection, worked through as it comes: no PDU is ever put together that carries a data set.

One receive buffer, never larger than it is, whatever a PDU declares. Fragments of a C-STORE's data set go from it to
their sink without a copy; a command is collected, up to a bound; every other PDU is returned whole, up to a bound.
"""

import socket
import time
from collections.abc import Callable
from typing import Protocol

from router.ingest import pdu
from router.ingest.pdu import COMMAND, ITEM, ITEM_OVERHEAD, LAST, P_DATA_TF, StoreRequest

BUFFER = 1 << 19
"""Bytes that one receive may bring."""
LARGEST_PDU = 1 << 20
"""Bytes of a PDU that is read whole: an A-ASSOCIATE-RQ with 128 contexts of 40 transfer syntaxes has 0.2 million."""
LARGEST_COMMAND = 1 << 16
LARGEST_QUERY = 1 << 24
"""Bytes of the data set of a message other than C-STORE, which is kept in memory."""
FIRST_PDU, LAST_PDU = 1, 7


class BrokenProtocolError(Exception):
    """The peer sends what no association allows; there is no way to go on."""


class Incoming(Protocol):
    """The data set of one C-STORE as it passes. After `write` the bytes are valid until `flush` returns."""

    def write(self, piece: memoryview) -> None: ...
    def flush(self) -> None: ...
    def finish(self) -> None: ...
    def drop(self) -> None: ...


class Stream:
    """The bytes of one connection from the peer.

    `longest` is what was negotiated for a P-DATA-TF PDU. `store` opens a sink for a C-STORE's data set or None for one
    that has none; `pass_on` takes the fragments of every other message (context, control header, fragment).

    Everything here may raise BrokenProtocolError.
    """

    def __init__(
        self,
        store: Callable[[int, StoreRequest], Incoming],
        pass_on: Callable[[int, int, bytes], None],
        *,
        longest: int,
    ) -> None:
        self.longest = longest
        self.store = store
        self.pass_on = pass_on
        self.buffer: memoryview | None = None
        self.begin = self.end = 0
        self.has_taken_all = False
        """Whether the last receive left nothing behind: there was room for more than came."""
        self.whole = bytearray()
        self.whole_length = 0
        self.pdu_began: float | None = None
        self.pdu_left = 0
        self.in_item = False
        self.item_left = 0
        self.context_id = 0
        self.control = 0
        self.command = bytearray()
        self.message: Incoming | None = None
        self.message_context = 0
        self.query_left = 0

    @property
    def in_message(self) -> bool:
        """Whether a message has begun that is not yet complete."""
        return self.message is not None or bool(self.command) or self.query_left > 0

    def receive(self, connection: socket.socket) -> int:
        """Bytes that were there to be taken from the connection; 0 when the peer has closed it.

        Raises:  BlockingIOError (none for now), OSError
        """
        if self.buffer is None:
            self.buffer = memoryview(bytearray(BUFFER))
        if self.begin:  # what is left of the last bytes is a part of a header
            left = self.end - self.begin
            self.buffer[:left] = self.buffer[self.begin : self.end]
            self.begin, self.end = 0, left
        received = connection.recv_into(self.buffer[self.end :], 0, socket.MSG_DONTWAIT)
        self.end += received
        self.has_taken_all = self.end < BUFFER
        return received

    def rest(self) -> None:
        """Nothing is expected for a while: the buffer can be had again later."""
        if self.begin == self.end and not self.in_item:
            self.buffer = None
            self.begin = self.end = 0

    def discard(self) -> None:
        """What was received is of no interest."""
        self.begin = self.end = 0

    def close(self) -> None:
        """The connection is gone: an unfinished message leaves nothing behind."""
        if self.message is not None:
            self.message.drop()
            self.message = None
        self.buffer = None
        self.begin = self.end = 0
        self.pdu_began = None

    def consume(self, *, data_transfer: bool) -> bytes | None:
        """Work through what was received. A PDU that is not for us is returned, whole; call again then.

        With `data_transfer` P-DATA is ours.
        """
        try:
            while True:
                if self.in_item:
                    if not self._take():
                        return None
                elif self.pdu_left:
                    if self.pdu_left < ITEM.size:
                        raise BrokenProtocolError("a P-DATA-TF PDU with room for less than an item")
                    if self.end - self.begin < ITEM.size:
                        return None
                    self._begin_item()
                elif self.whole_length:
                    return self._collect()
                elif not self._begin_pdu(data_transfer):
                    return None
        finally:
            if self.message is not None:
                self.message.flush()

    def _begin_pdu(self, data_transfer: bool) -> bool:
        if self.begin == self.end:
            return False
        if self.pdu_began is None:
            self.pdu_began = time.monotonic()
        if self.end - self.begin < pdu.HEADER.size or self.buffer is None:
            return False
        kind, _, length = pdu.HEADER.unpack_from(self.buffer, self.begin)
        if kind == P_DATA_TF and data_transfer:
            if length > self.longest:  # PS3.8 D.1
                raise BrokenProtocolError(f"a P-DATA-TF PDU of {length} bytes, where {self.longest} were negotiated")
            self.begin += pdu.HEADER.size
            self.pdu_left = length
            self._end_pdu()
            return True
        if not FIRST_PDU <= kind <= LAST_PDU or length > LARGEST_PDU:
            raise BrokenProtocolError(f"a PDU of type {kind} and {length} bytes")
        self.whole_length = pdu.HEADER.size + length
        return True

    def _end_pdu(self) -> None:
        if not self.pdu_left and not self.in_item:
            self.pdu_began = None

    def _collect(self) -> bytes | None:
        """The rest of a PDU that is read whole, once all of it is there."""
        taken = min(self.whole_length - len(self.whole), self.end - self.begin)
        if self.buffer is not None:
            self.whole += self.buffer[self.begin : self.begin + taken]
        self.begin += taken
        if len(self.whole) < self.whole_length:
            return None
        complete = bytes(self.whole)
        self.whole.clear()
        self.whole_length = 0
        self.pdu_began = None
        return complete

    def _begin_item(self) -> None:
        """A presentation data value begins: a fragment of a command or of a data set."""
        if self.buffer is None:
            return
        length, self.context_id, self.control = ITEM.unpack_from(self.buffer, self.begin)
        self.begin += ITEM.size
        self.item_left = length - ITEM_OVERHEAD
        self.pdu_left -= length + 4
        if self.item_left < 0 or self.pdu_left < 0:
            raise BrokenProtocolError(f"a presentation data value of {length} bytes")
        self.in_item = True
        if self.control & COMMAND:
            if self.message is not None or self.query_left:
                raise BrokenProtocolError("a command in the middle of a data set")
            if self.command and self.context_id != self.message_context:
                raise BrokenProtocolError("a command in two presentation contexts")
            self.message_context = self.context_id
        elif self.context_id != self.message_context or not (self.message is not None or self.query_left):
            raise BrokenProtocolError("a data set without its command")

    def _take(self) -> bool:
        """Take what is there of the current item; False when more must arrive first."""
        taken = min(self.item_left, self.end - self.begin)
        if taken and self.buffer is not None:
            piece = self.buffer[self.begin : self.begin + taken]
            self.begin += taken
            self.item_left -= taken
            self._give(piece)
        if self.item_left:
            return False
        self.in_item = False
        if self.control & LAST:
            self._complete()
        self._end_pdu()
        return True

    def _give(self, piece: memoryview) -> None:
        if self.control & COMMAND:
            if len(self.command) + len(piece) > LARGEST_COMMAND:
                raise BrokenProtocolError(f"a command of more than {LARGEST_COMMAND} bytes")
            self.command += piece
        elif self.message is not None:
            self.message.write(piece)
        else:
            self.query_left -= len(piece)
            if self.query_left <= 0:
                raise BrokenProtocolError(f"a query of more than {LARGEST_QUERY} bytes")
            self.pass_on(self.context_id, 0, bytes(piece))

    def _complete(self) -> None:
        """The last fragment of a command or of a data set has arrived."""
        if self.control & COMMAND:
            command = bytes(self.command)
            self.command.clear()
            self._begin_message(command)
        elif self.message is not None:
            message, self.message = self.message, None
            message.finish()
        else:
            self.query_left = 0
            self.pass_on(self.context_id, LAST, b"")

    def _begin_message(self, command: bytes) -> None:
        try:
            elements = pdu.parse(command)
            request = pdu.store_request(elements)
        except pdu.MalformedCommandError as error:
            raise BrokenProtocolError(f"a malformed command: {error}") from error
        if request is None:
            self.query_left = LARGEST_QUERY if pdu.has_data_set(elements) else 0
            self.pass_on(self.context_id, COMMAND | LAST, command)
            return
        message = self.store(self.context_id, request)
        if request.has_data_set:
            self.message = message
        else:
            message.finish()
