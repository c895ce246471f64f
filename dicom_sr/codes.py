"""The coded terms that we write, each with its source; nothing codes by hand elsewhere.

Four tables lie beside this file. `codes.csv` holds the terms: *pydicom* (a test resolves it), *standard* (CID or TID
cited) or *own* (scheme 99ISOCENTER, declared in every object that uses it, with its definition). `structures.csv`
says how a structure is coded and coloured, `quantities.csv` how a number is, `label_sets.csv` what published models
call structures, and where they were published. A near code is never bent: a structure without a sure one is *own*.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from dicom_sr.nouns import Code, Measurement, Segment
from dicom_sr.problem import Problem

T = TypeVar("T")

OWN = "99ISOCENTER"
"""Our private coding scheme (PS3.3 8.2: private designators begin with 99)."""


class UnknownTerm(Problem):
    """No table has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One line of `codes.csv`: `where` is pydicom's path or the clause, `definition` stands for own terms only."""

    name: str
    code: Code
    source: str
    where: str
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """How a structure is coded (PS3.3 C.8.20.2) and shown."""

    name: str
    label: str
    category: Code
    type: Code
    laterality: Code | None
    region: str
    rgb: tuple[int, int, int]

    def segment(self, number: int) -> Segment:
        """This structure as segment `number` of a label map."""
        return Segment(
            number=number,
            label=self.label,
            category=self.category,
            type=self.type,
            rgb=self.rgb,
            laterality=self.laterality,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """How a number is coded: concept, derivation, unit, and the range outside which it cannot be true."""

    name: str
    concept: Code
    derivation: Code | None
    unit: Code
    minimum: float
    maximum: float

    def measured(self, value: float, *, remark: str | None = None) -> Measurement:
        """This quantity with a value."""
        return Measurement(name=self.concept, unit=self.unit, derivation=self.derivation, value=value, remark=remark)

    def withheld(self, reason: str) -> Measurement:
        """This quantity without a value, and why."""
        return Measurement(name=self.concept, unit=self.unit, derivation=self.derivation, value=None, withheld=reason)


def find(name: str) -> Code:
    """The coded term of this name in `codes.csv`.

    Raises:  UnknownTerm
    """
    return _of(terms(), name, "coded term").code


def structure(name: str) -> Structure:
    """The structure of this name in `structures.csv`.

    Raises:  UnknownTerm
    """
    return _of(structures(), name, "structure")


def labelled(label: str) -> Structure | None:
    """The structure that published label sets mean by this label, or None where none has it; case does not matter."""
    return _labels().get(label.casefold())


def quantity(name: str) -> Quantity:
    """The quantity of this name in `quantities.csv`.

    Raises:  UnknownTerm
    """
    return _of(quantities(), name, "quantity")


def quantity_of(concept: Code, derivation: Code | None) -> Quantity | None:
    """The quantity that this concept and derivation stand for, or None where we know none."""
    wanted = _key(concept), derivation and _key(derivation)
    for known in quantities().values():
        if (_key(known.concept), known.derivation and _key(known.derivation)) == wanted:
            return known
    return None


def own(codes: Iterable[Code]) -> tuple[Term, ...]:
    """The own terms among these codes, each once, in the order of the table: what an object must declare."""
    used = {_key(code) for code in codes if code.scheme == OWN}
    if not used:
        return ()
    return tuple(term for term in terms().values() if term.source == "own" and _key(term.code) in used)


@cache
def terms() -> dict[str, Term]:
    """Every line of `codes.csv` by name."""
    return {
        row["name"]: Term(
            name=row["name"],
            code=Code(value=row["value"], scheme=row["scheme"], meaning=row["meaning"]),
            source=row["source"],
            where=row["where"],
            definition=row["definition"],
        )
        for row in _rows("codes.csv")
    }


@cache
def structures() -> dict[str, Structure]:
    """Every line of `structures.csv` by name."""
    return {
        row["name"]: Structure(
            name=row["name"],
            label=row["label"],
            category=find(row["category"]),
            type=find(row["type"]),
            laterality=find(row["laterality"]) if row["laterality"] else None,
            region=row["region"],
            rgb=_rgb(row["colour"]),
        )
        for row in _rows("structures.csv")
    }


@cache
def label_sets() -> dict[str, dict[str, Structure]]:
    """Every line of `label_sets.csv`: by set, then by label."""
    sets: dict[str, dict[str, Structure]] = {}
    for row in _rows("label_sets.csv"):
        sets.setdefault(row["set"], {})[row["label"]] = structure(row["structure"])
    return sets


@cache
def _labels() -> dict[str, Structure]:
    return {label.casefold(): found for labels in label_sets().values() for label, found in labels.items()}


@cache
def quantities() -> dict[str, Quantity]:
    """Every line of `quantities.csv` by name."""
    return {
        row["name"]: Quantity(
            name=row["name"],
            concept=find(row["concept"]),
            derivation=find(row["derivation"]) if row["derivation"] else None,
            unit=find(row["unit"]),
            minimum=float(row["minimum"] or "-inf"),
            maximum=float(row["maximum"] or "inf"),
        )
        for row in _rows("quantities.csv")
    }


def _rows(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _of(table: dict[str, T], name: str, what: str) -> T:
    try:
        return table[name]
    except KeyError:
        raise UnknownTerm(f"there is no {what} {name!r}", remedy=f"Choose one of: {', '.join(table)}") from None


def _key(code: Code) -> tuple[str, str]:
    return code.scheme, code.value


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
