"""When a study, or a series, is complete: a pure decision over what the database knows, with its reason.

A positive witness (as many instances as were announced) decides at once. An open association, objects that are still
being digested and a gap between slices only veto: each prefix of an in-order series is gap-free, so that no gap proves
nothing. Without a positive witness the silence after the last instance decides, and a hard deadline last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SECOND = 1_000_000

DIGESTING = SECOND // 4
"""How soon to look again while objects are being digested."""

OPEN = 5 * SECOND
"""How soon to look again while an association is open; its end wakes decide anyway."""

PATIENCE = 10
"""A gap between slices, or a modality that says it is still at work, makes the quiet period so many times longer.

The latter is no veto, since modalities forget to say that they have finished.
"""


class Outcome(StrEnum):
    """What happens at the deadline."""

    DECIDE = "decide"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """How many instances there should be, and who said so."""

    instances: int
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of the arrival of a study, or of one series. Times in microseconds since 1970 UTC.

    `first_at` and `last_at` are those of the instances that came since the study was last complete; `released_at` is
    the end of the last association that carried one of them. `gaps` counts series with a gap between slices; `going_on`
    is that a performed procedure step is in progress.
    """

    instances: int
    undigested: int
    first_at: int
    last_at: int
    open_associations: int
    released_at: int | None = None
    announced: Announced | None = None
    gaps: int = 0
    going_on: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How long to wait, in microseconds, and what to do at the deadline; `learned` says where `quiet` is from."""

    quiet: int
    deadline: int
    at_deadline: Outcome = Outcome.DECIDE
    learned: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Look again at `until`; something may come before."""

    until: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """Nothing more is expected; `sentence` says how that was known, for the report."""

    witness: str
    sentence: str
    instances: int
    expected: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The verdict as the database keeps it."""
        return {
            "witness": self.witness,
            "sentence": self.sentence,
            "instances": self.instances,
            "expected": self.expected,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """The deadline passed, and the policy wants a person to look."""

    reason: str


def decide(evidence: Evidence, policy: Policy, now: int) -> Wait | Complete | Stuck:
    """Whether the study is complete at `now`, and how that is known."""
    if evidence.undigested:
        return Wait(until=now + DIGESTING, reason=f"{_count(evidence.undigested)} still to be digested")
    deadline = evidence.first_at + policy.deadline
    if now >= deadline:
        return _at_deadline(evidence, policy)
    if evidence.open_associations:
        return Wait(until=min(now + OPEN, deadline), reason="an association that carried it is open")
    announced = evidence.announced
    if announced is not None and evidence.instances >= announced.instances and not evidence.gaps:
        return Complete(
            witness="announced",
            sentence=f"{evidence.instances} of {announced.instances} instances announced by {announced.by}",
            instances=evidence.instances,
            expected=announced.instances,
        )
    why = _patience(evidence)
    quiet = policy.quiet * (PATIENCE if why else 1)
    silent_since = max(evidence.last_at, evidence.released_at or 0)
    until = min(silent_since + quiet, deadline)
    if now < until:
        return Wait(until=until, reason=f"quiet period of {_seconds(quiet)}{why}")
    return Complete(
        witness="quiet",
        sentence=f"{_count(evidence.instances)} received{_shortfall(evidence)}, then silence for "
        f"{_seconds(quiet)}{policy.learned}",
        instances=evidence.instances,
        expected=announced.instances if announced is not None else None,
    )


def _patience(evidence: Evidence) -> str:
    """Why to wait longer; empty when there is no reason."""
    if evidence.gaps:
        return ", and longer because slices are missing"
    return ", and longer because a procedure step is in progress" if evidence.going_on else ""


def _at_deadline(evidence: Evidence, policy: Policy) -> Complete | Stuck:
    still = ", while an association was still open" if evidence.open_associations else ""
    passed = f"{_count(evidence.instances)} received{_shortfall(evidence)} in {_seconds(policy.deadline)}{still}"
    if policy.at_deadline is Outcome.HOLD:
        return Stuck(reason=f"deadline: {passed}; the policy holds such a study for a person")
    return Complete(
        witness="deadline",
        sentence=f"deadline: {passed}",
        instances=evidence.instances,
        expected=evidence.announced.instances if evidence.announced is not None else None,
    )


def _shortfall(evidence: Evidence) -> str:
    announced = evidence.announced
    short = f" of {announced.instances} announced by {announced.by}" if announced is not None else ""
    return f"{short}, with {evidence.gaps} series that have gaps" if evidence.gaps else short


def _count(instances: int) -> str:
    return f"{instances} instance{'' if instances == 1 else 's'}"


def _seconds(microseconds: int) -> str:
    return f"{microseconds / SECOND:g} s"


def announced_by_headers(series: Sequence[tuple[Mapping[str, Any], int]], *, each_series: bool) -> Announced | None:
    """What the instances themselves say of how many there should be; `series` are a header and a count for each.

    NumberOfStudyRelatedInstances speaks of the whole study. With `each_series` it is enough that every series that has
    come says how large it is (NumberOfSeriesRelatedInstances, or ImagesInAcquisition): right for senders whose
    studies have one series, or that send all series at once.
    """
    whole = [_number(header, "NumberOfStudyRelatedInstances") for header, _ in series]
    if whole and all(whole):
        return Announced(instances=max(filter(None, whole)), by="NumberOfStudyRelatedInstances")
    if not each_series or not series:
        return None
    said = [
        _number(header, "NumberOfSeriesRelatedInstances") or _number(header, "ImagesInAcquisition")
        for header, _ in series
    ]
    if not all(said):
        return None
    short = sum(max(0, (number or 0) - count) for number, (_, count) in zip(said, series, strict=True))
    return Announced(instances=sum(count for _, count in series) + short, by="the size that each series gives")


def announced_by_series_header(header: Mapping[str, Any]) -> Announced | None:
    """What an instance of a series says of how many the series has."""
    for keyword in ("NumberOfSeriesRelatedInstances", "ImagesInAcquisition"):
        number = _number(header, keyword)
        if number is not None:
            return Announced(instances=number, by=keyword)
    return None


def in_report(known: Complete, *, scope: str, used: int) -> str:
    """How completeness of a study or series was known, as the report of a run on `used` instances says it."""
    return f"{scope} complete: {known.sentence}. {_count(used)} of this series {'was' if used == 1 else 'were'} used."


def _number(header: Mapping[str, Any], keyword: str) -> int | None:
    value = header.get(keyword)
    return value if isinstance(value, int) and value > 0 else None
