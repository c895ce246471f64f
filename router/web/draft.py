"""A rule as a form shows it: a flat list of comparisons that all have to hold, and all else of the rule as it is.

What the form cannot show (any, not, settings of a pipeline, `take`) is kept as it was written, and put back.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.conditions import NUMERIC_VRS, vr_of
from router.domain.condition import Operator

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
BARE = (Operator.PRESENT, Operator.ABSENT)
SHOWN = ("name", "scope", "when", "pipelines", "destinations", "priority", "mode", "hold")


@dataclass(slots=True, kw_only=True)
class Line:
    """One comparison: keyword, operator, and the value as a person types it; several values stand between commas."""

    keyword: str = ""
    operator: Operator = Operator.EQUALS
    value: str = ""


@dataclass(slots=True, kw_only=True)
class Draft:
    """A rule in a form. `deeper` are conditions that the form only keeps, `rest` are fields that it does not show."""

    name: str = ""
    scope: str = "series"
    lines: list[Line] = field(default_factory=list)
    deeper: list[Any] = field(default_factory=list)
    pipelines: list[str] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    destinations: list[str] = field(default_factory=list)
    priority: str = "routine"
    mode: str = "shadow"
    hold: bool = False
    rest: dict[str, Any] = field(default_factory=dict)


def draft_of(rule: Mapping[str, Any]) -> Draft:
    """The form of a rule that is written already."""
    lines: list[Line] = []
    deeper: list[Any] = []
    for part in _parts(rule.get("when")):
        _take(part, lines, deeper)
    runs: list[dict[str, Any]] = [
        one if isinstance(one, dict) else {"name": str(one)} for one in rule.get("pipelines") or ()
    ]
    return Draft(
        name=str(rule.get("name", "")),
        scope=str(rule.get("scope", "series")),
        lines=lines,
        deeper=deeper,
        pipelines=[str(one["name"]) for one in runs],
        settings={str(one["name"]): one["settings"] for one in runs if one.get("settings")},
        destinations=[str(one) for one in rule.get("destinations") or ()],
        priority=str(rule.get("priority", "routine")),
        mode=str(rule.get("mode", "on")),
        hold=bool(rule.get("hold", False)),
        rest={name: value for name, value in rule.items() if name not in SHOWN},
    )


def rule_of(draft: Draft) -> dict[str, Any]:
    """The rule that this form says, as people write it; whether it makes sense is the linter's matter."""
    conditions: list[Any] = [_written(one) for one in draft.lines if one.keyword.strip()]
    conditions += draft.deeper
    made: dict[str, Any] = {"name": draft.name.strip(), "scope": draft.scope, "when": {"all": conditions}}
    made["pipelines"] = [
        {"name": name, "settings": draft.settings[name]} if draft.settings.get(name) else name
        for name in draft.pipelines
    ]
    made["destinations"] = list(draft.destinations)
    made |= {"priority": draft.priority, "mode": draft.mode}
    if draft.hold:
        made["hold"] = True
    return made | draft.rest


def put(rules: list[dict[str, Any]], before: str, rule: dict[str, Any], *, key: str = "name") -> list[dict[str, Any]]:
    """The rules with this one in the place of that which was called `before`, or at the end; `key` holds the name."""
    if before and any(one.get(key) == before for one in rules):
        return [rule if one.get(key) == before else one for one in rules]
    return [*rules, rule]


def _parts(when: Any) -> list[Any]:
    """The conditions that all have to hold."""
    if isinstance(when, Mapping) and set(when) == {"all"} and isinstance(when["all"], list):
        return list(when["all"])
    if isinstance(when, list):
        return when
    return [] if when is None else [when]


def _take(part: Any, lines: list[Line], deeper: list[Any]) -> None:
    if not isinstance(part, Mapping) or any(key in ("all", "any", "not") for key in part):
        deeper.append(part)
        return
    for keyword, value in part.items():
        asked = list(value.items()) if isinstance(value, Mapping) else [_plain(value)]
        for operator, operand in asked:
            if operator in (*BARE, *Operator) and (text := _typed(operand)) is not None:
                lines.append(Line(keyword=str(keyword), operator=Operator(operator), value=text))
            else:
                deeper.append({keyword: {operator: operand}})


def _plain(value: Any) -> tuple[str, Any]:
    if value in BARE:
        return str(value), ""
    return ("one_of" if isinstance(value, list) else "equals"), value


def _typed(operand: Any) -> str | None:
    """How a person types it; None where the form would read something else out of that."""
    if isinstance(operand, list):
        typed = [_typed(one) for one in operand]
        return None if any(one is None or "," in one for one in typed) else ", ".join(map(str, typed))
    if isinstance(operand, bool) or not isinstance(operand, str | int | float):
        return None
    text = str(operand)
    return text if text == text.strip() else None


def _written(line: Line) -> dict[str, Any]:
    keyword, value = line.keyword.strip(), line.value.strip()
    if line.operator in BARE:
        return {keyword: str(line.operator)}
    numeric = vr_of(keyword) in NUMERIC_VRS
    if line.operator is Operator.ONE_OF:
        return {keyword: [_scalar(one.strip(), numeric) for one in value.split(",") if one.strip()]}
    if line.operator is Operator.EQUALS and value not in BARE:
        return {keyword: _scalar(value, numeric)}
    return {keyword: {str(line.operator): _scalar(value, numeric)}}


def _scalar(text: str, numeric: bool) -> str | int | float:
    if not numeric or NUMBER.fullmatch(text) is None:
        return text
    return float(text) if "." in text else int(text)
