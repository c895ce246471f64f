"""The condition tree as people write it: read from plain values, with a fault at the place of everything impossible.

    all: [ ... ]          every one holds          Modality: CT                      equals
    any: [ ... ]          at least one holds       Modality: [CT, MR]                one_of
    not: { ... }          it does not hold         SliceThickness: {at_most: 3}      any operator, or several
                                                   ContrastBolusAgent: absent        absent, present

A keyword is a DICOM keyword, a path through sequences (`ProcedureCodeSequence.CodeMeaning`), a private attribute by its
creator (`GEMS_PARM_01 0043xx27`) or a derived fact in lower case (`slice_spacing`). A sequence by itself compares the
codes of its items as "value:scheme".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import re2
from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword

from router.document import Loc, suggestion
from router.domain.body_part import BodyPart
from router.domain.classify import DERIVED_FACTS, SeriesKind
from router.domain.condition import ORDERED, All, AnyOf, Comparison, Condition, Not, Operator, comparisons
from router.domain.facts import Scalar

PRIVATE = re.compile(r"(?P<creator>\S.*) (?P<group>[0-9A-Fa-f]{3}[13579BDFbdf])xx(?P<element>[0-9A-Fa-f]{2})")
NUMERIC_VRS = frozenset({"DS", "IS", "FD", "FL", "US", "SS", "UL", "SL", "UV", "SV"})
MOMENT_VRS = frozenset({"DA", "TM", "DT"})
BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN", "OB or OW", "AT"})
LONGEST = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "UI": 64, "DA": 8, "AS": 4}
"""Most characters of a value (PS3.5 6.2): what is longer can never be equal."""

VOCABULARIES: dict[str, tuple[str, ...]] = {
    "kind": tuple(SeriesKind),
    "plane": ("axial", "coronal", "sagittal", "oblique", "mixed"),
    "kernel": ("soft", "sharp"),
    "laterality": ("R", "L", "B", "U"),
    "body_part": tuple(BodyPart),
    "detected.body_part": tuple(BodyPart),
}
BRANCHES = ("all", "any", "not")
OPERATORS = tuple(operator for operator in Operator if operator not in (Operator.PRESENT, Operator.ABSENT))


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something impossible in a condition, and where: the path from the document's root."""

    loc: Loc
    message: str
    at_key: bool = False


@dataclass(slots=True)
class Reader:
    """Reads conditions and gathers all complaints about them; what is complained about is left out."""

    complaints: list[Complaint] = field(default_factory=list)

    def condition(self, value: Any, loc: Loc) -> Condition:
        """The condition that this value says."""
        if isinstance(value, list):
            return self._all(value, loc)
        if not isinstance(value, Mapping) or not value:
            self._complain(loc, "a condition is `Keyword: value`, or all, any or not of conditions")
            return All(())
        parts: list[Condition] = []
        for key, inner in value.items():
            parts += self._entry(key, inner, (*loc, key))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _entry(self, key: Any, value: Any, loc: Loc) -> list[Condition]:
        if key == "all":
            return [self._all(value, loc)]
        if key == "any":
            return [AnyOf(self._parts(value, loc))]
        if key == "not":
            if isinstance(value, list):
                self._complain(loc, "`not` takes one condition; write not: {any: [...]} or not: {all: [...]}")
                return []
            return [Not(self.condition(value, loc))]
        vr = vr_of(key) if isinstance(key, str) else None
        if vr is None:
            self._complain(loc, unknown_keyword(str(key)), at_key=True)
            return []
        return list(self._comparisons(key, vr, value, loc))

    def _all(self, value: Any, loc: Loc) -> Condition:
        condition = All(self._parts(value, loc))
        said = {one.message for one in self.complaints if one.loc[: len(loc)] == loc}
        for message in contradictions(condition):
            if message not in said:  # at the place within
                self._complain(loc, message)
        return condition

    def _parts(self, value: Any, loc: Loc) -> tuple[Condition, ...]:
        if not isinstance(value, list) or not value:
            self._complain(loc, "a list of at least one condition is wanted here")
            return ()
        return tuple(self.condition(part, (*loc, index)) for index, part in enumerate(value))

    def _comparisons(self, keyword: str, vr: str, value: Any, loc: Loc) -> Iterator[Condition]:
        if value in (Operator.PRESENT, Operator.ABSENT):
            yield Comparison(keyword=keyword, operator=Operator(value))
        elif isinstance(value, Mapping):
            found = [
                made for name, operand in value.items() for made in self._operator(keyword, vr, name, operand, loc)
            ]
            if not value:
                self._complain(loc, f"{keyword} is compared with nothing; write a value, `present` or `absent`")
            yield from found
            for message in contradictions(All(tuple(found))):
                self._complain(loc, message)
        else:
            operator = Operator.ONE_OF if isinstance(value, list) else Operator.EQUALS
            yield from self._comparison(keyword, vr, operator, value, loc)

    def _operator(self, keyword: str, vr: str, name: Any, operand: Any, loc: Loc) -> Iterator[Comparison]:
        if name not in OPERATORS:
            message = f"there is no comparison {name!r}{suggestion(str(name), OPERATORS)}"
            self._complain((*loc, name), message + f" ({', '.join(OPERATORS)})", at_key=True)
        else:
            yield from self._comparison(keyword, vr, Operator(name), operand, (*loc, name))

    def _comparison(self, keyword: str, vr: str, operator: Operator, operand: Any, loc: Loc) -> Iterator[Comparison]:
        message = impossible(keyword, vr, operator, operand)
        if message:
            self._complain(loc, message)
            return
        search = None
        if operator is Operator.MATCHES:
            try:
                search = pattern(operand).search
            except re2.error as error:
                self._complain(loc, f"not a pattern: {_said(error)}")
                return
        wanted = tuple(operand) if isinstance(operand, list) else operand
        yield Comparison(keyword=keyword, operator=operator, operand=wanted, search=search)

    def _complain(self, loc: Loc, message: str, *, at_key: bool = False) -> None:
        self.complaints.append(Complaint(loc, message, at_key))


