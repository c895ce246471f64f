"""Alerts: what a person should look at, until it is over."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from router import views
from router.db import alerts
from router.db.engine import reading, writing
from router.node import Node
from router.web.api.words import Asking, Number, Reason, may_answer


class AlertLine(BaseModel):
    """An alert; it stands while `ended` is empty."""

    id: int
    kind: str
    subject: str
    what: str
    remedy: str
    raised: str
    times: int
    ended: str


def routes(node: Node) -> APIRouter:
    """Of alerts."""
    router = APIRouter(tags=["alerts"])

    @router.get("/alerts", responses=may_answer())
    def list_(
        ended: Annotated[bool, Query(description="Also those that are over")] = False,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> list[AlertLine]:
        """Alerts that stand, the newest first."""
        with reading(node.engine) as connection:
            found = alerts.list_(connection, ended=ended, limit=limit)
        return [AlertLine(**views.alert(one)) for one in found]

    @router.post("/alerts/{alert_id}/end", responses=may_answer(404), status_code=204)
    def end(alert_id: Number, why: Reason, person: Asking) -> None:
        """Say that an alert is over; if its cause is not, it is raised again."""
        with writing(node.engine) as connection:
            alerts.end_one(connection, alert_id, who=person.who, why=why.reason)

    return router
