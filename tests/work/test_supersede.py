"""A series that changes after its results were made: what runs again, what does not, what is sent, who is told."""

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage
from sqlalchemy import update

from router.db import commands, instances, jobs, results, revisions, studies
from router.db.engine import reading, writing
from router.db.revisions import Kind
from router.db.tables import instance, study
from router.domain.delivery import note_for
from router.domain.job import Job, Lane, Outcome, State
from router.domain.study import Study, StudyState
from router.work import build, deliver, infer
from router.work.assemble import turn
from router.work.count import Counter
from router.work.plan import Book
from tests.conftest import until
from tests.objects.conftest import ct_series
from tests.work import INSIDE
from tests.work.site import SERIES, STUDY, Site, close_site, open_site, running

RULE: dict[str, Any] = {
    "name": "chest",
    "when": {"Modality": "CT"},
    "pipelines": ["moody"],
    "destinations": ["pacs", "shelf"],
}


@pytest.fixture
def site(tmp_path: Path, shelf: None) -> Iterator[Site]:
    """A node that decides at once, with a CT series of six images; `pacs` takes results, `shelf` cannot be written."""
    tries = {"retry_first_s": 0.05, "retry_cap_s": 0.2, "timeout_s": 5, "max_attempts": 500}
    made = open_site(tmp_path, completeness={"quiet_period_s": 0}, delivery=tries)
    (tmp_path / "pacs").mkdir()
    (tmp_path / "shelf").write_text("a file where a folder should be")
    places(made)
    with writing(made.node.engine) as connection:
        revisions.add(connection, Kind.SOURCES, [], author="test")
        revisions.add(connection, Kind.RULES, [RULE], author="test")
    for path in ct_series(tmp_path / "scan"):
        made.store(path)
    yield made
    close_site(made)


def places(site: Site, **profile: Any) -> None:
    names = ("pacs", "shelf")
    site.destinations(
        *({"kind": "folder", "name": one, "path": str(site.folder / one), "profile": profile} for one in names)
        if profile
        else ({"kind": "folder", "name": one, "path": str(site.folder / one)} for one in names)
    )


def decide(site: Site) -> Study:
    counter = Counter(site.node)
    try:
        turn(site.node, Book(), counter)
    finally:
        counter.close()
    with reading(site.node.engine) as connection:
        found = studies.find(connection, STUDY)
    assert found is not None
    return found


def runs(site: Site) -> list[Job]:
    with reading(site.node.engine) as connection:
        return jobs.list_(connection, lane=Lane.INFER)[::-1]


def deliveries(site: Site) -> dict[tuple[int | None, str | None], Job]:
    """Deliveries by the run and the destination."""
    found = {}
    for job in site.deliveries():
        with reading(site.node.engine) as connection:
            made = results.find_set(connection, job.result_set_id or 0)
        found[made.job_id if made else None, job.destination] = job
    return found


def worked(site: Site) -> None:
    """Run what is to run, and deliver what can be delivered; `shelf` never takes anything."""
    with running(site, Lane.INFER, partial(infer.serve, inside=INSIDE)):
        for job in runs(site):
            site.ended(job.id)
    with running(site, Lane.DELIVER, deliver.serve):
        for (_, name), job in deliveries(site).items():
            if name == "pacs" and job.state is not State.HELD:
                site.ended(job.id)


def made_by(site: Site, job: Job) -> list[Dataset]:
    return [pydicom.dcmread(BytesIO(site.content(one))) for one in site.results(job.id)]


def report(objects: list[Dataset]) -> Dataset:
    (found,) = [one for one in objects if one.SOPClassUID == Comprehensive3DSRStorage]
    return found


def pointed_at(note: Dataset) -> set[str]:
    (of_study,) = note.CurrentRequestedProcedureEvidenceSequence
    listed = (one for series in of_study.ReferencedSeriesSequence for one in series.ReferencedSOPSequence)
    return {one.ReferencedSOPInstanceUID for one in listed}


def late_image(site: Site) -> None:
    site.store(ct_series(site.folder / "later", shape=(7, 16, 24))[6])


