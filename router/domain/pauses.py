"""How long a sender pauses inside a study, learned from the studies that it has sent."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

FEWEST = 200
"""From so many studies on a sender's own pauses count; before that the configured quiet period does."""

MOST = 5000
"""So many of a sender's latest studies are looked at."""

PERCENTILE = 0.999


def longest_pause(received_at: Iterable[int]) -> int:
    """The longest time between two instances of one study, in the unit of the times; 0 for a single one."""
    return max((after - before for before, after in pairwise(sorted(received_at))), default=0)


def quiet_period(longest: Sequence[int]) -> int | None:
    """Silence after which a study of this sender is complete; None while too little is known of it.

    The 99.9th percentile of the longest pause inside a study. So high a percentile is hardly seen in few studies,
    so that it is widened by 100 / n: by half with 200 studies, by a tenth with 1000.
    """
    if len(longest) < FEWEST:
        return None
    ordered = sorted(longest)
    seen = ordered[math.ceil(PERCENTILE * len(ordered)) - 1]
    return round(seen * (1 + 100 / len(ordered)))
