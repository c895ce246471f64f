"""pynetdicom's upper layer, driven by events: it blocks until something happens, instead of looking a thousand times a
second, and takes C-STORE data sets straight from the receive buffer to the disk.

Negotiation, the state machine, timers' meaning, C-ECHO and all else stay pynetdicom's. What we rely on of its inside
is pinned by tests/ingest/test_pynetdicom_seams.py.
"""

import os
import select
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import structlog
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from router.db.engine import fault
from router.ingest import pdu
from router.ingest.door import Door
from router.ingest.pdu import StoreRequest
from router.ingest.quiet import MALFORMED
from router.ingest.receive import Answer
from router.ingest.secure import SecureSocket
from router.ingest.storing import Storing
from router.ingest.stream import BrokenProtocolError, Stream

log = structlog.get_logger()

DATA_TRANSFER = "Sta6"
REQUEST_AWAITED, CLOSING = "Sta2", "Sta13"
TIMED = frozenset({REQUEST_AWAITED, CLOSING})
"""States in which pynetdicom's ARTIM timer runs (PS3.8 9.2)."""
CONNECTION_CLOSED = "Evt17"
ARTIM_EXPIRED = "Evt18"
INVALID_PDU = "Evt19"
RESTING_S = 2.0
"""An association that is silent for so long gives its buffer back."""
FOREVER_S = 3600.0


class Served(Protocol):
    """The association above this layer, as far as the layer knows it."""

    door: Door
    requestor: Any
    dimse: Any
    _dul_ready: threading.Event
    _accepted_cx: dict[int, PresentationContext]

    @property
    def visit_id(self) -> str | None: ...
    def nudge(self) -> None: ...
    def storing(
        self, context: PresentationContext, request: StoreRequest, answer: Callable[[Answer], None]
    ) -> Storing: ...


