"""The audit: who did what to patient data. It is read when it is opened: a page that followed it would fill it."""

import asyncio
from urllib.parse import urlencode

from fastapi import Request
from nicegui import ui

from router import views
from router.db import audit
from router.db.engine import writing
from router.domain.audit import Act, Row
from router.web.console.desk import PATIENCE_S, Desk, House
from router.web.console.parts import Words, box, card, choice, field, link
from router.web.console.rows import Chip, Link, table

ANY = "any act"
PAGE = 50


def add_to(house: House) -> None:
    """The page."""

    @ui.page("/audit", response_timeout=PATIENCE_S)
    async def page(request: Request, study: str = "", act: str = ANY, before: int = 0) -> None:
        desk = house.desk(request)
        chosen = Act(act) if act in list(Act) else None
        study = study[:64]

        def look() -> list[Row]:
            with writing(desk.node.engine) as connection:
                found = audit.list_(
                    connection,
                    study_instance_uid=study or None,
                    act=chosen,
                    before=before if 0 < before < 2**53 else None,
                    limit=PAGE + 1,
                )
                audit.write(connection, desk.person.who, "audit.read", rows=min(PAGE, len(found)))
            return found[::-1]

        with desk.page("Audit", "/audit"):
            with box("form", "row") as form:
                form.props.update({"method": "get", "action": "/audit", "role": "search"})
                field("StudyInstanceUID", value=study, name="study")
                choice("Act", (ANY, *map(str, Act)), lambda value: ui.navigate.to(address(study, value)),
                       value=str(chosen or ANY))  # fmt: skip
                Words("button", "Search", "act main").props["type"] = "submit"
            found = await asyncio.to_thread(look)
            listed(desk, found[:PAGE])
            with box("nav", "row") as nav:
                nav.props["aria-label"] = "Pages of the list"
                if before:
                    link("Newest", address(study, act))
                if len(found) > PAGE:
                    link("Older", address(study, act, before=found[PAGE - 1].id))
                link("For a spreadsheet (CSV)", f"/api/v1/audit.csv{address(study, act).removeprefix('/audit')}")


def address(study: str, act: str, **more: int) -> str:
    """Where these acts are."""
    asked = {"study": study, "act": act if act in list(Act) else "", **more}
    words = urlencode({name: value for name, value in asked.items() if value})
    return f"/audit?{words}" if words else "/audit"


def listed(desk: Desk, found: list[Row]) -> None:
    """Acts, a line each."""
    with card(""):
        table(
            ("At", "Who", "Act", "Outcome", "Study", "Job", "Detail"),
            [
                (
                    desk.clock(one.at),
                    one.who,
                    one.act,
                    Chip(str(one.outcome)),
                    Link(one.study_instance_uid, f"/studies/{one.study_instance_uid}", "mono")
                    if one.study_instance_uid
                    else "",
                    Link(str(one.job_id), f"/jobs/{one.job_id}") if one.job_id else "",
                    views.detail(one.detail),
                )
                for one in found
            ],
            about="Acts",
            empty="Nobody has done anything like that.",
        )
