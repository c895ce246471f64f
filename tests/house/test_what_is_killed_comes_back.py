"""Once the node runs, no process that is killed ends it, whatever the process's next start says."""

import socket
from pathlib import Path

import pytest

from tests.conftest import until
from tests.servers import listens, node


def taken(port: int) -> socket.socket | None:
    """The port, once nobody has it any more; the role will find it taken, and say so."""
    try:
        return socket.create_server(("0.0.0.0", port))
    except OSError:
        return None


@pytest.mark.long
def test_whatever_is_killed_is_started_again_even_if_its_next_start_fails(tmp_path: Path) -> None:
    with node(tmp_path / "node", "PACS@127.0.0.1:1") as ours:
        first = until(lambda: ours.processes().get("pipeline"), deadline_s=60, what="the pipeline's process")
        assert first is not None
        infer = ours.kill_one("infer")
        ours.kill_one("pipeline", but=first)  # while it starts: the role says why it ends
        until(lambda: '"problem": "ProcessDied"' in ours.log, deadline_s=60, what="the role's last word")
        until(
            lambda: [pid for pid in ours.processes().get("infer", ()) if pid not in infer],
            deadline_s=60,
            what="another infer",
        )

        ours.kill_one("listen")
        held = until(lambda: taken(ours.port), deadline_s=60, what="the port that the listener had")
        assert held is not None
        with held:
            until(
                lambda: ours.log.count('"role_ended": "listen"') == 2, deadline_s=90, what="a listener without a port"
            )
        until(lambda: listens(ours.port), deadline_s=90, what="the listener")
        assert ours.stop() == 0
