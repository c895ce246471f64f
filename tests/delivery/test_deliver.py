"""A result set reaches each of its destinations whole, in order and once, whatever the far side does meanwhile."""

import subprocess
from pathlib import Path

import pytest
from pydicom import DataElement, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from router.db import alerts, commands
from router.db.engine import reading, writing
from router.domain.job import Lane, Outcome, State
from router.work import deliver, loop
from router.work.circuit import Circuits
from tests.conftest import component, until
from tests.delivery.conftest import delivering, pacs, produce
from tests.delivery.scp import Archive, aborts, archive
from tests.servers import free_port, orthanc
from tests.work.site import SERIES, STUDY, Site, close_site, open_site

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom 3.0.4 forgets the socket whose connect was refused


def uids(site: Site, delivery: int) -> list[str]:
    """SOPInstanceUIDs of the set in the order of sending."""
    from router.db import results
    from router.db.engine import reading

    with reading(site.node.engine) as connection:
        return [one.sop_instance_uid for one in results.of_set(connection, site.job(delivery).result_set_id or 0)]


def test_a_set_arrives_in_order_the_report_last_with_its_receipts(site: Site) -> None:
    with archive() as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    assert (job.state, job.outcome, job.attempt) == (State.DONE, Outcome.DELIVERED, 1)
    assert far.asked == uids(site, delivery)
    assert [(row["status"], row["accepted"], row["attempts"]) for row in site.receipts(delivery)] == [(0, True, 1)] * 2
    assert site.acts() == ["results.sent"]


def test_while_the_archive_is_full_it_is_tried_again_and_only_what_is_missing(site: Site) -> None:
    with archive(state=Archive(answers=[0x0000, 0xA700, 0xA700])) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    first, second = uids(site, delivery)
    assert (job.outcome, job.attempt) == (Outcome.DELIVERED, 3)
    assert far.asked == [first, second, second, second]
    assert [row["attempts"] for row in site.receipts(delivery)] == [1, 3]


def test_a_warning_is_a_success(site: Site) -> None:
    with archive(state=Archive(answers=[0xB000, 0xB007])) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            assert site.ended(delivery).attempt == 1
    assert [row["status"] for row in site.receipts(delivery)] == [0xB000, 0xB007]


def test_an_abort_in_the_middle_costs_an_attempt_and_nothing_twice(site: Site) -> None:
    with archive(state=Archive(answers=[0x0000, aborts])) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    first, second = uids(site, delivery)
    assert (job.outcome, job.attempt) == (Outcome.DELIVERED, 2)
    assert far.asked == [first, second, second]


@pytest.mark.parametrize("status", [0x0122, 0x0124, 0xA900, 0xA771])
def test_a_refusal_for_good_stops_at_once_and_says_what_is_missing(site: Site, status: int) -> None:
    with archive(state=Archive(answers=[status])) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    assert (job.state, job.attempt, job.problem) == (State.FAILED, 1, "Refused")
    assert f"destination pacs did not take segmentation {uids(site, delivery)[0]}: {status:04X} (" in (job.reason or "")
    assert "; 2 of 2 objects are not there" in (job.reason or "")
    assert far.asked == uids(site, delivery)[:1], "a report was sent without what it references"


def test_an_archive_that_does_not_know_segmentations_is_named(site: Site) -> None:
    with archive(classes=[str(CTImageStorage)]) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    assert job.state is State.FAILED
    assert "ARCHIVE does not take Segmentation Storage" in (job.reason or "")


def test_a_caller_that_is_not_known_there_is_told_so_at_once(site: Site) -> None:
    with archive(require_calling=["SOMEONE"]) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    assert (job.state, job.attempt, job.problem) == (State.FAILED, 1, "Rejected")


def test_an_archive_that_was_away_gets_everything_when_it_is_back_and_nobody_else_waits_for_it(site: Site) -> None:
    far = Archive(port=free_port())
    out = site.folder / "out"
    out.mkdir()
    site.destinations(pacs(far), {"kind": "folder", "name": "folder", "path": str(out)})
    away, here = produce(site, "pacs", "folder")
    with delivering(site):
        assert site.ended(here).outcome is Outcome.DELIVERED
        until(lambda: site.job(away).problem == "Unreachable", what="an attempt")
        assert "nobody answers there" in (site.job(away).reason or "")
        with archive(state=far, port=far.port):
            assert site.ended(away).outcome is Outcome.DELIVERED
    assert sorted(path.stem for path in out.iterdir()) == sorted(uids(site, here)) == sorted(far.kept)


