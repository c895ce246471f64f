"""Rules: conditions with what runs when they hold, their verdict with every value seen, and what would turn it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from router.domain.body_part import OnConflict
from router.domain.classify import DOCUMENTS
from router.domain.condition import All, Comparison, Condition, Not, comparisons, named_modalities, same
from router.domain.facts import Fact, Facts, Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a condition holds, with its parts' verdicts; a leaf says what was asked and what was seen."""

    holds: bool
    asked: str
    seen: str = ""
    keyword: str = ""
    parts: tuple["Verdict", ...] = ()

    def decisive(self) -> tuple["Verdict", ...]:
        """The fewest leaves that would have to turn for this verdict to turn, in the order of the rule."""
        if not self.parts:
            return (self,) if self.keyword else ()
        agreeing = [part.decisive() for part in self.parts if part.holds == (self.holds != (self.asked == "not"))]
        needs_every_part = self.asked == "not" or (self.asked == "all") != self.holds
        if needs_every_part:
            return tuple(leaf for leaves in agreeing for leaf in leaves)
        return min((leaves for leaves in agreeing if leaves), key=len, default=())

    @property
    def reason(self) -> str:
        """Why, in a line: the first condition that failed, or that all hold."""
        if self.holds:
            return "all conditions hold"
        first = next(iter(self.decisive()), self)
        return f"{first.asked}: {first.seen}"

    def as_json(self) -> dict[str, Any]:
        """The verdict as the database keeps it."""
        kept: dict[str, Any] = {"holds": self.holds, "asked": self.asked}
        if self.seen:
            kept["seen"] = self.seen
        if self.parts:
            kept["parts"] = [part.as_json() for part in self.parts]
        return kept


class Scope(StrEnum):
    """What a rule is asked about: each series by itself, or the study as a whole."""

    SERIES = "series"
    STUDY = "study"


class Mode(StrEnum):
    """`on` runs and sends, `shadow` runs and sends nothing, `off` only says what it would have decided."""

    ON = "on"
    SHADOW = "shadow"
    OFF = "off"


class Priority(IntEnum):
    """How urgent a job is; low is urgent."""

    STAT = 10
    ROUTINE = 50
    OFF_PEAK = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A pipeline with the settings that a rule gives it; all other settings have their defaults."""

    pipeline: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """One step of an order among series: the lowest or the highest number of a fact, or the earliest of some values."""

    keyword: str
    order: str | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Which series of its study a study-level rule hands to its pipelines: those that hold, preferred ones first."""

    when: Condition
    prefer: tuple[Preference, ...] = ()
    most: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What runs on which series, and where its results go.

    `forward` sends the study itself there, too. `hold` lets its jobs wait for a person; `deadline_min` says within how
    many minutes after the study is complete its results are wanted.
    """

    name: str
    scope: Scope
    when: Condition
    pipelines: tuple[Wanted, ...]
    destinations: tuple[str, ...]
    priority: Priority = Priority.ROUTINE
    mode: Mode = Mode.ON
    stop: bool = False
    hold: bool = False
    forward: bool = False
    on_conflict: OnConflict = OnConflict.TRUST_PIXELS
    deadline_min: float | None = None
    take: Take | None = None
    notes: str = ""
    asked: frozenset[str] = field(init=False, compare=False, repr=False)
    """Facts that `when` looks at."""
    sees_body_part: bool = field(init=False, compare=False, repr=False)
    """Whether it looks at `body_part`, which is what its `on_conflict` makes of it."""
    modalities: frozenset[str] = field(init=False, compare=False, repr=False)
    """Modalities that it asks for by name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", frozenset(one.keyword for one in comparisons(self.when)))
        object.__setattr__(self, "sees_body_part", "body_part" in self.asked | self.taken_by())
        object.__setattr__(self, "modalities", frozenset(named_modalities(self.when)))

    def taken_by(self) -> frozenset[str]:
        """Facts that choosing among the series of a study looks at."""
        if self.take is None:
            return frozenset()
        asked = {one.keyword for one in comparisons(self.take.when)}
        return frozenset(asked.union(step.keyword for step in self.take.prefer))


Look = Callable[[Condition, Facts], Verdict]
"""How a condition is asked: by `evaluate`, with every value seen, or by `glance`."""


def judge(rule: Rule, facts: Facts, look: Look | None = None) -> Verdict:
    """What this rule says to these facts.

    A series that describes other objects (SEG, SR, PR, KO, DOC, RTSTRUCT) is matched only by a rule that names its
    Modality.
    """
    verdict = (look or evaluate)(rule.when, facts)
    if rule.scope is Scope.STUDY:
        return verdict
    modality = facts.get("Modality")
    documents = DOCUMENTS.intersection(map(str, modality.values)) if modality is not None else None
    if not documents or documents <= rule.modalities:
        return verdict
    guard = Verdict(
        holds=False,
        asked="Modality is an image's, or named by the rule",
        seen=", ".join(sorted(documents)),
        keyword="Modality",
    )
    return Verdict(holds=False, asked="all", parts=(guard, verdict))


def evaluate(condition: Condition, facts: Facts) -> Verdict:
    """Whether the condition holds for these facts; every part is looked at, so that every value seen can be shown."""
    if isinstance(condition, Comparison):
        fact = facts.get(condition.keyword)
        return Verdict(
            holds=condition.met_by(fact),
            asked=condition.text,
            seen=fact.text if fact is not None else "absent",
            keyword=condition.keyword,
        )
    if isinstance(condition, Not):
        part = evaluate(condition.part, facts)
        return Verdict(holds=not part.holds, asked="not", parts=(part,))
    parts = tuple([evaluate(part, facts) for part in condition.parts])
    held = [part.holds for part in parts]
    if isinstance(condition, All):
        return Verdict(holds=False not in held, asked="all", parts=parts)
    return Verdict(holds=True in held, asked="any", parts=parts)


YES, NO = Verdict(holds=True, asked=""), Verdict(holds=False, asked="")


def glance(condition: Condition, facts: Facts) -> Verdict:
    """Whether the condition holds, without what was seen: it looks no further than it must, for many past studies."""
    return YES if condition.holds(facts) else NO


def choose(take: Take, series: Mapping[str, Facts]) -> list[str]:
    """Series that a study-level rule takes, the preferred ones first, at most as many as it wants."""
    fitting = [uid for uid, facts in series.items() if take.when.holds(facts)]
    fitting.sort(key=lambda uid: (*(_rank(step, series[uid].get(step.keyword)) for step in take.prefer), uid))
    return fitting[: take.most]


def _rank(step: Preference, fact: Fact | None) -> float:
    """Where a series stands in one step of the order; without the fact it stands last."""
    if fact is None or not fact.values:
        return float("inf")
    if isinstance(step.order, tuple):
        places = [place for place, choice in enumerate(step.order) if all(same(value, choice) for value in fact.values)]
        return float(places[0]) if places else float(len(step.order))
    if fact.lowest is None or fact.highest is None:
        return float("inf")
    return fact.highest if step.order == "lowest" else -fact.lowest
