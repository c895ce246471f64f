"""The queue's promises, one module for both engines."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, update

from router.db import alerts, breakers, commands, jobs, receipts, results
from router.db.engine import clock, reading, writing
from router.db.tables import audit, job, study
from router.domain.delivery import Receipt, Result, Verdict
from router.domain.job import LIFE, Event, IllegalMove, Job, Lane, Outcome, State, after, before, target

MINUTE_S = 60.0


def infer(connection: Connection, **changed: Any) -> tuple[int, bool]:
    values: dict[str, Any] = {
        "study_instance_uid": "1.2.3",
        "series_instance_uid": "1.2.3.4",
        "generation": 1,
        "pixels_digest": "aa",
        "pipeline": "ct_lung",
        "pipeline_version": "1.0",
        "weights_digest": None,
        "settings": {"allow_thick": False},
        "settings_digest": "bb",
        "priority": 50,
        "max_attempts": 3,
    }
    return jobs.add_inference(connection, **(values | changed))


def added(engine: Engine, **changed: Any) -> int:
    with writing(engine) as connection:
        return infer(connection, **changed)[0]


def claimed(engine: Engine, worker: str = "w", lease_s: float = MINUTE_S, lane: Lane = Lane.INFER) -> Job | None:
    with writing(engine) as connection:
        return jobs.claim(connection, lane, worker, lease_s)


def in_hand(engine: Engine, worker: str = "w", lease_s: float = MINUTE_S) -> Job:
    held = claimed(engine, worker, lease_s)
    assert held is not None
    return held


def now(engine: Engine, job_id: int) -> Job:
    with reading(engine) as connection:
        found = jobs.find(connection, job_id)
    assert found is not None
    return found


def done(engine: Engine, act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    with writing(engine) as connection:
        return act(connection, *arguments, **named)


# ---------------------------------------------------------------- adding


def test_the_same_work_is_one_job_however_many_want_it(engine: Engine) -> None:
    with writing(engine) as connection:
        first, made = infer(connection)
        again, made_again = infer(connection)
    assert (made, made_again, again) == (True, False, first)


@pytest.mark.parametrize(
    "changed", ["pixels_digest", "identity_digest", "pipeline", "pipeline_version", "settings_digest", "run"]
)
def test_other_work_is_another_job(engine: Engine, changed: str) -> None:
    first = added(engine)
    assert added(engine, **{changed: 7 if changed == "run" else "other"}) != first


def test_the_most_urgent_wish_for_a_waiting_job_counts(engine: Engine) -> None:
    job_id = added(engine, priority=50)
    added(engine, priority=10)
    assert now(engine, job_id).priority == 10
    added(engine, priority=90)
    assert now(engine, job_id).priority == 10


def test_the_earliest_deadline_of_those_who_want_a_job_counts(engine: Engine) -> None:
    job_id = added(engine)
    added(engine, deadline=2000)
    added(engine, deadline=1000)
    added(engine, deadline=3000)
    added(engine)
    assert now(engine, job_id).deadline == 1000


def test_a_job_with_a_deadline_counts_like_a_stat_job_that_came_halfway_to_it(engine: Engine) -> None:
    with reading(engine) as connection:
        at = clock(connection)
    stat_later = added(engine, pixels_digest="stat", priority=10)
    routine = added(engine, pixels_digest="routine")
    pressed = added(engine, pixels_digest="pressed", deadline=at + 3600 * jobs.SECOND)
    assert [in_hand(engine).id for _ in range(3)] == [stat_later, pressed, routine]


def test_off_peak_jobs_wait_for_their_hours_unless_their_deadline_comes_near(engine: Engine) -> None:
    with reading(engine) as connection:
        at = clock(connection)
    waits = added(engine, pixels_digest="waits", priority=90)
    added(engine, pixels_digest="far", priority=90, deadline=at + 3600 * jobs.SECOND)
    near = added(engine, pixels_digest="near", priority=90, deadline=at)
    with writing(engine) as connection:
        held = jobs.claim(connection, Lane.INFER, "w", MINUTE_S, off_peak=False)
        assert held is not None
        assert held.id == near
        assert jobs.claim(connection, Lane.INFER, "w", MINUTE_S, off_peak=False) is None
    added(engine, pixels_digest="waits", priority=50)  # someone wants it in routine time after all
    with writing(engine) as connection:
        held = jobs.claim(connection, Lane.INFER, "w", MINUTE_S, off_peak=False)
    assert held is not None
    assert held.id == waits


def test_deliveries_know_no_off_peak_hours(engine: Engine) -> None:
    run = added(engine, priority=90)
    with writing(engine) as connection:
        made = results.add_set(connection, job_id=run, profile="p", study_instance_uid="1.2.3", generation=1)
        jobs.add_delivery(
            connection, study_instance_uid="1.2.3", generation=1, result_set_id=made, destination="pacs", priority=90,
            max_attempts=1,
        )  # fmt: skip
        assert jobs.claim(connection, Lane.DELIVER, "w", MINUTE_S, off_peak=False) is not None


def test_many_who_add_the_same_at_once_get_one_job(engine: Engine) -> None:
    gate = threading.Barrier(10)

    def add(_: int) -> tuple[int, bool]:
        gate.wait()
        with writing(engine) as connection:
            return infer(connection)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(add, range(10)))
    assert len({job_id for job_id, _ in answers}) == 1
    assert sum(made for _, made in answers) == 1


# ---------------------------------------------------------------- claiming


def test_twenty_who_claim_at_once_have_one_winner(engine: Engine) -> None:
    job_id = added(engine)
    gate = threading.Barrier(20)

    def claim(number: int) -> Job | None:
        gate.wait()
        return claimed(engine, f"w{number}")

    with ThreadPoolExecutor(20) as pool:
        winners = [held for held in pool.map(claim, range(20)) if held is not None]
    assert [(held.id, held.attempt) for held in winners] == [(job_id, 1)]
    assert now(engine, job_id).worker == winners[0].worker


def test_twenty_who_claim_twenty_jobs_each_get_their_own(engine: Engine) -> None:
    wanted = {added(engine, pixels_digest=str(number)) for number in range(20)}
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda number: claimed(engine, f"w{number}"), range(20)))
    assert {held.id for held in got if held is not None} == wanted


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_who_claims_does_not_wait_for_another_claim_that_is_not_committed_yet(engine: Engine) -> None:
    first, second = added(engine, pixels_digest="1"), added(engine, pixels_digest="2")
    with writing(engine) as connection:
        held = jobs.claim(connection, Lane.INFER, "slow", MINUTE_S)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(claimed, engine).result(timeout=60)
    assert held is not None
    assert other is not None
    assert (held.id, other.id) == (first, second)


def test_a_job_set_aside_waits_for_a_person_with_its_reason(engine: Engine) -> None:
    job_id = added(engine)
    assert done(engine, jobs.set_aside, in_hand(engine), reason="another patient", problem="OtherStudy")
    held = now(engine, job_id)
    assert (held.state, held.reason, held.worker, held.lease_until) == (State.HELD, "another patient", None, None)
    assert done(engine, commands.release, job_id, who="anna").problem == "OtherStudy"


def test_the_urgent_comes_first_then_the_one_that_came_first(engine: Engine) -> None:
    routine = added(engine, pixels_digest="1", priority=50)
    second = added(engine, pixels_digest="2", priority=50)
    stat = added(engine, pixels_digest="3", priority=10)
    assert [in_hand(engine).id for _ in range(3)] == [stat, routine, second]


def test_who_has_waited_long_enough_overtakes_the_more_urgent(engine: Engine) -> None:
    old = added(engine, pixels_digest="1", priority=90)
    stat = added(engine, pixels_digest="2", priority=10)
    with writing(engine) as connection:
        waited = jobs.AGEING * 81
        connection.execute(update(job).where(job.c.id == old).values(not_before=clock(connection) - waited))
    assert [in_hand(engine).id, in_hand(engine).id] == [old, stat]


def test_a_lane_is_worked_on_by_its_own_workers_only(engine: Engine) -> None:
    added(engine)
    assert claimed(engine, lane=Lane.DELIVER) is None


def test_a_job_is_not_claimed_before_its_time(engine: Engine) -> None:
    added(engine)
    assert done(engine, jobs.retry, in_hand(engine), wait_s=3600, reason="busy", problem="NotTaken")
    assert claimed(engine) is None
    with reading(engine) as connection:
        due = jobs.next_due(connection, Lane.INFER, after=clock(connection))
        assert due is not None
        assert jobs.next_due(connection, Lane.INFER, after=due) is None
        assert 3500 < (due - clock(connection)) / jobs.SECOND <= 3600


# ---------------------------------------------------------------- leases and fencing


def test_a_claim_is_never_deleted_and_says_who_has_it(engine: Engine) -> None:
    job_id = added(engine)
    held = in_hand(engine, "somebody")
    assert now(engine, job_id) == held
    assert (held.state, held.worker, held.attempt) == (State.RUNNING, "somebody", 1)


def test_a_heartbeat_renews_the_lease_and_notes_progress(engine: Engine) -> None:
    added(engine)
    held = in_hand(engine, lease_s=1)
    assert done(engine, jobs.heartbeat, held, MINUTE_S, phase="lungs", fraction=0.5)
    later = now(engine, held.id)
    assert (later.phase, later.fraction) == ("lungs", 0.5)
    assert (later.lease_until or 0) > (held.lease_until or 0)


def test_a_lost_lease_spends_an_attempt_and_the_third_is_the_last(engine: Engine) -> None:
    job_id = added(engine)
    for attempt in (1, 2, 3):
        assert in_hand(engine, lease_s=-1).attempt == attempt
        (moved,) = done(engine, jobs.lose_leases)
        assert moved.state is (State.FAILED if attempt == 3 else State.QUEUED)
    failed = now(engine, job_id)
    assert failed.problem == "LeaseLost"
    assert "fell silent" in (failed.reason or "")
    assert claimed(engine) is None


def test_a_lease_that_is_kept_is_not_lost(engine: Engine) -> None:
    added(engine)
    in_hand(engine)
    assert done(engine, jobs.lose_leases) == []


def test_the_job_of_a_worker_known_to_be_gone_is_free_at_once(engine: Engine) -> None:
    added(engine, pixels_digest="1")
    added(engine, pixels_digest="2")
    dead, alive = in_hand(engine, "dead"), in_hand(engine, "alive")
    (moved,) = done(engine, jobs.lose_leases, gone=["dead"])
    assert moved.id == dead.id
    assert now(engine, alive.id).state is State.RUNNING


def test_who_has_lost_the_lease_can_do_nothing_to_the_job_any_more(engine: Engine) -> None:
    added(engine)
    slow = in_hand(engine, "same name", lease_s=-1)
    done(engine, jobs.lose_leases)
    quick = in_hand(engine, "same name")
    assert not done(engine, jobs.heartbeat, slow, MINUTE_S)
    assert not done(engine, jobs.finish, slow, Outcome.RESULT)
    assert not done(engine, jobs.retry, slow, wait_s=0, reason="x", problem="x")
    assert not done(engine, jobs.give_up, slow, reason="x", problem="x")
    assert now(engine, quick.id) == quick
    assert done(engine, jobs.finish, quick, Outcome.RESULT)


def test_a_job_ends_once(engine: Engine) -> None:
    added(engine)
    held = in_hand(engine)
    assert done(engine, jobs.finish, held, Outcome.REFUSED, reason="thick slices")
    assert not done(engine, jobs.finish, held, Outcome.RESULT)
    ended = now(engine, held.id)
    assert (ended.state, ended.outcome, ended.reason) == (State.DONE, Outcome.REFUSED, "thick slices")


# ---------------------------------------------------------------- what a person can do


def test_every_move_of_a_person_leaves_an_audit_row(engine: Engine) -> None:
    job_id = added(engine)
    done(engine, commands.hold, job_id, who="anna")
    assert claimed(engine) is None
    done(engine, commands.release, job_id, who="anna")
    assert done(engine, jobs.give_up, in_hand(engine), reason="broken", problem="X")
    assert done(engine, commands.revive, job_id, who="anna").attempt == 0
    done(engine, commands.cancel, job_id, who="anna")
    done(engine, commands.rerun, job_id, who="anna")
    with reading(engine) as connection:
        rows = connection.execute(select(audit.c.who, audit.c.act, audit.c.study_instance_uid)).all()
    acts = ["job.hold", "job.release", "job.revive", "job.cancel", "job.rerun"]
    assert [tuple(row) for row in rows] == [("anna", act, "1.2.3") for act in acts]


def test_cancelling_a_running_job_takes_it_from_its_worker(engine: Engine) -> None:
    added(engine)
    held = in_hand(engine)
    assert done(engine, commands.cancel, held.id, who="anna").state is State.CANCELLED
    assert not done(engine, jobs.heartbeat, held, MINUTE_S)
    assert not done(engine, jobs.finish, held, Outcome.RESULT)


def test_a_rerun_is_a_new_job_with_the_next_number(engine: Engine) -> None:
    first = added(engine)
    second = done(engine, commands.rerun, first, who="anna")
    third = done(engine, commands.rerun, first, who="anna")
    with reading(engine) as connection:
        runs = jobs.runs_of(connection, now(engine, second))
    assert [(one.id, one.run) for one in runs] == [(first, 0), (second, 1), (third, 2)]


def test_what_a_job_cannot_do_is_said_with_what_it_can(engine: Engine) -> None:
    job_id = added(engine)
    with pytest.raises(IllegalMove, match=r"a queued job cannot release\. It can: cancel, claim, hold, supersede"):
        done(engine, commands.release, job_id, who="anna")
    with pytest.raises(jobs.UnknownJob, match="there is no job 4711"):
        done(engine, commands.cancel, 4711, who="anna")


def test_newer_inputs_supersede_what_is_not_finished(engine: Engine) -> None:
    old = added(engine, pixels_digest="old")
    other = added(engine, pixels_digest="x", series_instance_uid="1.2.3.5")
    new = added(engine, pixels_digest="new", generation=2)
    named = {"study_instance_uid": "1.2.3", "series_instance_uid": "1.2.3.4"}
    (moved,) = done(engine, jobs.supersede, **named, keep=[new])
    assert moved.id == old
    assert [now(engine, one).state for one in (other, new)] == [State.QUEUED] * 2


# ---------------------------------------------------------------- the table itself


def put(engine: Engine, job_id: int, state: State) -> Job:
    """Bring a job into any state, by the shortest way that the database allows."""
    lease = {"worker": "w", "lease_until": 2**60} if state is State.RUNNING else {"worker": None, "lease_until": None}
    with writing(engine) as connection:
        connection.execute(update(job).where(job.c.id == job_id).values(state=state, attempt=1, **lease))
    return now(engine, job_id)


MOVES: dict[Event, Callable[[Engine, Job], Any]] = {
    Event.CLAIM: lambda engine, one: claimed(engine),
    Event.HOLD: lambda engine, one: done(engine, commands.hold, one.id, who="p"),
    Event.RELEASE: lambda engine, one: done(engine, commands.release, one.id, who="p"),
    Event.RETRY: lambda engine, one: done(engine, jobs.retry, one, wait_s=0, reason="r", problem="p"),
    Event.FINISH: lambda engine, one: done(engine, jobs.finish, one, Outcome.RESULT),
    Event.GIVE_UP: lambda engine, one: done(engine, jobs.give_up, one, reason="r", problem="p"),
    Event.LEASE_LOST: lambda engine, one: done(engine, jobs.lose_leases, gone=["w"]),
    Event.REVIVE: lambda engine, one: done(engine, commands.revive, one.id, who="p"),
    Event.CANCEL: lambda engine, one: done(engine, commands.cancel, one.id, who="p"),
    Event.SUPERSEDE: lambda engine, one: done(
        engine, jobs.supersede, study_instance_uid="1.2.3", series_instance_uid="1.2.3.4", keep=[]
    ),
}
"""The statement that stands for each event."""


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", MOVES)
def test_a_statement_moves_a_job_as_the_table_says_or_not_at_all(engine: Engine, state: State, event: Event) -> None:
    there = put(engine, added(engine), state)
    try:
        MOVES[event](engine, there)
    except IllegalMove:
        assert (state, event) not in LIFE
    assert now(engine, there.id).state is LIFE.get((state, event), state)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_the_table_answers_every_pair(state: State, event: Event) -> None:
    if state in before(event):
        assert after(state, event) is target(event) is LIFE[state, event]
    else:
        with pytest.raises(IllegalMove, match=f"a {state} job cannot {event}"):
            after(state, event)


# ---------------------------------------------------------------- deliveries


def result_set(engine: Engine, profile: str = "{}") -> int:
    job_id = added(engine)
    with writing(engine) as connection:
        return results.add_set(connection, job_id=job_id, profile=profile, study_instance_uid="1.2.3", generation=1)


def delivery(engine: Engine, set_id: int, destination: str) -> tuple[int, bool]:
    with writing(engine) as connection:
        return jobs.add_delivery(
            connection, study_instance_uid="1.2.3", generation=1, result_set_id=set_id, destination=destination,
            priority=50, max_attempts=50,
        )  # fmt: skip


def test_a_set_goes_to_a_destination_once(engine: Engine) -> None:
    set_id = result_set(engine)
    assert result_set(engine) == set_id
    first, made = delivery(engine, set_id, "pacs")
    assert made
    assert delivery(engine, set_id, "pacs") == (first, False)
    assert delivery(engine, set_id, "folder")[1]


def test_a_destination_gets_one_delivery_at_a_time(engine: Engine) -> None:
    one, other = result_set(engine, "a"), result_set(engine, "b")
    for set_id in (one, other):
        delivery(engine, set_id, "pacs")
    delivery(engine, one, "folder")
    with ThreadPoolExecutor(12) as pool:
        got = [held for held in pool.map(lambda n: claimed(engine, f"w{n}", lane=Lane.DELIVER), range(12)) if held]
    assert sorted(held.destination or "" for held in got) == ["folder", "pacs"]
    first = next(held for held in got if held.destination == "pacs")
    assert done(engine, jobs.finish, first, Outcome.DELIVERED)
    second = claimed(engine, lane=Lane.DELIVER)
    assert second is not None
    assert second.destination == "pacs"
    assert second.id != first.id


def test_a_destination_may_get_several_deliveries_at_a_time_but_one_of_each_study(engine: Engine) -> None:
    def forward(study: str, generation: int = 1) -> None:
        done(
            engine, jobs.add_forward, study_instance_uid=study, generation=generation, destination="pacs",
            priority=50, max_attempts=50,
        )  # fmt: skip

    def claim(number: int) -> Job | None:
        with writing(engine) as connection:
            return jobs.claim(connection, Lane.DELIVER, f"w{number}", MINUTE_S, at_once={"pacs": 2})

    for study_uid in ("1.2.1", "1.2.2", "1.2.3"):
        forward(study_uid)
    with ThreadPoolExecutor(12) as pool:
        got = [held for held in pool.map(claim, range(12)) if held]
    assert sorted(held.study_instance_uid for held in got) == ["1.2.1", "1.2.2"]
    forward("1.2.2", generation=2)
    first = next(held for held in got if held.study_instance_uid == "1.2.1")
    assert done(engine, jobs.finish, first, Outcome.DELIVERED)
    third = claim(0)
    assert third is not None
    assert third.study_instance_uid == "1.2.3"
    assert done(engine, jobs.finish, third, Outcome.DELIVERED)
    assert claim(0) is None, "its study is on its way there"
    assert done(engine, jobs.finish, next(held for held in got if held is not first), Outcome.DELIVERED)
    assert claim(0) is not None


def test_an_object_is_kept_once_and_other_bytes_under_its_uid_are_an_error(engine: Engine) -> None:
    set_id = result_set(engine)
    one = Result(
        sop_instance_uid="2.25.1", result_set_id=set_id, ordinal=0, kind="segmentation", sop_class_uid="1.2",
        series_instance_uid="2.25.2", path="results/a", digest="aa",
    )  # fmt: skip
    done(engine, results.add, one)
    done(engine, results.add, one)
    with reading(engine) as connection:
        assert results.of_set(connection, set_id) == [one]
        assert results.is_ours(connection, "2.25.1")
        assert not results.is_ours(connection, "2.25.2")
    other = Result(**{name: getattr(one, name) for name in Result.__slots__} | {"digest": "bb"})
    with pytest.raises(results.OtherBytes, match=r"segmentation 2\.25\.1 was built a second time with other bytes"):
        done(engine, results.add, other)


def test_the_last_answer_for_an_instance_counts_and_all_are_counted(engine: Engine) -> None:
    job_id, _ = delivery(engine, result_set(engine), "pacs")
    done(engine, receipts.write, job_id, Receipt(sop_instance_uid="1", verdict=Verdict.LATER, status=0xA700))
    with reading(engine) as connection:
        assert receipts.accepted(connection, job_id) == frozenset()
    done(engine, receipts.write, job_id, Receipt(sop_instance_uid="1", verdict=Verdict.ACCEPTED, status=0xB000))
    with reading(engine) as connection:
        assert receipts.accepted(connection, job_id) == frozenset({"1"})
        (row,) = receipts.of_job(connection, job_id)
    assert (row["status"], row["attempts"]) == (0xB000, 2)


# ---------------------------------------------------------------- paused pipelines


def deaths(engine: Engine, *studies: str) -> bool:
    """Whether the pipeline is paused after its process has died on these, one after the other."""
    for one in studies:
        done(engine, breakers.died, "ct_lung", one)
    with reading(engine) as connection:
        return "ct_lung" in breakers.paused(connection)


def test_a_pipeline_whose_process_died_on_three_studies_in_a_row_is_paused_until_a_person_resumes_it(
    engine: Engine,
) -> None:
    job_id = added(engine)
    assert not deaths(engine, "1.1", "1.2", "1.2")
    assert deaths(engine, "1.3")
    assert claimed(engine) is None
    with reading(engine) as connection:
        (alert,) = alerts.list_(connection)
    assert (alert.kind, alert.subject, alert.times) == ("pipeline.paused", "ct_lung", 1)
    assert "3 studies in a row" in alert.what
    assert deaths(engine, "1.4"), "one that was still running"
    assert done(engine, breakers.resume, "ct_lung", who="anna")
    assert not done(engine, breakers.resume, "ct_lung", who="anna")
    with reading(engine) as connection:
        assert alerts.list_(connection) == []
        acts = [(row.who, row.act) for row in connection.execute(select(audit).order_by(audit.c.id))]
    assert acts == [("infer", "pipeline.paused"), ("anna", "pipeline.resumed")]
    assert in_hand(engine).id == job_id
    assert not deaths(engine, "1.1", "1.2"), "counted from the beginning"


def test_deaths_with_a_run_that_ended_between_them_are_not_in_a_row(engine: Engine) -> None:
    assert not deaths(engine, "1.1", "1.2")
    done(engine, breakers.survived, "ct_lung")
    assert not deaths(engine, "1.3", "1.4")


def test_a_person_pauses_one_pipeline_and_the_others_go_on(engine: Engine) -> None:
    added(engine)
    other = added(engine, pipeline="ct_spleen")
    done(engine, breakers.pause, "ct_lung", who="anna", why="wrong volumes")
    assert in_hand(engine).id == other
    assert claimed(engine) is None
    with reading(engine) as connection:
        assert breakers.paused(connection)["ct_lung"].sentence == (
            "ct_lung is paused: wrong volumes. It waits for `isocenter pipelines resume ct_lung`"
        )


@pytest.mark.parametrize("state", ["held", "receiving"])
def test_no_job_of_a_study_that_was_held_starts_before_decide_has_settled_it(engine: Engine, state: str) -> None:
    row = {column.name: "" for column in study.c if not column.nullable} | {
        "study_instance_uid": "1.2.3", "state": state, "generation": 1, "first_instance_at": 0, "last_instance_at": 0,
        "held_reason": "two PatientIDs",
    }  # fmt: skip
    with writing(engine) as connection:
        connection.execute(study.insert().values(row))
    mine, other = added(engine), added(engine, study_instance_uid="1.2.4", pixels_digest="cc")
    assert in_hand(engine).id == other
    assert claimed(engine) is None
    with writing(engine) as connection:
        connection.execute(study.update().values(state="complete", held_reason=None))
    assert in_hand(engine).id == mine


def test_no_more_jobs_of_a_pipeline_run_at_once_than_it_may_have(engine: Engine) -> None:
    for number in range(20):
        added(engine, pixels_digest=f"{number}")
    other = added(engine, pipeline="ct_spleen")
    start = threading.Barrier(10)

    def claim(number: int) -> Job | None:
        start.wait()
        with writing(engine) as connection:
            return jobs.claim(connection, Lane.INFER, f"w{number}", MINUTE_S, at_once={"ct_lung": 2})

    with ThreadPoolExecutor(10) as pool:
        won = [job for job in pool.map(claim, range(10)) if job is not None]
    assert sorted(job.pipeline or "" for job in won) == ["ct_lung", "ct_lung", "ct_spleen"]
    assert other in {job.id for job in won}
    done(engine, jobs.finish, next(job for job in won if job.pipeline == "ct_lung"), Outcome.RESULT)
    again = done(engine, jobs.claim, Lane.INFER, "w", MINUTE_S, at_once={"ct_lung": 2})
    assert again.pipeline == "ct_lung"
