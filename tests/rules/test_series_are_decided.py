"""Series-level rules act when their series is complete, study-level ones when the study is."""

from dataclasses import replace
from typing import Any

import pytest

from router.db import decisions
from router.db.engine import now, reading
from router.domain.job import State
from router.domain.procedure_step import StepState
from router.domain.study import StudyState
from tests.rules.conftest import RULE, STUDY, MakeSite, Site
from tests.rules.test_witnesses import perform, trust

FIRST, SECOND = "1.2.3.1", "1.2.3.2"
TAKE: dict[str, Any] = {"when": {"kind": "axial volume"}}
OTHER = [{"name": "always_one", "settings": {"level": 9}}]
WHOLE = {**RULE, "name": "whole", "scope": "study", "take": TAKE, "pipelines": OTHER}
AGO = 100_000_000
"""A hundred seconds, in microseconds."""


def waiting(make_site: MakeSite, *rules: dict[str, Any]) -> Site:
    """A node that waits ten seconds for a series and thousand for a study."""
    site = make_site(*rules)
    trust(site, "series", "mpps", "commitment", quiet_period_s=1000, series_quiet_period_s=10)
    return site


def said(site: Site) -> list[tuple[str, str, int, bool]]:
    with reading(site.node.engine) as connection:
        made = decisions.of_study(connection, STUDY)
    return [(one.rule, one.series_instance_uid, one.generation, one.fires) for one in made]


def test_a_complete_series_is_decided_on_while_its_study_goes_on(make_site: MakeSite) -> None:
    site = waiting(make_site, RULE, WHOLE)
    site.receive(3, at=now() - AGO)
    site.receive(2, series=SECOND)
    assert 9 < site.decide() <= 10
    assert (site.study().state, site.study().generation) == (StudyState.RECEIVING, 0)
    (job,) = site.jobs()
    assert (job.series_instance_uid, job.generation) == (FIRST, 1)
    assert said(site) == [("chest", FIRST, 1, True)]
    assert site.acts() == ["series.completed"]
    assert job.completeness == (
        "Series complete: 3 instances received, then silence for 10 s. 3 instances of this series were used."
    )


def test_the_study_is_decided_on_later_and_what_was_said_early_is_not_said_again(make_site: MakeSite) -> None:
    site = waiting(make_site, RULE, WHOLE)
    site.receive(3, at=now() - AGO)
    site.receive(3, series=SECOND)
    site.decide()
    trust(site, quiet_period_s=0)
    site.receive(1, first=4, series=SECOND)
    site.decide()
    assert site.study().state is StudyState.COMPLETE
    assert sorted(said(site)) == [
        ("chest", FIRST, 1, True),
        ("chest", SECOND, 1, True),
        ("whole", SECOND, 1, True),
    ]
    assert [(job.series_instance_uid, job.state) for job in site.jobs()] == [
        (FIRST, State.QUEUED),
        (SECOND, State.QUEUED),
        (SECOND, State.QUEUED),
    ]
    assert site.jobs()[1].completeness == (
        "Study complete: 7 instances received, then silence for 0 s. 4 instances of this series were used."
    )


def test_a_slice_that_comes_after_its_series_was_decided_on_makes_it_run_again(make_site: MakeSite) -> None:
    site = waiting(make_site, RULE)
    site.receive(3, at=now() - AGO)
    site.connect()
    site.receive(1, series=SECOND, association="a")
    site.decide()
    site.receive(1, first=4)
    site.decide()
    assert len(site.jobs()) == 1
    trust(site, quiet_period_s=1000, series_quiet_period_s=0)
    site.receive(1, first=5)
    site.decide()
    old, new = site.jobs()
    assert (old.state, new.state) == (State.SUPERSEDED, State.QUEUED)
    assert site.study().state is StudyState.RECEIVING
    assert said(site) == [("chest", FIRST, 1, True), ("chest", FIRST, 1, True)]


