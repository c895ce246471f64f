"""The router's errors: one tree, each with what happened and what to do about it.

    Problem (dicom_sr.problem)
    ├── WrongFile                 a YAML file says something wrong; every fault has file:line:column
    │   ├── WrongSettings         isocenter.yaml
    │   └── WrongRulebook         rules, sources or destinations
    ├── UnreadableFile            a YAML file that is not there or may not be read
    ├── DatabaseTooNew            db.migrate: a newer Isocenter has migrated this database
    ├── UnknownRevision           db.revisions: no revision of this kind has this number
    ├── UnknownStudy              db.studies: no study has this UID
    ├── NotInTheBook              revise: the revision in force has no entry of this name
    ├── NothingToTest             trial: `rules test` found no DICOM file where it looked
    ├── UnknownHost               starter: a host name has no address
    └── IllegalMove               domain.job: a job was asked to do what its state does not allow

Errors that belong to one room are defined in that room; this file has those that more than one room raises or
catches, and the tree is kept true by a test.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dicom_sr.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong in a file, with its address; `line` and `column` count from 1, 0 is "the whole file"."""

    file: str
    line: int
    column: int
    where: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


class WrongFile(Problem):
    """A file says something that cannot be; all its faults at once."""

    exit_code = 2

    def __init__(self, faults: Iterable[Fault], *, remedy: str = "Correct the lines named here and try again") -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.file, fault.line, fault.column)))
        super().__init__("\n".join(str(fault) for fault in self.faults), remedy=remedy)


class WrongSettings(WrongFile):
    """`isocenter.yaml` cannot be used as it is."""


class WrongRulebook(WrongFile):
    """Rules, sources or destinations cannot be imported as they are."""


class UnreadableFile(Problem):
    """A YAML file is not there, or may not be read."""

    exit_code = 2
