"""What all of the API says alike: who asks, which forms its answers have, and how trouble is told."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Path, Request
from pydantic import BaseModel, Field

from dicom_sr.problem import Problem
from pipelines.spec import UnknownPipeline
from router.db.accounts import LastAdmin, UnknownUser, UserExists
from router.db.alerts import NoSuchAlert
from router.db.jobs import UnknownJob
from router.db.revisions import UnknownRevision
from router.db.studies import UnknownStudy
from router.db.tokens import TokenExists, UnknownToken
from router.domain.access import Person
from router.domain.job import IllegalMove
from router.errors import WrongFile
from router.passwords import WeakPassword
from router.revise import NotInTheBook, WrongKind
from router.trial import NothingToTest
from router.web.dicomweb.asked import Broken, NotAcceptable, NotHeldHere, NotMultipart, TooManyAtOnce, WrongQuery
from router.web.guard import PERSON


class Trouble(BaseModel):
    """What went wrong, and what to do about it."""

    problem: str = Field(description="Kind of problem, a fixed word")
    what: str
    remedy: str
    faults: list[str] = Field([], description="Each fault with its place, where there are several")


STATUS: Mapping[type[Problem], int] = {
    UnknownJob: 404,
    UnknownStudy: 404,
    NoSuchAlert: 404,
    UnknownRevision: 404,
    UnknownUser: 404,
    UnknownToken: 404,
    UnknownPipeline: 404,
    NotInTheBook: 404,
    IllegalMove: 409,
    UserExists: 409,
    TokenExists: 409,
    LastAdmin: 409,
    WrongFile: 422,
    WrongKind: 422,
    WeakPassword: 422,
    NothingToTest: 422,
    NotHeldHere: 404,
    NotAcceptable: 406,
    WrongQuery: 400,
    Broken: 400,
    NotMultipart: 415,
    TooManyAtOnce: 503,
}
"""What HTTP calls our problems; any other is a conflict with how things stand (409)."""


def status_of(problem: Problem) -> int:
    """HTTP's word for it."""
    return next((status for kind, status in STATUS.items() if isinstance(problem, kind)), 409)


def trouble_of(problem: Problem) -> Trouble:
    """The problem as the API tells it."""
    faults = [str(fault) for fault in problem.faults] if isinstance(problem, WrongFile) else []
    return Trouble(problem=type(problem).__name__, what=problem.what, remedy=problem.remedy, faults=faults)


def may_answer(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documents the troubles of a route; who may not ask is told on every one."""
    words = {
        401: "Who asks is not known",
        403: "Who asks may not",
        404: "There is none",
        409: "It does not go with how things stand",
        422: "The request is not as it should be",
    }
    return {status: {"model": Trouble, "description": words[status]} for status in sorted({401, 403, 422, *statuses})}


def asking(request: Request) -> Person:
    """Who asks; the guard has looked already whether they may."""
    person: Person = request.scope[PERSON]
    return person


Asking = Annotated[Person, Depends(asking)]
NoControl = r"^[^\x00-\x1f\x7f]*$"
"""No control characters, which no name of ours has."""
Uid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="A UID (PS3.5 9.1)")]
Number = Annotated[int, Path(ge=1, le=2**53)]
Name = Annotated[str, Path(min_length=1, max_length=200, pattern=NoControl)]


class Reason(BaseModel):
    """Why a person wants it; it stands in the audit."""

    reason: str = Field(min_length=3, max_length=500, pattern=NoControl, description="Never a patient's name")
