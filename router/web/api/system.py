"""The node itself: what goes on in it, its pipelines' model cards, and its disk."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from pipelines import catalog
from router import views
from router.db import circuits, overview
from router.db.engine import reading
from router.domain.job import Lane, State
from router.domain.study import StudyState
from router.node import Node
from router.web.api.words import Name, may_answer


class System(BaseModel):
    """The node at a glance."""

    ae_title: str
    node_id: str
    studies: dict[StudyState, int]
    lanes: dict[Lane, dict[State, int]]
    open_associations: int
    silent_destinations: list[str]
    store_free_bytes: int


class PipelineLine(BaseModel):
    """A pipeline in a list."""

    name: str
    version: str
    title: str
    research_use: bool
    runs: dict[str, int]


def routes(node: Node) -> APIRouter:
    """Of the node."""
    router = APIRouter()

    @router.get("/system", tags=["system"], responses=may_answer())
    def system() -> System:
        """The node at a glance: studies, queues, who is connected, destinations that do not answer, disk."""
        with reading(node.engine) as connection:
            return System(
                ae_title=node.settings.ae_title,
                node_id=node.node_id,
                studies=overview.studies_by_state(connection),
                lanes=overview.lanes(connection),
                open_associations=overview.open_associations(connection),
                silent_destinations=circuits.unreachable(connection),
                store_free_bytes=node.store.free_bytes(),
            )

    @router.get("/pipelines", tags=["pipelines"], responses=may_answer())
    def pipelines() -> list[PipelineLine]:
        """What can run here, and how often it did."""
        with reading(node.engine) as connection:
            runs = overview.runs(connection)
        specs = [catalog.find(name).spec for name in catalog.names()]
        return [
            PipelineLine(
                name=spec.name,
                version=spec.version,
                title=spec.title,
                research_use=spec.research_use,
                runs=runs.get(spec.name, {}),
            )
            for spec in specs
        ]

    @router.get("/pipelines/{name}", tags=["pipelines"], responses=may_answer(404))
    def pipeline(name: Name) -> dict[str, Any]:
        """A model card: intended use, needs, outputs with codes, limitations, settings, licence."""
        return views.card(catalog.find(name).spec)

    return router
