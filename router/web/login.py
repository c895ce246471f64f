"""The login page: plain HTML that asks for nothing else, so that a stranger is given nothing else."""

from html import escape
from string import Template
from typing import Annotated
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from dicom_sr.problem import Problem
from router.db.accounts import UserExists
from router.node import Node
from router.web import oidc, signin
from router.web.guard import BY_COOKIE, COOKIE, PERSON

log = structlog.get_logger()
ATTEMPT = "isocenter_oidc"
LONGEST_S = 600
"""How long a person may take at the provider."""

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>Log in - Isocenter</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
:root{--back:#eef2f6;--card:#fff;--ink:#14202b;--soft:#4a5a69;--line:#7b8a98;--key:#0b5cad;--bad:#a3161f}
@media (prefers-color-scheme:dark){:root{--back:#0e151c;--card:#182330;--ink:#eaf1f7;--soft:#b3c1cd;--line:#7b8a98;
--key:#2f7fd0;--bad:#ff9ba1}}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--back);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
main{background:var(--card);padding:2rem;border-radius:14px;width:min(22rem,calc(100vw - 4rem));
box-shadow:0 8px 30px #0003}
h1{margin:0 0 .2rem;font-size:1.5rem}p{margin:.2rem 0 1.2rem;color:var(--soft)}
label{display:block;margin:.9rem 0 .25rem;font-weight:600}
input{box-sizing:border-box;width:100%;font:inherit;padding:.6rem .7rem;border:1px solid var(--line);border-radius:8px;
background:transparent;color:inherit}
button{width:100%;margin-top:1.5rem;padding:.7rem;border:0;border-radius:8px;background:var(--key);color:#fff;
font:inherit;font-weight:600;cursor:pointer}
:focus-visible{outline:3px solid var(--key);outline-offset:2px}.bad{color:var(--bad);font-weight:600}
.or{margin:1rem 0 0}.key{display:block;padding:.7rem;border:1px solid var(--key);border-radius:8px;text-align:center;
color:inherit;font-weight:600;text-decoration:none}
small{display:block;margin-top:1.4rem;color:var(--soft)}
</style></head><body><main><h1>Isocenter</h1><p>$place</p>$said
<form method="post" action="/login"><input type="hidden" name="next" value="$next">
<label for="name">Name</label>
<input id="name" name="name" autocomplete="username" autocapitalize="none" required autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button type="submit">Log in</button></form>$elsewhere
<small>Research use only; not a medical device.</small></main></body></html>
""")


ELSEWHERE = Template('<p class="or"><a class="key" href="$there">Log in with $label</a></p>')


def page(node: Node, *, goal: str, said: str = "", status: int = 200) -> HTMLResponse:
    """The page, with what is to be said of the last attempt."""
    other = node.settings.web.oidc
    there = f"/login/oidc?{urlencode({'next': goal})}"
    text = PAGE.substitute(
        elsewhere="" if other.issuer is None else ELSEWHERE.substitute(there=escape(there), label=escape(other.label)),
        place=escape(f"{node.settings.ae_title}: studies, results, rules"),
        next=escape(goal),
        said=f'<div class="bad" role="alert">{escape(said)}</div>' if said else "",
    )
    return HTMLResponse(text, status_code=status)


def inside(goal: str) -> str:
    """Where to go after the login: only ever to a page of ours."""
    plain = goal.startswith("/") and not goal.startswith(("//", "/\\")) and goal.isprintable()
    return goal if plain else "/"


def routes(node: Node, *, tls: bool) -> APIRouter:
    """Logging in and out."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    def form(request: Request, goal: Annotated[str, Query(alias="next")] = "/") -> Response:
        if request.scope[PERSON] is not None:
            return RedirectResponse(inside(goal), status_code=303)
        return page(node, goal=inside(goal))

    @router.post("/login")
    def log_in(
        request: Request,
        name: Annotated[str, Form(max_length=200)] = "",
        password: Annotated[str, Form(max_length=2000)] = "",
        goal: Annotated[str, Form(alias="next", max_length=2000)] = "/",
    ) -> Response:
        address = request.client.host if request.client else ""
        try:
            secret = signin.log_in(node.engine, name, password, address)
        except signin.TooManyAttempts as problem:
            refused = page(node, goal=inside(goal), said=f"{problem.what}.", status=429)
            refused.headers["retry-after"] = str(problem.wait_s)
            return refused
        except signin.WrongPassword as problem:
            return page(node, goal=inside(goal), said=f"{problem.what}.", status=401)
        return begun(secret, goal)

    def begun(secret: str, goal: str) -> Response:
        answer = RedirectResponse(inside(goal), status_code=303)
        age = round(node.settings.web.session_hours * 3600)
        answer.set_cookie(COOKIE, secret, max_age=age, httponly=True, samesite="lax", secure=tls, path="/")
        return answer

    provider = oidc.Provider(node.settings.web.oidc, node.settings.web.public_url or "")

    @router.get("/login/oidc")
    def begin(goal: Annotated[str, Query(alias="next", max_length=2000)] = "/") -> Response:
        if node.settings.web.oidc.issuer is None:
            return page(node, goal="/", said="Users of this node have a password.", status=404)
        try:
            there, attempt = provider.begin(inside(goal))
        except oidc.ProviderUnreachable as problem:
            return failed(problem, 502)
        answer = RedirectResponse(there, status_code=303)
        answer.set_cookie(
            ATTEMPT, attempt.kept(), max_age=LONGEST_S, httponly=True, samesite="lax", secure=tls, path="/login/oidc"
        )
        return answer

    @router.get("/login/oidc/done")
    def done(request: Request) -> Response:
        attempt = oidc.Attempt.of(request.cookies.get(ATTEMPT, ""))
        if node.settings.web.oidc.issuer is None:
            return page(node, goal="/", said="Users of this node have a password.", status=404)
        try:
            known = provider.finish(attempt, dict(request.query_params))
            secret = signin.log_in_from_elsewhere(node.engine, known, request.client.host if request.client else "")
        except oidc.ProviderUnreachable as problem:
            answer = failed(problem, 502)
        except (oidc.NotLetIn, UserExists) as problem:
            answer = failed(problem, 403)
        else:
            answer = begun(secret, attempt.goal if attempt else "/")
        answer.delete_cookie(ATTEMPT, path="/login/oidc")
        return answer

    def failed(problem: Problem, status: int) -> Response:
        log.warning("oidc.failed", problem=type(problem).__name__, what=problem.what)
        return page(node, goal="/", said=f"{problem.what}. {problem.remedy}.", status=status)

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        if BY_COOKIE in request.scope:
            signin.log_out(node.engine, request.scope[BY_COOKIE])
        answer = RedirectResponse("/login", status_code=303)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    return router
