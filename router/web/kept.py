"""Files that never change are read and compressed once a process, not once a browser."""

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers

from router.web.guard import App, ASGIScope, Receive, Send

MOST = 400
LARGEST = 8 << 20
"""In bytes, as sent; OHIF's largest parts are beyond it, and are sent from the disk each time."""
CONDITIONAL = ("range", "if-none-match", "if-modified-since", "if-range")


class Kept:
    """Answers again what was answered before, where that was said to be immutable; whoever asks was let in already."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.answers: dict[tuple[str, str], tuple[MutableMapping[str, Any], bytes]] = {}

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """From memory, or from the application."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if scope.get("method") != "GET" or any(name in headers for name in CONDITIONAL):
            await self.app(scope, receive, send)
            return
        key = scope["path"] + "?" + scope["query_string"].decode("latin-1"), headers.get("accept-encoding", "")
        if (kept := self.answers.get(key)) is not None:
            start, body = kept
            await send({**start, "headers": list(start["headers"])})
            await send({"type": "http.response.body", "body": body})
            return
        begun: MutableMapping[str, Any] | None = None
        parts: list[bytes] = []

        async def sends(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                said = Headers(raw=message["headers"]).get("cache-control", "")
                if message["status"] == 200 and "immutable" in said:
                    begun = {**message, "headers": list(message["headers"])}
            elif begun is not None and message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
                if sum(map(len, parts)) > LARGEST:
                    begun = None
                elif not message.get("more_body") and len(self.answers) < MOST:
                    self.answers[key] = begun, b"".join(parts)
            await send(message)

        await self.app(scope, receive, sends)
