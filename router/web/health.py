"""Two panes without patient data: `/health` for a supervisor and `/metrics` for Prometheus."""

import structlog
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from router.db import tables
from router.db.engine import fault, reading
from router.node import Node
from router.web.metrics import Pane

log = structlog.get_logger()


def routes(node: Node) -> APIRouter:
    """Both panes."""
    router = APIRouter(include_in_schema=False)
    pane = Pane(node)

    @router.get("/health")
    def health() -> JSONResponse:
        try:
            with reading(node.engine) as connection:
                connection.execute(select(tables.node.c.node_id)).scalar_one()
        except OperationalError as error:
            log.error("health.database", error=fault(error))
            return JSONResponse({"status": "failing", "database": "out of reach"}, status_code=503)
        return JSONResponse({"status": "ok", "database": "ok", "store_free_bytes": node.store.free_bytes()})

    @router.get("/metrics")
    def scrape() -> Response:
        return Response(pane.text(), media_type=CONTENT_TYPE_LATEST)

    return router
