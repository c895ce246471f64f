"""`rules backtest`: which past studies another rulebook would route differently, worked out from their kept facts.

Nothing is read from the store: a study whose images are purged is judged as well, while its facts are kept. Both
rulebooks are asked anew, so that what is counted is what the rules differ in, and not what a person did meanwhile.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import Connection

from router import rulebook
from router.db import decisions, jobs, revisions, studies
from router.db.engine import now
from router.db.revisions import Kind, digest
from router.db.studies import Past
from router.domain.classify import DERIVED_FACTS
from router.domain.facts import Facts
from router.domain.routing import judge_study
from router.domain.rules import Mode, Rule, glance
from router.errors import WrongRulebook
from router.examine import AT_THE_DOOR, keywords_of

DAY = 24 * 3600 * 1_000_000
ALWAYS = frozenset({"Modality", "BodyPartExamined", "body_part_conflict", "detected.body_part", "detected.confidence"})
"""Facts that judging looks at, whatever the rules ask for."""


@dataclass(frozen=True, slots=True)
class Work:
    """A pipeline with its settings on one series."""

    series_instance_uid: str
    pipeline: str
    settings: str


@dataclass(frozen=True, slots=True)
class Way:
    """How a run is wanted: whether its results leave, where to, how urgent, and whether a person has to release it."""

    sends: bool
    destinations: tuple[str, ...]
    priority: int
    held: bool


Routes = Mapping[Work, Way]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One study that would be routed differently."""

    study_instance_uid: str
    more: tuple[str, ...]
    fewer: tuple[str, ...]
    otherwise: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """What another rulebook would have changed. Minutes are of the inference worker, None where nothing ran yet."""

    since: int
    studies: int
    different: int
    more: Mapping[str, int]
    fewer: Mapping[str, int]
    otherwise: Mapping[str, int]
    seconds_a_run: Mapping[str, float]
    unknown: Mapping[str, int]
    """Keyword -> studies of which it was not read, since no rule asked for it then; it counts as absent there."""
    examples: tuple[Example, ...]

    def minutes(self, runs: Mapping[str, int]) -> float | None:
        """How long these runs take by the median of past ones; None where one of the pipelines never ran here."""
        if any(name not in self.seconds_a_run for name in runs):
            return None
        return round(sum(count * self.seconds_a_run[name] for name, count in runs.items()) / 60, 2)

    def lines(self, new: str, old: str, since: str) -> Iterator[str]:
        """The back-test as people read it."""
        yield f"{self.studies} studies were complete since {since}."
        yield f"{self.different} of them would be routed differently by {new} than by {old}."
        yield from self._counts("more runs", self.more)
        yield from self._counts("fewer runs", self.fewer)
        for name, count in sorted(self.otherwise.items()):
            yield f"  {count} runs of {name} sent elsewhere, or with another priority or hold"
        for keyword, count in sorted(self.unknown.items()):
            yield f"  {keyword} was not read of {count} studies, since no rule asked for it; it counts as absent there"
        for one in self.examples:
            yield f"For example study {one.study_instance_uid}"
            for mark, runs in (("+", one.more), ("-", one.fewer), ("~", one.otherwise)):
                yield from (f"  {mark} {run}" for run in runs)

    def _counts(self, what: str, runs: Mapping[str, int]) -> Iterator[str]:
        for name, count in sorted(runs.items()):
            took = self.seconds_a_run.get(name)
            minutes = self.minutes({name: count})
            cost = (
                f"about {minutes:g} minutes of the worker at {took:g} s a run"
                if took
                else "time unknown: none ran here"
            )
            yield f"  {count} {what} of {name} ({cost})"

    def as_json(self) -> dict[str, Any]:
        """The back-test as `--json` prints it."""
        return {
            "since": self.since,
            "studies": self.studies,
            "different": self.different,
            "more_runs": dict(self.more),
            "fewer_runs": dict(self.fewer),
            "other_ways": dict(self.otherwise),
            "more_minutes": self.minutes(self.more),
            "fewer_minutes": self.minutes(self.fewer),
            "seconds_a_run": dict(self.seconds_a_run),
            "unknown": dict(self.unknown),
            "examples": [
                {name: getattr(one, name) for name in ("study_instance_uid", "more", "fewer", "otherwise")}
                for one in self.examples
            ],
        }


