"""A rule's hold, deadline, priority and conflict policy are what its jobs do."""

from dataclasses import replace
from typing import Any

import pytest

from router import revise, rulebook
from router.config import OffPeak
from router.db import commands, decisions, jobs
from router.db.engine import now, reading, writing
from router.domain.job import Lane, State
from router.domain.rules import Priority
from router.errors import WrongRulebook
from router.work.loop import Loop
from tests.rules.conftest import RULE, STUDY, MakeSite, Site

OTHER = {**RULE, "name": "other", "destinations": ["archive"]}


def decided(site: Site) -> list[decisions.Decision]:
    with reading(site.node.engine) as connection:
        return decisions.of_study(connection, STUDY)


def test_a_rule_that_holds_lets_its_job_wait_for_a_person(make_site: MakeSite) -> None:
    site = make_site({**RULE, "hold": True})
    site.receive()
    site.decide()
    (job,) = site.jobs()
    assert (job.state, job.reason) == (State.HELD, "rule chest holds its jobs until a person releases them")
    assert decided(site)[0].reasons["hold"] == job.reason
    with writing(site.node.engine) as connection:
        assert jobs.claim(connection, Lane.INFER, "w", 60) is None
        commands.release(connection, job.id, who="tester")
        assert jobs.claim(connection, Lane.INFER, "w", 60) is not None
    assert site.acts()[-1] == "job.release"


def test_what_a_person_released_is_not_held_again_when_the_study_grows(make_site: MakeSite) -> None:
    site = make_site({**RULE, "hold": True})
    site.receive()
    site.decide()
    with writing(site.node.engine) as connection:
        commands.release(connection, site.jobs()[0].id, who="tester")
    site.receive(series="1.2.3.2")
    site.decide()
    assert [job.state for job in site.jobs()] == [State.QUEUED, State.HELD]


def test_of_decisions_that_share_a_run_the_careful_one_and_the_urgent_one_both_count(make_site: MakeSite) -> None:
    site = make_site({**RULE, "priority": "stat"}, {**OTHER, "hold": True, "deadline_min": 30}, {**OTHER, "name": "c"})
    site.receive()
    site.decide()
    (job,) = site.jobs()
    assert (job.state, job.priority) == (State.HELD, Priority.STAT)
    assert len({one.job_id for one in decided(site)}) == 1


def test_a_deadline_counts_from_the_completion(make_site: MakeSite) -> None:
    site = make_site({**RULE, "deadline_min": 30})
    site.receive()
    before = now()
    site.decide()
    (job,) = site.jobs()
    assert job.deadline is not None
    assert 0 <= job.deadline - before - 30 * 60 * 1_000_000 < 60 * 1_000_000
    assert job.late_by(before) == 0
    assert job.late_by(job.deadline + 7) == 7
    assert replace(job, finished_at=job.deadline - 1).late_by(job.deadline + 7) == 0


def test_the_queue_releases_off_peak_jobs_in_their_hours(make_site: MakeSite) -> None:
    site = make_site({**RULE, "priority": "off_peak"})
    site.receive()
    site.decide()
    assert loop(site, never()).claim("w") is None
    assert loop(site, never()).idle_s(now()) <= 30
    assert loop(site, OffPeak(begins="00:00", ends="00:00")).claim("w") is not None


def test_a_job_that_falls_due_while_the_queue_is_looked_at_does_not_wait_for_the_next_look(make_site: MakeSite) -> None:
    site = make_site(RULE)
    site.receive()
    looked = now()
    site.decide()  # the job is due from here on: after the look, before the question
    assert loop(site, never()).idle_s(looked) == 0
    assert loop(site, never()).idle_s(now()) > 0, "what was due already waits for something else"


def never() -> OffPeak:
    """Hours that are closed now: the minute of twelve hours from now, by the clock of UTC."""
    from datetime import UTC, datetime, timedelta

    far = datetime.now(UTC) + timedelta(hours=12)
    return OffPeak(begins=f"{far:%H:%M}", ends=f"{far + timedelta(minutes=1):%H:%M}", weekends=False)


def loop(site: Site, hours: OffPeak) -> Loop:
    settings = site.node.settings.model_copy(update={"off_peak": hours})
    return Loop(
        node=replace(site.node, settings=settings), lane=Lane.INFER, work=lambda hand: pytest.fail("not run here"),
        lease_s=60, retry_first_s=1, retry_cap_s=1,
    )  # fmt: skip


def on(part: str, **values: Any) -> dict[str, Any]:
    return {**RULE, "when": {"body_part": {"contains": part}}, **values}


CONFLICT = {"BodyPartExamined": "ABDOMEN", "SeriesDescription": "Chest 1.0", "StudyDescription": "CT Chest"}


@pytest.mark.parametrize(
    ("policy", "part", "state"),
    [
        ("trust_pixels", "chest", State.QUEUED), ("trust_pixels", "abdomen", None),
        ("trust_tag", "chest", None), ("trust_tag", "abdomen", State.QUEUED),
        ("hold", "chest", State.HELD), ("hold", "abdomen", State.HELD), ("hold", "head", None),
    ],
)  # fmt: skip
def test_a_tag_that_contradicts_what_was_detected_ends_as_the_rule_says(
    make_site: MakeSite, policy: str, part: str, state: State | None
) -> None:
    site = make_site(on(part, on_conflict=policy))
    site.receive(**CONFLICT)
    site.decide()
    assert [job.state for job in site.jobs()] == ([] if state is None else [state])
    if state is State.HELD:
        assert "BodyPartExamined says ABDOMEN, but chest was detected by SeriesDescription" in (
            site.jobs()[0].reason or ""
        )


def test_without_a_conflict_no_policy_holds_anything(make_site: MakeSite) -> None:
    site = make_site(on("chest", on_conflict="hold"))
    site.receive(**{**CONFLICT, "BodyPartExamined": "CHEST"})
    site.decide()
    assert [job.state for job in site.jobs()] == [State.QUEUED]


def test_a_rulebook_says_its_policy_once_and_a_rule_may_say_otherwise(make_site: MakeSite) -> None:
    text = """
on_conflict: hold
rules:
  - {name: a, when: {Modality: CT}, pipelines: [always_one], destinations: [pacs]}
  - {name: b, when: {Modality: CT}, pipelines: [always_one], destinations: [pacs], on_conflict: trust_tag}
"""
    site = make_site()
    with writing(site.node.engine) as connection:
        revise.import_(connection, "destinations:\n  - {name: pacs, kind: folder, path: /tmp}\n", "d.yaml", author="t")
        made = revise.import_(connection, text, "r.yaml", author="t")
        assert revise.import_(connection, revise.export(made), "r.yaml", author="t") == made
    assert [rule.on_conflict for rule in rulebook.rules(made.body)] == ["hold", "trust_tag"]


def test_a_policy_that_does_not_exist_is_refused_at_its_place() -> None:
    with pytest.raises(WrongRulebook, match=r"r\.yaml:1:14: on_conflict"):
        rulebook.parse("on_conflict: ask\nrules: []\n", "r.yaml")
