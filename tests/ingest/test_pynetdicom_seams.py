"""What router/ingest/dul.py and association.py rely on of pynetdicom's inside.

When a new pynetdicom breaks one of these: read its changelog for that class, adapt the one method of ours that the
test's docstring names, then raise the upper bound in pyproject.toml. Until then the bound stays; the listener must
not run on a pynetdicom for which this module is red.
"""

import inspect
import queue

from pynetdicom import AE, _config, evt
from pynetdicom import association as stock_association
from pynetdicom import dul as stock_dul
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE, InvalidEventError, StateMachine
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from router.ingest.association import DoorAssociation, DoorServer
from router.ingest.dul import CLOSING, DATA_TRANSFER, INVALID_PDU, REQUEST_AWAITED, EventDUL


def source(of: object) -> str:
    return inspect.getsource(of)  # type: ignore[arg-type]


def test_the_upper_layer_has_the_parts_that_our_loop_turns() -> None:
    """EventDUL.run_reactor, _act, _take_pdu."""
    dul = Association(AE(), MODE_ACCEPTOR).dul
    assert isinstance(dul.event_queue, queue.Queue)
    assert isinstance(dul.to_provider_queue, queue.Queue)
    assert isinstance(dul.to_user_queue, queue.Queue)
    assert isinstance(dul._recv_pdu, queue.Queue)
    assert isinstance(dul.state_machine, StateMachine)
    assert dul._kill_thread is False
    assert {"restart", "expired", "remaining"} <= set(dir(dul._idle_timer)) & set(dir(dul.artim_timer))
    assert list(inspect.signature(dul._decode_pdu).parameters) == ["bytestream"]
    assert dul._process_recv_primitive() is False


def test_each_method_that_we_replace_is_there_to_be_replaced() -> None:
    """A renamed method would leave ours unused and the stock one in force."""
    for ours, theirs, names in (
        (EventDUL, DULServiceProvider, ("run_reactor", "send_pdu", "kill_dul", "stop_dul")),
        (DoorAssociation, Association, ("run_reactor", "_run_reactor")),
        (DoorServer, AssociationServer, ("verify_request", "service_actions")),
    ):
        for name in names:
            assert name in vars(ours), (ours, name)
            assert callable(getattr(theirs, name)), (theirs, name)
    assert callable(RequestHandler._create_association)
    assert callable(ACSE._check_async_ops)
    assert "is_valid, id_response = self._check_user_identity()" in source(ACSE._negotiate_as_acceptor)


def test_the_state_machine_has_the_states_and_events_that_we_name() -> None:
    """EventDUL: which states are timed, when P-DATA is ours, what a broken stream is."""
    assert TRANSITION_TABLE["Evt7", "Sta3"] == "AE-7"  # acceptance leads to data transfer
    assert DATA_TRANSFER == "Sta6"
    assert TRANSITION_TABLE["Evt18", REQUEST_AWAITED] == "AA-2"
    assert TRANSITION_TABLE["Evt18", CLOSING] == "AA-2"
    for state in ("Sta2", "Sta3", "Sta6", "Sta7", "Sta8", "Sta13"):
        assert (INVALID_PDU, state) in TRANSITION_TABLE
        assert ("Evt17", state) in TRANSITION_TABLE
    assert issubclass(InvalidEventError, Exception)


def test_the_association_waits_only_where_we_wake_it() -> None:
    """DoorAssociation._run_reactor replaces this loop; negotiation waits on the upper layer's queue, which we feed."""
    assert "time.sleep(0.001)" in source(Association._run_reactor)
    assert "receive_pdu(wait=True, timeout=self.acse_timeout)" in source(Association.run_reactor)
    assert "self._run_reactor()" in source(Association.run_reactor)
    assert "_dul_ready.wait()" in source(Association.run_reactor)
    for name in ("_kill", "_is_paused", "_reactor_checkpoint", "_serve_request", "_accepted_cx"):
        assert hasattr(Association(AE(), MODE_ACCEPTOR), name), name