def run(
    connection: Connection, new: Sequence[Rule], old: Sequence[Rule], *, days: float, examples: int = 5
) -> Backtest:
    """What `new` would have done otherwise than `old` with the studies that became complete in the last days."""
    since = now() - round(days * DAY)
    now_asked, then_asked = asked(new), asked(old)
    count, different = 0, 0
    more, fewer, otherwise = Counter[str](), Counter[str](), Counter[str]()
    shown: list[Example] = []
    for past in studies.past(connection, since, keywords_of([*new, *old]) | ALWAYS):
        count += 1
        before, after = routes(then_asked, past.series), routes(now_asked, past.series)
        if before == after:
            continue
        different += 1
        added, dropped = after.keys() - before.keys(), before.keys() - after.keys()
        changed = [work for work in after.keys() & before.keys() if after[work] != before[work]]
        more.update(work.pipeline for work in added)
        fewer.update(work.pipeline for work in dropped)
        otherwise.update(work.pipeline for work in changed)
        if len(shown) < examples:
            shown.append(example(past, before, after))
    return Backtest(
        since=since,
        studies=count,
        different=different,
        more=more,
        fewer=fewer,
        otherwise=otherwise,
        seconds_a_run=seconds_a_run(connection),
        unknown=never_read(connection, new, since),
        examples=tuple(shown),
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """The rules that can fire, and of each what it runs: pipelines, with the digest of their settings."""

    rules: Sequence[Rule]
    runs: Mapping[str, tuple[tuple[str, str], ...]]


def asked(rules: Iterable[Rule]) -> Asked:
    """What is to be asked of each past study."""
    able = [rule for rule in rules if rule.mode is not Mode.OFF]
    return Asked(
        rules=able,
        runs={
            rule.name: tuple((one.pipeline, digest(one.settings) if one.settings else "") for one in rule.pipelines)
            for rule in able
        },
    )


def routes(rulebook: Asked, series: Mapping[str, Facts]) -> Routes:
    """Every run that these rules want of a study, and how it would go on; decisions that want the same run share it."""
    found: dict[Work, Way] = {}
    for one in judge_study(rulebook.rules, series, look=glance):
        if not one.fires:
            continue
        sends = one.rule.mode is Mode.ON
        for pipeline, settings in rulebook.runs[one.rule.name]:
            work = Work(one.series_instance_uid, pipeline, settings)
            other = found.get(work)
            destinations = set(one.rule.destinations if sends else ()) | set(other.destinations if other else ())
            found[work] = Way(
                sends=sends or (other is not None and other.sends),
                destinations=tuple(sorted(destinations)),
                priority=min(one.rule.priority, other.priority if other else one.rule.priority),
                held=bool(one.hold) or (other is not None and other.held),
            )
    return found


def example(past: Past, before: Routes, after: Routes) -> Example:
    """What would be different for one study, in words."""
    return Example(
        study_instance_uid=past.study_instance_uid,
        more=tuple(sorted(said(work, after[work]) for work in after.keys() - before.keys())),
        fewer=tuple(sorted(said(work, before[work]) for work in before.keys() - after.keys())),
        otherwise=tuple(
            sorted(
                f"{said(work, after[work])}; now {how(before[work])}"
                for work in after.keys() & before.keys()
                if after[work] != before[work]
            )
        ),
    )


def said(work: Work, way: Way) -> str:
    """A run in words."""
    return f"{work.pipeline} on series {work.series_instance_uid}, {how(way)}"


def how(way: Way) -> str:
    """How a run is wanted, in words."""
    to = f"to {', '.join(way.destinations)}" if way.sends and way.destinations else "sent nowhere"
    return f"{to}, priority {way.priority}{', held for a person' if way.held else ''}"


def seconds_a_run(connection: Connection) -> dict[str, float]:
    """How long a run of each pipeline usually takes here: the median of the last ones, in seconds."""
    return {name: round(median(found) / 1e6, 2) for name, found in jobs.durations(connection).items()}


def never_read(connection: Connection, new: Iterable[Rule], since: int) -> dict[str, int]:
    """Keywords that the new rules ask for and that were not read of some of the studies, with the number of these."""
    asked = keywords_of(new) - AT_THE_DOOR - DERIVED_FACTS.keys()
    if not asked:
        return {}
    missing = Counter[str]()
    for number, count in decisions.studies_by_revision(connection, since).items():
        missing.update(dict.fromkeys(asked - read_by(connection, number), count))
    return dict(missing)


def read_by(connection: Connection, number: int) -> frozenset[str]:
    """What the rules of a past revision asked for; nothing where this program does not understand them any more."""
    try:
        return keywords_of(rulebook.rules(revisions.find(connection, Kind.RULES, number).body))
    except (revisions.UnknownRevision, WrongRulebook):
        return frozenset()