def test_attempts_come_to_an_end(site: Site) -> None:
    with archive(state=Archive(answers=[0xA700, aborts])) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs", max_attempts=2)
        with delivering(site):
            job = site.ended(delivery)
    assert (job.state, job.attempt, job.problem) == (State.FAILED, 2, "Interrupted")


def test_an_archive_that_stays_away_spends_no_attempt_and_only_one_delivery_knocks(site: Site) -> None:
    far = Archive(port=free_port())
    site.destinations(pacs(far))
    first, second = (produce(site, "pacs", number=number, max_attempts=2)[0] for number in range(2))
    with delivering(site):
        until(lambda: site.job(first).not_before > site.job(first).created_at + 300_000, what="several attempts")
        assert (site.job(second).problem, site.job(second).started_at) == (None, None)
        with archive(state=far, port=far.port):
            assert [(one.outcome, one.attempt) for one in map(site.ended, (first, second))] == [
                (Outcome.DELIVERED, 1),
                (Outcome.DELIVERED, 1),
            ]


def test_deliveries_go_on_when_the_database_can_be_asked_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time that it could not cost a slot, and after as many the lane stood still for ever."""
    monkeypatch.setattr(loop, "UNREACHABLE_S", 0.01)
    with archive() as far, capture_logs() as logs:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with writing(site.node.engine) as connection:
            connection.exec_driver_sql("ALTER TABLE breaker RENAME TO away")
        with delivering(site):
            errors = deliver.SLOTS + 1
            until(lambda: sum(one["event"] == "queue.unreachable" for one in logs) >= errors, what="errors")
            with writing(site.node.engine) as connection:
                connection.exec_driver_sql("ALTER TABLE away RENAME TO breaker")
            assert site.ended(delivery).outcome is Outcome.DELIVERED


def test_an_ending_that_cannot_be_written_is_written_as_soon_as_it_can_be_and_no_lease_runs_out(site: Site) -> None:
    """A disk that was full for seconds kept a destination waiting for a minute."""
    lost: list[int] = []

    def loses_the_queue(event: evt.Event) -> int:
        with writing(site.node.engine) as connection:
            connection.exec_driver_sql("ALTER TABLE job RENAME TO away")
        lost.append(1)
        return 0x0000

    with archive(state=Archive(answers=[0x0000, loses_the_queue])) as far, capture_logs() as logs:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            until(lambda: lost, what="the loss of the queue")
            until(lambda: sum(one["event"] == "queue.unreachable" for one in logs) > 2, what="errors")
            with writing(site.node.engine) as connection:
                connection.exec_driver_sql("ALTER TABLE away RENAME TO job")
            assert site.ended(delivery).outcome is Outcome.DELIVERED
    assert not [one for one in logs if one["event"] == "job.lease_lost"]
    assert len(far.asked) == 2


def test_deliveries_go_on_as_soon_as_the_archive_answers_its_echo(site: Site) -> None:
    far = Archive(port=free_port())
    site.destinations(pacs(far))
    slow = open_site(site.folder, delivery={"retry_first_s": 3000, "retry_cap_s": 6000, "timeout_s": 5})
    (delivery,) = produce(site, "pacs")
    circuits = Circuits()
    with delivering(slow):
        until(lambda: site.job(delivery).problem == "Unreachable", what="the first attempt")
        circuits.ask(slow.node)
        assert site.job(delivery).state is State.QUEUED
        with archive(state=far, port=far.port):
            circuits.ask(slow.node)
            assert site.ended(delivery).outcome is Outcome.DELIVERED
    close_site(slow)


def test_an_archive_that_is_silent_for_long_is_an_alert_once_and_until_it_answers(site: Site) -> None:
    slow = open_site(
        site.folder,
        alerts={"destination_down_min": 0},
        delivery={"retry_first_s": 3000, "retry_cap_s": 6000, "timeout_s": 5},
    )
    far = Archive(port=free_port())
    slow.destinations(pacs(far))
    (delivery,) = produce(slow, "pacs")
    with delivering(slow):
        until(lambda: slow.job(delivery).problem == "Unreachable", what="the first attempt")
    circuits = Circuits()
    with capture_logs() as logs:
        for _ in range(3):
            circuits.ask(slow.node)
    assert [(one["event"], one["destination"]) for one in logs] == [("destination.down", "pacs")]
    with reading(slow.node.engine) as connection:
        (one,) = alerts.list_(connection)
    assert (one.kind, one.subject, one.times) == ("destination.down", "pacs", 1)
    with archive(state=far, port=far.port):
        Circuits().ask(slow.node)
    with reading(slow.node.engine) as connection:
        assert not alerts.list_(connection)
    close_site(slow)


def test_a_silent_archive_for_which_nothing_waits_any_more_is_no_alert_whoever_raised_it(site: Site) -> None:
    site.destinations(pacs(Archive(port=free_port())))
    hasty = open_site(site.folder, alerts={"destination_down_min": 0})
    (delivery,) = produce(site, "pacs")
    with delivering(hasty):
        until(lambda: site.job(delivery).problem == "Unreachable", what="the first attempt")
    Circuits().ask(hasty.node)
    assert [subject for _, subject, *_ in site.alerts()] == ["pacs"]
    with writing(site.node.engine) as connection:
        commands.cancel(connection, delivery, who="anna")
    Circuits().ask(hasty.node)
    assert site.alerts() == []
    close_site(hasty)


def test_a_destination_that_is_gone_is_named_and_its_return_is_enough(site: Site) -> None:
    site.destinations()
    (delivery,) = produce(site, "pacs")
    with delivering(site), archive() as far:
        job = site.ended(delivery)
        assert (job.state, job.problem) == (State.FAILED, "NoSuchDestination")
        site.destinations(pacs(far))
        with writing(site.node.engine) as connection:
            commands.revive(connection, delivery, who="anna")
        site.node.bell.ring(Lane.DELIVER)
        assert site.ended(delivery).outcome is Outcome.DELIVERED


def test_what_was_taken_but_not_written_down_goes_again_as_the_same_bytes(site: Site) -> None:
    with archive() as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            site.ended(delivery)
        before = dict(far.kept)
        with writing(site.node.engine) as connection:
            connection.exec_driver_sql("DELETE FROM receipt")
            connection.exec_driver_sql(f"UPDATE job SET state = 'failed' WHERE id = {delivery}")
            commands.revive(connection, delivery, who="test")
        with delivering(site):
            site.ended(delivery)
    assert far.asked == uids(site, delivery) * 2
    assert far.kept == before


def test_an_archive_that_says_success_and_keeps_nothing_is_found_out(site: Site) -> None:
    with archive(finds=True, state=Archive(forgets=True)) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs", max_attempts=3)
        with delivering(site):
            job = site.ended(delivery)
    assert (job.state, job.problem) == (State.FAILED, "NotThere")
    assert "destination pacs has taken 2 objects and shows 0 of them" in (job.reason or "")
    assert far.asked == uids(site, delivery) * 2, "sent once, looked for again, sent once more"
    assert [row["accepted"] for row in site.receipts(delivery)] == [False, False]


def test_an_archive_that_takes_a_moment_to_show_it_is_asked_again_and_sent_nothing_twice(site: Site) -> None:
    with archive(finds=True, state=Archive(blind=1)) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    assert (job.outcome, job.attempt) == (Outcome.DELIVERED, 2)
    assert far.asked == uids(site, delivery)


def test_a_duplicate_that_is_there_under_our_uid_has_been_delivered(site: Site) -> None:
    with archive(finds=True) as far:
        site.destinations(pacs(far))
        first, second = produce(site, "pacs")[0], 0
        with delivering(site):
            site.ended(first)
            far.answers = [0x0111, 0x0111]
            with writing(site.node.engine) as connection:
                second = commands.rerun(connection, first, who="anna")
            site.node.bell.ring(Lane.DELIVER)
            assert site.ended(second).outcome is Outcome.DELIVERED
    assert {row["detail"] for row in site.receipts(second)} == {"0111 (Duplicate SOP Instance), and it is there"}


@pytest.mark.parametrize("finds", [True, False])
def test_a_duplicate_that_nobody_can_see_is_a_refusal(site: Site, finds: bool) -> None:
    with archive(finds=finds, state=Archive(answers=[0x0111])) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    assert (job.state, job.problem) == (State.FAILED, "Refused")


def hold_source(site: Site, far: Archive, **identity: str) -> None:
    """Give the archive the source series, as its own records have the patient."""
    for path in sorted((site.folder / "scan").iterdir()):
        dataset = dcmread(path)
        dataset.update({tag_for_keyword(keyword): DataElement(keyword, "LO", v) for keyword, v in identity.items()})
        far.kept[dataset.SOPInstanceUID] = encode(dataset, False, True)
        far.syntaxes[dataset.SOPInstanceUID] = ExplicitVRLittleEndian


def test_a_set_goes_where_its_images_are_under_the_same_patient_and_order(site: Site) -> None:
    site.receive()
    with archive(finds=True) as far:
        hold_source(site, far)
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs", study=STUDY, series=SERIES)
        with delivering(site):
            assert site.ended(delivery).attempt == 1
    assert far.asked == uids(site, delivery)


@pytest.mark.parametrize("keyword", ["PatientID", "AccessionNumber"])
def test_a_set_for_another_patient_or_order_is_held_and_both_are_shown(
    site: Site, keyword: str, capfd: pytest.CaptureFixture[str]
) -> None:
    site.receive()
    with archive(finds=True) as far:
        hold_source(site, far, **{keyword: "SECRET"})
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs", study=STUDY, series=SERIES)
        with delivering(site):
            until(lambda: site.job(delivery).state is State.HELD, what="the hold")
            job = site.job(delivery)
            assert far.asked == []
            assert f"destination pacs has this study with another {keyword}. " in (job.reason or "")
            (both,) = site.receipts(delivery)
            assert "here PatientID 'PH0001', AccessionNumber 'ACC1'" in both["detail"]
            assert "'SECRET'" in both["detail"]
            with writing(site.node.engine) as connection:
                commands.release(connection, delivery, who="anna")
            site.node.bell.ring(Lane.DELIVER)
            assert site.ended(delivery).outcome is Outcome.DELIVERED
    out = capfd.readouterr()
    assert not [word for word in ("SECRET", "PH0001", "ACC1") if word in out.out + out.err + (job.reason or "")]


def test_a_set_waits_for_its_images_and_goes_when_they_are_there(site: Site) -> None:
    site.receive()
    with archive(finds=True) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs", study=STUDY, series=SERIES)
        with delivering(site):
            until(lambda: site.job(delivery).problem == "NotYet", what="the first look")
            hold_source(site, far)
            assert site.ended(delivery).outcome is Outcome.DELIVERED


def test_a_set_whose_images_never_come_is_held(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "PATIENCE", 2)
    site.receive()
    with archive(finds=True) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs", study=STUDY, series=SERIES)
        with delivering(site):
            until(lambda: site.job(delivery).state is State.HELD, what="the hold")
    assert "does not have the images that the results are about" in (site.job(delivery).reason or "")


def test_who_does_not_want_to_be_asked_is_sent_at_once(site: Site) -> None:
    site.receive()
    with archive(finds=True) as far:
        site.destinations(pacs(far, same_study=False, read_back=False))
        (delivery,) = produce(site, "pacs", study=STUDY, series=SERIES)
        with delivering(site):
            assert site.ended(delivery).outcome is Outcome.DELIVERED
    assert far.found == 0


def test_several_sets_for_one_archive_go_one_after_the_other(site: Site) -> None:
    with archive() as far:
        site.destinations(pacs(far))
        deliveries = [produce(site, "pacs", number=number)[0] for number in range(4)]
        with delivering(site):
            site.quiet()
    assert far.asked == [uid for delivery in deliveries for uid in uids(site, delivery)]


def test_dcmtk_takes_a_set(site: Site, tmp_path: Path) -> None:
    component("DCMTK")
    port = free_port()
    taken = tmp_path / "taken"
    taken.mkdir()
    server = subprocess.Popen(["storescp", "--aetitle", "ARCHIVE", "-od", taken, "+xi", str(port)])
    try:
        site.destinations(pacs(Archive(port=port)))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            assert site.ended(delivery).outcome is Outcome.DELIVERED
    finally:
        server.terminate()
        server.wait(10)
    got = [dcmread(path) for path in taken.iterdir()]
    assert {one.SOPInstanceUID for one in got} == set(uids(site, delivery))
    assert {one.file_meta.TransferSyntaxUID.name for one in got} == {"Implicit VR Little Endian"}


def test_orthanc_holds_each_object_once_however_often_it_is_sent(site: Site, tmp_path: Path) -> None:
    component("Orthanc")
    with orthanc(tmp_path / "orthanc", {}) as far:
        site.destinations({**pacs(Archive(port=far.dicom_port)), "ae_title": "ORTHANC"})
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            assert site.ended(delivery).outcome is Outcome.DELIVERED
            with writing(site.node.engine) as connection:
                again = commands.rerun(connection, delivery, who="anna")
            site.node.bell.ring(Lane.DELIVER)
            assert site.ended(again).outcome is Outcome.DELIVERED
        assert sorted(one["SOPInstanceUID"] for one in far.instances()) == sorted(uids(site, delivery))
