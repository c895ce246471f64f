"""Two panes without patient data: `/health` for a supervisor and `/metrics` for Prometheus."""

import structlog
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from router.db import tables
from router.db.engine import now, reading
from router.domain.job import State
from router.node import Node

log = structlog.get_logger()


def metrics(node: Node) -> bytes:
    """The node's figures in Prometheus' text format, read from the database now; no patient attribute among them."""
    registry = CollectorRegistry()
    jobs = Gauge("isocenter_jobs", "Jobs by lane and state", ["lane", "state"], registry=registry)
    studies = Gauge("isocenter_studies", "Studies by state", ["state"], registry=registry)
    waiting = Gauge(
        "isocenter_oldest_queued_job_seconds",
        "How long the oldest queued job has been due",
        ["lane"],
        registry=registry,
    )
    free = Gauge("isocenter_store_free_bytes", "Free space where objects are stored", registry=registry)
    job, study = tables.job, tables.study
    with reading(node.engine) as connection:
        for lane, state, count in connection.execute(
            select(job.c.lane, job.c.state, func.count()).group_by(job.c.lane, job.c.state)
        ):
            jobs.labels(lane, state).set(count)
        for state, count in connection.execute(select(study.c.state, func.count()).group_by(study.c.state)):
            studies.labels(state).set(count)
        for lane, due_at in connection.execute(
            select(job.c.lane, func.min(job.c.not_before)).where(job.c.state == State.QUEUED).group_by(job.c.lane)
        ):
            waiting.labels(lane).set(max(0, now() - due_at) / 1e6)
    free.set(node.store.free_bytes())
    return generate_latest(registry)


def routes(node: Node) -> APIRouter:
    """Both panes."""
    router = APIRouter(include_in_schema=False)

    @router.get("/health")
    def health() -> JSONResponse:
        try:
            with reading(node.engine) as connection:
                connection.execute(select(tables.node.c.node_id)).scalar_one()
        except OperationalError as error:
            log.error("health.database", error=str(error.orig))
            return JSONResponse({"status": "failing", "database": "out of reach"}, status_code=503)
        return JSONResponse({"status": "ok", "database": "ok", "store_free_bytes": node.store.free_bytes()})

    @router.get("/metrics")
    def scrape() -> Response:
        return Response(metrics(node), media_type=CONTENT_TYPE_LATEST)

    return router
