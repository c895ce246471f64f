"""What queries use of pynetdicom's inside. When a new pynetdicom breaks one of these, `router/query/exchange.py` and
`service.py` say what it is for: find its new name, or ask upstream for a public way, before the pin is raised."""

import inspect
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import P_DATA

from router.query.exchange import SEAMS, pdus


def owners() -> dict[str, Any]:
    association = Association(AE(), MODE_ACCEPTOR)
    return {
        "Association": association,
        "DIMSEServiceProvider": association.dimse,
        "DULServiceProvider": association.dul,
        "ACSE": association.acse,
    }


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in SEAMS.items() for name in names])
def test_what_we_use_is_there(owner: str, name: str) -> None:
    one = owners()[owner]
    assert type(one).__name__ == owner
    assert hasattr(type(one), name) or hasattr(one, name)


def test_an_association_serves_requests_by_the_method_that_we_wrap() -> None:
    assert list(inspect.signature(Association._serve_request).parameters) == ["self", "msg", "context_id"]
    assert "self._serve_request(" in inspect.getsource(Association._run_reactor)
    assert "self._is_paused = True" in inspect.getsource(Association._serve_request)
    assert "self.dimse.cancel_req = {}" in inspect.getsource(Association._serve_request)


def test_a_cancel_is_kept_under_the_message_that_it_cancels() -> None:
    source = inspect.getsource(DIMSEServiceProvider.receive_primitive)
    assert "self.cancel_req[msg_id] = d_primitive" in source
    assert "msg_id = cast(int, d_primitive.MessageIDBeingRespondedTo)" in source


def test_peeking_at_abort_and_release_takes_nothing_away() -> None:
    assert "peek_next_pdu" in inspect.getsource(ACSE.is_aborted)
    assert "peek_next_pdu" in inspect.getsource(ACSE.is_release_requested)
    assert "queue[0]" in inspect.getsource(DULServiceProvider.peek_next_pdu)


@pytest.mark.parametrize("longest", [0, 46, 150, 16382])
def test_what_we_hand_over_becomes_pdus_of_the_length_that_the_peer_takes(longest: int) -> None:
    command, data = bytes(range(80)), bytes(1000)
    arrived: dict[str, bytes] = {"command": b"", "data": b""}
    ended = []
    for values in pdus(3, command, data, longest):
        primitive = P_DATA()
        primitive.presentation_data_value_list.extend(values)
        pdu = P_DATA_TF()
        pdu.from_primitive(primitive)
        encoded = pdu.encode()
        assert not longest or len(encoded) - 6 <= longest
        again = P_DATA_TF()
        again.decode(encoded)
        for item in again.presentation_data_value_items:
            control, fragment = item.presentation_data_value[0], item.presentation_data_value[1:]
            assert item.presentation_context_id == 3
            arrived["command" if control & 1 else "data"] += fragment
            ended += [control] if control & 2 else []
    assert arrived == {"command": command, "data": data}
    assert ended == [0x03, 0x02]
