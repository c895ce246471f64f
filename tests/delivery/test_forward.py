"""A study as received reaches the places to which a rule forwards it: whole, once, and later only what is new."""

from pathlib import Path

import pytest
from pydicom import dcmread

from router.db import commands, instances, jobs, receipts
from router.db.engine import now, reading, writing
from router.domain.delivery import Standing
from router.domain.job import Outcome, State
from router.ingest import part10
from tests.delivery.conftest import delivering, pacs
from tests.delivery.scp import Archive, aborts, archive
from tests.work.site import STUDY, Site

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom 3.0.4 forgets the socket whose connect was refused


def forward(site: Site, *, generation: int = 1, run: int = 0, to: str = "pacs") -> int:
    with writing(site.node.engine) as connection:
        return jobs.add_forward(
            connection,
            study_instance_uid=STUDY,
            generation=generation,
            destination=to,
            priority=50,
            max_attempts=20,
            run=run,
        )[0]


def rows(site: Site) -> list[instances.InstanceRow]:
    with reading(site.node.engine) as connection:
        return instances.of_study(connection, STUDY)


def stored(site: Site) -> dict[str, bytes]:
    """The data sets that lie in the store, by SOPInstanceUID."""
    files = {row.sop_instance_uid: site.node.store.path(row.path).read_bytes() for row in rows(site)}
    return {uid: content[part10.dataset_offset(content) :] for uid, content in files.items()}


def changed(site: Site, source: Path, **values: str) -> Path:
    """A slice like this one with other values."""
    dataset = dcmread(source)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = site.folder / f"{dataset.SOPInstanceUID}-{'-'.join(values)}.dcm"
    dataset.save_as(path)
    return path


def test_every_instance_goes_as_it_lies_in_the_store_though_the_archive_has_nothing_of_the_study(site: Site) -> None:
    site.receive()
    with archive(finds=True) as far:
        site.destinations(pacs(far))
        job = forward(site)
        with delivering(site):
            ended = site.ended(job)
    assert (ended.state, ended.outcome, ended.work) == (State.DONE, Outcome.DELIVERED, "forwarding to pacs")
    assert far.kept == stored(site)
    assert sorted(far.asked) == sorted(row.sop_instance_uid for row in rows(site))
    assert {row["status"] for row in site.receipts(job)} == {0}
    assert site.acts() == ["study.sent"]
    with reading(site.node.engine) as connection:
        assert receipts.standing_of(connection, ended) is Standing.SENT


def test_after_an_abort_only_what_is_missing_goes_again(site: Site) -> None:
    site.receive()
    with archive(state=Archive(answers=[0, 0, aborts])) as far:
        site.destinations(pacs(far))
        job = forward(site)
        with delivering(site):
            assert site.ended(job).outcome is Outcome.DELIVERED
    sent = [row.sop_instance_uid for row in rows(site)]
    assert far.asked == [*sent[:3], *sent[2:]]
    assert far.kept == stored(site)


@pytest.mark.long
def test_of_a_study_that_has_grown_only_the_new_instances_go_and_of_a_corrected_one_the_correction(site: Site) -> None:
    site.receive()
    (first, *_) = sorted((site.folder / "scan").iterdir())
    with archive(commits=True) as far:
        site.destinations(pacs(far))
        with delivering(site):
            site.ended(forward(site))
            before = len(far.asked)
            site.store(changed(site, first, SOPInstanceUID="1.2.826.77"))
            site.ended(forward(site, generation=2))
            assert far.asked[before:] == ["1.2.826.77"]
            correct(site, changed(site, first, PatientID="CORRECTED"))
            third = site.ended(forward(site, generation=3))
    corrected = str(dcmread(first).SOPInstanceUID)
    assert far.asked[before:] == ["1.2.826.77", corrected]
    assert far.changed == [corrected]
    with reading(site.node.engine) as connection:
        assert receipts.standing_of(connection, third) is Standing.COMMITTED


def correct(site: Site, path: Path) -> None:
    """The same instance comes with another identity."""
    dataset, content = dcmread(path), path.read_bytes()
    (old,) = [row for row in rows(site) if row.sop_instance_uid == dataset.SOPInstanceUID]
    part = site.node.store.open_part()
    with open(part.fd, "wb", closefd=False) as file:
        file.write(content)
    values = {name: getattr(old, name, None) for name in instances.Arrival.__slots__}
    values |= {"path": part.keep("corrected"), "size": len(content), "calling_ae_title": "SCANNER"}
    values |= {"received_at": now(), "dataset_digest": "corrected"}
    with writing(site.node.engine) as connection:
        instances.record_correction(connection, instances.Arrival(**values))


def test_a_study_whose_files_are_gone_says_so_and_sends_nothing(site: Site) -> None:
    with archive() as far:
        site.destinations(pacs(far))
        job = forward(site)
        with delivering(site):
            ended = site.ended(job)
    assert (ended.state, ended.problem) == (State.FAILED, "NothingToSend")
    assert far.asked == []


@pytest.mark.long
def test_a_person_may_have_it_forwarded_again(site: Site) -> None:
    site.receive()
    with archive() as far:
        site.destinations(pacs(far))
        job = forward(site)
        with delivering(site):
            site.ended(job)
            with writing(site.node.engine) as connection:
                again = commands.rerun(connection, job, who="person")
            assert again != job
            assert site.ended(again).outcome is Outcome.DELIVERED


def test_a_generation_is_forwarded_once_and_an_earlier_one_that_waits_makes_room(site: Site) -> None:
    site.receive()
    first = forward(site)
    assert forward(site) == first
    second = forward(site, generation=2)
    assert site.job(first).state is State.SUPERSEDED
    assert site.job(second).state is State.QUEUED
    assert forward(site, to="other") not in (first, second)
