"""Senders as they are in hospitals, on a simulated clock: how late completeness is known, and how often too early."""

from random import Random

import pytest

from tests.domain.senders import SENDERS, WITNESSED
from tests.domain.simulated import STUDIES, lines, repaired, table, walk


@pytest.mark.long
def test_real_senders_are_waited_for_as_long_as_they_pause_and_every_false_close_is_repaired() -> None:
    rows = table(list(SENDERS))
    print("\n" + "\n".join(lines(rows)))
    assert all(row.false_closes <= STUDIES / 1000 for row in rows.values())
    assert all(row.series_false_closes <= STUDIES / 1000 for row in rows.values())
    assert all(row.unrepaired == 0 for row in rows.values())
    assert rows["a slice an hour late (2 %)"].late > 0
    for name, what in WITNESSED.items():
        if what in ("study", "both"):
            assert rows[name].latency_s <= 1, name
        if what in ("series", "both"):
            assert rows[name].series_latency_s <= 1, name


@pytest.mark.parametrize("name", SENDERS)
def test_every_study_of_every_sender_ends_complete_with_every_instance(name: str) -> None:
    random = Random(name)
    for _ in range(20):
        assert repaired(walk(SENDERS[name](random)))


def test_a_false_close_is_seen_and_repaired() -> None:
    """The simulator itself: a sender that pauses for longer than is waited closes too early, and is repaired."""
    seen = walk(SENDERS["MR, 2-10 min between series"](Random(1)))
    assert len(seen.completions) > 1
    assert repaired(seen)
