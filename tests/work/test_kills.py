"""kill -9 between any two steps of a role: what was to come out comes out, once, and as the same bytes."""

import signal
from pathlib import Path

import pytest

from router.db import commands
from router.db.engine import writing
from router.domain.job import Job, Lane, Outcome, State
from router.work.loop import sweep
from tests.conftest import until
from tests.delivery.scp import archive
from tests.work.killed import run
from tests.work.site import Site

FOREVER = 10_000


def killed_at_every_step(site: Site, lane: Lane, job_id: int, *, first: int, stride: int) -> tuple[int, Job]:
    """Kill the role at step `first`, start it again, kill it `stride` steps later ... until it gets through."""
    for kills, kill_at in enumerate(range(first, FOREVER, stride)):
        code = run(lane, site.folder, kill_at=kill_at, job_id=job_id).wait(120)
        if code == 0:
            return kills, site.job(job_id)
        assert code == -signal.SIGKILL
    raise AssertionError("it never got through")


def produced(site: Site) -> list[Path]:
    return [path for path in (site.node.store.root / "results").rglob("*") if path.is_file()]


@pytest.mark.long
@pytest.mark.parametrize(("first", "stride"), [(7, 9), pytest.param(1, 1, marks=pytest.mark.timeout(900))])
def test_a_run_that_is_killed_again_and_again_gives_each_object_once(site: Site, first: int, stride: int) -> None:
    site.destinations({"kind": "folder", "name": "pacs", "path": "/nowhere"})
    job_id = site.decide("pacs", max_attempts=FOREVER)
    kills, job = killed_at_every_step(site, Lane.INFER, job_id, first=first, stride=stride)
    assert kills >= 2
    assert job.attempt > 1
    assert (job.state, job.outcome) == (State.DONE, Outcome.RESULT)
    kept = site.results(job_id)
    assert [one.kind for one in kept] == ["segmentation", "measurement_report"]
    objects = [path for path in produced(site) if path.suffix == ".dcm"]
    assert sorted(objects) == sorted(site.node.store.path(one.path) for one in kept), "other bytes, same UID"
    assert len(produced(site)) == len(objects) + 1, "findings are kept once"
    assert [(one.destination, one.state) for one in site.deliveries()] == [("pacs", State.QUEUED)]
    assert site.acts() == ["results.produced"]


@pytest.mark.long
@pytest.mark.parametrize(("first", "stride"), [(7, 9), pytest.param(1, 1, marks=pytest.mark.timeout(900))])
def test_a_delivery_that_is_killed_again_and_again_leaves_each_object_once(site: Site, first: int, stride: int) -> None:
    with archive() as far:
        site.destinations(
            {"kind": "dicom", "name": "pacs", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": far.port}
        )
        run_id = site.decide("pacs")
        assert run(Lane.INFER, site.folder, kill_at=FOREVER, job_id=run_id).wait(60) == 0
        (delivery,) = site.deliveries()
        with writing(site.node.engine) as connection:
            connection.exec_driver_sql(f"UPDATE job SET max_attempts = {FOREVER} WHERE id = {delivery.id}")
        kills, job = killed_at_every_step(site, Lane.DELIVER, delivery.id, first=first, stride=stride)
    assert kills >= 2
    assert (job.state, job.outcome) == (State.DONE, Outcome.DELIVERED)
    assert sorted(far.kept) == sorted(one.sop_instance_uid for one in site.results(run_id))
    assert far.changed == []
    assert [row["accepted"] for row in site.receipts(delivery.id)] == [True, True]
    assert site.acts() == ["results.produced", "results.sent"]


@pytest.mark.long
def test_a_role_that_was_killed_has_its_job_again_at_once_and_not_when_the_lease_runs_out(site: Site) -> None:
    site.destinations()
    job_id = site.decide("pacs", mood="hangs")
    process = run(Lane.INFER, site.folder, kill_at=FOREVER, job_id=job_id)
    until(lambda: site.job(job_id).phase == "looking", what="the run")
    process.kill()
    process.wait()
    assert site.job(job_id).state is State.RUNNING
    (moved,) = sweep(site.node)
    assert (moved.id, moved.state, moved.attempt) == (job_id, State.QUEUED, 1)
    with writing(site.node.engine) as connection:
        commands.cancel(connection, job_id, who="test")
