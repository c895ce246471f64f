"""Conditions: a tree of comparisons over facts. What a comparison asks is made into a function once, when it is read.

What a comparison means:
- An absent fact makes every comparison false, with the reason "absent"; `not` of it is therefore true. Only `absent`
  is true then.
- A fact with several values (a multi-valued attribute, or slices that differ) satisfies `equals`, `one_of`,
  `at_least`, `at_most`, `above` and `below` only when every value does; `contains` and `matches` when some value does.
- Texts are compared without their outer blanks and whatever their letter case, except by `matches`, which does what
  the pattern says and finds it anywhere in the value.
- A number given as text in DICOM (DS, IS) is a number.
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

from router.domain.facts import Fact, Facts, Scalar, Spread, number

Test = Callable[[Fact], bool]
"""What a comparison asks of a fact that is not absent."""


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
    test: Test = field(init=False, compare=False, repr=False)
    absent: bool = field(init=False, compare=False, repr=False)
    """Whether it is met by absence, and by nothing else."""

    def __post_init__(self) -> None:
        if (self.operator is Operator.MATCHES) != (self.search is not None):
            raise ValueError("a pattern is compiled, and nothing else is")
        shown = ", ".join(map(str, self.operand)) if isinstance(self.operand, tuple) else str(self.operand)
        object.__setattr__(self, "text", f"{self.keyword} {self.operator} {shown}".rstrip())
        object.__setattr__(self, "absent", self.operator is Operator.ABSENT)
        object.__setattr__(self, "test", _test(self))

    def met_by(self, fact: Fact | None) -> bool:
        """Whether the fact is what is asked for."""
        if fact is None or fact.spread is Spread.ABSENT:
            return self.absent
        return self.test(fact)

    def holds(self, facts: Facts) -> bool:
        """Whether these facts meet it."""
        return self.met_by(facts.get(self.keyword))


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds; with no part it holds."""

    parts: tuple["Condition", ...]

    def holds(self, facts: Facts) -> bool:
        """Whether it does; asked no further than it must."""
        for part in self.parts:  # noqa: SIM110  a generator costs twice as much
            if not part.holds(facts):
                return False
        return True


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds; with no part it does not."""

    parts: tuple["Condition", ...]

    def holds(self, facts: Facts) -> bool:
        """Whether it does; asked no further than it must."""
        for part in self.parts:  # noqa: SIM110
            if part.holds(facts):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Not:
    """Its part does not hold."""

    part: "Condition"

    def holds(self, facts: Facts) -> bool:
        """Whether its part does not."""
        return not self.part.holds(facts)


Condition = Comparison | All | AnyOf | Not


def _test(asked: Comparison) -> Test:
    """What a comparison asks, with everything worked out that does not depend on the fact."""
    if asked.operator in (Operator.ABSENT, Operator.PRESENT):
        return _never if asked.absent else _always
    if asked.operator in ORDERED:
        return _in_order(asked)
    if asked.search is not None:
        return _found(asked.search)
    if asked.operator is Operator.CONTAINS:
        return _contained(str(asked.operand).casefold())
    return _one_of(asked.operand if isinstance(asked.operand, tuple) else (asked.operand,))


def _always(_: Fact) -> bool:
    return True


def _never(_: Fact) -> bool:
    return False


def _found(search: Callable[[str], Any]) -> Test:
    known = lru_cache(maxsize=256)(lambda text: bool(search(text)))  # a site writes the same few texts all day
    return lambda fact: any(known(str(value)) for value in fact.values)


def _contained(wanted: str) -> Test:
    return lambda fact: any(wanted in str(value).casefold() for value in fact.values)


def _one_of(choices: tuple[Scalar, ...]) -> Test:
    """Every value is one of the choices: as a number where a number was wanted, else as text."""
    truths = [choice for choice in choices if isinstance(choice, bool)]
    words = frozenset(choice.strip().casefold() for choice in choices if isinstance(choice, str))
    numbers = frozenset(
        choice for choice in choices if isinstance(choice, int | float) and not isinstance(choice, bool)
    )

    def is_one(value: Scalar) -> bool:
        if isinstance(value, bool):
            return value in truths
        return str(value).strip().casefold() in words or (bool(numbers) and number(value) in numbers)

    return lambda fact: all(map(is_one, fact.values))


def same(value: Scalar, wanted: Scalar) -> bool:
    """Whether a value is what was wanted: as a number where a number was wanted, else as text."""
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, str):
        return str(value).strip().casefold() == wanted.strip().casefold()
    found = number(value)
    return found is not None and found == wanted


def _in_order(asked: Comparison) -> Test:
    """Every value lies on the right side of the limit; texts (dates, times) are ordered as texts."""
    limit: Any = asked.operand
    right = BESIDE[asked.operator]
    from_below = asked.operator in (Operator.AT_LEAST, Operator.ABOVE)
    if isinstance(limit, str):
        furthest = min if from_below else max
        return lambda fact: bool(right(furthest(map(str, fact.values)), limit))

    def test(fact: Fact) -> bool:
        end = fact.lowest if from_below else fact.highest
        return end is not None and bool(right(end, limit))

    return test


BESIDE: dict[Operator, Callable[[Any, Any], Any]] = {
    Operator.AT_LEAST: operator.ge,
    Operator.AT_MOST: operator.le,
    Operator.ABOVE: operator.gt,
    Operator.BELOW: operator.lt,
}


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