class EventDUL(DULServiceProvider):  # type: ignore[misc]
    """Upper layer of one accepted association, in a thread of its own."""

    assoc: Served

    def __init__(self, assoc: Served) -> None:
        super().__init__(assoc)
        limits = assoc.door.node.settings.listener
        self.stream = Stream(self._store, self._pass_on, longest=limits.max_pdu_bytes)
        self._pdu_timeout_s = limits.pdu_timeout_s
        self._wakes = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wakes, select.POLLIN)
        self._wake_lock = threading.Lock()
        self._told_idle = False
        self.has_ended = False
        self.daemon = True

    # What others call from their threads: each wakes the loop.

    def send_pdu(self, primitive: Any) -> None:
        self._stir()
        super().send_pdu(primitive)
        self._wake()

    def idle_timer_expired(self) -> bool:
        """Whether nothing passed for too long, as the loop found when it looked at the connection.

        A clock alone does not tell: where we were slow, what the peer said lies there unread.
        """
        return self._told_idle

    def _stir(self) -> None:
        """Something passed, in whichever direction: a peer that waits for our answer is not silent."""
        self._idle_timer.restart()
        self._told_idle = False

    def kill_dul(self) -> None:
        super().kill_dul()
        self._wake()

    def stop_dul(self) -> bool:
        if self.state_machine.current_state != "Sta1":
            return False
        self.kill_dul()
        if self.is_alive():
            self.join()
        return True

    def _wake(self) -> None:
        with self._wake_lock:
            if self._wakes >= 0:
                os.eventfd_write(self._wakes, 1)

    # The loop.

    def run_reactor(self) -> None:
        """Until the connection is closed: act on events and primitives, else wait for the next."""
        self._idle_timer.start()
        self.assoc._dul_ready.set()
        connection = self.socket.socket
        self._poll.register(connection.fileno(), select.POLLIN)
        try:
            while not self._kill_thread:
                if not self._act():
                    self._wait(connection)
        except InvalidEventError as error:
            log.warning("association.broken", why=fault(error), state=self.state_machine.current_state)
        except Exception:  # noqa: BLE001 - the listener's handler: one association must not take others with it
            log.error("association.failed", association=self.assoc.visit_id, trace=traceback.format_exc())  # no values
        finally:
            self._end(connection)

    def _act(self) -> bool:
        """Do one thing that is due; False when nothing is."""
        if self.state_machine.current_state in TIMED and self.artim_timer.expired:
            self.event_queue.put(ARTIM_EXPIRED)
        if not self.event_queue.queue and not (self.to_provider_queue.queue and self._process_recv_primitive()):
            return False
        self.state_machine.do_action(self.event_queue.get(block=False))
        self.assoc.nudge()
        return True

    def _wait(self, connection: socket.socket) -> None:
        """Until there are bytes, or somebody wakes us, or patience ends."""
        if self.stream.in_message or self.stream.pdu_began is not None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # Nagle waits for this, 40 ms each time
        if isinstance(connection, SecureSocket) and connection.pending():
            self._receive(connection)  # decrypted already, so that the system has nothing to tell
            return
        ready = self._poll.poll(self._patience_s() * 1000)
        if not ready:
            self._lose_patience()
        for fd, _ in ready:
            if fd == self._wakes:
                os.eventfd_read(self._wakes)
            else:
                self._receive(connection)

    def _patience_s(self) -> float:
        """How long nothing may happen."""
        patience = FOREVER_S
        if self.state_machine.current_state in TIMED:
            patience = min(patience, self.artim_timer.remaining)
        if self.stream.pdu_began is not None:
            patience = min(patience, self.stream.pdu_began + self._pdu_timeout_s - time.monotonic())
        if self.state_machine.current_state == DATA_TRANSFER and not self._told_idle:
            patience = min(patience, self._idle_timer.remaining, RESTING_S if self.stream.buffer else FOREVER_S)
        return max(0.0, patience) + 0.001

    def _lose_patience(self) -> None:
        """Nothing has happened for as long as something may last."""
        if self._is_overdue():
            self._break("the rest of a PDU did not come")
        elif self._idle_timer.expired and not self._told_idle:
            self._told_idle = True
            self.assoc.nudge()
        else:
            self.stream.rest()

    def _is_overdue(self) -> bool:
        began = self.stream.pdu_began
        return began is not None and time.monotonic() > began + self._pdu_timeout_s

    def _receive(self, connection: socket.socket) -> None:
        """Take what has arrived, for as long as more is there at once."""
        while not (self._kill_thread or self.event_queue.queue or self.to_provider_queue.queue):
            try:
                received = self.stream.receive(connection)
            except BlockingIOError:
                return
            except ssl.SSLError as error:
                log.warning("association.tls_failed", address=self.assoc.requestor.address, why=error.reason)
                received = 0
            except OSError:
                received = 0
            if self.state_machine.current_state == CLOSING:
                self.stream.discard()
                if not received:
                    self.socket.close()  # gives CONNECTION_CLOSED
                continue
            if not received:
                self.event_queue.put(CONNECTION_CLOSED)
                return
            self._stir()
            self._consume()
            if not self.stream.in_message and self.stream.has_taken_all:
                return  # most often the peer waits for its answer before it sends more

    def _consume(self) -> None:
        """Work through what was received."""
        try:
            while True:
                whole = self.stream.consume(data_transfer=self.state_machine.current_state == DATA_TRANSFER)
                if whole is None:
                    break
                self._take_pdu(whole)
                while self._act():
                    pass
                if self._kill_thread or self.state_machine.current_state == CLOSING:
                    return
        except BrokenProtocolError as error:
            self._break(str(error))
        if self._is_overdue():
            self._break("a PDU takes too long")

    def _break(self, why: str) -> None:
        """The peer is beyond understanding: abort (PS3.8 9.2, event 19)."""
        log.warning("association.broken", association=self.assoc.visit_id, why=why)
        self.stream.close()
        self.event_queue.put(INVALID_PDU)

    def _take_pdu(self, whole: bytes) -> None:
        """Give a PDU that is not for us to pynetdicom."""
        try:
            decoded, event = self._decode_pdu(bytearray(whole))
            decoded.to_primitive()  # the state machine does it again, but does not survive what this raises
        except MALFORMED as error:
            raise BrokenProtocolError(f"a malformed PDU: {error}") from error
        self._recv_pdu.put(decoded)
        self.event_queue.put(event)

    def _store(self, context_id: int, request: StoreRequest) -> Storing:
        """The sink of a C-STORE's data set."""
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise BrokenProtocolError(f"presentation context {context_id} was not accepted")

        def answer(answer: Answer) -> None:
            command = pdu.store_response(request, answer.status, answer.comment)
            self._stir()
            self.socket.send(pdu.command_pdus(context_id, command, self._peer_length))
            if not self.event_queue.empty():  # CONNECTION_CLOSED: what else has arrived is nobody's any more
                raise BrokenProtocolError("the peer does not take its answers")

        return self.assoc.storing(context, request, answer)

    @cached_property
    def _peer_length(self) -> int:
        """The longest PDU that the peer takes; 0 means any."""
        return int(self.assoc.requestor.maximum_length or 0)

    def _pass_on(self, context_id: int, control: int, fragment: bytes) -> None:
        """Give a fragment of another message to pynetdicom."""
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, bytes([control]) + fragment))
        try:
            self.assoc.dimse.receive_primitive(primitive)
        except MALFORMED as error:
            raise BrokenProtocolError(f"a malformed message: {error}") from error
        self.assoc.nudge()

    def _end(self, connection: socket.socket) -> None:
        """Whatever has happened: nothing stays open, and nobody waits for us."""
        self.stream.close()
        connection.close()
        with self._wake_lock:
            os.close(self._wakes)
            self._wakes = -1
        self.has_ended = True
        self.to_user_queue.put(None)  # whoever waits for the association request waits no longer
        self.assoc.nudge()
