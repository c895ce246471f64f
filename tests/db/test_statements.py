"""Studies, revisions and decisions, on either engine."""

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from router.db import decisions, feeds, findings, jobs, retention, revisions, studies
from router.db.engine import now, reading, writing
from router.db.migrate import upgrade
from router.db.revisions import Kind, UnknownRevision
from router.db.tables import instance, series, study
from router.domain.job import Lane, Outcome
from router.domain.study import Patient, StudyState

WITNESSES = {"sentence": "3 instances received, then silence for 5 s"}


@pytest.fixture
def migrated(engine: Engine) -> Engine:
    upgrade(engine)
    return engine


def receive(engine: Engine, uid: str, *, decide_at: int | None = 10, at: int = 10, **values: Any) -> None:
    names = [column.name for column in study.c if not column.nullable]
    row = dict.fromkeys(names, "") | {
        "study_instance_uid": uid,
        "state": "receiving",
        "generation": 0,
        "first_instance_at": at,
        "last_instance_at": at,
        "decide_at": decide_at,
    }
    with writing(engine) as connection:
        connection.execute(insert(study).values(row | values))


def test_due_are_the_receiving_studies_whose_time_has_come(migrated: Engine) -> None:
    receive(migrated, "late", decide_at=99)
    receive(migrated, "b", decide_at=20)
    receive(migrated, "a", decide_at=30)
    receive(migrated, "ours", decide_at=None)
    receive(migrated, "held", decide_at=1, state="held")
    with reading(migrated) as connection:
        assert [one.study_instance_uid for one in studies.due(connection, 30)] == ["b", "a"]
        assert studies.next_decide_at(connection) == 20


def test_a_study_is_postponed_only_if_nothing_arrived_since_it_was_seen(migrated: Engine) -> None:
    receive(migrated, "a")
    with writing(migrated) as connection:
        (seen,) = studies.due(connection, 10)
        assert studies.postpone(connection, seen, 50)
        assert not studies.postpone(connection, seen, 60)
        assert studies.next_decide_at(connection) == 50


def test_each_completion_is_a_generation(migrated: Engine) -> None:
    receive(migrated, "a")
    with writing(migrated) as connection:
        assert studies.complete(connection, "a", now=40, witnesses=WITNESSES) == 1
        assert studies.complete(connection, "a", now=50, witnesses=WITNESSES) == 2
        found = studies.find(connection, "a")
    assert found is not None
    assert (found.state, found.completed_at, found.decide_at) == (StudyState.COMPLETE, 50, None)
    assert found.completeness == WITNESSES["sentence"]


def test_a_held_study_waits_for_a_person(migrated: Engine) -> None:
    receive(migrated, "a")
    with writing(migrated) as connection:
        studies.hold(connection, "a", "two patients")
        assert studies.due(connection, 99) == []
        assert [one.held_reason for one in studies.list_(connection, state=StudyState.HELD)] == ["two patients"]
        assert studies.release(connection, "a", 70)
        assert not studies.release(connection, "a", 70)
        assert [one.study_instance_uid for one in studies.due(connection, 70)] == ["a"]


def test_two_processes_do_not_decide_on_one_study_at_once(migrated: Engine) -> None:
    receive(migrated, "a")
    if migrated.dialect.name == "sqlite":
        with writing(migrated) as connection:  # the whole database is locked here
            assert studies.lock(connection, "a") is not None
        return
    with writing(migrated) as first, writing(migrated) as second:
        assert studies.lock(first, "a") is not None
        assert studies.lock(second, "a") is None


def test_a_study_is_found_by_any_of_its_three_names(migrated: Engine) -> None:
    receive(migrated, "a", patient_id="P", accession_number="A")
    receive(migrated, "b", patient_id="P", at=20)
    with reading(migrated) as connection:
        assert [one.study_instance_uid for one in studies.search(connection, "P")] == ["b", "a"]
        assert [one.study_instance_uid for one in studies.search(connection, "A")] == ["a"]
        for word in ("", "x"):
            with pytest.raises(studies.UnknownStudy):
                studies.search(connection, word)


def test_series_come_in_the_order_of_their_numbers_with_the_facts_kept_of_them(migrated: Engine) -> None:
    receive(migrated, "a")
    rows = [
        {"series_instance_uid": f"s{number}", "study_instance_uid": "a", "modality": "CT", "series_number": number,
         "series_description": "", "body_part_examined": ""}
        for number in ("10", "9", "")
    ]  # fmt: skip
    with writing(migrated) as connection:
        connection.execute(insert(series), rows)
        studies.complete_series(
            connection,
            "a",
            "s9",
            facts={"kind": {"values": ["localizer"]}},
            witnesses={"sentence": "all came"},
            generation=1,
            now=7,
        )
        found = studies.series_of(connection, "a")
    assert [one.series_instance_uid for one in found] == ["s", "s9", "s10"]
    assert found[1].facts == {"kind": {"values": ["localizer"]}}


