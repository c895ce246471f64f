"""No answer is lost between pynetdicom's reactor and the one who asked."""

import inspect
import sys
import threading
from collections.abc import Iterator

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from router.requestor import steady
from tests.servers import free_port

ECHOES = 400


@pytest.fixture
def busy() -> Iterator[None]:
    """A thread that is late to every switch, as on a machine with too much to do."""
    ended = threading.Event()

    def burn() -> None:
        while not ended.is_set():
            sum(range(1000))

    burner = threading.Thread(target=burn)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    burner.start()
    yield
    ended.set()
    burner.join()
    sys.setswitchinterval(interval)


@pytest.mark.long
def test_every_answer_reaches_the_one_who_asked_on_a_busy_machine(busy: None) -> None:
    far = AE()
    far.add_supported_context(Verification)
    server = far.start_server(("127.0.0.1", port := free_port()), block=False)
    ae = AE()
    ae.add_requested_context(Verification)
    ae.dimse_timeout = 3
    association = steady(ae.associate("127.0.0.1", port))
    try:
        lost = [number for number in range(ECHOES) if "Status" not in association.send_c_echo()]
        assert association.is_established
        assert lost == []
    finally:
        association.release()
        server.shutdown()
    assert association.is_released


def test_the_reactor_stops_where_we_look() -> None:
    """A new pynetdicom that stops its reactor otherwise makes `steady` wrong: read Association._run_reactor again."""
    assert "self._reactor_checkpoint.wait()" in inspect.getsource(Association._run_reactor)
    assert "while not self._is_paused" in inspect.getsource(Association.send_c_echo)
    event = threading.Event()
    waiter = threading.Thread(target=event.wait)
    waiter.start()
    while not event._cond._waiters:  # type: ignore[attr-defined]
        pass
    event.set()
    assert not event._cond._waiters  # type: ignore[attr-defined]
    waiter.join()