def test_a_killed_association_asks_the_upper_layer_whether_it_has_stopped() -> None:
    """EventDUL.stop_dul must answer at once."""
    assert "self.dul.is_alive() and not self.dul.stop_dul()" in source(Association.kill)


def test_timeouts_reach_into_the_upper_layer_when_they_are_set() -> None:
    """DoorAssociation.__init__ sets them again after it has put its own upper layer in place."""
    assert "self.dul.artim_timer.timeout" in source(Association.acse_timeout.fset)
    assert "self.dul._idle_timer.timeout" in source(Association.network_timeout.fset)


def test_the_handler_builds_an_association_as_ours_does() -> None:
    """DoorHandler._create_association: the same steps, but nothing copied."""
    stock = source(RequestHandler._create_association)
    for step in ("_server", "set_socket", "maximum_length", "ae_title", "address_info", "supported_contexts", "bind("):
        assert step in stock, step
    assert "deepcopy(self.server.contexts)" in stock
    assert "active_associations" in vars(AssociationServer)
    assert '"AcceptorThread" in tt.name' in source(AssociationServer.active_associations.fget)


def test_negotiation_changes_no_supported_context() -> None:
    """DoorHandler shares one list of contexts among all associations."""
    from pynetdicom.presentation import build_context, negotiate_as_acceptor

    offered = build_context("1.2.840.10008.1.1")
    offered.context_id = 1
    supported = [build_context("1.2.840.10008.1.1", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])]
    before = [(context.abstract_syntax, list(context.transfer_syntax)) for context in supported]
    negotiate_as_acceptor([offered], supported)
    assert [(context.abstract_syntax, list(context.transfer_syntax)) for context in supported] == before


def test_the_acceptor_s_order_of_transfer_syntaxes_decides() -> None:
    """router/ingest/offers.py."""
    assert "for tr_syntax in ac_context.transfer_syntax" in source(
        __import__("pynetdicom.presentation", fromlist=["x"]).negotiate_as_acceptor
    )


def test_a_message_is_given_in_fragments() -> None:
    """EventDUL._pass_on."""
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((1, b"\3abc"))
    assert "receive_primitive" in dir(stock_association.DIMSEServiceProvider)
    assert list(inspect.signature(stock_association.DIMSEServiceProvider.receive_primitive).parameters) == [
        "self",
        "primitive",
    ]


def test_a_socket_closes_with_an_event_and_sends_all_or_loses_the_connection() -> None:
    """EventDUL._receive and the answer to a C-STORE."""
    assert 'event_queue.put("Evt17")' in source(AssociationSocket.close)
    assert 'event_queue.put("Evt17")' in source(AssociationSocket.send)
    assert "self._shutdown_socket()" in source(AssociationSocket.close)
    assert 'self.event_queue.put("Evt5")' in source(AssociationSocket.__init__)


def test_actions_that_close_the_connection_also_end_the_loop() -> None:
    """EventDUL.run_reactor ends when `_kill_thread` is set."""
    from pynetdicom import fsm

    for action in (fsm.AA_2, fsm.AA_3, fsm.AA_4, fsm.AA_5, fsm.AR_5):
        assert "dul.kill_dul()" in source(action)
    assert "self._kill_thread = True" in source(stock_dul.DULServiceProvider.kill_dul)


def test_requests_can_be_rejected_before_negotiation() -> None:
    """Door.requested."""
    assert "not self.is_aborted and not self.is_rejected" in source(Association.run_reactor)
    assert evt.EVT_REQUESTED.is_notification
    assert "is_rejected = True" in source(ACSE.send_reject)


def test_pynetdicom_logs_no_patient_here() -> None:
    import router.ingest.listener  # noqa: F401

    assert _config.LOG_HANDLER_LEVEL == "none"
