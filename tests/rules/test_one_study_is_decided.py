"""From instances to jobs: completeness, decisions and the runs they share, as the database has them."""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from router.db import commands, decisions, filing, instances, jobs, results, revisions, studies
from router.db.engine import connect, now, reading, writing
from router.db.tables import study
from router.destinations import Profile
from router.domain.job import Lane, Outcome, State
from router.domain.rules import Priority
from router.domain.study import StudyState
from router.wake import Ear
from router.work import assemble, outbox
from router.work.assemble import serve
from router.work.count import Counter
from tests.conftest import until
from tests.rules.conftest import RULE, STUDY, MakeSite, Site


def decided(site: Site, generation: int | None = None) -> list[decisions.Decision]:
    with reading(site.node.engine) as connection:
        return decisions.of_study(connection, STUDY, generation=generation)


def test_a_complete_study_gets_a_generation_facts_a_decision_with_its_reason_and_one_job(make_site: MakeSite) -> None:
    site = make_site()
    site.receive(12)
    site.decide()
    study = site.study()
    assert (study.state, study.generation, study.decide_at) == (StudyState.COMPLETE, 1, None)
    assert study.completeness == "12 instances received, then silence for 0 s"
    (job,) = site.jobs()
    assert (job.lane, job.state, job.pipeline, job.pipeline_version) == (Lane.INFER, State.QUEUED, "always_one", "1.0")
    assert (job.generation, job.settings, job.priority) == (1, {"level": 1}, 50)
    (decision,) = decided(site)
    assert decision.fires
    assert decision.job_id == job.id
    assert (decision.rule, decision.revision, decision.mode, decision.destinations) == ("chest", 1, "on", ["pacs"])
    assert decision.reasons["reason"] == "all conditions hold"
    assert decision.reasons["verdict"]["parts"][1]["seen"] == "Chest"
    with reading(site.node.engine) as connection:
        (series,) = studies.series_of(connection, STUDY)
    assert series.facts is not None
    assert series.facts_generation == 1
    assert series.facts["kind"]["values"] == ["axial volume"]
    assert series.facts["instances"]["values"] == [12]
    assert site.acts() == ["study.completed"]


def test_a_rule_that_does_not_match_is_kept_with_the_first_condition_that_failed(make_site: MakeSite) -> None:
    site = make_site({**RULE, "when": {"all": [{"Modality": "CT"}, {"SliceThickness": {"at_most": 0.5}}]}})
    site.receive()
    site.decide()
    (decision,) = decided(site)
    assert not decision.fires
    assert decision.job_id is None
    assert decision.reasons["reason"] == "SliceThickness at_most 0.5: 1"
    assert site.jobs() == []
    assert site.study().state is StudyState.COMPLETE


def test_two_rules_that_want_the_same_run_share_one_job_at_the_more_urgent_priority(make_site: MakeSite) -> None:
    site = make_site(
        RULE,
        {**RULE, "name": "research", "destinations": ["archive"], "priority": "stat"},
        {**RULE, "name": "other settings", "pipelines": [{"name": "always_one", "settings": {"level": 2}}]},
    )
    site.receive()
    site.decide()
    shared, other = site.jobs()
    assert shared.priority == 10
    with reading(site.node.engine) as connection:
        tied = decisions.of_job(connection, shared.id)
    assert [(one.rule, one.destinations) for one in tied] == [("chest", ["pacs"]), ("research", ["archive"])]
    assert other.settings == {"level": 2}


def test_a_run_that_is_wanted_in_shadow_and_in_earnest_is_sent_for_the_latter_only(make_site: MakeSite) -> None:
    trial = {**RULE, "name": "a trial", "mode": "shadow", "destinations": ["elsewhere"], "priority": "stat"}
    site = make_site(trial, RULE)
    site.receive()
    site.decide()
    (job,) = site.jobs()
    assert {one.job_id for one in decided(site)} == {job.id}
    assert job.priority == Priority.STAT
    with reading(site.node.engine) as connection:
        assert outbox.wanted(connection, job) == ("pacs",)


