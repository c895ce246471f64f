"""When somebody should be told: what is late, and when results are no longer what they were.

Decided of values alone; `router/work/watch.py` fetches them and keeps the alerts.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

MINUTE = 60_000_000
"""In microseconds."""

STAT_WAITING = "stat.waiting"
NO_RESULT = "result.overdue"
MOVED = "results.moved"
DISK = "disk.full"
DESTINATION = "destination.down"
NOT_TOLD = "alerts.not_sent"

FEWEST = 30
"""Fewer numbers than this say nothing of a distribution."""
LEAST = 0.3
"""How far two distributions have to be apart, whatever chance says: a shift that people notice."""
CHANCE = 0.001
"""How often chance alone may look so."""


@dataclass(frozen=True, slots=True)
class Words:
    """What is said, and what is to be done about it. Never a patient's name, id, birth date or accession number."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """Jobs of one pipeline that are late: how many, and the one that is latest. `since` in microseconds since 1970."""

    pipeline: str
    count: int
    job_id: int
    study_instance_uid: str
    since: int


def stat_waiting(late: Sequence[Late], at: int) -> dict[str, Words]:
    """An alert for each pipeline of which urgent studies wait to be started."""
    return {
        one.pipeline: Words(
            f"{one.count} stat {_jobs(one.count)} of {one.pipeline} wait to be started; job {one.job_id} of study "
            f"{one.study_instance_uid} has waited for {_minutes(at - one.since)}",
            "See `isocenter jobs list --lane infer`: is a worker running, is it busy, is the pipeline paused?",
        )
        for one in late
    }


def no_result(late: Sequence[Late], at: int) -> dict[str, Words]:
    """An alert for each pipeline of which results have not arrived when a rule wanted them."""
    return {
        one.pipeline: Words(
            f"{one.count} {_studies(one.count)} for which {one.pipeline} was ordered {_have(one.count)} no result at "
            f"its destination by the rule's deadline; study {one.study_instance_uid} (job {one.job_id}) is "
            f"{_minutes(at - one.since)} late",
            f"See `isocenter jobs show {one.job_id}` for where it stands; retry it or cancel it",
        )
        for one in late
    }


def disk_full(free_bytes: int, refuse_at: int, folder: str) -> dict[str, Words]:
    """An alert while nothing is taken in for want of space."""
    if free_bytes >= refuse_at:
        return {}
    what = f"{free_bytes / 1e9:.1f} GB are free in {folder}; instances are refused until there is more space"
    return {folder: Words(what, "Make room on this disk; senders try again by themselves")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Two samples that are not of one distribution: the largest distance of their empirical distribution functions."""

    distance: float
    before: float
    lately: float


def shift(before: Sequence[float], lately: Sequence[float]) -> Shift | None:
    """How what was measured lately is distributed otherwise than before; None where it is not, or too little is known.

    The two-sample test of Kolmogorov and Smirnov, which assumes nothing of the shape; `before` and `lately` of the
    answer are medians.
    Source: Smirnov, Ann. Math. Stat. 19 (1948) 279; its asymptotic critical value
    """
    one, other = sorted(filter(math.isfinite, before)), sorted(filter(math.isfinite, lately))
    if min(len(one), len(other)) < FEWEST:
        return None
    distance = max(abs(bisect_right(one, x) / len(one) - bisect_right(other, x) / len(other)) for x in (*one, *other))
    chance = math.sqrt(-math.log(CHANCE / 2) / 2) * math.sqrt((len(one) + len(other)) / (len(one) * len(other)))
    if distance < max(LEAST, chance):
        return None
    return Shift(distance=distance, before=median(one), lately=median(other))


def moved(shifts: Mapping[tuple[str, str, str, str], Shift], days: float) -> dict[str, Words]:
    """An alert for each measurement, by (pipeline, label, name, unit), whose results have moved."""
    return {
        f"{pipeline}: {label}, {name}": Words(
            f"{pipeline}: {name} of {label} has another distribution in the last {days:g} days: its median is "
            f"{found.lately:.4g} {unit}, before it was {found.before:.4g} {unit}",
            "Look for what has changed: a scanner or its protocol, the studies that are sent, or the pipeline",
        )
        for (pipeline, label, name, unit), found in shifts.items()
    }


def _minutes(microseconds: int) -> str:
    return f"{max(0, microseconds) / MINUTE:.0f} min"


def _jobs(count: int) -> str:
    return "job" if count == 1 else "jobs"


def _studies(count: int) -> str:
    return "study" if count == 1 else "studies"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
