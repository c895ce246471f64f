"""Which studies' pixels go: the old by their age, for want of room the longest delivered, never what is undelivered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.config import Retention
from router.domain.retention import DAY, Held, plan, plan_results

NOW = 1_000 * DAY


def held(name: str, *, days: float = 0, unfinished: int = 0, delivered: float | None = None, size: int = 10) -> Held:
    return Held(
        study_instance_uid=name,
        size=size,
        last_instance_at=round(NOW - days * DAY),
        arriving=False,
        unfinished=unfinished,
        delivered_at=None if delivered is None else round(NOW - delivered * DAY),
    )


def test_what_was_kept_long_enough_goes_the_oldest_first() -> None:
    going = plan([held("b", days=31), held("a", days=40), held("c", days=29)], keep_days=30, lacking=0, now=NOW)
    assert [one.held.study_instance_uid for one in going] == ["a", "b"]
    assert going[0].why == "kept for more than 30 days"


def test_the_days_count_from_the_delivery() -> None:
    assert plan([held("late", days=40, delivered=2)], keep_days=30, lacking=0, now=NOW) == []


def test_for_want_of_room_the_longest_delivered_goes_and_what_was_delivered_nowhere_stays() -> None:
    studies = [held("only copy", days=20), held("new", days=3, delivered=1), held("old", days=9, delivered=8)]
    going = plan(studies, keep_days=30, lacking=5, now=NOW)
    assert [one.held.study_instance_uid for one in going] == ["old"]
    going = plan(studies, keep_days=30, lacking=10**6, now=NOW)
    assert [one.held.study_instance_uid for one in going] == ["old", "new"]


def test_results_go_by_their_age_alone() -> None:
    made = [held("a", days=400, delivered=390), held("b", days=400, delivered=300), held("c", days=400, unfinished=1)]
    (going,) = plan_results(made, keep_results_days=365, now=NOW)
    assert (going.held.study_instance_uid, going.results) == ("a", True)
    assert "365 days" in going.why


def test_results_are_not_kept_for_less_than_pixels() -> None:
    with pytest.raises(ValidationError, match="keep_results_days is shorter than keep_days"):
        Retention(keep_days=30, keep_results_days=29)


studies = st.lists(
    st.builds(
        Held,
        study_instance_uid=st.uuids().map(str),
        size=st.integers(0, 1000),
        last_instance_at=st.integers(0, NOW),
        arriving=st.booleans(),
        unfinished=st.integers(0, 2),
        delivered_at=st.none() | st.integers(0, NOW),
    )
)


@given(studies, st.floats(0, 1000), st.integers(0, 10_000))
def test_nothing_that_is_still_needed_ever_goes(studies: list[Held], keep_days: float, lacking: int) -> None:
    going = plan(studies, keep_days=keep_days, lacking=lacking, now=NOW)
    assert all(one.held.unfinished == 0 and not one.held.arriving for one in going)
    assert all(one.held.delivered_at is not None or NOW - one.held.since > keep_days * DAY for one in going)
    assert len({one.held.study_instance_uid for one in going}) == len(going)
    made = plan_results(studies, keep_results_days=keep_days, now=NOW)
    assert all(one.held.settled and NOW - one.held.since > keep_days * DAY for one in made)
