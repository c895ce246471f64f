"""Delivered means committed: asked for by N-ACTION, reported wherever the archive likes, what failed sent again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom.acse import ACSE
from structlog.testing import capture_logs

from router.db import audit, jobs, pledges, revisions
from router.db.engine import clock, reading, writing
from router.db.revisions import Kind
from router.domain.audit import Act
from router.domain.delivery import Commitment, Standing, Verdict, standing
from router.domain.job import Lane, Outcome, State
from router.ingest import listener
from router.ingest.association import DoorACSE
from router.query import reports
from router.query.status import CommitmentStatus
from router.work.loop import wake_overdue
from tests.conftest import component, until
from tests.delivery.conftest import delivering, pacs, produce
from tests.delivery.scp import Archive, archive
from tests.delivery.test_deliver import uids
from tests.servers import free_port, listens, orthanc
from tests.work.site import Site, close_site, open_site, running

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom 3.0.4 forgets the socket whose connect was refused


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A node without studies, whose door may be opened."""
    made = open_site(tmp_path, listener={"host": "127.0.0.1", "port": free_port()})
    with writing(made.node.engine) as connection:
        known = [{"ae_title": title, "addresses": ["127.0.0.1"]} for title in ("ARCHIVE", "ORTHANC")]
        revisions.add(connection, Kind.SOURCES, known, author="test")
    yield made
    close_site(made)


@contextmanager
def door(site: Site) -> Iterator[int]:
    """Our listener, at its port."""
    port = site.node.settings.listener.port
    with running(site, "listen", listener.serve):  # type: ignore[arg-type]
        until(lambda: listens(port), what="the door")
        yield port


def committed(site: Site, delivery: int) -> list[bool]:
    return [row["committed_at"] is not None for row in site.receipts(delivery)]


def test_what_is_committed_on_the_association_that_asked_has_been_delivered(site: Site) -> None:
    with archive(commits=True) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    assert (job.outcome, job.attempt) == (Outcome.DELIVERED, 1)
    assert committed(site, delivery) == [True, True]
    assert far.answered == [0x0000]


@pytest.mark.parametrize("takes_role", [True, False], ids=["as SCP", "without a role"])
def test_a_report_on_an_association_to_our_door_ends_the_delivery(site: Site, takes_role: bool) -> None:
    with door(site) as port, archive(commits=True, state=Archive(reports_to=port, takes_role=takes_role)) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
        until(lambda: far.answered == [0x0000], what="our answer to the report")
    assert (job.outcome, job.attempt) == (Outcome.DELIVERED, 1)
    assert committed(site, delivery) == [True, True]


