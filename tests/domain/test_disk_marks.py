"""The three marks of the disk stand in order, and each means what those before it mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router.config import Storage
from router.domain.disk import GIGABYTE, Mark, Marks

MARKS = Marks(purge_at=500, refuse_at=200, reject_at=100)


@pytest.mark.parametrize(
    ("free", "mark"),
    [(500, Mark.ROOMY), (499, Mark.PURGE), (200, Mark.PURGE), (199, Mark.REFUSE), (99, Mark.REJECT), (0, Mark.REJECT)],
)
def test_a_mark_is_passed_when_less_is_free(free: int, mark: Mark) -> None:
    assert MARKS.reached(free) is mark


@given(st.integers(0, 1000))
def test_what_has_to_go_is_what_brings_the_disk_back_above_every_mark(free: int) -> None:
    assert MARKS.reached(free + MARKS.to_purge(free)) is Mark.ROOMY
    assert (MARKS.to_purge(free) == 0) is (MARKS.reached(free) is Mark.ROOMY)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=2))
def test_less_space_never_lifts_a_mark(free: list[int]) -> None:
    assert MARKS.reached(min(free)) >= MARKS.reached(max(free))


def test_settings_give_the_marks_in_bytes_and_refuse_a_wrong_order() -> None:
    assert Storage().marks == Marks(purge_at=5 * GIGABYTE, refuse_at=2 * GIGABYTE, reject_at=GIGABYTE)
    for wrong in ({"purge_free_gb": 1}, {"reject_free_gb": 3}):
        with pytest.raises(ValidationError, match="must not be below"):
            Storage.model_validate(wrong)
    with pytest.raises(ValueError, match="in order"):
        Marks(purge_at=1, refuse_at=2, reject_at=0)
