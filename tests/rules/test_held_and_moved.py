"""What becomes of jobs that were made early when their study is held, and of runs whose images moved elsewhere."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from router.db import instances, jobs, studies
from router.db.engine import now, reading, writing
from router.db.instances import Arrival
from router.domain.job import Job, Lane, Outcome, State
from router.domain.study import StudyState
from router.wake import Ear
from router.why import explain
from tests.rules.conftest import RULE, STUDY, MakeSite, Site
from tests.rules.test_series_are_decided import AGO, FIRST, SECOND, waiting
from tests.rules.test_witnesses import trust


def claimed(site: Site) -> Job | None:
    with writing(site.node.engine) as connection:
        return jobs.claim(connection, Lane.INFER, "worker", 60)


def again(site: Site, arrivals: Sequence[Arrival], *, study: str, series: str | None = None, **header: str) -> None:
    """The same pixels come again under another study, series or identity."""
    with writing(site.node.engine) as connection:
        for one in arrivals:
            moved = replace(
                one,
                study_instance_uid=study,
                series_instance_uid=series or one.series_instance_uid,
                path=f"{one.path}.again",
                dataset_digest=f"{one.dataset_digest} {study} {series}",
                header=one.header | {"StudyInstanceUID": study} | header,
                received_at=now(),
            )
            instances.record_correction(connection, moved)


def release(site: Site) -> None:
    with writing(site.node.engine) as connection:
        studies.released_by(connection, STUDY, now(), who="tester", reason="looked at")


def test_what_was_made_early_does_not_start_while_the_study_is_held(make_site: MakeSite) -> None:
    site = waiting(make_site, RULE)
    site.receive(3, at=now() - AGO)
    site.decide()
    wrong = site.receive(1, series=SECOND, PatientID="8")
    trust(site, quiet_period_s=1000, series_quiet_period_s=0)
    site.decide()
    assert site.study().state is StudyState.HELD
    (job,) = site.jobs()
    assert job.state is State.QUEUED
    assert claimed(site) is None
    with reading(site.node.engine) as connection:
        (page,) = explain(connection, STUDY)
    assert page.as_json()["jobs"][0]["waits_for"] == (
        f"its study is held. It waits for `isocenter studies release {STUDY}`"
    )

    again(site, wrong, study=STUDY, PatientID="7")
    release(site)
    assert claimed(site) is None  # decide has not looked yet, and might hold it again
    trust(site, quiet_period_s=0)
    with Ear(site.node.wake_folder, Lane.INFER) as ear:
        site.decide()
        assert ear.wait(60)
    assert site.study().state is StudyState.COMPLETE
    first = claimed(site)
    assert first is not None
    assert first.id == job.id


def test_a_release_that_has_put_nothing_right_starts_nothing(make_site: MakeSite) -> None:
    site = waiting(make_site, RULE)
    site.receive(3, at=now() - AGO)
    site.decide()
    site.receive(1, series=SECOND, PatientID="8")
    trust(site, quiet_period_s=0)
    site.decide()
    release(site)
    site.decide()
    assert site.study().state is StudyState.HELD
    assert claimed(site) is None


def test_a_study_held_at_its_deadline_is_decided_with_what_is_there_when_a_person_releases_it(
    make_site: MakeSite,
) -> None:
    site = make_site(RULE, quiet_period_s=100, deadline_s=50)
    trust(site, at_deadline="hold")
    site.receive(3, at=now() - AGO)
    site.decide()
    assert site.study().state is StudyState.HELD
    release(site)
    site.decide()
    assert site.study().state is StudyState.COMPLETE
    assert len(site.jobs()) == 1


@pytest.mark.parametrize(("study", "series"), [("1.2.4", None), (STUDY, "1.2.3.7")], ids=["study", "series"])
def test_a_run_whose_images_were_all_moved_is_superseded_where_they_are_gone(
    make_site: MakeSite, study: str, series: str | None
) -> None:
    site = make_site()
    images = site.receive(3)
    site.decide()
    again(site, images, study=study, series=series)
    site.decide()
    old, new = site.jobs()
    assert (old.state, old.reason) == (State.SUPERSEDED, "its images were moved to another series or study")
    assert old.stale_at is not None
    assert (new.state, new.study_instance_uid) == (State.QUEUED, study)
    assert new.series_instance_uid == (series or FIRST)
    assert new.pixels_digest == old.pixels_digest
    assert site.study().state is StudyState.COMPLETE
    assert site.study(study).state is StudyState.COMPLETE


def test_images_that_were_moved_within_their_study_are_worked_on_in_their_new_series(make_site: MakeSite) -> None:
    site = make_site()
    images = site.receive(3, SeriesInstanceUID=FIRST, StudyInstanceUID=STUDY)
    site.decide()
    done = claimed(site)
    assert done is not None
    with writing(site.node.engine) as connection:
        assert jobs.finish(connection, done, Outcome.RESULT)
    again(site, images, study=STUDY, series="1.2.3.7", SeriesInstanceUID="1.2.3.7")
    site.decide()
    old, new = site.jobs()
    assert (old.state, old.stale_at is None) == (State.DONE, False)
    assert (new.state, new.series_instance_uid, new.pixels_digest) == (State.QUEUED, "1.2.3.7", old.pixels_digest)


def test_a_study_from_which_images_are_being_moved_waits_and_is_not_held(make_site: MakeSite) -> None:
    site = make_site(RULE)
    images = site.receive(3, at=now() - AGO)
    site.decide()
    trust(site, quiet_period_s=1000)
    again(site, images[:1], study="1.2.4")
    site.decide()
    assert site.study().state is StudyState.RECEIVING
    assert site.study("1.2.4").state is StudyState.RECEIVING
    again(site, images[1:], study="1.2.4")
    trust(site, quiet_period_s=0)
    site.decide()
    assert (site.study().state, site.study("1.2.4").state) == (StudyState.COMPLETE, StudyState.COMPLETE)


def test_what_was_purged_has_not_been_moved(make_site: MakeSite) -> None:
    site = make_site()
    images = site.receive(3)
    site.decide()
    with writing(site.node.engine) as connection:
        instances.mark_lost(connection, [one.path for one in images])
    site.receive(3, series=SECOND)
    site.decide()
    assert [job.state for job in site.jobs()] == [State.QUEUED, State.QUEUED]