def test_a_restart_forgets_no_deadline(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site(RULE, quiet_period_s=1000.0)
    at = now() - 500_000_000
    site.receive(at=at)
    site.decide()
    due = at + 1000_000_000
    assert site.study().decide_at == due
    engine = connect(site.node.settings.database.url)
    again = Site(replace(site.node, engine=engine))
    again.decide()
    assert again.study().decide_at == due
    monkeypatch.setattr(assemble, "now", lambda: due)
    again.decide()
    assert again.study().completeness == "3 instances received, then silence for 1000 s"
    engine.dispose()


def test_sending_the_same_study_ten_times_makes_no_new_generation_and_no_new_job(make_site: MakeSite) -> None:
    site = make_site()
    first = site.receive()
    site.decide()
    for _ in range(10):
        site.receive()
        with writing(site.node.engine) as connection:  # the door may touch the study again
            filing.file(connection, first)
        site.decide()
        assert site.study().state is StudyState.COMPLETE
    assert site.study().generation == 1
    assert len(site.jobs()) == 1
    assert len(decided(site)) == 1


def test_a_late_instance_makes_a_new_generation_and_supersedes_the_unfinished_run(make_site: MakeSite) -> None:
    site = make_site()
    site.receive(5)
    site.decide()
    site.receive(1, first=6)
    assert site.study().state is StudyState.RECEIVING
    site.decide()
    old, new = site.jobs()
    assert site.study().generation == 2
    assert (old.state, new.state) == (State.SUPERSEDED, State.QUEUED)
    assert old.pixels_digest != new.pixels_digest
    assert [one.job_id for one in decided(site)] == [old.id, new.id]


def test_a_late_series_leaves_the_runs_on_other_series_alone(make_site: MakeSite) -> None:
    site = make_site()
    site.receive(5)
    site.decide()
    site.receive(5, series="1.2.3.2")
    site.decide()
    one, two = site.jobs()
    assert (one.state, two.state) == (State.QUEUED, State.QUEUED)
    assert [decision.job_id for decision in decided(site, 2)] == [one.id, two.id]


def test_objects_of_our_own_are_never_routed_and_re_open_nothing(make_site: MakeSite) -> None:
    site = make_site({**RULE, "when": {"StudyDescription": "Chest"}})
    site.receive()
    site.decide()
    site.receive(1, series="1.2.3.9", ours=True, Modality="SEG")
    site.decide()
    assert site.study().generation == 1
    assert len(site.jobs()) == 1
    assert {one.series_instance_uid for one in decided(site)} == {"1.2.3.1"}


def test_nothing_is_decided_before_everything_is_digested(make_site: MakeSite) -> None:
    site = make_site()
    (arrival,) = site.receive(1, digested=False)
    assert 0 < site.decide() <= 0.25
    assert site.study().state is StudyState.RECEIVING
    digests = instances.Digests(
        sop_instance_uid=arrival.sop_instance_uid, version=1, dataset_digest="a", pixel_digest="b"
    )
    with writing(site.node.engine) as connection:
        instances.set_digests(connection, [digests])
        instances.look_again(connection, [STUDY], 0)
    site.decide()
    assert site.study().state is StudyState.COMPLETE


def test_an_open_association_vetoes_and_its_end_is_decided_on_at_once(make_site: MakeSite) -> None:
    site = make_site()
    site.connect()
    site.receive(association="a")
    site.decide()
    assert site.study().state is StudyState.RECEIVING
    site.disconnect()
    site.decide()
    assert site.study().state is StudyState.COMPLETE


def test_the_quiet_period_of_the_source_counts_before_that_of_the_node(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=0)
    source = {"ae_title": "SCANNER", "addresses": ["any"], "quiet_period_s": 100}
    with writing(site.node.engine) as connection:
        revisions.add(connection, revisions.Kind.SOURCES, [source], author="test")
    site.receive()
    site.decide()
    study = site.study()
    assert study.decide_at == study.last_instance_at + 100_000_000


TWO_PATIENTS: list[dict[str, Any]] = [
    {"PatientID": "8"},
    {"PatientID": "7", "IssuerOfPatientID": "OTHER"},
]


@pytest.mark.parametrize("header", TWO_PATIENTS, ids=["id", "issuer"])
def test_one_study_of_two_patients_is_held_with_a_reason_that_names_no_patient(
    make_site: MakeSite, header: dict[str, Any]
) -> None:
    site = make_site()
    site.receive(3, IssuerOfPatientID="HOSPITAL")
    site.receive(2, series="1.2.3.2", **header)
    site.decide()
    study = site.study()
    assert study.state is StudyState.HELD
    assert study.held_reason is not None
    assert "PatientID" in study.held_reason
    assert "SECRET" not in study.held_reason
    assert site.jobs() == []
    assert decided(site) == []
    assert site.acts() == ["study.held"]


def test_an_issuer_that_only_some_instances_name_holds_nothing(make_site: MakeSite) -> None:
    site = make_site()
    site.receive(3)
    site.receive(2, series="1.2.3.2", IssuerOfPatientID="HOSPITAL")
    site.decide()
    assert site.study().state is StudyState.COMPLETE


def test_a_series_in_two_studies_is_held(make_site: MakeSite) -> None:
    site = make_site()
    site.receive(3)
    site.decide()
    site.receive(2, first=10, study="1.2.4")
    site.decide()
    held = site.study("1.2.4")
    assert held.state is StudyState.HELD
    assert held.held_reason == "series 1.2.3.1 came under two StudyInstanceUIDs"


def test_a_missing_slice_makes_the_quiet_period_longer_and_is_said(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=100)
    silent, very_silent = now() - 101_000_000, now() - 1001_000_000
    site.receive(3, at=silent)
    site.receive(3, first=8, at=silent)
    site.decide()
    assert site.study().state is StudyState.RECEIVING
    assert site.study().decide_at == silent + 1_000_000_000
    site.receive(3, study="1.2.5", series="1.2.5.1", at=very_silent)
    site.receive(3, first=8, study="1.2.5", series="1.2.5.1", at=very_silent)
    site.decide()
    assert "with 1 series that have gaps" in site.study("1.2.5").completeness


def test_the_deadline_decides_with_what_is_there(make_site: MakeSite) -> None:
    site = make_site(quiet_period_s=100, deadline_s=50)
    site.connect()
    site.receive(3, association="a", at=now() - 60_000_000)
    site.decide()
    assert site.study().completeness == "deadline: 3 instances received in 50 s, while an association was still open"


def test_a_shadow_rule_runs_and_an_off_rule_only_says_what_it_would_have_done(make_site: MakeSite) -> None:
    site = make_site({**RULE, "mode": "shadow"}, {**RULE, "name": "later", "mode": "off"})
    site.receive()
    site.decide()
    shadow, off = decided(site)
    assert (shadow.fires, shadow.mode, off.fires, off.mode) == (True, "shadow", False, "off")
    assert off.reasons["verdict"]["holds"]
    assert len(site.jobs()) == 1


def test_a_rule_that_stops_keeps_later_rules_from_its_series_only(make_site: MakeSite) -> None:
    keep_out = {"name": "thick", "when": {"SliceThickness": {"above": 4}}, "stop": True}
    site = make_site(keep_out, RULE)
    site.receive(3, SliceThickness=5.0)
    site.receive(3, series="1.2.3.2")
    site.decide()
    (job,) = site.jobs()
    assert job.series_instance_uid == "1.2.3.2"
    stopped = next(one for one in decided(site) if one.rule == "chest" and one.series_instance_uid == "1.2.3.1")
    assert stopped.reasons["reason"] == "no earlier rule has stopped here: rule thick did"


def test_a_study_level_rule_runs_on_the_preferred_series_only(make_site: MakeSite) -> None:
    take = {"when": {"kind": "axial volume"}, "prefer": [{"SliceThickness": "lowest"}]}
    site = make_site({**RULE, "scope": "study", "take": take})
    site.receive(5, SliceThickness=5.0)
    site.receive(5, series="1.2.3.2")
    site.decide()
    (job,) = site.jobs()
    assert job.series_instance_uid == "1.2.3.2"


def test_a_study_uses_the_rules_that_were_in_force_when_it_became_complete(make_site: MakeSite) -> None:
    site = make_site()
    site.receive(3)
    site.decide()
    site.rules({**RULE, "name": "newer"})
    site.receive(3, series="1.2.3.2")
    site.decide()
    assert [(one.rule, one.revision) for one in decided(site)] == [("chest", 1), ("newer", 2), ("newer", 2)]


def test_a_setting_that_this_version_does_not_know_any_more_stops_only_its_own_rule(make_site: MakeSite) -> None:
    site = make_site({**RULE, "name": "old", "pipelines": [{"name": "always_one", "settings": {"gone": 1}}]}, RULE)
    site.receive()
    site.decide()
    old, current = decided(site)
    assert not old.fires
    assert "gone" in old.reasons["reason"]
    assert current.fires


def test_the_next_room_is_woken_at_once(make_site: MakeSite) -> None:
    site = make_site()
    with Ear(site.node.wake_folder, "infer") as ear:
        site.receive()
        site.decide()
        assert ear.wait(1)


def test_a_study_that_changed_while_it_was_worked_out_is_looked_at_again(make_site: MakeSite) -> None:
    from router.work.assemble import settle

    site = make_site()
    site.receive(3)
    with reading(site.node.engine) as connection:
        site.book.refresh(connection)
    seen = site.study()
    site.receive(1, first=4)
    settle(site.node, site.book, Counter(site.node), seen)
    assert site.study().state is StudyState.RECEIVING
    assert site.jobs() == []


def test_a_run_that_a_person_asked_for_again_is_not_superseded_by_a_late_series(make_site: MakeSite) -> None:
    site = make_site()
    site.receive(3)
    site.decide()
    with writing(site.node.engine) as connection:
        again = commands.rerun(connection, site.jobs()[0].id, who="tester")
    site.receive(3, series="1.2.3.2")
    site.decide()
    assert next(job for job in site.jobs() if job.id == again).state is State.QUEUED


def test_the_role_is_woken_by_the_bell_and_stops_when_it_is_told(make_site: MakeSite) -> None:
    site = make_site()
    stop = threading.Event()
    role = threading.Thread(target=serve, args=(site.node, stop))
    role.start()
    try:
        until(lambda: list(site.node.wake_folder.glob("decide.*")), what="the role listens")
        begun = time.monotonic()
        site.receive()
        site.node.bell.ring("decide")
        until(site.jobs, what="a job")
        assert time.monotonic() - begun < 20  # a safety net alone would have taken half a minute
    finally:
        stop.set()
        site.node.bell.ring("decide")
        role.join(10)
    assert not role.is_alive()


def test_inputs_that_come_back_after_they_were_superseded_are_run_after_all(make_site: MakeSite) -> None:
    site = make_site()
    site.receive(5)
    site.decide()
    site.receive(1, first=6)
    site.decide()
    with writing(site.node.engine) as connection:
        (late,) = instances.versions(connection, "1.2.3.1.6")
        instances.mark_lost(connection, [late.path])
        connection.execute(update(study).values(state="receiving", decide_at=0))
    site.decide()
    assert [(job.state, job.run) for job in site.jobs()] == [
        (State.SUPERSEDED, 0),
        (State.SUPERSEDED, 0),
        (State.QUEUED, 1),
    ]


def test_a_later_decision_on_a_run_that_is_done_sends_its_kept_results_to_the_new_destination(
    make_site: MakeSite,
) -> None:
    site = make_site()
    folders = [{"name": name, "kind": "folder", "path": "/nowhere"} for name in ("pacs", "archive")]
    with writing(site.node.engine) as connection:
        revisions.add(connection, revisions.Kind.DESTINATIONS, folders, author="test")
    site.receive(3)
    site.decide()
    with writing(site.node.engine) as connection:
        run = jobs.claim(connection, Lane.INFER, "worker", 60)
        assert run is not None
        profile = Profile().canonical()
        results.add_set(connection, job_id=run.id, profile=profile, study_instance_uid=STUDY, generation=1)
        assert jobs.finish(connection, run, Outcome.RESULT)
        assert len(outbox.plan(connection, run.id, max_attempts=1)) == 1
    site.rules({**RULE, "destinations": ["pacs", "archive"]})
    site.receive(3, series="1.2.3.2")
    site.decide()
    sent = [(job.destination, job.result_set_id) for job in site.jobs() if job.lane is Lane.DELIVER]
    assert sent == [("pacs", 1), ("archive", 1)]


def test_a_rule_that_forwards_orders_the_whole_study_once_for_each_place_and_anew_when_it_has_grown(
    make_site: MakeSite,
) -> None:
    site = make_site()
    whole = {"scope": "study", "when": {"Modality": "CT"}, "pipelines": [], "forward": True}
    site.rules(
        {**whole, "name": "all to the archive", "destinations": ["archive"]},
        {**whole, "name": "and to research", "destinations": ["archive", "research"], "priority": "off_peak"},
        {**whole, "name": "a trial", "destinations": ["elsewhere"], "mode": "shadow"},
        {**whole, "name": "not this one", "destinations": ["mr"], "when": {"Modality": "MR"}},
    )
    site.receive(3)
    site.decide()
    forwarded = [job for job in site.jobs() if job.is_forward]
    assert sorted((job.destination, job.priority, job.generation) for job in forwarded) == [
        ("archive", 50, 1),
        ("research", 90, 1),
    ]
    assert {one.rule: one.fires for one in decided(site)} == {
        "all to the archive": True, "and to research": True, "a trial": True, "not this one": False,
    }  # fmt: skip
    site.receive(1, first=4)
    site.decide()
    states = {(job.destination, job.generation): job.state for job in site.jobs() if job.is_forward}
    assert states == {
        ("archive", 1): State.SUPERSEDED, ("research", 1): State.SUPERSEDED,
        ("archive", 2): State.QUEUED, ("research", 2): State.QUEUED,
    }  # fmt: skip


def test_a_header_that_nobody_foresaw_keeps_no_other_study_waiting(make_site: MakeSite) -> None:
    site = make_site()
    site.receive(3, study="1.2.1", series="1.2.1.1", ImagePositionPatient=[["a"], {}, None])
    site.receive(3)
    site.decide()
    assert site.study().state is StudyState.COMPLETE
    assert site.study("1.2.1").state in (StudyState.COMPLETE, StudyState.RECEIVING)


def test_a_corrected_patient_name_is_another_input_of_the_same_pixels(make_site: MakeSite) -> None:
    site = make_site()
    corrected = [replace(one, path=f"{one.path}.2", dataset_digest="new") for one in site.receive(3)]
    site.decide()
    with writing(site.node.engine) as connection:
        for one in corrected:
            header = one.header | {"PatientName": "RIGHT^NAME"}
            instances.record_correction(connection, replace(one, header=header))
    site.decide()
    old, new = site.jobs()
    assert site.study().generation == 2
    assert (old.state, new.state) == (State.SUPERSEDED, State.QUEUED)
    assert old.pixels_digest == new.pixels_digest
    assert old.identity_digest != new.identity_digest
