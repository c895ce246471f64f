"""The API, `/api/v1`: what the console can do, for programs, described by OpenAPI.

A person's command is a row or a new revision; nothing here works on a study itself.
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from dicom_sr.problem import Problem
from router.node import Node
from router.web.api import alerts, audit, books, events, jobs, people, pictures, studies, system
from router.web.api.words import Trouble, status_of, trouble_of
from router.web.doors import API
from router.web.live import Live

SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token from `isocenter tokens add`"},
    "session": {"type": "apiKey", "in": "cookie", "name": "isocenter_session", "description": "A browser's session"},
}


def add_to(app: FastAPI, node: Node, live: Live) -> None:
    """Give the application the API and one form for whatever goes wrong."""
    for module in (studies, jobs, pictures, books, people, audit, alerts, system):
        app.include_router(module.routes(node), prefix=API)
    app.include_router(events.routes(node, live), prefix=API)

    @app.exception_handler(Problem)
    def problem(_: Request, problem: Problem) -> JSONResponse:
        return JSONResponse(trouble_of(problem).model_dump(), status_code=status_of(problem))

    @app.exception_handler(RequestValidationError)
    def wrong_request(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        said = Trouble(
            problem="WrongRequest",
            what="the request is not as it should be",
            remedy="Correct what is named here",
            faults=faults,
        )
        return JSONResponse(said.model_dump(), status_code=422)

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> JSONResponse:
        said = Trouble(problem="Refused", what=str(error.detail), remedy=f"See {API}/openapi.json", faults=[])
        return JSONResponse(said.model_dump(), status_code=error.status_code, headers=error.headers)

    @app.get(f"{API}/openapi.json", include_in_schema=False)
    def described() -> dict[str, Any]:
        return document(app)


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="Isocenter",
            version="1",
            description="A DICOM-native PACS node and AI router. Research use only; not a medical device.",
            routes=app.routes,
        )
        made["components"]["securitySchemes"] = SECURITY
        made["security"] = [{name: []} for name in SECURITY]
        app.openapi_schema = made
    return app.openapi_schema