@pytest.mark.parametrize("header", [{"NumberOfSeriesRelatedInstances": 3}, {"ImagesInAcquisition": 3}])
def test_a_series_that_gives_its_size_is_complete_at_once(make_site: MakeSite, header: dict[str, int]) -> None:
    site = waiting(make_site, RULE)
    site.receive(1, series=SECOND, **header)
    site.receive(3, **header)
    site.decide()
    (job,) = site.jobs()
    assert job.series_instance_uid == FIRST
    (named,) = header
    assert f"3 of 3 instances announced by {named}" in str(job.completeness)


def test_a_finished_step_completes_its_series_while_another_step_of_the_study_goes_on(make_site: MakeSite) -> None:
    site = waiting(make_site, RULE)
    site.receive(3)
    site.receive(3, series=SECOND)
    perform(site, StepState.COMPLETED, "1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3")
    perform(site, StepState.IN_PROGRESS, step="1.8")
    site.decide()
    (job,) = site.jobs()
    assert job.series_instance_uid == FIRST
    assert "3 of 3 instances announced by MPPS" in str(job.completeness)
    assert site.study().state is StudyState.RECEIVING


def test_a_commitment_request_for_a_series_completes_the_series_and_not_the_study(make_site: MakeSite) -> None:
    from tests.rules.test_witnesses import commit

    site = waiting(make_site, RULE)
    site.receive(3)
    site.receive(2, series=SECOND)
    commit(site, "1.2.3.1.1", "1.2.3.1.2", "1.2.3.1.3")
    site.decide()
    (job,) = site.jobs()
    assert job.series_instance_uid == FIRST
    assert site.study().state is StudyState.RECEIVING


def test_an_association_that_still_carries_the_series_vetoes_and_one_of_another_series_does_not(
    make_site: MakeSite,
) -> None:
    site = waiting(make_site, RULE)
    site.connect("a")
    site.connect("b")
    site.receive(3, at=now() - AGO, association="a")
    site.receive(1, series=SECOND, association="b")
    site.decide()
    assert site.jobs() == []
    site.disconnect("a")
    trust(site, quiet_period_s=1000, series_quiet_period_s=0)
    site.decide()
    assert [job.series_instance_uid for job in site.jobs()] == [FIRST]


def test_a_rule_about_the_study_that_stops_keeps_later_rules_about_series_waiting_for_the_study(
    make_site: MakeSite,
) -> None:
    stopping = {"name": "private", "scope": "study", "when": {"StudyDescription": "Chest"}, "stop": True}
    site = waiting(make_site, stopping, RULE)
    site.receive(3, at=now() - AGO)
    site.receive(3, series=SECOND)
    site.decide()
    assert said(site) == []
    trust(site, quiet_period_s=0)
    site.receive(1, first=4, series=SECOND)
    site.decide()
    assert site.study().state is StudyState.COMPLETE
    assert site.jobs() == []


def test_a_second_patient_holds_the_study_before_any_of_its_series_is_decided_on(make_site: MakeSite) -> None:
    site = waiting(make_site, RULE)
    site.receive(3, at=now() - AGO)
    site.receive(1, series=SECOND, PatientID="8")
    site.decide()
    assert site.study().state is StudyState.HELD
    assert site.jobs() == []


@pytest.mark.parametrize("said_by", ["the node", "the source"])
def test_at_the_deadline_the_study_is_held_where_that_is_wanted(make_site: MakeSite, said_by: str) -> None:
    site = make_site(RULE, quiet_period_s=100, deadline_s=50)
    if said_by == "the source":
        trust(site, at_deadline="hold")
    else:
        completeness = site.node.settings.completeness.model_copy(update={"at_deadline": "hold"})
        settings = site.node.settings.model_copy(update={"completeness": completeness})
        site.node = replace(site.node, settings=settings)
    site.receive(3, at=now() - AGO)
    site.decide()
    study = site.study()
    assert study.state is StudyState.HELD
    assert study.held_reason == ("deadline: 3 instances received in 50 s; the policy holds such a study for a person")