def pattern(text: str) -> Any:
    """A pattern whose search takes time linear in the text, whatever the pattern."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(text, options)


def vr_of(keyword: str) -> str | None:
    """Value representation of a keyword, path, private attribute or derived fact; None when it is none of these."""
    if keyword in DERIVED_FACTS:
        return {str: "LO", int: "IS", float: "DS", bool: "bool"}[DERIVED_FACTS[keyword]]
    private = PRIVATE.fullmatch(keyword)
    if private:
        return "LT"
    *path, last = keyword.split(".")
    if any(_dictionary_vr(step) != "SQ" for step in path):
        return None
    return _dictionary_vr(last)


def unknown_keyword(keyword: str) -> str:
    """What to say of a keyword that is none, with the nearest one."""
    *path, last = keyword.split(".")
    if keyword.islower():
        path, last = [], keyword
    for step in path:
        if _dictionary_vr(step) is None:
            return f"there is no DICOM keyword {step}{suggestion(step, keyword_dict)}"
        if _dictionary_vr(step) != "SQ":
            return f"{step} is not a sequence, so it has no {last}"
    known: Sequence[str] = [*BRANCHES, *DERIVED_FACTS] if last.islower() else list(keyword_dict)
    return f"there is no fact {last}{suggestion(last, known) or suggestion(last, keyword_dict)}"


def impossible(keyword: str, vr: str, operator: Operator, operand: Any) -> str:
    """Why this comparison can never be meant; empty when it can."""
    operands = operand if isinstance(operand, list) else [operand]
    if isinstance(operand, list) != (operator is Operator.ONE_OF):
        return f"{operator} takes {'a list of values' if operator is Operator.ONE_OF else 'one value'}"
    if not operands:
        return "an empty list is never met"
    for one in operands:
        message = _impossible_value(keyword, vr, operator, one)
        if message:
            return message
    return ""


def _impossible_value(keyword: str, vr: str, operator: Operator, value: Any) -> str:
    if value is None:
        return f"nothing stands here; to ask whether {keyword} is missing write {keyword}: absent"
    if isinstance(value, datetime | date):
        return f'YAML reads this as a date; write it as DICOM does, in quotes: "{value:%Y%m%d}"'
    if not isinstance(value, Scalar):
        return "one value is wanted here"
    if vr in BINARY_VRS:
        return f"{keyword} has no value to compare ({vr}); ask for present or absent"
    if vr == "bool":
        return "" if isinstance(value, bool) and operator is Operator.EQUALS else f"{keyword} is true or false"
    if isinstance(value, bool):
        return f"YAML reads this as {str(value).lower()}; put it in quotes"
    if operator in (Operator.MATCHES, Operator.CONTAINS):
        return _impossible_search(keyword, vr, operator, value)
    if vr in NUMERIC_VRS:
        return "" if not isinstance(value, str) else f"{keyword} is a number ({vr}), and {value!r} is none"
    return _impossible_text(keyword, vr, operator, value)


def _impossible_search(keyword: str, vr: str, operator: Operator, value: Scalar) -> str:
    if vr in NUMERIC_VRS:
        return f"{keyword} is a number ({vr}); {operator} searches texts"
    return "" if isinstance(value, str) and value else f"{operator} takes a text; put it in quotes"


def _impossible_text(keyword: str, vr: str, operator: Operator, value: Scalar) -> str:
    if not isinstance(value, str):
        return f"{keyword} is a text ({vr}); put {value!r} in quotes"
    if operator in ORDERED and vr not in MOMENT_VRS:
        instead = "; use patient_age, in years" if vr == "AS" else ""
        return f"{keyword} is a text ({vr}) and has no order{instead}"
    if keyword in VOCABULARIES and operator is not Operator.MATCHES:
        words = VOCABULARIES[keyword]
        begun = [word for word in words if word.startswith(value)]
        meant = suggestion(value, begun if len(begun) == 1 else words, cutoff=0.1 if len(begun) == 1 else 0.7)
        return "" if value in words else f"{keyword} is never {value!r}{meant} ({', '.join(words)})"
    if vr == "SQ" and ":" not in value:
        return f'{keyword} is compared by the codes of its items; write "value:scheme", or name an attribute in it'
    if operator not in ORDERED and len(value.strip()) > LONGEST.get(vr, len(value)):
        return f"{keyword} has at most {LONGEST[vr]} characters ({vr}), so it never is {value!r}"
    return ""


def contradictions(condition: All) -> Iterator[str]:
    """What cannot be true together among the conjuncts of a condition."""
    asked: dict[str, list[Comparison]] = {}
    for part in conjuncts(condition):
        if isinstance(part, Comparison):
            asked.setdefault(part.keyword, []).append(part)
    for parts in asked.values():
        if len(parts) > 1 and _contradict(parts):
            yield f"can never hold: {' and '.join(dict.fromkeys(part.text for part in parts))}"


def conjuncts(condition: Condition) -> Iterator[Condition]:
    """The parts that must all hold, nested ones included."""
    if isinstance(condition, All):
        for part in condition.parts:
            yield from conjuncts(part)
    else:
        yield condition


def _contradict(parts: list[Comparison]) -> bool:
    if {Operator.ABSENT} < {part.operator for part in parts}:
        return True
    choices: set[str] | None = None
    for part in parts:
        if part.operator in (Operator.EQUALS, Operator.ONE_OF):
            operands = part.operand if isinstance(part.operand, tuple) else (part.operand,)
            words = {str(operand).casefold() for operand in operands}
            choices = words if choices is None else choices & words
    if choices is not None and not choices:
        return True
    return _no_room(parts)


def _no_room(parts: list[Comparison]) -> bool:
    """Whether the limits leave no number between them."""
    low, high = (float("-inf"), False), (float("inf"), True)  # a limit, and whether it lies beyond the number itself
    for part in parts:
        limit = part.operand
        if isinstance(limit, str | tuple):
            continue
        if part.operator in (Operator.AT_LEAST, Operator.ABOVE, Operator.EQUALS):
            low = max(low, (float(limit), part.operator is Operator.ABOVE))
        if part.operator in (Operator.AT_MOST, Operator.BELOW, Operator.EQUALS):
            high = min(high, (float(limit), part.operator is not Operator.BELOW))
    return low[0] > high[0] or (low[0] == high[0] and (low[1] or not high[1]))


def never_reached(condition: Condition, earlier: Condition) -> bool:
    """Whether an earlier rule that stops has already taken everything that this condition would."""
    return set(conjuncts(earlier)) <= set(conjuncts(condition))


def keywords(condition: Condition) -> set[str]:
    """Every keyword that the condition asks for."""
    return {comparison.keyword for comparison in comparisons(condition)}


def _dictionary_vr(keyword: str) -> str | None:
    tag = tag_for_keyword(keyword)
    return None if tag is None else dictionary_VR(tag).split(" or ")[0]


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else error
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
