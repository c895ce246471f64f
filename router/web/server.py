"""The window: one process with the console, the API, `/health` and `/metrics`.

This process never imports torch or `router/work`; whatever it lets a person command becomes a row that another role
acts on.
"""

import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware

from dicom_sr.problem import Problem
from router.ingest.quiet import unvalidated
from router.node import Node
from router.tls import server_context
from router.web import api, health, login, ohif
from router.web.dicomweb.routes import routes as dicomweb
from router.web.dicomweb.store import Inlet
from router.web.doors import DICOMWEB
from router.web.guard import Guard, Nonces
from router.web.kept import Kept
from router.web.live import Live
from router.web.signin import Register

log = structlog.get_logger()

DRAIN_S = 3
"""How long an open answer, such as a stream of events, may go on once we were asked to stop."""

NOT_COMPRESSED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/dicom", "application/octet-stream", "multipart/related")
"""Pixels by the hundred megabytes, which take longer to compress than to send."""


class PortTaken(Problem):
    """Another program listens where the window should open."""


def build(node: Node, *, console: bool) -> FastAPI:
    """The application; the console is one a process."""
    live, inlet = Live(node.engine), Inlet(node)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with unvalidated():
            await run_in_threadpool(inlet.begin)
            async with live.following():
                yield
            await run_in_threadpool(inlet.end)

    app = FastAPI(title="Isocenter", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    tls = node.settings.web.tls
    app.include_router(health.routes(node))
    app.include_router(login.routes(node, tls=tls))
    api.add_to(app, node, live)
    app.include_router(dicomweb(node, inlet), prefix=DICOMWEB)
    if node.settings.web.viewer_path is not None:
        app.include_router(ohif.routes(node.settings.web.viewer_path))
    if console:
        from router.web import console as pages  # takes a second, which only a window should

        pages.add_to(app, node, live)
    app.add_middleware(Nonces)
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5, exclude_content_types=NOT_COMPRESSED)
    app.add_middleware(Kept)
    app.add_middleware(Guard, register=Register(node.engine, node.settings.web), web=node.settings.web, tls=tls)
    return app


def running(node: Node, *, console: bool = True) -> uvicorn.Config:
    """How the application is served. Nobody's word for who they are (X-Forwarded-For) is believed.

    Raises:  UnusableCredentials
    """
    config = uvicorn.Config(
        build(node, console=console),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    if node.settings.web.tls:
        config.load()
        config.ssl = server_context(node.settings.tls, "none")
    return config


def serve(node: Node, stop: threading.Event) -> None:
    """Answer HTTP until asked to stop.

    Raises:  PortTaken, UnusableCredentials
    """
    web = node.settings.web
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((web.host, web.port))
    except OSError as error:
        raise PortTaken(
            f"web: cannot listen on {web.host}:{web.port}: {error.strerror}",
            remedy="Change web.port in isocenter.yaml, or stop the program that uses it",
        ) from error
    server = uvicorn.Server(running(node))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="uvicorn")
    thread.start()
    log.info("web.listening", host=web.host, port=listening.getsockname()[1])
    stop.wait()
    server.should_exit = True
    thread.join()
