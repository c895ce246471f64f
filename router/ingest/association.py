"""pynetdicom's association, acceptor and request handler, waiting for events and sharing what need not be copied.

What we rely on of pynetdicom's inside is pinned by tests/ingest/test_pynetdicom_seams.py.
"""

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation, UserIdentityNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from router import query
from router.ingest.door import Door
from router.ingest.dul import EventDUL
from router.ingest.pdu import StoreRequest
from router.ingest.receive import Answer
from router.ingest.secure import SecureSocket
from router.ingest.storing import Storing
from router.tls import Credentials

WINDOW = 32
"""Operations that a sender may have under way at once, if it asks for more than one."""


class DoorACSE(ACSE):  # type: ignore[misc]
    """Grants an asynchronous operations window (requests are worked off in order, so a sender need not wait), and says
    so to a user who was verified."""

    def _check_user_identity(self) -> tuple[bool, UserIdentityNegotiation | None]:
        """The answer to a user whom admission has let in: an empty one for a name with or without passcode.

        Source:  PS3.7 D.3.3.7.2
        """
        asked = self.requestor.user_identity
        visit = self.assoc.door.visits.get(self.assoc)
        if asked is None or not asked.positive_response_requested or visit is None or visit.source.username is None:
            return True, None
        confirmed = UserIdentityNegotiation()
        confirmed.server_response = b""
        return True, confirmed

    def _check_async_ops(self) -> AsynchronousOperationsWindowNegotiation:
        """The answer to what was asked for; 0 asks for no limit.

        Source:  PS3.7 D.3.3.3
        """
        invoked, _ = self.requestor.asynchronous_operations
        granted = AsynchronousOperationsWindowNegotiation()
        granted.maximum_number_operations_invoked = min(invoked or WINDOW, WINDOW)
        granted.maximum_number_operations_performed = 1
        return granted


class DoorAssociation(Association):  # type: ignore[misc]
    """One accepted association. Its thread negotiates, then sleeps until there is something to serve."""

    is_established: bool

    def __init__(self, door: Door, server: "DoorServer") -> None:
        self._nudged = threading.Event()
        super().__init__(server.ae, MODE_ACCEPTOR)
        self.door = door
        self._server = server
        self.dul = EventDUL(self)
        self.acse = DoorACSE(self)
        for timeout in ("acse_timeout", "dimse_timeout", "network_timeout"):
            setattr(self, timeout, getattr(server.ae, timeout))  # their setters reach into the new upper layer

    @property
    def visit_id(self) -> str | None:
        """The association's id in the index; None before it is admitted."""
        visit = self.door.visits.get(self)
        return visit.id if visit else None

    def storing(self, context: PresentationContext, request: StoreRequest, answer: Callable[[Answer], None]) -> Storing:
        """The sink of a C-STORE's data set."""
        return self.door.storing(self, context, request, answer)

    def nudge(self) -> None:
        """There may be something to serve."""
        self._nudged.set()

    def run_reactor(self) -> None:
        """From the request to the end."""
        try:
            super().run_reactor()
        finally:
            self.door.ended(self)

    def _run_reactor(self) -> None:
        """Serve what is not C-STORE, see release and abort; between, sleep."""
        while not self._kill:
            self._is_paused = True
            self._nudged.wait()
            self._nudged.clear()
            self._reactor_checkpoint.wait()
            self._is_paused = False
            while not self.dimse.msg_queue.empty():
                context_id, message = self.dimse.get_msg(block=False)
                if message:
                    self._serve_request(message, context_id)
            if self._has_ended():
                self.kill()
                return

    def _has_ended(self) -> bool:
        """Whether the peer released or aborted, was silent for too long, or is gone."""
        if self.is_established and self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released = True
            self.is_established = False
            evt.trigger(self, evt.EVT_RELEASED, {})
            return True
        if self.acse.is_aborted():
            self.dul.receive_pdu(wait=False)
            self.is_aborted = True
            self.is_established = False
            evt.trigger(self, evt.EVT_ABORTED, {})
            return True
        if self.dul.has_ended:
            return True
        if self.dul.idle_timer_expired():
            self.abort()
            return True
        return False


class Wire(AssociationSocket):  # type: ignore[misc]
    """A socket that is closed also where its shutdown fails, as after a reset by the peer."""

    def _shutdown_socket(self) -> None:
        connection = self.socket
        super()._shutdown_socket()
        if connection is not None:
            connection.close()


class DoorHandler(RequestHandler):  # type: ignore[misc]
    """Makes the association of a new connection."""

    server: "DoorServer"

    def _create_association(self) -> DoorAssociation:
        server = self.server
        association = DoorAssociation(server.door, server)
        association.name = f"AcceptorThread@{self.client_address[1]}"
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, server.send_timeout)
        association.set_socket(Wire(association, client_socket=self.request))
        acceptor = association.acceptor
        acceptor.maximum_length = server.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = server.ae.implementation_class_uid
        acceptor.implementation_version_name = server.ae.implementation_version_name
        acceptor.supported_contexts = server.contexts  # nobody changes them, so all associations share them
        association.requestor.address_info = self.remote
        for event, handler in server._handlers.items():
            if event.is_intervention:
                association.bind(event, *handler)
            else:
                for one in handler:
                    association.bind(event, *one)
        return association


class DoorServer(AssociationServer):  # type: ignore[misc]
    """Listens; each connection has its own association."""

    request_queue_size = 128

    def __init__(
        self,
        door: Door,
        ae: Any,
        address: tuple[str, int],
        contexts: Sequence[PresentationContext],
        credentials: Credentials | None = None,
    ) -> None:
        self.door = door
        self.credentials = credentials
        self.send_timeout_s = seconds = door.node.settings.listener.pdu_timeout_s
        self.send_timeout = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        handlers = [
            (evt.EVT_REQUESTED, door.requested),
            (evt.EVT_RELEASED, lambda event: door.ended(event.assoc)),
            (evt.EVT_ABORTED, lambda event: door.ended(event.assoc)),
            *query.handlers(door.node),
        ]
        super().__init__(ae, address, ae.ae_title, list(contexts), evt_handlers=handlers, request_handler=DoorHandler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """A new connection, under TLS where we have credentials; the handshake is its own thread's."""
        connection, address = super().get_request()
        if self.credentials is None:
            return connection, address
        try:
            context = self.credentials.current()
            return SecureSocket.of(connection, context, send_timeout_s=self.send_timeout_s), address
        except OSError:  # the peer is gone already; the server goes on to the next
            connection.close()
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there may be one more connection: those that are not yet associations count, too."""
        return len(self.active_associations) < self.door.most_connections

    def service_actions(self) -> None:
        """Nothing between requests: the stock one collects garbage twice a minute, with all threads stopped."""

    def stop_listening(self) -> None:
        """No new connections; those that are there go on."""
        super(AssociationServer, self).shutdown()
        self.server_close()
