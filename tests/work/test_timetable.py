"""Role tick: what the clock does, it does again and again, whatever one turn came to."""

import threading

import pytest

from router.db import jobs
from router.db.engine import writing
from router.domain.job import Lane, State
from router.node import Node
from router.work import timetable
from tests.conftest import until
from tests.work.site import Site, running


def test_the_lease_of_a_silent_worker_ends_without_anyone_asking(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timetable, "TIMETABLE", tuple((name, 0.05, act) for name, _, act in timetable.TIMETABLE))
    job_id = site.decide("pacs")
    with writing(site.node.engine) as connection:
        assert jobs.claim(connection, Lane.INFER, "far away", -1)
    with running(site, Lane.INFER, timetable.serve):
        until(lambda: site.job(job_id).state is State.QUEUED, what="the end of the lease")


def test_an_entry_that_fails_comes_again_and_the_others_with_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, other = threading.Semaphore(0), threading.Semaphore(0)

    def fails(node: Node) -> None:
        failed.release()
        raise ValueError("SECRET^PATIENT")

    entries = (("fails", 0.05, fails), ("other", 0.05, lambda node: other.release()))
    monkeypatch.setattr(timetable, "TIMETABLE", entries)
    with running(site, Lane.INFER, timetable.serve):
        for _ in range(2):
            assert failed.acquire(timeout=60)
            assert other.acquire(timeout=60)
