"""When a study is complete: what is waited for, what vetoes, and what is said about it afterwards."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from router.domain.completeness import (
    DIGESTING,
    OPEN,
    PATIENCE,
    SECOND,
    Announced,
    Complete,
    Evidence,
    Outcome,
    Policy,
    Stuck,
    Wait,
    decide,
)

POLICY = Policy(quiet=30 * SECOND, deadline=3600 * SECOND)
START = 1_000_000 * SECOND
EVIDENCE = Evidence(instances=64, undigested=0, first_at=START, last_at=START, open_associations=0)


def test_silence_after_the_last_instance_completes_a_study() -> None:
    assert decide(EVIDENCE, POLICY, START + 29 * SECOND) == Wait(
        until=START + 30 * SECOND, reason="quiet period of 30 s"
    )
    done = decide(EVIDENCE, POLICY, START + 30 * SECOND)
    assert done == Complete(
        witness="quiet", sentence="64 instances received, then silence for 30 s", instances=64, expected=None
    )


def test_silence_begins_with_the_end_of_the_association() -> None:
    evidence = replace(EVIDENCE, released_at=START + 10 * SECOND)
    assert decide(evidence, POLICY, START + 35 * SECOND) == Wait(
        until=START + 40 * SECOND, reason="quiet period of 30 s"
    )


def test_an_open_association_and_objects_being_digested_veto() -> None:
    later = START + 100 * SECOND
    waiting = decide(replace(EVIDENCE, open_associations=1), POLICY, later)
    assert waiting == Wait(until=later + OPEN, reason="an association that carried it is open")
    digesting = decide(replace(EVIDENCE, undigested=2), POLICY, later)
    assert digesting == Wait(until=later + DIGESTING, reason="2 instances still to be digested")


def test_what_was_announced_completes_at_once_but_not_while_an_association_is_open() -> None:
    announced = replace(EVIDENCE, announced=Announced(instances=64, by="MPPS"))
    done = decide(announced, POLICY, START)
    assert isinstance(done, Complete)
    assert done.sentence == "64 of 64 instances announced by MPPS"
    assert isinstance(decide(replace(announced, open_associations=1), POLICY, START), Wait)
    assert isinstance(decide(replace(announced, instances=63), POLICY, START), Wait)


def test_a_shortfall_is_said_when_silence_had_to_decide() -> None:
    short = replace(EVIDENCE, announced=Announced(instances=70, by="MPPS"))
    done = decide(short, POLICY, START + 31 * SECOND)
    assert isinstance(done, Complete)
    assert done.sentence == "64 instances received of 70 announced by MPPS, then silence for 30 s"
    assert (done.instances, done.expected) == (64, 70)


def test_missing_slices_make_the_wait_longer_and_prove_nothing_alone() -> None:
    gaps = replace(EVIDENCE, gaps=1)
    assert isinstance(decide(gaps, POLICY, START + 31 * SECOND), Wait)
    done = decide(gaps, POLICY, START + PATIENCE * 30 * SECOND)
    assert isinstance(done, Complete)
    assert "with 1 series that have gaps" in done.sentence


def test_a_procedure_step_in_progress_makes_the_wait_longer_and_vetoes_nothing() -> None:
    at_work = replace(EVIDENCE, going_on=True)
    waiting = decide(at_work, POLICY, START + 31 * SECOND)
    assert waiting == Wait(
        until=START + PATIENCE * 30 * SECOND,
        reason="quiet period of 300 s, and longer because a procedure step is in progress",
    )
    assert isinstance(decide(at_work, POLICY, START + PATIENCE * 30 * SECOND), Complete)
    announced = replace(at_work, announced=Announced(instances=64, by="MPPS"))
    assert isinstance(decide(announced, POLICY, START), Complete)


def test_the_deadline_has_the_outcome_that_the_policy_wants() -> None:
    sending = replace(EVIDENCE, last_at=START + 3600 * SECOND, open_associations=1)
    over = START + 3600 * SECOND
    done = decide(sending, POLICY, over)
    assert isinstance(done, Complete)
    assert done.sentence == "deadline: 64 instances received in 3600 s, while an association was still open"
    held = decide(sending, replace(POLICY, at_deadline=Outcome.HOLD), over)
    assert isinstance(held, Stuck)
    assert "holds such a study for a person" in held.reason


evidences = st.builds(
    Evidence,
    instances=st.integers(1, 2000),
    undigested=st.integers(0, 2),
    first_at=st.just(START),
    last_at=st.integers(START, START + 7200 * SECOND),
    open_associations=st.integers(0, 2),
    released_at=st.none() | st.integers(START, START + 7200 * SECOND),
    announced=st.none() | st.builds(Announced, instances=st.integers(1, 2000), by=st.just("MPPS")),
    gaps=st.integers(0, 2),
)


@given(evidences, st.integers(0, 8000))
def test_a_wait_always_ends_in_the_future_and_never_after_the_deadline(evidence: Evidence, after_s: int) -> None:
    now = START + after_s * SECOND
    verdict = decide(evidence, POLICY, now)
    if isinstance(verdict, Wait):
        assert verdict.until > now
        assert evidence.undigested or verdict.until <= evidence.first_at + POLICY.deadline
    else:
        assert not evidence.undigested


@given(evidences, st.integers(0, 8000))
def test_looking_again_when_it_said_leads_to_an_end(evidence: Evidence, after_s: int) -> None:
    evidence, now = replace(evidence, undigested=0), START + after_s * SECOND
    for _ in range(2 * 3600 * SECOND // OPEN):
        verdict = decide(evidence, POLICY, now)
        if not isinstance(verdict, Wait):
            return
        now = verdict.until
    raise AssertionError("it waits for ever")
