"""Server-sent events: each change of a study or job, a moment after its row (HTML standard, 9.2)."""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from router.node import Node
from router.web.api.words import Asking, may_answer
from router.web.guard import BY_COOKIE
from router.web.live import Live, differences
from router.web.signin import Register

SILENCE_S = 15.0
"""After so long without a change a comment is sent, so that a dead connection is noticed."""


def routes(node: Node, live: Live) -> APIRouter:
    """The stream."""
    router = APIRouter(tags=["live"])
    register = Register(node.engine, node.settings.web)

    @router.get(
        "/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}, **may_answer()},
    )
    async def events(request: Request, person: Asking) -> StreamingResponse:
        """Follow all studies and jobs: events `study` and `job`, each with what it says now."""

        def still_known() -> bool:
            secret = request.scope.get(BY_COOKIE)
            return secret is None or register.by_session(secret) is not None

        async def stream() -> AsyncIterator[bytes]:
            version, seen = live.version, await asyncio.to_thread(live.glance, None)
            yield b"retry: 1000\n\n: following\n\n"
            while True:
                try:
                    version = await asyncio.wait_for(live.next(version), SILENCE_S)
                except TimeoutError:
                    if not await asyncio.to_thread(still_known):
                        return
                    yield b": nothing new\n\n"
                    continue
                now = await asyncio.to_thread(live.glance, seen)
                for event, said in differences(seen, now):
                    yield f"event: {event}\ndata: {json.dumps(said)}\n\n".encode()
                seen = now

        return StreamingResponse(stream(), media_type="text/event-stream")

    return router
