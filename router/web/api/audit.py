"""The audit: who did what to patient data, for programs and spreadsheets. It names patients by keys alone."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel

from router import views
from router.db import audit
from router.db.engine import writing
from router.domain.audit import Act, Outcome, Row
from router.node import Node
from router.web.api.words import Asking, may_answer
from router.web.sheets import sheet

Study = Annotated[str | None, Query(pattern=r"^[0-9.]{1,64}$", description="A StudyInstanceUID")]
Before = Annotated[int | None, Query(ge=1, le=2**53, description="Only smaller numbers: the next page")]


class AuditLine(BaseModel):
    """One act."""

    id: int
    at: str
    who: str
    act: str
    outcome: Outcome
    study_instance_uid: str | None
    job: int | None
    patient_key: str | None
    detail: dict[str, Any]


def routes(node: Node) -> APIRouter:
    """Of the audit. Looking at it is an act, too."""
    router = APIRouter(tags=["audit"])

    def read(who: str, study: str | None, act: Act | None, before: int | None, limit: int, event: str) -> list[Row]:
        with writing(node.engine) as connection:
            found = audit.list_(connection, study_instance_uid=study, act=act, before=before, limit=limit)
            audit.write(connection, who, event, study, rows=len(found))
        return found[::-1]

    @router.get("/audit", responses=may_answer())
    def list_(
        person: Asking,
        study: Study = None,
        act: Act | None = None,
        before: Before = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> list[AuditLine]:
        """Acts, the newest first."""
        return [AuditLine(**views.act(one)) for one in read(person.who, study, act, before, limit, "audit.read")]

    @router.get(
        "/audit.csv",
        response_class=Response,
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}, **may_answer()},
    )
    def table(person: Asking, study: Study = None, act: Act | None = None, before: Before = None) -> Response:
        """The newest 10 000 acts for a spreadsheet, in which no text of others is run."""
        rows = [views.act(one) for one in read(person.who, study, act, before, 10_000, "audit.exported")]
        said = [[*[*line.values()][:-1], views.detail(line["detail"])] for line in rows]
        names = list(AuditLine.model_fields)
        return Response(
            sheet(names, said),
            media_type="text/csv",
            headers={"content-disposition": 'attachment; filename="isocenter-audit.csv"'},
        )

    return router
