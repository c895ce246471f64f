"""What may be wrong with a node: `check` reads files and settings only, `doctor` touches the world.

Each looks at one thing after the other and gives a Diagnosis for each, the good ones, too; nothing that is found keeps
it from looking at the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dicom_sr.problem import Problem


class Verdict(StrEnum):
    """How something stands."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One thing that was looked at: what it is, how it stands, and what to do about it."""

    verdict: Verdict
    about: str
    """Which thing, as in `destination pacs`."""
    what: str
    remedy: str = ""


def good(about: str, what: str) -> Diagnosis:
    """It is as it should be."""
    return Diagnosis(verdict=Verdict.OK, about=about, what=what)


def warning(about: str, what: str, remedy: str) -> Diagnosis:
    """It works, or may; a person should know."""
    return Diagnosis(verdict=Verdict.WARNING, about=about, what=what, remedy=remedy)


def fault(about: str, what: str, remedy: str) -> Diagnosis:
    """It does not work."""
    return Diagnosis(verdict=Verdict.FAULT, about=about, what=what, remedy=remedy)


def told(about: str, problem: Problem) -> Diagnosis:
    """The fault that a Problem tells."""
    return fault(about, problem.what, problem.remedy)


def worst(found: Sequence[Diagnosis]) -> Verdict:
    """How the whole stands."""
    verdicts = {one.verdict for one in found}
    return next((verdict for verdict in (Verdict.FAULT, Verdict.WARNING) if verdict in verdicts), Verdict.OK)