def corrected(site: Site) -> None:
    """The archive sends all images again under another patient: the same pixels."""
    with writing(site.node.engine) as connection:
        for row in instances.of_series(connection, STUDY, SERIES):
            path = site.node.store.path(row.path)
            dataset = pydicom.dcmread(path)
            dataset.PatientName, dataset.PatientID = "Corrected^Name", "PH0002"
            pydicom.dcmwrite(path, dataset)
            connection.execute(
                update(instance)
                .where(instance.c.sop_instance_uid == row.sop_instance_uid)
                .values(header={**row.header, "PatientID": "PH0002"}, dataset_digest="corrected")
            )
        connection.execute(update(study).values(state="receiving", decide_at=0))


def test_the_report_says_how_completeness_was_known_and_how_many_images_were_used(site: Site) -> None:
    decide(site)
    worked(site)
    said = [item.TextValue for item in report(made_by(site, runs(site)[0])).ContentSequence[-1].ContentSequence[:9]
            if "TextValue" in item]  # fmt: skip
    assert "Study complete: 6 instances received, then silence for 0 s. 6 instances of this series were used." in said


def test_a_late_image_makes_a_new_result_that_names_the_old_one_and_says_what_changed(site: Site) -> None:
    assert decide(site).generation == 1
    worked(site)
    late_image(site)
    again = decide(site)
    assert again.generation == 2
    worked(site)
    old, new = runs(site)
    assert (old.state, new.state) == (State.DONE, State.DONE)
    assert old.stale_at is not None
    assert new.stale_at is None
    before, after = report(made_by(site, old)), report(made_by(site, new))
    assert "PredecessorDocumentsSequence" not in before
    (document,) = after.PredecessorDocumentsSequence
    (series,) = document.ReferencedSeriesSequence
    (named,) = series.ReferencedSOPSequence
    assert document.StudyInstanceUID == STUDY
    assert series.SeriesInstanceUID == before.SeriesInstanceUID
    assert named.ReferencedSOPInstanceUID == before.SOPInstanceUID
    first = after.ContentSequence[0].TextValue
    assert first.startswith("Supersedes the result of 20")
    assert first.endswith(": 1 image came later, 7 instead of 6 were read.")
    assert "rejection_note" not in {one.kind for one in site.results(new.id)}
    there = deliveries(site)
    assert there[old.id, "pacs"].state is State.DONE
    assert there[old.id, "shelf"].state is State.SUPERSEDED
    assert there[new.id, "pacs"].state is State.DONE


@pytest.mark.long
def test_a_destination_that_wants_it_gets_a_note_first_that_rejects_the_old_objects(site: Site) -> None:
    places(site, reject_superseded=True)
    decide(site)
    worked(site)
    assert {one.kind for one in site.results(runs(site)[0].id)} == {"segmentation", "measurement_report"}
    late_image(site)
    decide(site)
    worked(site)
    old, new = runs(site)
    note, *others = made_by(site, new)
    assert [one.kind for one in site.results(new.id)] == ["rejection_note", "segmentation", "measurement_report"]
    assert note.Modality == "KO"
    assert note.ConceptNameCodeSequence[0].CodeMeaning == "Rejected for Quality Reasons"
    said = pointed_at(note)
    assert said == {one.sop_instance_uid for one in site.results(old.id)}
    assert note.SOPInstanceUID not in str(report(others).CurrentRequestedProcedureEvidenceSequence)
    assert deliveries(site)[new.id, "pacs"].state is State.DONE


@pytest.mark.long
def test_the_next_note_rejects_the_newest_results_and_no_note(site: Site) -> None:
    places(site, reject_superseded=True)
    decide(site)
    worked(site)
    for count in (7, 8):
        site.store(ct_series(site.folder / f"later{count}", shape=(count, 16, 24))[count - 1])
        decide(site)
        worked(site)
    _, second, third = runs(site)
    note = made_by(site, third)[0]
    said = pointed_at(note)
    results_of_second = {one.sop_instance_uid: one.kind for one in site.results(second.id)}
    assert sorted(results_of_second[uid] for uid in said) == ["measurement_report", "segmentation"]


