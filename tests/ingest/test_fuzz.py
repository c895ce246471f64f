"""Two thousand mutated streams, as `python -m tests.fuzz` makes them; the same every time, so that red stays red."""

import pytest

from tests.fuzz import Maker, fuzz


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_thousand_mutated_streams_break_no_promise() -> None:
    fuzz(2000, 20_261_120, tell=lambda words: None)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_same_seed_makes_the_same_stream() -> None:
    assert Maker(1, 2).stream() == Maker(1, 2).stream() != Maker(1, 3).stream()
