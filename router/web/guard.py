"""Everything that comes to the window passes here first: who is asking, may they, and from which page they ask.

Against requests that another site makes in a person's browser (CSRF), whatever changes something and every WebSocket
must come from a page of ours: the browser says so in `Sec-Fetch-Site` or `Origin`, and no page can make it lie. The
cookie is `SameSite=Lax` beside that. Tokens are no cookies, so no browser sends them by itself.
"""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response

from router.config import Web
from router.domain.access import Person, Scope
from router.web import doors
from router.web.signin import Register

ASGIScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[ASGIScope, Receive, Send], Awaitable[None]]

COOKIE = "isocenter_session"
PERSON = "isocenter.person"
"""Where the request's scope keeps who is asking."""
NONCE = "isocenter.nonce"
"""Where it keeps the word without which no script of the page runs."""
BY_COOKIE = "isocenter.session"
"""Where it keeps the session's secret."""

POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content Security Policy. A handler in markup (`onerror=`) and a script without our nonce never run; `unsafe-eval` is
what Vue compiles its templates with."""

SHIELDS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
FORBIDDEN_CODE = 4403
"""WebSocket close code for one who may not (4000 and up are the application's)."""


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: App, *, register: Register, web: Web, tls: bool) -> None:
        self.app = app
        self.register = register
        self.web = web
        self.tls = tls

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Let it through, or answer in its place."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        scope[NONCE] = secrets.token_urlsafe(16)
        sends = self._shielded(scope, send) if scope["type"] == "http" else send
        refusal = await self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, sends)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": FORBIDDEN_CODE, "reason": ""})
        else:
            await refusal(scope, receive, sends)

    async def _refusal(self, scope: ASGIScope) -> Response | None:
        """Why this request goes no further, as an answer; None when it may."""
        headers = Headers(scope=scope)
        method = scope.get("method", "GET")
        knocked = doors.door(scope["path"], method)
        if knocked is None and doors.leads_somewhere(scope["path"]):
            return _said(405, "MethodNotAllowed", f"{method} is not answered here", "See /api/v1/openapi.json")
        person = await run_in_threadpool(self._who, scope, headers)
        scope[PERSON] = person
        needs = knocked.needs if knocked else Scope.READ
        if needs is Scope.METRICS and self.web.open_metrics:
            return None
        if needs != doors.OPEN and person is None:
            return _unknown(scope, method)
        if knocked is None:
            return _said(404, "NotFound", "there is nothing here", "See /api/v1/openapi.json")
        changes = method not in SAFE or scope["type"] == "websocket"
        if changes and (BY_COOKIE in scope or needs == doors.OPEN) and not from_our_page(headers):
            return _said(403, "ForeignPage", "the request does not come from a page of ours", "Use a token, or log in")
        if isinstance(needs, Scope) and person is not None and not person.may(needs):
            what = f"{person.name} may not do this: it needs the scope {needs}"
            return _said(403, "NotAllowed", what, "Ask an admin for it")
        return None

    def _who(self, scope: ASGIScope, headers: Headers) -> Person | None:
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.register.by_token(secret.strip())
        secret = cookie(headers)
        person = self.register.by_session(secret) if secret else None
        if person is not None:
            scope[BY_COOKIE] = secret
        return person

    def _shielded(self, scope: ASGIScope, send: Send) -> Send:
        async def shielded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SHIELDS.items():
                    headers.setdefault(name, value)
                headers["content-security-policy"] = POLICY.format(nonce=scope[NONCE])
                headers.setdefault("cache-control", "no-store")
                if self.tls:
                    headers["strict-transport-security"] = "max-age=31536000"
                headers["server"] = "isocenter"
            await send(message)

        return shielded


def cookie(headers: Headers) -> str:
    """The session's secret that the browser sends, or nothing."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def from_our_page(headers: Headers) -> bool:
    """Whether the browser says that a page of ours makes this request."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == headers.get("host", "")


def wants_page(scope: ASGIScope, method: str) -> bool:
    """Whether a person's browser asks for a page, and not a program for data."""
    accepts = Headers(scope=scope).get("accept", "")
    return scope["type"] == "http" and method in SAFE and "text/html" in accepts and not _is_api(scope["path"])


def _is_api(path: str) -> bool:
    return path.startswith("/api/")


def _unknown(scope: ASGIScope, method: str) -> Response:
    if wants_page(scope, method):
        asked = scope["path"] if scope["path"] != "/" else ""
        return RedirectResponse(f"/login?next={quote(asked)}" if asked else "/login", status_code=303)
    answer = _said(401, "NotLoggedIn", "who is asking is not known", "Log in, or send a bearer token")
    answer.headers["www-authenticate"] = "Bearer"
    return answer


def _said(status: int, problem: str, what: str, remedy: str) -> Response:
    return JSONResponse({"problem": problem, "what": what, "remedy": remedy, "faults": []}, status_code=status)


class Nonces:
    """Gives each script of a page of ours the page's nonce; text of others never has a `<`, since it is escaped."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Pass everything on but the pages, which are small, and complete before they are sent."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: MutableMapping[str, Any] | None = None
        body = b""

        async def sends(message: MutableMapping[str, Any]) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                if "text/html" in MutableHeaders(scope=message).get("content-type", ""):
                    start = message
                    return
            elif start is not None and message["type"] == "http.response.body":
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                marked = body.replace(b"<script", b'<script nonce="%s"' % scope[NONCE].encode())
                MutableHeaders(scope=start)["content-length"] = str(len(marked))
                await send(start)
                message = {"type": "http.response.body", "body": marked}
            await send(message)

        await self.app(scope, receive, sends)