def test_a_report_that_comes_before_our_own_thread_has_accepted_it_is_answered(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine: the peer has our acceptance, and pynetdicom does not count it as established yet."""
    heard = threading.Event()
    hear = reports.hear

    def heard_first(acse: DoorACSE) -> None:
        ACSE.send_accept(acse)
        assert heard.wait(60)

    def told(*arguments: Any) -> CommitmentStatus:
        try:
            return hear(*arguments)
        finally:
            heard.set()

    monkeypatch.setattr(DoorACSE, "send_accept", heard_first, raising=False)
    monkeypatch.setattr(reports, "hear", told)
    with door(site) as port, archive(commits=True, state=Archive(reports_to=port)) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            assert site.ended(delivery).outcome is Outcome.DELIVERED
        until(lambda: far.answered == [0x0000], what="our answer to the report")


def test_until_it_is_committed_a_delivery_waits_and_blocks_nobody(site: Site) -> None:
    with archive(commits=True, state=Archive(silent=9)) as far:
        site.destinations(pacs(far, commitment_deadline_s=1e6))
        first, second = (produce(site, "pacs", number=number)[0] for number in range(2))
        with delivering(site):
            until(lambda: site.job(second).state is State.WAITING, what="the second delivery's wait")
    job = site.job(first)
    assert (job.state, job.lease_until, job.worker) == (State.WAITING, None, None)
    assert "has taken all 2 objects and is asked to commit to keep them" in (job.reason or "")
    assert committed(site, first) == [False, False]


def test_only_what_is_not_kept_is_sent_again(site: Site) -> None:
    with archive(commits=True, state=Archive(reasons={1: 0x0112})) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    first, second = uids(site, delivery)
    assert (job.outcome, job.attempt) == (Outcome.DELIVERED, 2)
    assert far.asked == [first, second, second]
    assert len(set(far.transactions)) == 2


def test_an_archive_that_says_success_and_keeps_nothing_is_found_out_by_commitment(site: Site) -> None:
    with archive(commits=True, state=Archive(forgets=True)) as far:
        site.destinations(pacs(far))
        (delivery,) = produce(site, "pacs", max_attempts=2)
        with delivering(site):
            job = site.ended(delivery)
    assert (job.state, job.problem) == (State.FAILED, "NotTaken")
    assert "not committed: 0112 (No such object instance); 2 of 2 objects are not there" in (job.reason or "")
    assert far.asked == uids(site, delivery) * 2


@pytest.mark.parametrize(
    ("reason", "name"), [(0x0122, "Referenced SOP Class not supported"), (0x0119, "Class-Instance conflict")]
)
@pytest.mark.parametrize("elsewhere", [True, False], ids=["to our door", "on the same association"])
def test_what_will_never_be_kept_stops_the_delivery_at_once(
    site: Site, reason: int, name: str, elsewhere: bool
) -> None:
    with door(site) as port:
        state = Archive(reasons={0: reason}, reports_to=port if elsewhere else None)
        with archive(commits=True, state=state) as far:
            site.destinations(pacs(far))
            (delivery,) = produce(site, "pacs")
            with delivering(site):
                job = site.ended(delivery)
    assert (job.state, job.problem, job.attempt) == (State.FAILED, "Refused", 1)
    assert f"not committed: {reason:04X} ({name}); 1 of 2 objects are not there" in (job.reason or "")
    assert sorted(committed(site, delivery)) == [False, True]


def test_a_report_that_does_not_come_is_asked_for_again_and_a_late_one_counts(site: Site) -> None:
    with archive(commits=True, state=Archive(silent=2)) as far:
        site.destinations(pacs(far, commitment_deadline_s=1e6))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            until(lambda: site.job(delivery).state is State.WAITING, what="the wait")
            with writing(site.node.engine) as connection:
                connection.exec_driver_sql("UPDATE job SET not_before = 0")
            wake_overdue(site.node)
            until(
                lambda: len(far.transactions) == 2 and site.job(delivery).state is State.WAITING, what="the second wait"
            )
            assert far.asked == uids(site, delivery), "it was sent again although it was taken"
            late = Commitment(transaction_uid=far.transactions[0], committed=frozenset(uids(site, delivery)), failed={})
            with writing(site.node.engine) as connection:
                assert pledges.report(connection, late) == delivery
            site.node.bell.ring(Lane.DELIVER)
            assert site.ended(delivery).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(("commitment", "problem"), [("ask", None), ("require", "Rejected")])
def test_who_takes_requests_and_never_reports_is_read_back_unless_commitment_is_required(
    site: Site, commitment: str, problem: str | None
) -> None:
    with archive(commits=True, finds=True, state=Archive(refusal=0x0110)) as far:
        site.destinations(pacs(far, commitment=commitment))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    assert (job.problem, job.attempt) == (problem, 1)
    assert far.found == (2 if commitment == "ask" else 0), "one C-FIND a series"


@pytest.mark.long
@pytest.mark.parametrize(
    ("heard", "finds", "requests", "how"),
    [(False, True, 1, "read back"), (True, True, 3, "read back"), (False, False, 3, "accepted")],
    ids=["a stranger", "who has reported before", "a stranger that cannot be read back"],
)
def test_silence_leads_to_the_read_back(site: Site, heard: bool, finds: bool, requests: int, how: str) -> None:
    """A stranger may not be able to call us at all: it is read back soon, and not after three deadlines."""
    with archive(commits=True, finds=finds, state=Archive(silent=9)) as far:
        site.destinations(pacs(far, commitment_deadline_s=0.01))
        if heard:
            (earlier,) = produce(site, "pacs")
            with writing(site.node.engine) as connection:
                pledges.add(connection, "1.2.3", earlier)
                pledges.report(connection, Commitment(transaction_uid="1.2.3", committed=frozenset(), failed={}))
                pledges.settle(connection, "1.2.3")
            delivery = earlier
        else:
            (delivery,) = produce(site, "pacs")
        with delivering(site):

            def overdue() -> bool:
                wake_overdue(site.node)
                return site.job(delivery).state is State.DONE

            until(overdue, deadline_s=60, what="the end")
    assert len(far.transactions) == requests
    with reading(site.node.engine) as connection:
        (sent,) = audit.list_(connection, act=Act.SENT)
    assert sent.detail["proof"] == how


def test_a_stranger_is_waited_for_a_few_minutes_and_not_until_the_deadline(site: Site) -> None:
    with archive(commits=True, state=Archive(silent=9)) as far:
        site.destinations(pacs(far, commitment_deadline_s=1e6))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            until(lambda: site.job(delivery).state is State.WAITING, what="the wait")
    with reading(site.node.engine) as connection:
        assert site.job(delivery).not_before < clock(connection) + 301 * jobs.SECOND


def test_who_is_never_to_be_asked_is_not(site: Site) -> None:
    with archive(commits=True) as far:
        site.destinations(pacs(far, commitment="never"))
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            assert site.ended(delivery).outcome is Outcome.DELIVERED
    assert far.transactions == []


def test_a_report_on_what_nobody_asked_is_logged_and_refused(site: Site) -> None:
    with door(site) as port, capture_logs() as logs:
        told = Dataset()
        told.TransactionUID, told.ReferencedSOPSequence = "1.2.3.99", []
        far = Archive(reports_to=port)
        far.report(None, told)  # type: ignore[arg-type]
    assert far.answered == [0x0110]
    (line,) = [one for one in logs if one["event"] == "commitment.unknown"]
    assert (line["transaction"], line["caller"]) == ("1.2.3.99", "ARCHIVE@127.0.0.1")


def test_a_report_that_comes_before_the_delivery_waits_is_not_missed(site: Site) -> None:
    """The archive is quicker than our own commit: parked and told at once, whichever comes first."""
    site.destinations()
    (delivery,) = produce(site, "pacs")
    with writing(site.node.engine) as connection:
        held = jobs.claim(connection, Lane.DELIVER, "test", 60)
        assert held is not None
        pledges.add(connection, "2.25.1", delivery)
        said = Commitment(transaction_uid="2.25.1", committed=frozenset({"1.2"}), failed={})
        assert pledges.report(connection, said) == delivery
        assert site.job(delivery).state is not State.WAITING
        from router.work.deliver import wake_if_told

        assert jobs.park(connection, held, wait_s=1e6, reason="asked")
        wake_if_told(connection, held)
    with reading(site.node.engine) as connection:
        found = jobs.find(connection, delivery)
    assert found is not None
    assert (found.state, found.attempt) == (State.QUEUED, 0)


def test_orthanc_commits_and_reports_to_our_door(site: Site, tmp_path: Path) -> None:
    component("Orthanc")
    with door(site) as port, orthanc(tmp_path / "orthanc", {"isocenter": ("ISOCENTER", port)}) as far:
        destination = pacs(Archive(port=far.dicom_port)) | {"ae_title": "ORTHANC", "commitment": "require"}
        site.destinations(destination)
        (delivery,) = produce(site, "pacs")
        with delivering(site):
            job = site.ended(delivery)
    assert (job.outcome, job.attempt) == (Outcome.DELIVERED, 1)
    assert committed(site, delivery) == [True, True]


def test_what_a_report_leaves_out_is_sent_again() -> None:
    said = Commitment(transaction_uid="1", committed=frozenset({"1.1"}), failed={"1.2": 0x0122, "1.3": 0x9999})
    assert [(one.sop_instance_uid, one.verdict) for one in said.receipts(["1.1", "1.2", "1.3", "1.4"])] == [
        ("1.2", Verdict.NEVER),
        ("1.3", Verdict.NEVER),
        ("1.4", Verdict.LATER),
    ]


def test_how_a_set_stands_is_named() -> None:
    assert [standing(objects=2, accepted=a, committed=c) for a, c in ((0, 0), (1, 0), (2, 1), (2, 2))] == [
        Standing.NOTHING,
        Standing.HALF,
        Standing.SENT,
        Standing.COMMITTED,
    ]
