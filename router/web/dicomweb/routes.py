"""All paths of DICOMweb."""

from fastapi import APIRouter

from router.node import Node
from router.web.dicomweb import frames, retrieve, search
from router.web.dicomweb.wanted import Archive


def routes(node: Node) -> APIRouter:
    """All of it, without the path that it stands below."""
    archive = Archive(node)
    router = APIRouter(include_in_schema=False)
    for part in (search.routes(node), retrieve.routes(archive), frames.routes(archive)):
        router.include_router(part)
    return router