def test_a_series_that_another_study_has_too_is_found(migrated: Engine) -> None:
    def add(uid: str, study_uid: str, status: str = "current", ours: bool = False) -> None:
        names = [column.name for column in instance.c if not column.nullable]
        row = dict.fromkeys(names, "") | {
            "sop_instance_uid": uid, "version": 1, "status": status, "study_instance_uid": study_uid, "size": 1,
            "series_instance_uid": "s", "path": uid, "header": {}, "ours": ours, "received_at": 1,
        }  # fmt: skip
        with writing(migrated) as connection:
            connection.execute(insert(instance).values(row))

    receive(migrated, "a")
    receive(migrated, "b")
    described = {"modality": "", "series_number": "", "series_description": "", "body_part_examined": ""}
    with writing(migrated) as connection:  # an instance never comes without its series
        connection.execute(
            insert(series),
            [{"series_instance_uid": "s", "study_instance_uid": uid, **described} for uid in ("a", "b")],
        )
    add("1", "a")
    add("2", "b", status="replaced")
    add("3", "b", ours=True)
    with reading(migrated) as connection:
        assert studies.other_studies_with(connection, "a", ["s"]) == []
    add("4", "b")
    with reading(migrated) as connection:
        assert studies.other_studies_with(connection, "a", ["s"]) == ["s"]


def test_revisions_are_numbered_by_kind_and_the_highest_is_in_force(migrated: Engine) -> None:
    with writing(migrated) as connection:
        with pytest.raises(UnknownRevision):
            revisions.current(connection, Kind.RULES)
        revisions.add(connection, Kind.RULES, [{"name": "a"}], author="x")
        second = revisions.add(connection, Kind.RULES, [{"name": "b"}], author="x", note="n", at=7)
        revisions.add(connection, Kind.SOURCES, [], author="x")
    with reading(migrated) as connection:
        assert revisions.current(connection, Kind.RULES) == second
        assert (second.number, second.body, second.note, second.created_at) == (2, [{"name": "b"}], "n", 7)
        assert revisions.find(connection, Kind.RULES, 1).body == [{"name": "a"}]
        assert [one.number for one in revisions.list_(connection, Kind.RULES)] == [2, 1]
        with pytest.raises(UnknownRevision, match="no revision 3"):
            revisions.find(connection, Kind.RULES, 3)


def test_two_imports_at_once_get_two_numbers(migrated: Engine) -> None:
    def add() -> None:
        with writing(migrated) as connection:
            revisions.add(connection, Kind.RULES, [], author="x")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(migrated) as connection:
        assert [one.number for one in revisions.list_(connection, Kind.RULES)] == [4, 3, 2, 1]


def test_equal_bodies_have_equal_digests_however_they_were_written() -> None:
    assert revisions.digest([{"a": 1, "b": 2}]) == revisions.digest([{"b": 2, "a": 1}])
    assert revisions.digest([{"a": 1}]) != revisions.digest([{"a": 2}])


def test_decisions_are_kept_in_their_order(migrated: Engine) -> None:
    made = decisions.Decision(
        study_instance_uid="a", generation=1, series_instance_uid="s", rule="r", revision=1, fires=False, mode="on",
        reasons={"reason": "no"}, pipeline="p", destinations=["pacs"], job_id=None, decided_at=5,
    )  # fmt: skip
    with writing(migrated) as connection:
        first = decisions.add(connection, made)
        found = decisions.of_study(connection, "a")
        assert decisions.of_study(connection, "a", generation=2) == []
    assert [one.id for one in found] == [first]
    assert found[0].reasons == {"reason": "no"}


def test_a_patient_is_not_shown_by_accident(migrated: Engine) -> None:
    receive(migrated, "a", patient_id="SECRET", patient_name="SECRET^PATIENT", referring_physician_name="SECRET^DOC")
    with reading(migrated) as connection:
        found = studies.find(connection, "a")
    assert found is not None
    assert found.patient.patient_name == "SECRET^PATIENT"
    assert "SECRET" not in repr(found)
    assert "SECRET" not in repr(Patient(patient_id="SECRET"))


def test_what_was_fetched_is_known_until_facts_are_no_longer_kept(migrated: Engine) -> None:
    begun = now()
    with writing(migrated) as connection:
        feeds.note(connection, "archive", ["a", "b"])
        assert feeds.forget(connection, begun) == 0
        feeds.note(connection, "archive", ["b", "c"])
        assert feeds.fetched(connection, "archive", ["a", "b", "c", "d"]) == {"a", "b", "c"}
        assert feeds.forget(connection, now() + 1) == 3
        assert feeds.fetched(connection, "archive", ["a", "b", "c", "d"]) == frozenset()


def test_what_was_found_is_held_by_its_study_until_its_files_are_gone(migrated: Engine) -> None:
    receive(migrated, "1.2.3", decide_at=None, state="complete")
    with writing(migrated) as connection:
        assert retention.made(connection, before=11) == []
        run, _ = jobs.add_inference(
            connection, study_instance_uid="1.2.3", series_instance_uid="1.2.3.4", generation=1, pixels_digest="aa",
            pipeline="ct_lung", pipeline_version="1.0", weights_digest=None, settings={}, settings_digest="bb",
            priority=50, max_attempts=3,
        )  # fmt: skip
        kept = findings.Kept(job_id=run, path="results/aa", digest="d", title="t", research=True, completeness="c")
        findings.keep(connection, kept)
        assert retention.made(connection, before=10) == [], "an image came since"
        (open_one,) = retention.made(connection, before=11)
        held = jobs.claim(connection, Lane.INFER, "w", 60)
        assert held is not None
        jobs.finish(connection, held, Outcome.RESULT)
        (done_one,) = retention.made(connection, before=11, only="1.2.3")
        assert (open_one.settled, done_one.settled, done_one.size) == (False, True, 0)
        assert retention.made_files(connection, "1.2.3") == ["results/aa"]
        retention.made_gone(connection, "1.2.3", now())
        assert retention.made(connection, before=11) == []
        assert findings.find(connection, run) is None
