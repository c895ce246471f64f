"""A stat job does not wait for a long run: that stands still, keeps what it has, and goes on afterwards."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from router.db import jobs
from router.db.engine import writing
from router.domain.job import Lane, State
from router.domain.rules import Priority
from router.work.infer import serve
from tests.conftest import REPOSITORY, until
from tests.work import INSIDE
from tests.work.site import Site, running

PACS = {"kind": "folder", "name": "pacs", "path": "/nowhere"}


def processes() -> dict[int, str]:
    """The resident processes of this one, and what each of them does."""
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            if INSIDE[-1] in child.cmdline():
                found[child.pid] = child.status()
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.long
def test_a_stat_job_runs_while_a_routine_one_stands_still_and_both_end_well(site: Site, tmp_path: Path) -> None:
    site.destinations(PACS)
    first, second = tmp_path / "first", tmp_path / "second"

    def looks(job_id: int) -> bool:
        return site.job(job_id).phase == "looking"

    with running(site, Lane.INFER, partial(serve, inside=INSIDE)):
        routine = site.decide("pacs", wait_for=str(first))
        until(lambda: looks(routine), what="the routine job at work")
        (pid,) = processes()
        another = site.decide("pacs", rule="another", number=1)
        stat = site.decide("pacs", rule="stat", number=2, priority=Priority.STAT, wait_for=str(second))
        site.node.bell.ring(Lane.INFER)
        until(lambda: looks(stat), deadline_s=120, what="the stat job at work")
        assert processes()[pid] == psutil.STATUS_STOPPED
        assert [status for one, status in processes().items() if one != pid] != [psutil.STATUS_STOPPED]
        second.touch()
        assert site.ended(stat).state is State.DONE
        assert site.job(routine).state is State.RUNNING
        assert site.job(another).state is State.QUEUED, "only stat jobs overtake"
        until(lambda: processes()[pid] != psutil.STATUS_STOPPED, what="the routine job going on")
        first.touch()
        done = site.ended(routine)
        assert (done.state, done.attempt) == (State.DONE, 1)
        assert site.ended(another).state is State.DONE
    assert processes() == {}


ENDS = """
import os, sys, time
from pathlib import Path
from router.work.resident import Resident
from tests.work import INSIDE
resident = Resident(device="cpu", threads=1, command=INSIDE)
resident.start()
with resident.standing_still():
    print("pid", resident.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.long
def test_a_process_that_stands_still_ends_with_its_worker() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDS], stdout=subprocess.PIPE, cwd=REPOSITORY) as worker:
        assert worker.stdout is not None
        pid = next(int(line.split()[1]) for line in worker.stdout if line.startswith(b"pid "))
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, what="a process that stands still")
        os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid), what="its end")


def test_a_claim_for_stat_jobs_leaves_the_others(site: Site) -> None:
    site.decide(number=1)
    stat = site.decide(rule="stat", number=2, priority=Priority.STAT)

    def claimed(least_urgent: int | None) -> int | None:
        with writing(site.node.engine) as connection:
            found = jobs.claim(connection, Lane.INFER, "worker", 60, least_urgent=least_urgent)
        return found and found.id

    assert claimed(Priority.STAT) == stat
    assert claimed(Priority.STAT) is None
    assert claimed(None) is not None
