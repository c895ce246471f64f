"""From kept findings to further result sets: no pipeline runs, nothing is there twice, and every set stands alone."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage, SegmentationStorage
from sqlalchemy import update

from router.db import findings, instances, results
from router.db.engine import reading, writing
from router.db.tables import instance
from router.domain.job import Job, Lane, Outcome, State
from router.domain.study import identity_digest
from router.work import build, deliver, outbox
from router.work.infer import serve
from tests.conftest import component, until
from tests.delivery.scp import Archive, archive
from tests.servers import free_port, listens
from tests.work import INSIDE
from tests.work.site import SERIES, STUDY, Site, running
from tests.work.test_infer import PACS, VIEWER
from tests.work.test_kills import killed_at_every_step, produced


@contextmanager
def inferring(site: Site) -> Iterator[None]:
    with running(site, Lane.INFER, partial(serve, inside=INSIDE)):
        yield


@contextmanager
def building(site: Site) -> Iterator[None]:
    with running(site, Lane.BUILD, build.serve):
        yield


def ran(site: Site, *destinations: str, **more: object) -> int:
    """A run that is done."""
    job_id = site.decide(*destinations, **more)  # type: ignore[arg-type]
    with inferring(site):
        assert site.ended(job_id).outcome is Outcome.RESULT
    return job_id


def planned(site: Site, job_id: int) -> list[Job]:
    """The jobs that planning makes."""
    with writing(site.node.engine) as connection:
        made = outbox.plan(connection, job_id, max_attempts=5)
    site.node.bell.ring(Lane.BUILD)
    return [site.job(one) for one in made]


@pytest.mark.long
def test_a_profile_that_is_added_later_is_built_without_another_run(site: Site) -> None:
    site.destinations(PACS)
    job_id = ran(site, "pacs")
    site.destinations(PACS, VIEWER)
    site.decide("viewer", rule="later")
    (wanted,) = planned(site, job_id)
    assert (wanted.lane, wanted.findings_job_id) == (Lane.BUILD, job_id)
    assert planned(site, job_id) == []
    with building(site):
        done = site.ended(wanted.id)
    assert (done.state, done.outcome, done.attempt) == (State.DONE, Outcome.RESULT, 1)
    assert [one.destination for one in site.deliveries()] == ["pacs", "viewer"]
    first, second = (pydicom.dcmread(BytesIO(site.content(one))) for one in site.results(job_id)[::2])
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.pixel_array.tobytes() == second.pixel_array.tobytes()
    assert (first.SeriesNumber, second.SeriesNumber) == (9000, 9010)
    assert site.acts() == ["results.produced", "results.built"]


@pytest.mark.long
def test_a_wish_that_comes_while_the_job_runs_is_built_after_it(site: Site) -> None:
    site.destinations(PACS, VIEWER)
    go_on = site.folder / "go on"
    job_id = site.decide("pacs", wait_for=str(go_on))
    with inferring(site), building(site):
        until(lambda: site.job(job_id).phase == "looking", what="the run")
        site.decide("viewer", rule="later", wait_for=str(go_on))
        go_on.touch()
        deliveries = until(lambda: site.deliveries() if len(site.deliveries()) == 2 else None, what="both deliveries")
    assert site.job(job_id).attempt == 1
    assert [one.destination for one in deliveries or ()] == ["pacs", "viewer"]


@pytest.mark.long
def test_a_corrected_identity_gets_new_objects_from_the_same_findings_without_a_run(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    site.destinations(PACS)
    first = ran(site, "pacs", identity=whose(site))
    corrected(site, "Corrected^Name")
    second = site.decide("pacs", rule="again", identity=whose(site))
    assert second != first
    capfd.readouterr()
    with inferring(site):
        assert site.ended(second).outcome is Outcome.RESULT
    assert "findings.recalled" in capfd.readouterr().out
    made = [pydicom.dcmread(BytesIO(site.content(one))) for one in site.results(second)]
    assert {str(one.PatientName) for one in made} == {"Corrected^Name"}
    assert not {one.sop_instance_uid for one in site.results(first)} & {one.SOPInstanceUID for one in made}
    with reading(site.node.engine) as connection:
        numbers = [results.measurements_of(connection, job_id) for job_id in (first, second)]
    assert numbers[0] == numbers[1] != []


@pytest.mark.long
@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_findings_that_are_lost_make_the_pipeline_run_again_and_a_build_fail(
    site: Site, capfd: pytest.CaptureFixture[str], loss: str
) -> None:
    site.destinations(PACS)
    first = ran(site, "pacs", identity=whose(site))
    with reading(site.node.engine) as connection:
        kept = findings.find(connection, first)
    assert kept is not None
    path = site.node.store.path(kept.path)
    whole = path.read_bytes()
    path.unlink() if loss == "gone" else path.write_bytes(whole[:-1])
    site.destinations(PACS, VIEWER)
    site.decide("viewer", rule="later", identity=whose(site))
    (build_job,) = planned(site, first)
    with building(site):
        failed = site.ended(build_job.id)
    assert (failed.state, failed.problem, failed.attempt) == (State.FAILED, "FindingsGone", 1)
    assert f"isocenter jobs rerun {first}" in (failed.reason or "")
    corrected(site, "Corrected^Name")
    second = site.decide("pacs", rule="again", identity=whose(site))
    capfd.readouterr()
    with inferring(site):
        assert site.ended(second).outcome is Outcome.RESULT
    assert "findings.recalled" not in capfd.readouterr().out
    assert path.read_bytes() == whole, "the same findings are the same file"


def test_a_series_that_has_changed_is_left_to_a_newer_job(site: Site) -> None:
    site.destinations(PACS)
    job_id = ran(site, "pacs")
    site.destinations(PACS, VIEWER)
    site.decide("viewer", rule="later")
    (build_job,) = planned(site, job_id)

    def late(slice_: pydicom.Dataset, index: int) -> None:
        slice_.SOPInstanceUID = f"1.2.3.7.{index}"

    site.receive(shape=(1, 16, 24), change=late)
    with building(site):
        assert site.ended(build_job.id).state is State.SUPERSEDED


@pytest.mark.parametrize(
    ("first", "stride"), [(5, 9), pytest.param(1, 1, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_a_build_that_is_killed_again_and_again_gives_each_object_once(site: Site, first: int, stride: int) -> None:
    site.destinations(PACS)
    job_id = ran(site, "pacs")
    site.destinations(PACS, VIEWER)
    site.decide("viewer", rule="later")
    (wanted,) = planned(site, job_id)
    with writing(site.node.engine) as connection:
        connection.exec_driver_sql(f"UPDATE job SET max_attempts = 10000 WHERE id = {wanted.id}")
    kills, job = killed_at_every_step(site, Lane.BUILD, wanted.id, first=first, stride=stride)
    assert kills >= 1
    assert (job.state, job.outcome) == (State.DONE, Outcome.RESULT)
    assert len(site.results(job_id)) == 3
    objects = [path for path in produced(site) if path.suffix == ".dcm"]
    assert sorted(objects) == sorted(site.node.store.path(one.path) for one in site.results(job_id))
    assert [one.destination for one in site.deliveries()] == ["pacs", "viewer"]
    assert site.acts() == ["results.produced", "results.built"]


def whose(site: Site) -> str:
    """The identity of the series as it lies in the store."""
    with reading(site.node.engine) as connection:
        return identity_digest(row.header for row in instances.of_series(connection, STUDY, SERIES))


def corrected(site: Site, name: str) -> None:
    """The archive corrects whose series this is: the same pixels under another name and number."""
    with writing(site.node.engine) as connection:
        for row in instances.of_series(connection, STUDY, SERIES):
            path = site.node.store.path(row.path)
            dataset = pydicom.dcmread(path)
            dataset.PatientName, dataset.PatientID = name, "PH0002"
            pydicom.dcmwrite(path, dataset)
            header = {**row.header, "PatientID": "PH0002"}
            connection.execute(
                update(instance).where(instance.c.sop_instance_uid == row.sop_instance_uid).values(header=header)
            )


TAKES_NO_SEG = (str(SecondaryCaptureImageStorage), str(Comprehensive3DSRStorage))


def archived(far: Archive) -> dict[str, object]:
    return {"kind": "dicom", "name": "pacs", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": far.port}


def pointed_at(dataset: pydicom.Dataset) -> set[str]:
    """Every instance that an object refers to, however deep."""
    return {str(element.value) for element in dataset.iterall() if element.keyword == "ReferencedSOPInstanceUID"}


def settled(site: Site) -> list[Job]:
    """All jobs, once none is left to do."""
    return site.quiet(deadline_s=120)


def offered(site: Site) -> None:
    """The archive is offered a set with a segmentation, refuses it, and takes another one whole."""
    job_id = site.decide("pacs")
    with inferring(site), building(site), running(site, Lane.DELIVER, deliver.serve):
        site.ended(job_id)
        until(lambda: len(site.deliveries()) == 2, what="the other delivery", deadline_s=60)
        settled(site)
    first, second = site.deliveries()
    assert (first.state, first.outcome) == (State.DONE, Outcome.REFUSED)
    assert "ARCHIVE does not take Segmentation Storage" in (first.reason or "")
    assert (second.state, second.outcome, second.attempt) == (State.DONE, Outcome.DELIVERED, 1)
    assert site.acts() == ["results.produced", "results.refused", "results.built", "results.sent"]


def stands_alone(site: Site, there: dict[str, pydicom.Dataset]) -> None:
    """Pictures and a report, and nothing refers to what is not there; the report is the entry to all of it."""
    with reading(site.node.engine) as connection:
        images = {row.sop_instance_uid for row in instances.of_series(connection, STUDY, SERIES)}
    kinds = [one.SOPClassUID for one in there.values()]
    assert kinds.count(SecondaryCaptureImageStorage) >= 3
    assert set(kinds) == {SecondaryCaptureImageStorage, Comprehensive3DSRStorage}
    for one in there.values():
        assert pointed_at(one) <= images | set(there)
    (report,) = (one for one in there.values() if one.SOPClassUID == Comprehensive3DSRStorage)
    overlays = {uid for uid, one in there.items() if one.SOPClassUID == SecondaryCaptureImageStorage}
    assert overlays <= pointed_at(report)


@pytest.mark.long
def test_an_archive_that_refuses_segmentations_ends_up_with_overlays_and_a_report_and_nothing_dangling(
    site: Site,
) -> None:
    with archive(classes=TAKES_NO_SEG) as far:
        site.destinations(archived(far))
        offered(site)
        there = {uid: far.dataset(uid) for uid in far.kept}
    stands_alone(site, there)
    assert [*there.values()][-1].SOPClassUID == Comprehensive3DSRStorage, "the report is sent last"


NO_SEG = """
[[TransferSyntaxes]]
[Plain]
TransferSyntax1 = LocalEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Pictures]
PresentationContext1 = VerificationSOPClass\\Plain
PresentationContext2 = {}\\Plain
PresentationContext3 = {}\\Plain
[[Profiles]]
[Archive]
PresentationContexts = Pictures
"""
"""What DCMTK's storescp negotiates when it is configured so."""


