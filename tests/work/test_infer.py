"""From a claimed job to result sets and deliveries, whatever the pipeline does on its way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import pydicom
import pytest

from pipelines.catalog import find
from router import views, why
from router.db import alerts, breakers, commands, results
from router.db.engine import reading, writing
from router.domain.job import Lane, Outcome, State
from router.work import outbox
from router.work.infer import serve
from tests.conftest import until
from tests.work import INSIDE
from tests.work.site import STUDY, Site, running

PACS = {"kind": "folder", "name": "pacs", "path": "/nowhere"}
OTHER = {"kind": "folder", "name": "other", "path": "/nowhere"}
VIEWER = {"kind": "folder", "name": "viewer", "path": "/nowhere", "profile": {"sr": "none"}}


@contextmanager
def inferring(site: Site) -> Iterator[None]:
    with running(site, Lane.INFER, partial(serve, inside=INSIDE)):
        yield


def test_a_run_gives_a_result_set_its_numbers_and_a_delivery(site: Site) -> None:
    site.destinations(PACS)
    job_id = site.decide("pacs")
    with inferring(site):
        job = site.ended(job_id)
    assert (job.state, job.outcome, job.attempt, job.worker) == (State.DONE, Outcome.RESULT, 1, None)
    made = site.results(job_id)
    assert [one.kind for one in made] == ["segmentation", "measurement_report"]
    (delivery,) = site.deliveries()
    assert (delivery.destination, delivery.state, delivery.result_set_id) == (
        "pacs", State.QUEUED, made[0].result_set_id,
    )  # fmt: skip
    with reading(site.node.engine) as connection:
        numbers = results.measurements_of(connection, job_id)
    assert [(n.label, n.name, n.unit, n.remark) for n in numbers][:2] == [
        ("Left lung", "Volume", "ml", None),
        ("Left lung", "Perc15", "Hounsfield unit", "Slices are too thick"),
    ]
    assert site.acts() == ["results.produced"]


def test_objects_join_the_study_in_series_of_their_own_and_say_when_in_the_configured_zone(site: Site) -> None:
    site.destinations(PACS)
    with inferring(site):
        job = site.ended(site.decide("pacs"))
    objects = [pydicom.dcmread(BytesIO(site.content(one))) for one in site.results(job.id)]
    assert [one.SeriesNumber for one in objects] == [9000, 9001]
    assert {one.SeriesDescription for one in objects} == {"AI moody 1.0 RESEARCH"}
    assert len({one.SeriesInstanceUID for one in objects}) == 2
    assert {one.TimezoneOffsetFromUTC for one in objects} <= {"+0100", "+0200"}


def test_series_numbers_of_others_and_of_other_jobs_are_left_alone(site: Site) -> None:
    def taken(slice_: pydicom.Dataset, index: int) -> None:
        slice_.SeriesInstanceUID, slice_.SeriesNumber = "1.2.3.9", 9004
        slice_.SOPInstanceUID = f"1.2.3.9.{index}"

    site.receive(shape=(1, 16, 24), change=taken)
    site.destinations(PACS)
    first, second = site.decide("pacs", number=1), site.decide("pacs", number=2, rule="again")
    with inferring(site):
        site.ended(first)
        site.ended(second)
    used = [
        pydicom.dcmread(BytesIO(site.content(one))).SeriesNumber for job in (first, second) for one in site.results(job)
    ]
    assert used == [9010, 9011, 9090, 9091]


def test_two_rules_that_want_one_run_for_two_destinations_get_one_run_and_two_deliveries(site: Site) -> None:
    site.destinations(PACS, OTHER)
    assert site.decide("pacs", rule="one") == site.decide("other", rule="two")
    with inferring(site):
        job = site.ended(site.decide("pacs", rule="three"))
    assert job.attempt == 1
    assert [one.destination for one in site.deliveries()] == ["other", "pacs"]
    assert len({one.result_set_id for one in site.deliveries()}) == 1


@pytest.mark.long
def test_each_profile_gets_objects_of_its_own(site: Site) -> None:
    site.destinations(PACS, VIEWER)
    job_id = site.decide("pacs", "viewer")
    with inferring(site):
        site.ended(job_id)
    by_destination = {one.destination: one.result_set_id for one in site.deliveries()}
    kinds = {
        name: [one.kind for one in site.results(job_id) if one.result_set_id == set_id]
        for name, set_id in by_destination.items()
    }
    assert kinds == {"pacs": ["segmentation", "measurement_report"], "viewer": ["segmentation"]}
    assert len({one.sop_instance_uid for one in site.results(job_id)}) == 3


@pytest.mark.long
def test_in_shadow_results_are_kept_and_nothing_leaves(site: Site) -> None:
    site.destinations(PACS)
    job_id = site.decide("pacs", mode="shadow")
    with inferring(site):
        assert site.ended(job_id).outcome is Outcome.RESULT
    assert len(site.results(job_id)) == 2
    assert site.deliveries() == []


def test_a_later_decision_sends_what_is_kept_already_and_runs_nothing(site: Site) -> None:
    site.destinations(PACS, OTHER)
    job_id = site.decide("pacs")
    with inferring(site):
        site.ended(job_id)
    assert site.decide("other", rule="later") == job_id
    with writing(site.node.engine) as connection:
        assert len(outbox.plan(connection, job_id, max_attempts=5)) == 1
        assert outbox.plan(connection, job_id, max_attempts=5) == []
    assert [one.destination for one in site.deliveries()] == ["pacs", "other"]


def test_a_refusal_ends_the_job_with_its_reason_and_nothing_leaves(site: Site) -> None:
    site.destinations(PACS)
    job_id = site.decide("pacs", mood="declines")
    with inferring(site):
        job = site.ended(job_id)
    assert (job.state, job.outcome, job.attempt) == (State.DONE, Outcome.REFUSED, 1)
    assert job.reason == "the volume is not to its taste. Send a better one"
    assert site.results(job_id) == site.deliveries() == []


def test_a_set_before_which_the_gate_closes_is_kept_for_a_person_and_nothing_leaves(site: Site) -> None:
    site.destinations(PACS)
    job_id = site.decide("pacs", mood="miscounts")
    with inferring(site):
        job = site.ended(job_id)
    assert (job.state, job.attempt) == (State.FAILED, 1)
    assert "is 77 ml, the segment's voxels have" in (job.reason or "")
    assert f"quarantine/gate-{job_id}" in (job.reason or "")
    assert site.results(job_id) == site.deliveries() == []
    kept = sorted((site.node.store.root / "quarantine").iterdir())
    endings = ["-measurement_report-0.dcm", "-segmentation-0.dcm", ".txt"]
    assert [one.name for one in kept] == [f"gate-{job_id}{ending}" for ending in endings]
    assert [pydicom.dcmread(one).Modality for one in kept[:2]] == ["SR", "SEG"]
    assert "77 ml" in kept[2].read_text()


def test_a_series_that_is_no_volume_is_refused_by_name(site: Site) -> None:
    def gap(slice_: pydicom.Dataset, index: int) -> None:
        slice_.SeriesInstanceUID = "1.2.3.8"
        slice_.SOPInstanceUID = f"1.2.3.8.{index}"
        slice_.ImagePositionPatient = [0, 0, index * 2.5 + (5 if index > 3 else 0)]

    site.destinations(PACS)
    site.receive(change=gap)
    with inferring(site):
        job = site.ended(site.decide("pacs", series="1.2.3.8"))
    assert job.outcome is Outcome.REFUSED
    assert "between slices" in (job.reason or "")


@pytest.mark.long
@pytest.mark.parametrize(("mood", "said"), [("segfaults", "killed by SIGSEGV"), ("out_of_memory", "killed by SIGKILL")])
def test_a_pipeline_that_kills_its_process_fails_after_its_attempts_and_the_others_go_on(
    site: Site, mood: str, said: str
) -> None:
    site.destinations(PACS)
    bad = site.decide("pacs", mood=mood)
    good = site.decide("pacs", rule="other")
    with inferring(site):
        assert site.ended(good, deadline_s=180).outcome is Outcome.RESULT
        job = site.ended(bad, deadline_s=180)
    assert (job.state, job.attempt, job.problem) == (State.FAILED, 3, "ProcessDied")
    assert said in (job.reason or "")


@pytest.mark.long
def test_a_pipeline_that_kills_its_process_on_three_studies_in_a_row_starts_no_more(site: Site) -> None:
    def of_study(number: int) -> Callable[[pydicom.Dataset, int], None]:
        def change(slice_: pydicom.Dataset, index: int) -> None:
            slice_.StudyInstanceUID, slice_.SeriesInstanceUID = f"{STUDY}.{number}", f"1.2.3.{number}"
            slice_.SOPInstanceUID = f"1.2.3.{number}.{index}"

        return change

    site.destinations(PACS)
    bad = []
    for number in (1, 2, 3):
        site.receive(change=of_study(number))
        where = {"study": f"{STUDY}.{number}", "series": f"1.2.3.{number}"}
        bad.append(site.decide("pacs", mood="segfaults", max_attempts=1, **where))
    good = site.decide("pacs", rule="other")
    with inferring(site):
        assert [site.ended(job_id, deadline_s=180).problem for job_id in bad] == ["ProcessDied"] * 3
        with reading(site.node.engine) as connection:
            assert [(one.kind, one.subject) for one in alerts.list_(connection)] == [("pipeline.paused", "moody")]
            shown = views.job_in_full(connection, good)
            (page,) = why.explain(connection, STUDY)
        assert shown["state"] == "queued"
        assert shown["waits_for"].startswith("moody is paused: its process died on 3 studies in a row")
        assert any("isocenter pipelines resume moody" in line for line in page.lines(ZoneInfo("UTC")))
        with writing(site.node.engine) as connection:
            assert breakers.resume(connection, "moody", who="anna")
        site.node.bell.ring(Lane.INFER)
        assert site.ended(good).outcome is Outcome.RESULT


def test_an_error_that_nobody_foresaw_is_told_without_its_text(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    site.destinations(PACS)
    job_id = site.decide("pacs", mood="raises", max_attempts=1)
    with inferring(site):
        job = site.ended(job_id)
    assert (job.state, job.problem) == (State.FAILED, "ValueError")
    assert "moody.py" in (job.reason or "")
    out = capfd.readouterr()
    assert "SECRET" not in out.out + out.err + (job.reason or "")


@pytest.mark.long
def test_a_run_that_takes_too_long_is_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.catalog.moody.SPEC", replace(find("moody").spec, time_limit_s=1.0))
    site.destinations(PACS)
    job_id = site.decide("pacs", mood="hangs", max_attempts=1)
    with inferring(site):
        job = site.ended(job_id)
    assert (job.state, job.problem) == (State.FAILED, "OutOfTime")


@pytest.mark.long
def test_cancelling_ends_the_run_and_the_next_job_gets_a_fresh_process(site: Site) -> None:
    site.destinations(PACS)
    hanging = site.decide("pacs", mood="hangs")
    with inferring(site):
        until(lambda: site.job(hanging).phase == "looking", what="the run")
        with writing(site.node.engine) as connection:
            commands.cancel(connection, hanging, who="anna")
        assert site.ended(site.decide("pacs", rule="other"), deadline_s=60).outcome is Outcome.RESULT
    assert site.job(hanging).state is State.CANCELLED


@pytest.mark.long
def test_a_series_that_has_changed_since_is_left_to_a_newer_job(site: Site) -> None:
    site.destinations(PACS)
    job_id = site.decide("pacs")

    def late(slice_: pydicom.Dataset, index: int) -> None:
        slice_.SOPInstanceUID = f"1.2.3.7.{index}"

    site.receive(shape=(1, 16, 24), change=late)
    with inferring(site):
        job = site.ended(job_id)
    assert job.state is State.SUPERSEDED
    assert job.reason == "the series has changed since; a newer job will read it"


def test_a_job_for_another_version_of_its_pipeline_fails_and_says_so(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.destinations(PACS)
    job_id = site.decide("pacs")
    monkeypatch.setattr("pipelines.catalog.moody.SPEC", replace(find("moody").spec, version="1.1"))
    with inferring(site):
        job = site.ended(job_id)
    assert (job.state, job.problem, job.attempt) == (State.FAILED, "OtherVersion", 1)
    assert "moody 1.0, installed is 1.1" in (job.reason or "")


@pytest.mark.long
def test_asked_to_stop_it_finishes_the_run_in_hand(site: Site, tmp_path: Path) -> None:
    site.destinations(PACS)
    go_on = tmp_path / "go on"
    job_id = site.decide("pacs", wait_for=str(go_on))
    with running(site, Lane.INFER, partial(serve, inside=INSIDE)) as stop:
        until(lambda: site.job(job_id).phase == "looking", what="the run")
        stop.set()
        site.node.bell.ring(Lane.INFER)
        go_on.touch()
    assert site.job(job_id).outcome is Outcome.RESULT


@pytest.mark.long
def test_a_rerun_makes_new_objects_for_the_same_destinations(site: Site) -> None:
    site.destinations(PACS)
    first = site.decide("pacs")
    with inferring(site):
        site.ended(first)
        with writing(site.node.engine) as connection:
            second = commands.rerun(connection, first, who="anna")
        site.node.bell.ring(Lane.INFER)
        site.ended(second)
    uids = [{one.sop_instance_uid for one in site.results(job)} for job in (first, second)]
    assert not uids[0] & uids[1]
    assert [one.destination for one in site.deliveries()] == ["pacs", "pacs"]
