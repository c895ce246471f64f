"""kill -9 of the whole node at any moment after the last C-STORE response, then `serve` again: results, once."""

import time
from pathlib import Path

import pytest

from tests.conftest import until
from tests.corridor.conftest import Archive
from tests.servers import node

MOMENTS_S = (0.0, 0.7, 1.4, 2.1, 2.8, 3.5, 4.5, 6.0)


@pytest.mark.long
@pytest.mark.parametrize("moment_s", MOMENTS_S)
def test_results_arrive_once_whenever_the_node_was_killed(
    moment_s: float, tmp_path: Path, archive: Archive, chest_phantom: Path
) -> None:
    with node(tmp_path / "node", archive.address, inference={"lease_s": 3}) as ours:
        ours.send(chest_phantom)
        time.sleep(moment_s)  # the moment is what is tested, not a wait for something
        ours.kill()
        ours.start()
        until(lambda: archive.objects("SR"), deadline_s=60, what=f"the SR after a kill at {moment_s} s")
        jobs = ours.settled()
        assert len(archive.objects("SEG")) == len(archive.objects("SR")) == 1
        assert sorted((job["lane"], job["state"]) for job in jobs) == [("deliver", "done"), ("infer", "done")]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_node_killed_five_times_on_the_way_delivers_once(
    tmp_path: Path, archive: Archive, chest_phantom: Path
) -> None:
    with node(tmp_path / "node", archive.address, inference={"lease_s": 3, "max_attempts": 9}) as ours:
        ours.send(chest_phantom)
        for moment_s in (0.3, 1.1, 1.9, 2.7, 3.3):
            time.sleep(moment_s)
            ours.kill()
            ours.start()
        until(lambda: archive.objects("SR"), deadline_s=90, what="the SR after five kills")
        ours.settled()
        assert len(archive.objects("SEG")) == len(archive.objects("SR")) == 1
