"""The resident process: after a death a spare is ready, and nothing is left behind."""

import os
import signal
from pathlib import Path

import pytest

from router.work.messages import Failure, Found, Run
from router.work.resident import ProcessDied, Resident, Unwatched
from tests.conftest import until
from tests.objects.conftest import ct_series
from tests.work import INSIDE


@pytest.mark.long
def test_after_a_death_a_spare_takes_over_and_nothing_is_left_behind(tmp_path: Path) -> None:
    paths = tuple(ct_series(tmp_path))

    def run(mood: str) -> Found | Failure:
        return resident.run(Run(paths=paths, pipeline="moody", settings={"mood": mood}), Unwatched(), limit_s=300)

    with Resident(device="cpu", threads=1, command=INSIDE) as resident:
        assert isinstance(run("fine"), Found)
        assert resident.spare is None, "a node whose processes live pays for one"
        with pytest.raises(ProcessDied, match="SIGSEGV"):
            run("segfaults")
        assert isinstance(run("fine"), Found)
        spare = resident.spare
        assert spare is not None
        with pytest.raises(ProcessDied, match="SIGKILL"):
            run("out_of_memory")
        assert isinstance(run("fine"), Found)
        assert resident.process is spare.process, "the spare took over"
        again = resident.spare
        assert again is not None
        os.kill(again.process.pid, signal.SIGKILL)  # a spare that has died while it waited costs no job
        again.process.wait()
        with pytest.raises(ProcessDied):
            run("segfaults")
        assert isinstance(run("fine"), Found)
        assert resident.process is not None
        pids = [resident.process.pid, *([resident.spare.process.pid] if resident.spare else [])]
    assert len(pids) == 2
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="the end of both processes")
