"""Every caller that is turned away is in the audit, and none can fill it."""

from hypothesis import given
from hypothesis import strategies as st

from router.domain.rejections import AGAIN_S, MOST, Rejections


def test_a_caller_has_one_row_an_hour_for_each_reason() -> None:
    noted = Rejections()
    assert noted.note("A@10.0.0.1", "unknown", 0) == 0
    assert noted.note("A@10.0.0.1", "unknown", 1) is None
    assert noted.note("A@10.0.0.1", "unknown", AGAIN_S - 1) is None
    assert noted.note("A@10.0.0.1", "no slot", 2) == 2
    assert noted.note("B@10.0.0.1", "unknown", 3) == 0
    assert noted.note("A@10.0.0.1", "unknown", AGAIN_S) == 0


def test_a_row_that_could_not_be_written_is_owed() -> None:
    noted = Rejections()
    assert noted.note("A@10.0.0.1", "unknown", 0) == 0
    noted.not_written("A@10.0.0.1", "unknown", 0)
    assert noted.note("A@10.0.0.1", "unknown", 1) == 1
    noted.not_written("A@10.0.0.1", "unknown", None)
    assert noted.note("A@10.0.0.1", "unknown", 2) is None


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60)), max_size=600))
def test_whoever_knocks_the_audit_grows_slowly_and_every_rejection_is_counted(knocks: list[tuple[int, int]]) -> None:
    noted, at, rows, said = Rejections(), 0, list[int](), 0
    for number, pause in knocks:
        at += pause
        before = noted.note(f"CALLER{number}", "unknown", at)
        if before is not None:
            rows.append(at)
            said += before + 1
        assert len(noted.noted) <= MOST
        assert sum(row > at - AGAIN_S for row in rows) <= MOST
    assert said + noted.unwritten == len(knocks)
