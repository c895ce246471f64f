"""Rules: a tree of conditions over facts, its verdict with every value seen, and what would have to be different.

What a comparison means:
- An absent fact makes every comparison false, with the reason "absent"; `not` of it is therefore true. Only `absent`
  is true then.
- A fact with several values (a multi-valued attribute, or slices that differ) satisfies `equals`, `one_of`,
  `at_least`, `at_most`, `above` and `below` only when every value does; `contains` and `matches` when some value does.
- Texts are compared without their outer blanks and whatever their letter case, except by `matches`, which does what
  the pattern says and finds it anywhere in the value.
- A number given as text in DICOM (DS, IS) is a number.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any

from router.domain.body_part import OnConflict
from router.domain.classify import DOCUMENTS
from router.domain.facts import Fact, Facts, Scalar, Spread, number


class Operator(StrEnum):
    """What a condition asks of a fact."""

    EQUALS = "equals"
    ONE_OF = "one_of"
    CONTAINS = "contains"
    MATCHES = "matches"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    ABOVE = "above"
    BELOW = "below"
    PRESENT = "present"
    ABSENT = "absent"


ORDERED = frozenset({Operator.AT_LEAST, Operator.AT_MOST, Operator.ABOVE, Operator.BELOW})


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One question about one fact. `search` finds the pattern of `matches`; it is made where patterns are compiled."""

    keyword: str
    operator: Operator
    operand: Scalar | tuple[Scalar, ...] = ""
    search: Callable[[str], Any] | None = field(default=None, compare=False, repr=False)
    text: str = field(init=False, compare=False, repr=False)
    """The question as a person reads it."""

    def __post_init__(self) -> None:
        if (self.operator is Operator.MATCHES) != (self.search is not None):
            raise ValueError("a pattern is compiled, and nothing else is")
        shown = ", ".join(map(str, self.operand)) if isinstance(self.operand, tuple) else str(self.operand)
        object.__setattr__(self, "text", f"{self.keyword} {self.operator} {shown}".rstrip())


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; with no part it holds."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds; with no part it does not."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Its part does not hold."""

    part: "Condition"


Condition = Comparison | All | AnyOf | Not


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

    `hold` lets its jobs wait for a person; `deadline_min` says within how many minutes after the study is complete
    its results are wanted.
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
    on_conflict: OnConflict = OnConflict.TRUST_PIXELS
    deadline_min: float | None = None
    take: Take | None = None
    notes: str = ""


Look = Callable[[Condition, Facts], Verdict]
"""How a condition is asked: by `evaluate`, with every value seen, or by `glance`."""


def judge(rule: Rule, facts: Facts, look: Look | None = None) -> Verdict:
    """What this rule says to these facts.

    A series that describes other objects (SEG, SR, PR, KO, DOC, RTSTRUCT) is matched only by a rule that names its
    Modality.
    """
    verdict = (look or evaluate)(rule.when, facts)
    modality = facts.get("Modality")
    documents = DOCUMENTS.intersection(map(str, modality.values)) if modality is not None else None
    if not documents or rule.scope is Scope.STUDY or documents <= named_modalities(rule.when):
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
            holds=compare(condition, fact),
            asked=condition.text,
            seen=fact.text if fact is not None else "absent",
            keyword=condition.keyword,
        )
    if isinstance(condition, Not):
        part = evaluate(condition.part, facts)
        return Verdict(holds=not part.holds, asked="not", parts=(part,))
    parts = tuple(evaluate(part, facts) for part in condition.parts)
    if isinstance(condition, All):
        return Verdict(holds=all(part.holds for part in parts), asked="all", parts=parts)
    return Verdict(holds=any(part.holds for part in parts), asked="any", parts=parts)


YES, NO = Verdict(holds=True, asked=""), Verdict(holds=False, asked="")


def glance(condition: Condition, facts: Facts) -> Verdict:
    """Whether the condition holds, without what was seen: it looks no further than it must, for many past studies."""
    return YES if _holds(condition, facts) else NO


def _holds(condition: Condition, facts: Facts) -> bool:
    if isinstance(condition, Comparison):
        return compare(condition, facts.get(condition.keyword))
    if isinstance(condition, Not):
        return not _holds(condition.part, facts)
    if isinstance(condition, All):
        return all(_holds(part, facts) for part in condition.parts)
    return any(_holds(part, facts) for part in condition.parts)


def compare(asked: Comparison, fact: Fact | None) -> bool:
    """Whether one fact satisfies one comparison; see the head of this module for what that means."""
    absent = fact is None or fact.spread is Spread.ABSENT
    if asked.operator is Operator.ABSENT:
        return absent
    if fact is None or absent:
        return False
    if asked.operator is Operator.PRESENT:
        return True
    if asked.operator in ORDERED:
        return _in_order(asked, fact)
    if asked.operator is Operator.MATCHES:
        search = asked.search
        return search is not None and any(search(str(value)) for value in fact.values)
    if asked.operator is Operator.CONTAINS:
        wanted = str(asked.operand).casefold()
        return any(wanted in str(value).casefold() for value in fact.values)
    choices = asked.operand if isinstance(asked.operand, tuple) else (asked.operand,)
    return all(any(same(value, choice) for choice in choices) for value in fact.values)


def same(value: Scalar, wanted: Scalar) -> bool:
    """Whether a value is what was wanted: as a number where a number was wanted, else as text."""
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, str):
        return str(value).strip().casefold() == wanted.strip().casefold()
    found = number(value)
    return found is not None and found == wanted


def _in_order(asked: Comparison, fact: Fact) -> bool:
    """Every value lies on the right side of the limit; texts (dates, times) are ordered as texts."""
    limit = asked.operand
    if isinstance(limit, str):
        lowest: Any = min(map(str, fact.values))
        highest: Any = max(map(str, fact.values))
    elif fact.lowest is None or fact.highest is None:
        return False
    else:
        lowest, highest = fact.lowest, fact.highest
    if asked.operator is Operator.AT_LEAST:
        return bool(lowest >= limit)
    if asked.operator is Operator.AT_MOST:
        return bool(highest <= limit)
    return bool(lowest > limit) if asked.operator is Operator.ABOVE else bool(highest < limit)


def named_modalities(condition: Condition, *, wanted: bool = True) -> set[str]:
    """Modalities that the condition asks for by name; those under a `not` are not asked for."""
    if isinstance(condition, Comparison):
        if (
            condition.keyword != "Modality"
            or not wanted
            or condition.operator not in (Operator.EQUALS, Operator.ONE_OF)
        ):
            return set()
        operands = condition.operand if isinstance(condition.operand, tuple) else (condition.operand,)
        return {str(operand).upper() for operand in operands}
    if isinstance(condition, Not):
        return named_modalities(condition.part, wanted=not wanted)
    return {name for part in condition.parts for name in named_modalities(part, wanted=wanted)}


def comparisons(condition: Condition) -> Iterator[Comparison]:
    """Every comparison of a condition, in the order of the rule."""
    if isinstance(condition, Comparison):
        yield condition
    elif isinstance(condition, Not):
        yield from comparisons(condition.part)
    else:
        for part in condition.parts:
            yield from comparisons(part)


def choose(take: Take, series: Mapping[str, Facts]) -> list[str]:
    """Series that a study-level rule takes, the preferred ones first, at most as many as it wants."""
    fitting = [uid for uid, facts in series.items() if _holds(take.when, facts)]
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
