"""All paths of DICOMweb."""

from fastapi import APIRouter

from router.node import Node
from router.web.dicomweb import frames, rendered, retrieve, search, store
from router.web.dicomweb.store import Inlet
from router.web.dicomweb.wanted import Archive


def routes(node: Node, inlet: Inlet) -> APIRouter:
    """All of it, without the path that it stands below."""
    archive = Archive(node)
    router = APIRouter(include_in_schema=False)
    for part in (
        search.routes(node),
        retrieve.routes(archive),
        frames.routes(archive),
        rendered.routes(archive),
        store.routes(inlet),
    ):
        router.include_router(part)
    return router
