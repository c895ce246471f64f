"""What proves that a study is complete, as the database and the source's own archive tell it."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from router.db import commitments, instances, pauses, revisions, steps
from router.db.engine import now, writing
from router.domain.pauses import FEWEST
from router.domain.procedure_step import PerformedStep, StepState
from router.domain.study import StudyState
from router.work.assemble import serve
from tests.conftest import until
from tests.rules.conftest import STUDY, MakeSite, Site

QUIET_S = 1000.0


def trust(site: Site, *witnesses: str, **values: Any) -> None:
    source = {"ae_title": "SCANNER", "addresses": ["any"], "witnesses": list(witnesses), **values}
    with writing(site.node.engine) as connection:
        revisions.add(connection, revisions.Kind.SOURCES, [source], author="test")


def commit(site: Site, *sop_instance_uids: str) -> None:
    request = commitments.CommitmentRequest(
        calling_ae_title="SCANNER",
        transaction_uid="1.9",
        requested=tuple(("1.2.840.10008.5.1.4.1.1.2", uid) for uid in sop_instance_uids),
        received_at=now(),
    )
    with writing(site.node.engine) as connection:
        commitments.add(connection, request, not_before=now())
        instances.look_again(connection, [STUDY], 0)


def test_the_announced_number_of_the_study_is_believed_and_waited_for(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=QUIET_S)
    site.receive(3, NumberOfStudyRelatedInstances=5)
    site.decide()
    assert site.study().state is StudyState.RECEIVING
    site.receive(2, series="1.2.3.2", NumberOfStudyRelatedInstances=5)
    site.decide()
    assert site.study().completeness == "5 of 5 instances announced by NumberOfStudyRelatedInstances"


def test_the_sizes_of_series_are_believed_only_of_a_source_that_is_trusted_to_give_them(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=QUIET_S)
    site.receive(3, ImagesInAcquisition=3)
    site.decide()
    assert site.study().state is StudyState.RECEIVING
    trust(site, "every_series")
    site.receive(1, series="1.2.3.2", NumberOfSeriesRelatedInstances=2)
    site.decide()
    assert site.study().state is StudyState.RECEIVING
    site.receive(1, first=2, series="1.2.3.2", NumberOfSeriesRelatedInstances=2)
    site.decide()
    assert site.study().completeness == "5 of 5 instances announced by the size that each series gives"


def test_a_storage_commitment_request_that_names_everything_completes_the_study(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=QUIET_S)
    trust(site, "commitment")
    site.receive(3)
    commit(site, "1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3", "1.2.3.1.4")
    site.decide()
    assert site.study().state is StudyState.RECEIVING
    site.receive(1, first=4)
    site.decide()
    assert site.study().completeness == "4 of 4 instances announced by storage commitment"


def test_a_request_that_names_only_a_part_proves_nothing(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=QUIET_S)
    trust(site, "commitment")
    site.receive(3)
    commit(site, "1.2.3.1.1")
    site.decide()
    assert site.study().state is StudyState.RECEIVING


def perform(site: Site, state: StepState, *sop_instance_uids: str, step: str = "1.7", series: str = "1.2.3.1") -> None:
    """A modality reports a step of the study, from its begin to this state."""
    begun = PerformedStep(sop_instance_uid=step, state=StepState.IN_PROGRESS, study_instance_uids=(STUDY,))
    with writing(site.node.engine) as connection:
        steps.add(connection, begun, calling_ae_title="SCANNER", at=now())
        if state is not StepState.IN_PROGRESS:
            steps.change(connection, replace(begun, state=state, series={series: sop_instance_uids}), at=now())
        instances.look_again(connection, [STUDY], 0)


SLICES = ("1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3")


@pytest.mark.parametrize(
    ("state", "said"),
    [(StepState.COMPLETED, "MPPS"), (StepState.DISCONTINUED, "MPPS, which was discontinued")],
)
def test_a_step_that_is_over_and_names_everything_completes_the_study(
    make_site: MakeSite, state: StepState, said: str
) -> None:
    site = make_site(quiet_period_s=QUIET_S)
    perform(site, state, *SLICES)
    site.receive(2)
    site.decide()
    assert site.study().state is StudyState.RECEIVING
    site.receive(1, first=3)
    site.decide()
    assert site.study().completeness == f"3 of 3 instances announced by {said}"


def test_a_step_that_goes_on_or_names_only_a_part_proves_nothing(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=QUIET_S)
    site.receive(3)
    perform(site, StepState.COMPLETED, *SLICES)
    perform(site, StepState.IN_PROGRESS, step="1.8")
    site.decide()
    assert site.study().state is StudyState.RECEIVING
    other = make_site(quiet_period_s=QUIET_S)
    other.receive(4, study="1.2.4", series="1.2.4.1")
    perform(other, StepState.COMPLETED, "1.2.4.1.1")
    other.decide()
    assert other.study("1.2.4").state is StudyState.RECEIVING


def test_a_source_that_is_not_trusted_to_report_its_steps_is_not_believed(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=QUIET_S)
    trust(site, "announced")
    site.receive(3)
    perform(site, StepState.COMPLETED, *SLICES)
    site.decide()
    assert site.study().state is StudyState.RECEIVING


def test_the_quiet_period_is_learned_from_the_sender_and_kept(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=QUIET_S)
    with writing(site.node.engine) as connection:
        for number in range(FEWEST):
            pauses.note(connection, f"9.{number}", "SCANNER", 10_000_000, number)
            pauses.note(connection, f"8.{number}", "OTHER", 99_000_000, number)
    site.receive(3, at=now() - 1_000_000)  # silent too short to be decided on in this test
    site.decide()
    study = site.study()
    assert study.decide_at == study.last_instance_at + 15_000_000
    site.receive(3, study="1.2.4", series="1.2.4.1", at=now() - 16_000_000)
    site.decide()
    sentence = site.study("1.2.4").completeness
    assert sentence == "3 instances received, then silence for 15 s, learned from 200 studies of this sender"
    with writing(site.node.engine) as connection:
        assert len(pauses.of_sender(connection, "SCANNER")) == FEWEST + 1


class Archive:
    """A C-FIND SCP that has as many instances as it is told."""

    def __init__(self) -> None:
        self.series = {"1.2.3.1": 3}
        self.asked = 0
        ae = AE("ARCHIVE")
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, self.find)])
        self.port = self.server.socket.getsockname()[1] if self.server.socket else 0

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.asked += 1
        for uid, count in self.series.items():
            answer = Dataset()
            answer.QueryRetrieveLevel = "SERIES"
            answer.StudyInstanceUID = event.identifier.StudyInstanceUID
            answer.SeriesInstanceUID = uid
            answer.NumberOfSeriesRelatedInstances = count
            yield 0xFF00, answer


@pytest.fixture
def archive() -> Iterator[Archive]:
    archive = Archive()
    yield archive
    archive.server.shutdown()


@pytest.fixture
def deciding(make_site: MakeSite) -> Iterator[Site]:
    site, stop = make_site(quiet_period_s=QUIET_S), threading.Event()
    role = threading.Thread(target=serve, args=(site.node, stop))
    role.start()
    until(lambda: list(site.node.wake_folder.glob("decide.*")), what="the role listens")
    yield site
    stop.set()
    site.node.bell.ring("decide")
    role.join(30)
    assert not role.is_alive()


def test_the_source_is_counted_twice_and_our_own_results_there_are_left_out(deciding: Site, archive: Archive) -> None:
    site = deciding
    trust(site, "count", count_at={"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port})
    archive.series["9.9"] = 2
    site.receive(2, series="9.9", ours=True, Modality="SEG")
    site.receive(3)
    site.node.bell.ring("decide")
    until(lambda: site.study().state is StudyState.COMPLETE, deadline_s=30, what="complete by counting")
    assert site.study().completeness == "3 of 3 instances announced by C-FIND at ARCHIVE, counted 2 times"
    assert archive.asked == 2


@pytest.mark.long
def test_what_the_source_still_has_is_waited_for(deciding: Site, archive: Archive) -> None:
    site = deciding
    trust(site, "count", count_at={"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": archive.port})
    archive.series["1.2.3.1"] = 4
    site.receive(3)
    site.node.bell.ring("decide")
    until(lambda: archive.asked >= 2, deadline_s=30, what="counted twice")
    assert site.study().state is StudyState.RECEIVING
    site.receive(1, first=4)
    site.node.bell.ring("decide")
    until(lambda: site.study().state is StudyState.COMPLETE, deadline_s=30, what="complete by counting")


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom leaves a refused socket open
def test_a_source_that_does_not_answer_leaves_it_to_silence(deciding: Site) -> None:
    site = deciding
    trust(site, "count", quiet_period_s=3, count_at={"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": 1})
    site.receive(3)
    site.node.bell.ring("decide")
    until(lambda: site.study().state is StudyState.COMPLETE, deadline_s=30, what="complete by silence")
    assert site.study().completeness == "3 instances received, then silence for 3 s"
