"""A rule's verdict is what its conditions mean, and it names what would have to be different."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.conditions import Reader
from router.domain.condition import All, AnyOf, Comparison, Condition, Not, Operator
from router.domain.facts import Fact, aggregate
from router.domain.rules import (
    Rule,
    Scope,
    Verdict,
    Wanted,
    choose,
    evaluate,
    judge,
)


def condition(value: Any) -> Condition:
    reader = Reader()
    read = reader.condition(value, ())
    assert not reader.complaints
    return read


def holds(asked: Any, **header: Any) -> bool:
    return evaluate(condition(asked), aggregate([header])).holds


def rule(asked: Any, **values: Any) -> Rule:
    return Rule(
        **{
            "name": "a",
            "scope": Scope.SERIES,
            "when": condition(asked),
            "pipelines": (Wanted(pipeline="ct_lung"),),
            "destinations": ("pacs",),
            **values,
        }
    )


ABSENT_IS_FALSE: list[Any] = [
    {"SliceThickness": 5},
    {"SliceThickness": [3, 5]},
    {"SliceThickness": {"at_most": 5}},
    {"SliceThickness": {"at_least": 5}},
    {"SliceThickness": {"above": 0}},
    {"SliceThickness": {"below": 9}},
    {"StudyDescription": {"contains": "a"}},
    {"StudyDescription": {"matches": "."}},
    {"StudyDescription": "present"},
]


@pytest.mark.parametrize("asked", ABSENT_IS_FALSE, ids=str)
@pytest.mark.parametrize("header", [{}, {"SliceThickness": None, "StudyDescription": ""}, {"StudyDescription": "  "}])
def test_a_comparison_with_an_absent_value_is_false_and_its_negation_true(asked: Any, header: dict[str, Any]) -> None:
    verdict = evaluate(condition(asked), aggregate([header]))
    assert not verdict.holds
    assert verdict.reason.endswith(": absent")
    assert holds({"not": asked}, **header)


def test_absence_can_be_asked_for() -> None:
    assert holds({"ContrastBolusAgent": "absent"}, Modality="CT")
    assert not holds({"ContrastBolusAgent": "absent"}, ContrastBolusAgent="Iomeron")
    assert holds({"ContrastBolusAgent": "present"}, ContrastBolusAgent="Iomeron")


def test_texts_are_equal_whatever_their_letter_case_and_outer_blanks() -> None:
    assert holds({"BodyPartExamined": "chest"}, BodyPartExamined=" CHEST ")
    assert not holds({"BodyPartExamined": "chest"}, BodyPartExamined="CHESTABDOMEN")
    assert holds({"StudyDescription": {"contains": "THORAX"}}, StudyDescription="ct thorax nativ")


def test_a_pattern_does_what_it_says_and_finds_it_anywhere() -> None:
    assert holds({"StudyDescription": {"matches": "(?i)CHEST|thorax"}}, StudyDescription="CT chest w/o")
    assert not holds({"StudyDescription": {"matches": "CHEST"}}, StudyDescription="CT chest w/o")
    assert not holds({"StudyDescription": {"matches": "^chest"}}, StudyDescription="CT chest w/o")


def test_numbers_given_as_text_are_numbers() -> None:
    assert holds({"SliceThickness": 5}, SliceThickness="5.000000")
    assert holds({"SliceThickness": {"at_least": 4.5, "below": 5.5}}, SliceThickness="5.0")
    assert not holds({"SliceThickness": {"at_most": 5}}, SliceThickness="five")


def test_all_values_must_be_equal_and_within_limits_but_one_may_contain() -> None:
    two = [{"SliceThickness": 5, "ImageType": ["ORIGINAL", "AXIAL"]}, {"SliceThickness": 3, "ImageType": ["DERIVED"]}]
    facts = aggregate(two)
    assert not evaluate(condition({"SliceThickness": 5}), facts).holds
    assert evaluate(condition({"SliceThickness": [3, 5]}), facts).holds
    assert not evaluate(condition({"SliceThickness": {"at_most": 4}}), facts).holds
    assert evaluate(condition({"SliceThickness": {"at_most": 5}}), facts).holds
    assert evaluate(condition({"ImageType": {"contains": "AXIAL"}}), facts).holds
    assert not evaluate(condition({"ImageType": "AXIAL"}), facts).holds


@pytest.mark.parametrize("modality", ["SEG", "SR", "PR", "KO", "DOC", "RTSTRUCT"])
def test_descriptions_of_other_objects_are_matched_only_by_name(modality: str) -> None:
    facts = aggregate([{"Modality": modality, "StudyDescription": "chest"}])
    assert not judge(rule({"StudyDescription": "chest"}), facts).holds
    assert not judge(rule({"not": {"Modality": [modality, "CT"]}}), facts).holds
    assert modality in judge(rule({"StudyDescription": "chest"}), facts).reason
    assert judge(rule({"Modality": ["CT", modality]}), facts).holds


def test_the_reason_is_the_first_condition_that_failed_with_the_value_seen() -> None:
    asked = {"all": [{"Modality": "CT"}, {"SliceThickness": {"at_most": 3}}, {"BodyPartExamined": "CHEST"}]}
    verdict = evaluate(condition(asked), aggregate([{"Modality": "CT", "SliceThickness": 5}]))
    assert verdict.reason == "SliceThickness at_most 3: 5"
    assert [part.seen for part in verdict.parts] == ["CT", "5", "absent"]


def test_of_several_ways_the_shortest_is_named() -> None:
    asked = {"any": [{"all": [{"Modality": "MR"}, {"StudyID": "7"}]}, {"BodyPartExamined": "CHEST"}]}
    verdict = evaluate(condition(asked), aggregate([{"Modality": "CT"}]))
    assert [leaf.asked for leaf in verdict.decisive()] == ["BodyPartExamined equals CHEST"]


PLAIN, PATH, CODED = "Plain{}", "Sequence{}.CodeMeaning", "Coded{}"
NUMERIC = (Operator.AT_MOST, Operator.AT_LEAST, Operator.ABOVE, Operator.BELOW)
SEARCHES = (Operator.CONTAINS, Operator.MATCHES)
LIMIT = 1.5
SEEN: dict[str, list[Any]] = {
    PLAIN: [None, "", 1, 2, 1.5, "1.50", "a", "b", "xay", ["a", "b"], [1, 2], [2, 5]],
    PATH: [None, "a", "b", "xay"],
    CODED: [None, "a:LN", "b:DCM"],
}
"""What an instance may have, in each place where a rule can look for it."""


def header_of(keyword: str, value: Any) -> dict[str, Any]:
    """The header in which a rule finds this value under this keyword: at the top, in an item, or as a code."""
    top, _, inner = keyword.partition(".")
    if value is None:
        return {top: [] if inner or top.startswith("Coded") else None}
    if inner:
        return {top: [{inner: value}]}
    if top.startswith("Coded"):
        code, _, scheme = str(value).partition(":")
        return {top: [{"CodeValue": code, "CodingSchemeDesignator": scheme}]}
    return {top: value}


@st.composite
def trees(draw: st.DrawFn) -> tuple[Condition, dict[str, Fact]]:
    """A condition of all branches and comparisons in which each keyword is asked once, and facts to ask.

    The facts are those of one or two instances, of which some may lack what others have.
    """
    number = iter(range(1000))
    facts: dict[str, Fact] = {}

    def leaf() -> Comparison:
        place = draw(st.sampled_from([PLAIN, PATH, CODED]))
        keyword = place.format(next(number))
        several = draw(st.lists(st.sampled_from(SEEN[place]), min_size=1, max_size=2))
        facts.update(aggregate([header_of(keyword, value) for value in several]))
        texts = [Operator.EQUALS, Operator.ONE_OF, *SEARCHES, Operator.PRESENT, Operator.ABSENT]
        operator = draw(st.sampled_from([*texts, *NUMERIC] if place is PLAIN else texts))
        return Comparison(
            keyword=keyword,
            operator=operator,
            operand=operand_of(operator, place),
            search=re.compile("a").search if operator is Operator.MATCHES else None,
        )

    def operand_of(operator: Operator, place: str) -> Any:
        whole = "a:LN" if place is CODED else "a"
        if operator in NUMERIC:
            return LIMIT
        if operator is Operator.ONE_OF:
            return draw(st.sampled_from([(whole,), (whole, "b:DCM", "b", 2)]))
        if operator is Operator.EQUALS:
            return draw(st.sampled_from([whole, 1])) if place is PLAIN else whole
        return "a" if operator in SEARCHES else None

    def tree(depth: int) -> Condition:
        kind = draw(st.sampled_from(["leaf", "all", "any", "not"])) if depth else "leaf"
        if kind == "leaf":
            return leaf()
        if kind == "not":
            return Not(tree(depth - 1))
        parts = tuple(tree(depth - 1) for _ in range(draw(st.integers(1, 3))))
        return All(parts) if kind == "all" else AnyOf(parts)

    return tree(3), facts


def turned(leaf: Comparison, held: bool) -> dict[str, Fact]:
    """The fact of this leaf alone, changed so that it holds no more, or now does."""
    code = leaf.keyword.startswith("Coded")
    other: Any = "other:X" if code else "other"
    wanted: Any
    if leaf.operator is Operator.EQUALS:
        wanted = other if held else leaf.operand
    elif leaf.operator is Operator.ONE_OF:
        assert isinstance(leaf.operand, tuple)
        wanted = other if held else leaf.operand[-1 if leaf.keyword.startswith("Plain") else 0]
    elif leaf.operator in SEARCHES:
        wanted = ("zzz:X" if code else "zzz") if held else ("a:LN" if code else "xay")
    elif leaf.operator in NUMERIC:
        below = leaf.operator in (Operator.AT_MOST, Operator.BELOW)
        wanted = LIMIT + 1 if below == held else LIMIT - 1
    else:
        wanted = None if (leaf.operator is Operator.PRESENT) == held else other
    made = aggregate([header_of(leaf.keyword, wanted)])
    return {leaf.keyword: made.get(leaf.keyword, Fact(keyword=leaf.keyword))}


@given(trees())
def test_the_property_below_looks_at_leaves_that_turn(given: tuple[Condition, dict[str, Fact]]) -> None:
    asked, facts = given
    for leaf in leaves(asked).values():
        held = leaf.holds(facts)
        assert leaf.holds(turned(leaf, held)) != held


def leaves(asked: Condition) -> dict[str, Comparison]:
    if isinstance(asked, Comparison):
        return {asked.keyword: asked}
    parts = (asked.part,) if isinstance(asked, Not) else asked.parts
    return {name: leaf for part in parts for name, leaf in leaves(part).items()}


@given(trees())
def test_changing_only_the_values_named_as_decisive_flips_the_decision(
    given: tuple[Condition, dict[str, Fact]],
) -> None:
    asked, facts = given
    before = evaluate(asked, facts)
    by_keyword = leaves(asked)
    changed = dict(facts)
    for leaf in before.decisive():
        changed |= turned(by_keyword[leaf.keyword], leaf.holds)
    assert evaluate(asked, changed).holds != before.holds


@given(trees())
def test_where_one_condition_is_named_that_one_alone_flips_it_and_no_smaller_set_exists(
    given: tuple[Condition, dict[str, Fact]],
) -> None:
    asked, facts = given
    before = evaluate(asked, facts)
    by_keyword = leaves(asked)
    held = {leaf.keyword: leaf.holds for leaf in all_leaves(before)}
    alone = [
        keyword
        for keyword, leaf in by_keyword.items()
        if evaluate(asked, facts | turned(leaf, held[keyword])).holds != before.holds
    ]
    decisive = before.decisive()
    assert (len(decisive) == 1) == bool(alone)
    if len(decisive) == 1:
        assert decisive[0].keyword in alone


def all_leaves(verdict: Verdict) -> list[Verdict]:
    return [leaf for part in verdict.parts for leaf in all_leaves(part)] if verdict.parts else [verdict]


def test_a_study_level_rule_takes_the_preferred_series() -> None:
    from router.rulebook import rules

    body = {
        "name": "a",
        "scope": "study",
        "when": {"Modality": {"contains": "CT"}},
        "take": {
            "when": {"Modality": "CT"},
            "prefer": [{"kernel": ["soft", "sharp"]}, {"SliceThickness": "lowest"}],
            "most": 2,
        },
        "pipelines": ["ct_lung"],
        "destinations": ["pacs"],
    }
    (one,) = rules([body])
    series = {
        "sharp thin": aggregate([{"Modality": "CT", "SliceThickness": 1, "kernel": "sharp"}]),
        "soft thick": aggregate([{"Modality": "CT", "SliceThickness": 5, "kernel": "soft"}]),
        "soft thin": aggregate([{"Modality": "CT", "SliceThickness": 1, "kernel": "soft"}]),
        "soft unknown": aggregate([{"Modality": "CT", "kernel": "soft"}]),
        "mr": aggregate([{"Modality": "MR", "SliceThickness": 0.5, "kernel": "soft"}]),
    }
    assert one.take is not None
    assert choose(one.take, series) == ["soft thin", "soft thick"]