@pytest.mark.long
def test_dcmtk_configured_without_segmentations_holds_the_same(site: Site, tmp_path: Path) -> None:
    component("DCMTK")
    taken, configured, port = tmp_path / "taken", tmp_path / "storescp.cfg", free_port()
    taken.mkdir()
    configured.write_text(NO_SEG.format(*TAKES_NO_SEG))
    server = subprocess.Popen(
        ["storescp", "--aetitle", "ARCHIVE", "-od", taken, "-xf", configured, "Archive", str(port)]
    )
    try:
        until(lambda: listens(port), what="storescp listens")
        site.destinations(archived(Archive(port=port)))
        offered(site)
    finally:
        server.terminate()
        server.wait(30)
    stands_alone(site, {one.SOPInstanceUID: one for one in map(pydicom.dcmread, taken.iterdir())})


@pytest.mark.long
def test_what_was_refused_once_is_not_offered_again_until_the_destination_changes(site: Site) -> None:
    with archive(classes=TAKES_NO_SEG) as far:
        site.destinations(archived(far))
        first = ran(site, "pacs")
        (delivery,) = site.deliveries()
        with writing(site.node.engine) as connection:
            (made,) = outbox.refuse(connection, delivery, [str(SegmentationStorage)], max_attempts=5) or ()
            assert outbox.refuse(connection, delivery, [str(SegmentationStorage)], max_attempts=5) == []
        assert site.job(made).lane is Lane.BUILD
        second = ran(site, "pacs", rule="next", number=1)
        assert {one.kind for one in site.results(second)} == {"overlay", "measurement_report"}
        site.destinations(archived(far) | {"ae_title": "NEWER"})
        third = ran(site, "pacs", rule="after", number=2)
        assert {one.kind for one in site.results(third)} == {"segmentation", "measurement_report"}
    assert first != second != third


@pytest.mark.long
def test_a_destination_that_refuses_everything_waits_for_a_person(site: Site) -> None:
    with archive(classes=()) as far:
        site.destinations(archived(far))
        job_id = site.decide("pacs")
        with inferring(site), building(site), running(site, Lane.DELIVER, deliver.serve):
            site.ended(job_id)
            until(lambda: site.deliveries(), what="a delivery")
            settled(site)
    assert [one.state for one in site.deliveries()][-1] is State.FAILED
    assert far.kept == {}