def test_a_superseded_result_that_was_delivered_is_shown_to_a_person_until_someone_has_looked(site: Site) -> None:
    decide(site)
    worked(site)
    late_image(site)
    shown = decide(site)
    old = runs(site)[0]
    assert shown.attention == (
        f"pacs took results of job {old.id} (moody 1.0), the series has changed since; newer ones supersede them"
    )
    with writing(site.node.engine) as connection:
        assert [one.study_instance_uid for one in studies.list_(connection, attention=True)] == [STUDY]
        assert studies.attended(connection, STUDY)
        assert not studies.attended(connection, STUDY)
        connection.execute(update(study).values(state="receiving", decide_at=0, witnesses={}))
    assert decide(site).attention is None


def test_delivered_results_whose_images_were_all_moved_elsewhere_are_shown_to_a_person(site: Site) -> None:
    decide(site)
    worked(site)
    with writing(site.node.engine) as connection:
        connection.execute(update(instance).values(status="replaced"))
        connection.execute(update(study).values(state="receiving", decide_at=0))
    shown = decide(site)
    (old,) = runs(site)
    assert shown.state is StudyState.COMPLETE
    assert shown.attention == (
        f"pacs took results of job {old.id} (moody 1.0), all images of their series were moved to another series or "
        "study since; nothing takes their place here"
    )
    assert deliveries(site)[old.id, "shelf"].state is State.SUPERSEDED
    with reading(site.node.engine) as connection:
        assert jobs.list_(connection, lane=Lane.BUILD) == [], "nobody wants a note"


OTHER_STUDY = "1.2.826.0.1.3680043.10.99999.2.1"


@pytest.mark.long
def test_what_was_delivered_of_moved_images_is_rejected_in_its_study_before_the_new_set_is_sent(site: Site) -> None:
    places(site, reject_superseded=True)
    decide(site)
    worked(site)
    site.move(study=OTHER_STUDY, series=SERIES)
    decide(site)
    old, new = runs(site)
    assert (new.study_instance_uid, new.pixels_digest) == (OTHER_STUDY, old.pixels_digest)
    with running(site, Lane.INFER, partial(infer.serve, inside=INSIDE)):
        site.ended(new.id)
    with running(site, Lane.DELIVER, deliver.serve):
        (sent,) = [job for job in site.deliveries() if job.destination == "pacs" and job.state is not State.DONE]
        until(lambda: "first to get the note" in (site.job(sent.id).reason or ""), what="a delivery that waits")
        assert site.receipts(sent.id) == []
        with running(site, Lane.BUILD, build.serve):
            assert site.ended(sent.id).outcome is Outcome.DELIVERED
    note = made_by(site, old)[-1]
    before = [one for one in site.results(old.id) if one.kind != "rejection_note"]
    assert pointed_at(note) == {one.sop_instance_uid for one in before}
    assert (note.StudyInstanceUID, note.Modality) == (STUDY, "KO")
    assert note.ConceptNameCodeSequence[0].CodeMeaning == "Incorrect Modality Worklist Entry"
    assert note.SeriesDescription == made_by(site, old)[0].SeriesDescription
    (noted,) = notes_about(site, old)
    assert (noted.destination, noted.state) == ("pacs", State.DONE)
    (first,) = site.receipts(noted.id)
    assert all(first["sent_at"] <= one["sent_at"] for one in site.receipts(sent.id))
    after = report(made_by(site, new))
    (document,) = after.PredecessorDocumentsSequence
    assert document.StudyInstanceUID == STUDY
    assert after.ContentSequence[0].TextValue.endswith(": its images were moved here from another study.")


def notes_about(site: Site, run: Job) -> list[Job]:
    """Deliveries of notes alone about what this run gave."""
    with reading(site.node.engine) as connection:
        sets = {one.id for one in results.sets_of_job(connection, run.id) if note_for(one.profile)}
    return [job for job in site.deliveries() if job.result_set_id in sets]


