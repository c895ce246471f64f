"""The form of a rule loses nothing: what it shows and what it only keeps come back as the same rule."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router import rulebook, starter
from router.domain.condition import Operator
from router.web.draft import Draft, Line, draft_of, put, rule_of
from tests.conftest import REPOSITORY

EXAMPLES: list[dict[str, Any]] = [
    starter.chest_ct(),
    *yaml.safe_load((REPOSITORY / "deploy" / "rules.example.yaml").read_text())["rules"],
]


@pytest.mark.parametrize("rule", EXAMPLES, ids=lambda rule: str(rule["name"]))
def test_a_written_rule_goes_through_the_form_unchanged(rule: dict[str, Any]) -> None:
    (before,), (after,) = rulebook.rules([rule]), rulebook.rules([rule_of(draft_of(rule))])
    assert draft_of(rule_of(draft_of(rule))) == draft_of(rule)
    assert flat(before) == flat(after)


def flat(rule: Any) -> dict[str, Any]:
    """A rule with its conditions as texts in one order, since the form shows comparisons before what it only keeps."""
    fields = {name: getattr(rule, name) for name in rule.__slots__ if name != "when"}
    parts = getattr(rule.when, "parts", (rule.when,))
    return fields | {"when": sorted(texts(parts))}


def texts(parts: Any) -> list[str]:
    """Every condition as a text; all of several are as many."""
    found: list[str] = []
    for one in parts:
        inner = getattr(one, "parts", None)
        found += texts(inner) if type(one).__name__ == "All" else [getattr(one, "text", "") or repr(one)]
    return found


def test_most_of_the_first_rule_is_in_lines() -> None:
    draft = draft_of(starter.chest_ct())
    assert Line(keyword="Modality", value="CT") in draft.lines
    assert Line(keyword="instances", operator=Operator.AT_LEAST, value="10") in draft.lines
    assert [next(iter(one)) for one in draft.deeper] == ["any", "not", "not"]


WORDS = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=12).filter(
    lambda text: text == text.strip() and "," not in text
)
LINES = st.builds(
    Line,
    keyword=st.sampled_from(["Modality", "StudyDescription", "SliceThickness", "instances", "kernel"]),
    operator=st.sampled_from([one for one in Operator if one not in (Operator.PRESENT, Operator.ABSENT)]),
    value=WORDS | st.integers(0, 999).map(str) | st.sampled_from(["present", "007", "1.50", "ON", "null"]),
)


def trip(lines: list[Line]) -> list[Line]:
    """These lines, written as YAML and read again."""
    text = rulebook.write(rulebook.Kind.RULES, [rule_of(Draft(name="x", lines=lines))])
    return draft_of(yaml.safe_load(text)["rules"][0]).lines


@given(st.lists(LINES, max_size=4))
def test_what_is_typed_is_what_is_written(lines: list[Line]) -> None:
    once = trip(lines)
    assert trip(once) == once, "numbers are written in one way"
    for typed, read in zip(lines, once, strict=True):
        assert (read.keyword, read.operator) == (typed.keyword, typed.operator)
        if typed.keyword not in ("SliceThickness", "instances"):
            assert read.value == typed.value


def test_texts_stay_texts_and_numbers_become_numbers() -> None:
    lines = [
        Line(keyword="StudyID", value="007"),
        Line(keyword="SliceThickness", operator=Operator.AT_MOST, value="2.5"),
        Line(keyword="Modality", operator=Operator.ONE_OF, value="CT, MR"),
        Line(keyword="ContrastBolusAgent", operator=Operator.ABSENT),
    ]
    assert rule_of(Draft(name="x", lines=lines))["when"]["all"] == [
        {"StudyID": "007"}, {"SliceThickness": {"at_most": 2.5}}, {"Modality": ["CT", "MR"]},
        {"ContrastBolusAgent": "absent"},
    ]  # fmt: skip


def test_a_rule_takes_the_place_of_the_one_that_it_was() -> None:
    rules = [{"name": "a"}, {"name": "b"}]
    assert put(rules, "a", {"name": "c"}) == [{"name": "c"}, {"name": "b"}]
    assert put(rules, "", {"name": "c"}) == [*rules, {"name": "c"}]
