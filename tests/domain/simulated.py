"""The simulator: hospitals' senders on a simulated clock. `python -m tests.domain.simulated` prints the table.

Every sender first sends 200 studies from which its pauses are learned, then 1000 that are measured. A false close is a
study, or a series, that was called complete while its sender went on with it by itself; a late instance is one that
comes an hour after everything else, which nobody can wait for. Both must be repaired: the last completion has every
instance. The evidence, the witnesses and the verdicts are the product's own; only the clock is not.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from random import Random
from statistics import median

from router.domain import arrival, procedure_step, witnesses
from router.domain.arrival import Arrived
from router.domain.completeness import SECOND, Complete, Evidence, Policy, Wait, decide
from router.domain.pauses import FEWEST, longest_pause, quiet_period
from router.domain.procedure_step import PerformedStep
from router.domain.witnesses import Told
from tests.domain.senders import SENDERS, Event, Sender, Sent, uid

STUDIES = 1000
USUAL = Policy(quiet=60 * SECOND, deadline=4 * 3600 * SECOND)
TRUSTED = ("announced", "series", "mpps", "commitment")
"""What every sender is believed; the size of its series says nothing of other series, where it has several."""


@dataclass
class Series:
    """What the node has of one series, and when it was decided on with how many images."""

    times: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    carriers: set[int] = field(default_factory=set)
    first_at: int | None = None
    fresh_at: int | None = None
    decided: list[tuple[int, int]] = field(default_factory=list)

    @property
    def gaps(self) -> int:
        return len(self.positions) < max(self.positions) - min(self.positions) + 1

    def decide(self, at: int) -> None:
        if self.fresh_at is not None:
            self.decided.append((at, len(self.times)))
        self.fresh_at = None


class Seen:
    """What the node knows of one study, fed event by event; it looks as the role `decide` does."""

    def __init__(self, sent: Sent, of_study: Policy, of_series: Policy) -> None:
        self.sent, self.of_study, self.of_series = sent, of_study, of_series
        self.trusted = (*TRUSTED, "every_series") if sent.at_once else TRUSTED
        self.size = Counter(event.place[0] for event in sent.events if event.kind == "image")
        self.series: dict[int, Series] = {}
        self.open: set[int] = set()
        self.closed: dict[int, int] = {}
        self.steps: dict[str, PerformedStep] = {}
        self.to_commit = frozenset[str]()
        self.completions: list[tuple[int, int]] = []
        self.complete = True

    def take(self, event: Event) -> None:
        """One event."""
        at = round(event.at * SECOND)
        if event.kind == "open":
            self.open.add(event.association)
        elif event.kind == "close":
            self.open.discard(event.association)
            self.closed[event.association] = at
        elif isinstance(event.said, PerformedStep):
            self.steps[event.said.sop_instance_uid] = event.said
        elif event.said is not None:
            self.to_commit = event.said
        else:
            self.image(event, at)

    def image(self, event: Event, at: int) -> None:
        if self.complete:
            for one in self.series.values():
                one.first_at, one.carriers = None, set()
        self.complete = False
        one = self.series.setdefault(event.place[0], Series())
        one.times.append(at)
        one.positions.append(event.place[1])
        one.carriers.add(event.association)
        one.first_at = at if one.first_at is None else one.first_at
        one.fresh_at = at if one.fresh_at is None else one.fresh_at

    def arrived(self) -> list[Arrived]:
        return [
            Arrived(
                series_instance_uid=str(number),
                instances=len(one.times),
                undigested=0,
                last_at=one.times[-1],
                first_at=one.first_at,
                fresh_at=one.fresh_at,
                open=frozenset(str(carrier) for carrier in one.carriers & self.open),
                released_at=max((self.closed[c] for c in one.carriers if c in self.closed), default=None),
            )
            for number, one in self.series.items()
        ]

    def told(self) -> Told:
        here = {}
        if self.steps or self.to_commit:
            here = {
                str(number): frozenset(uid((number, position)) for position in one.positions)
                for number, one in self.series.items()
            }
        headers = {}
        if self.sent.sized:
            headers = {
                str(number): ({"NumberOfSeriesRelatedInstances": self.size[number]}, len(one.times))
                for number, one in self.series.items()
            }
        return Told(steps=[*self.steps.values()], to_commit=self.to_commit, here=here, headers=headers)

    def look(self, now: int) -> int | None:
        """Decide, with gaps only where it would be complete, as the role does; when to look again."""
        if self.complete:
            return None
        arrived, told = self.arrived(), self.told()
        steps = told.steps
        last_at = max(one.last_at for one in arrived)
        announced = witnesses.of_study(told, self.trusted)
        study = arrival.of_study(arrived, announced, last_at=last_at, going_on=procedure_step.going_on(steps))
        verdict = self.verdict(study, self.of_study, now, sum(one.gaps for one in self.series.values()))
        if not isinstance(verdict, Wait):
            self.complete = True
            self.completions.append((now, sum(one.instances for one in arrived)))
            for one in self.series.values():
                one.decide(now)
            return None
        waits = [verdict.until]
        for each in arrived:
            if each.fresh_at is None:
                continue
            number = each.series_instance_uid
            evidence = arrival.of_series(
                each,
                witnesses.of_series(told, number, self.trusted),
                going_on=procedure_step.going_on(steps, number),
            )
            series = self.series[int(number)]
            single = self.verdict(evidence, self.of_series, now, series.gaps)
            if isinstance(single, Wait):
                waits.append(single.until)
            else:
                series.decide(now)
        return min(waits)

    def verdict(self, evidence: Evidence, policy: Policy, now: int, gaps: int) -> object:
        verdict = decide(evidence, policy, now)
        return decide(replace(evidence, gaps=gaps), policy, now) if isinstance(verdict, Complete) else verdict


def walk(sent: Sent, of_study: Policy = USUAL, of_series: Policy = USUAL) -> Seen:
    """One study through completeness: every event wakes decide, and so does the time it asked for."""
    seen, due = Seen(sent, of_study, of_series), None
    for event in sorted(sent.events):
        at = round(event.at * SECOND)
        while due is not None and due < at:
            due = seen.look(due)
        seen.take(event)
        due = seen.look(at)
    while due is not None:
        due = seen.look(due)
    return seen


@dataclass
class Row:
    """One line of the table: of studies, then of their series."""

    latency_s: float
    false_closes: int
    series_latency_s: float
    series_false_closes: int
    late: int
    unrepaired: int
    quiet_s: float
    series_quiet_s: float


def measure(name: str) -> Row:
    """One sender: 200 studies to learn from, 1000 to measure."""
    return Measured(SENDERS[name], Random(name)).row()


class Measured:
    """Counts over the studies of one sender."""

    def __init__(self, sender: Sender, random: Random) -> None:
        self.sender, self.random = sender, random
        self.pauses, self.series_pauses = list[int](), list[int]()

    def row(self) -> Row:
        for _ in range(FEWEST):
            self.learn(walk(self.sender(self.random)))
        latencies, of_series = list[float](), list[float]()
        false_closes, series_false, late, unrepaired = 0, 0, 0, 0
        study = series = USUAL
        for _ in range(STUDIES):
            study, series = learned(self.pauses), learned(self.series_pauses)
            sent = self.sender(self.random)
            seen = walk(sent, study, series)
            early = len(seen.completions) > 1
            false_closes += early and not sent.late
            late += early and sent.late
            series_false += not sent.late and any(len(one.decided) > 1 for one in seen.series.values())
            unrepaired += not repaired(seen)
            last = max(one.times[-1] for one in seen.series.values())
            latencies.append((seen.completions[-1][0] - last) / SECOND)
            of_series += [(one.decided[-1][0] - one.times[-1]) / SECOND for one in seen.series.values()]
            self.learn(seen)
        return Row(
            median(latencies),
            false_closes,
            median(of_series),
            series_false,
            late,
            unrepaired,
            study.quiet / SECOND,
            series.quiet / SECOND,
        )

    def learn(self, seen: Seen) -> None:
        self.pauses.append(longest_pause(at for one in seen.series.values() for at in one.times))
        self.series_pauses.append(max(longest_pause(one.times) for one in seen.series.values()))


def learned(pauses: list[int]) -> Policy:
    """The policy that the role would learn from these pauses."""
    quiet = quiet_period([pause for pause in pauses if pause < 3600 * SECOND])
    return USUAL if quiet is None else replace(USUAL, quiet=quiet)


def repaired(seen: Seen) -> bool:
    """Whether the last decision on the study, and on each series, had every image."""
    whole = seen.completions[-1][1] == sum(seen.size.values())
    return whole and all(one.decided[-1][1] == seen.size[number] for number, one in seen.series.items())


def table(names: list[str]) -> dict[str, Row]:
    """A row for each sender, worked out on all cores."""
    with ProcessPoolExecutor() as pool:
        return dict(zip(names, pool.map(measure, names), strict=True))


def lines(rows: dict[str, Row]) -> Iterator[str]:
    """The table as people read it."""
    yield (
        f"{'of ' + str(STUDIES) + ' studies each':28} {'study: s':>9} {'false':>6} {'series: s':>10} {'false':>6}"
        f" {'late':>5} {'unrepaired':>11} {'quiet s':>8} {'series':>7}"
    )
    for name, row in rows.items():
        yield (
            f"{name:28} {row.latency_s:9.2f} {row.false_closes:6} {row.series_latency_s:10.2f}"
            f" {row.series_false_closes:6} {row.late:5} {row.unrepaired:11} {row.quiet_s:8.1f}"
            f" {row.series_quiet_s:7.1f}"
        )


if __name__ == "__main__":
    print("\n".join(lines(table(sys.argv[1:] or list(SENDERS)))))