@pytest.mark.long
def test_images_whose_results_were_rejected_are_worked_on_anew_when_they_come_back(site: Site) -> None:
    places(site, reject_superseded=True)
    decide(site)
    worked(site)
    site.move(study=OTHER_STUDY, series=SERIES)
    decide(site)
    with running(site, Lane.BUILD, build.serve), running(site, Lane.DELIVER, deliver.serve):
        (noted,) = until(lambda: notes_about(site, runs(site)[0]), what="a note")
        site.ended(noted.id)
    decide(site)  # what was told to go is not taken back when the study is looked at again
    assert site.job(noted.id).state is State.DONE
    site.move(study=STUDY, series=SERIES, of=(OTHER_STUDY, SERIES))
    decide(site)
    old, _, again = runs(site)
    assert (old.run, again.run) == (0, 1)
    assert (again.pixels_digest, again.identity_digest) == (old.pixels_digest, old.identity_digest)
    assert again.state is State.QUEUED


@pytest.mark.long
def test_a_result_that_nobody_has_is_replaced_without_a_word(site: Site) -> None:
    decide(site)
    with running(site, Lane.INFER, partial(infer.serve, inside=INSIDE)):
        site.ended(runs(site)[0].id)
    late_image(site)
    assert decide(site).attention is None
    worked(site)
    old, new = runs(site)
    assert {deliveries(site)[old.id, name].state for name in ("pacs", "shelf")} == {State.SUPERSEDED}
    assert "PredecessorDocumentsSequence" not in report(made_by(site, new))


@pytest.mark.long
def test_a_run_on_another_series_is_left_alone(site: Site) -> None:
    decide(site)
    worked(site)

    def other(slice_: Dataset, index: int) -> None:
        slice_.SeriesInstanceUID, slice_.SOPInstanceUID = "1.2.3.9", f"1.2.3.9.{index}"

    for path in ct_series(site.folder / "other", change=other):
        site.store(path)
    assert decide(site).attention is None
    assert [job.stale_at for job in runs(site)] == [None, None]
    assert deliveries(site)[runs(site)[0].id, "shelf"].state is not State.SUPERSEDED


@pytest.mark.long
def test_a_correction_runs_nothing_again_sends_what_nobody_has_and_holds_the_rest_for_a_person(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    decide(site)
    worked(site)
    capfd.readouterr()
    corrected(site)
    shown = decide(site)
    assert shown.attention is not None
    assert shown.attention.endswith(
        "patient or study data were corrected since; corrected ones are held for you to release"
    )
    assert "Corrected" not in shown.attention
    worked(site)
    old, new = runs(site)
    assert (new.state, new.outcome) == (State.DONE, Outcome.RESULT)
    assert "findings.recalled" in capfd.readouterr().out
    after = report(made_by(site, new))
    assert (str(after.PatientName), after.PatientID) == ("Corrected^Name", "PH0002")
    assert after.ContentSequence[0].TextValue.endswith(
        ": patient or study data were corrected, the images are the same."
    )
    there = deliveries(site)
    assert there[old.id, "shelf"].state is State.SUPERSEDED
    assert there[new.id, "shelf"].state in (State.QUEUED, State.RUNNING)
    held = there[new.id, "pacs"]
    assert held.state is State.HELD
    assert held.reason == (
        f"pacs has the results of job {old.id} under the data before a correction; "
        "release this one to send corrected ones"
    )
    with writing(site.node.engine) as connection:
        commands.release(connection, held.id, who="tester")
    with running(site, Lane.DELIVER, deliver.serve):
        assert site.ended(held.id).outcome is Outcome.DELIVERED


@pytest.mark.long
def test_inputs_that_come_back_are_no_longer_stale(site: Site) -> None:
    decide(site)
    worked(site)
    late_image(site)
    decide(site)
    with writing(site.node.engine) as connection:
        (late,) = [row for row in instances.of_series(connection, STUDY, SERIES) if row.sop_instance_uid.endswith(".7")
                   or row.instance_number == "7"][-1:]  # fmt: skip
        instances.mark_lost(connection, [late.path])
        connection.execute(update(study).values(state="receiving", decide_at=0))
    assert decide(site).state is StudyState.COMPLETE
    old, new = runs(site)
    assert old.stale_at is None
    assert (new.state, new.stale_at is None) == (State.SUPERSEDED, False)
