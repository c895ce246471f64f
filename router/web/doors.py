"""Every route of the window and what it needs: one table, and what is not in it is shut. A test walks it."""

import re
from dataclasses import dataclass, field
from typing import Literal

from router.domain.access import Scope

OPEN: Literal["open"] = "open"
"""For anybody, also one who has not logged in."""

READING = ("GET", "HEAD")
WRITING = ("POST",)
API = "/api/v1"
DICOMWEB = "/dicom-web"
VIEWER = "/viewer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A path, with {name} for one segment and {name:rest} for all that follow; its methods, and who may."""

    path: str
    methods: tuple[str, ...] = READING
    needs: Scope | Literal["open"]
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = re.sub(r"\{\w+:rest\}", ".+", re.sub(r"\{\w+\}", "[^/]+", self.path))
        object.__setattr__(self, "pattern", re.compile(words))


def _doors(needs: Scope, methods: tuple[str, ...], *paths: str) -> tuple[Door, ...]:
    return tuple(Door(path=path, methods=methods, needs=needs) for path in paths)


DOORS: tuple[Door, ...] = (
    Door(path="/health", needs=OPEN),
    Door(path="/metrics", needs=Scope.METRICS),
    Door(path="/login", methods=("GET", "HEAD", "POST"), needs=OPEN),
    Door(path="/login/oidc", needs=OPEN),
    Door(path="/login/oidc/done", needs=OPEN),
    Door(path="/logout", methods=("POST",), needs=Scope.READ),
    *_doors(
        Scope.READ,
        READING,
        "/",
        "/studies",
        "/studies/{uid}",
        "/jobs",
        "/jobs/{id}",
        "/rules",
        "/pipelines",
        "/places",
        "/node",
        "/console/{file}",
        "/favicon.ico",
        VIEWER,
        f"{VIEWER}/",
        f"{VIEWER}/{{file:rest}}",
    ),
    *_doors(Scope.ADMINISTER, READING, "/users", "/audit"),
    *_doors(Scope.ADMINISTER, READING, f"{API}/audit", f"{API}/audit.csv"),
    *_doors(Scope.READ, ("GET", "HEAD", "POST"), "/_nicegui/{file:rest}", "/_nicegui_ws/{file:rest}"),
    *_doors(
        Scope.READ,
        READING,
        *(
            f"{API}/{path}"
            for path in (
                "openapi.json",
                "me",
                "events",
                "system",
                "studies",
                "studies/{uid}",
                "alerts",
                "jobs",
                "jobs/{id}",
                "jobs/{id}/pictures",
                "jobs/{id}/pictures/{index}",
                "pipelines",
                "pipelines/{name}",
                "rules",
                "rules/history",
                "rules/diff",
                "rules/shadow",
                "sources",
                "sources/history",
                "sources/diff",
                "sources/seen",
                "destinations",
                "destinations/history",
                "destinations/diff",
            )
        ),
    ),
    *_doors(
        Scope.READ,
        ("GET",),
        *(
            f"{DICOMWEB}/{path}"
            for path in (
                "studies",
                "series",
                "instances",
                "studies/{study}",
                "studies/{study}/metadata",
                "studies/{study}/series",
                "studies/{study}/instances",
                "studies/{study}/series/{series}",
                "studies/{study}/series/{series}/metadata",
                "studies/{study}/series/{series}/instances",
                "studies/{study}/series/{series}/instances/{instance}",
                "studies/{study}/series/{series}/instances/{instance}/metadata",
                "studies/{study}/series/{series}/instances/{instance}/rendered",
                "studies/{study}/series/{series}/instances/{instance}/frames/{numbers}",
                "studies/{study}/series/{series}/instances/{instance}/frames/{number}/rendered",
                "studies/{study}/series/{series}/instances/{instance}/bulkdata/{tag}",
            )
        ),
    ),
    *_doors(Scope.STORE, WRITING, f"{DICOMWEB}/studies", f"{DICOMWEB}/studies/{{study}}"),
    *_doors(
        Scope.READ,
        WRITING,
        *(
            f"{API}/{path}"
            for path in ("rules/lint", "rules/test", "rules/backtest", "sources/lint", "destinations/lint")
        ),
    ),
    *_doors(
        Scope.OPERATE,
        WRITING,
        *(f"{API}/jobs/{{id}}/{verb}" for verb in ("retry", "cancel", "hold", "release", "rerun")),
        *(f"{API}/studies/{{uid}}/{verb}" for verb in ("hold", "release")),
        f"{API}/alerts/{{id}}/end",
        f"{API}/destinations/{{name}}/echo",
        f"{API}/destinations/{{name}}/examine",
    ),
    *_doors(
        Scope.CONFIGURE,
        WRITING,
        *(f"{API}/{kind}{verb}" for kind in ("rules", "sources", "destinations") for verb in ("", "/rollback")),
        f"{API}/rules/promote",
        f"{API}/sources/accept",
    ),
    *_doors(Scope.ADMINISTER, (*READING, *WRITING), f"{API}/users", f"{API}/tokens"),
    *_doors(Scope.ADMINISTER, WRITING, f"{API}/users/{{name}}/password", f"{API}/users/{{name}}/role"),
    *_doors(Scope.ADMINISTER, ("DELETE",), f"{API}/users/{{name}}", f"{API}/tokens/{{name}}"),
)
"""All of them."""


def door(path: str, method: str) -> Door | None:
    """The door that this request knocks at; None where there is only wall."""
    return next((one for one in DOORS if method in one.methods and one.pattern.fullmatch(path)), None)


def leads_somewhere(path: str) -> bool:
    """Whether any method is answered here."""
    return any(one.pattern.fullmatch(path) for one in DOORS)
