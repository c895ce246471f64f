"""What a page of the console knows: the node, who sits before it, and what has just changed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import structlog
from fastapi import Request
from nicegui import background_tasks, ui
from sqlalchemy.exc import OperationalError

from dicom_sr.problem import Problem
from router import passwords
from router.db.engine import fault
from router.domain.access import Person, Scope
from router.node import Node
from router.web.console.parts import Words, box, button, field, link
from router.web.guard import BY_COOKIE, PERSON
from router.web.live import Live
from router.web.pictures import Pictures
from router.web.signin import Register

log = structlog.get_logger()
T = TypeVar("T")
PATIENCE_S = 60.0
"""How long a page may take to be laid out: on a busy machine pictures are read slowly."""
PAUSE_S = 0.05
"""The least between two layings out of one page: what is committed meanwhile comes with the next."""

PAGES: tuple[tuple[str, str, Scope], ...] = (
    ("/", "Now", Scope.READ),
    ("/studies", "Studies", Scope.READ),
    ("/jobs", "Jobs", Scope.READ),
    ("/rules", "Rules", Scope.READ),
    ("/pipelines", "Pipelines", Scope.READ),
    ("/places", "Sources and destinations", Scope.READ),
    ("/audit", "Audit", Scope.ADMINISTER),
    ("/users", "Users", Scope.ADMINISTER),
    ("/node", "Health", Scope.READ),
)
"""The console's pages: path, name, and who may open it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What all pages share."""

    node: Node
    live: Live
    pictures: Pictures

    def desk(self, request: Request) -> "Desk":
        """The desk of whoever opened this page."""
        secret = request.scope.get(BY_COOKIE, "")
        theme = request.cookies.get("isocenter_theme", "auto")
        return Desk(
            house=self, person=request.scope[PERSON], digest=passwords.digest(secret) if secret else "", theme=theme
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One open page. `person` is who opened it; before each act it is asked anew who sits there."""

    house: House
    person: Person
    digest: str
    theme: str

    @property
    def node(self) -> Node:
        """The node."""
        return self.house.node

    def clock(self, microseconds: int | None) -> str:
        """A time for people, in the node's zone; of today without the date."""
        if microseconds is None:
            return ""
        zone = ZoneInfo(self.node.settings.timezone)
        at = datetime.fromtimestamp(microseconds / 1e6, zone)
        today = datetime.now(zone).date()
        return at.strftime("%H:%M:%S" if at.date() == today else "%Y-%m-%d %H:%M:%S")

    def now(self) -> Person | None:
        """Who sits here now; None when the session is over."""
        return Register(self.node.engine, self.node.settings.web).by_session_digest(self.digest)

    async def act(self, needs: Scope, do: Callable[[str], T], said: str = "") -> T | None:
        """Do something in this person's name, if they still may; a Problem is told, and gives None."""
        person = await asyncio.to_thread(self.now)
        if person is None:
            ui.navigate.to("/login")
            return None
        if not person.may(needs):
            ui.notify(f"You may not do this: it needs the scope {needs}. Ask an admin.", type="negative")
            return None
        try:
            done = await asyncio.to_thread(do, person.who)
        except Problem as problem:
            ui.notify(f"{problem.what}. {problem.remedy}", type="negative", multi_line=True, timeout=10_000)
            return None
        if said:
            ui.notify(said, type="positive")
        return done

    def ask(
        self,
        title: str,
        needs: Scope,
        do: Callable[[str, str], Any],
        *,
        then: Callable[[], Any],
        shows: Callable[[], Any] | None = None,
    ) -> None:
        """Ask for a reason, then do it; `shows` lays out what a person should know before.

        The question belongs to the page: what it was asked in may be laid out anew while a person types.
        """
        with ui.context.client.content, ui.dialog() as dialog, box("form", "card") as form:
            dialog.props["aria-label"] = title
            Words("h2", title)
            if shows is not None:
                shows()
            why = field(
                "Why? It stands in the audit; never a patient's name.", value="", name="reason", maxlength="500"
            )

            async def go() -> None:
                reason = " ".join(why.value.split())  # type: ignore[attr-defined]
                if len(reason) < 3:
                    ui.notify("Say why, in a word or two.", type="warning")
                    return
                dialog.close()
                if await self.act(needs, lambda who: (do(who, reason), True)[1], f"{title}: done"):
                    then()

            form.on("submit.prevent", lambda _: go())
            with box("div", "row").style("margin-top:.8rem"):
                Words("button", title, "act main").props["type"] = "submit"
                button("Back", dialog.close)
        dialog.open()

    @property
    def version(self) -> int:
        """Which state of the database is the newest now; take it before looking, so that no change is missed."""
        return self.house.live.version

    def follow(self, seen: int, refresh: Callable[[], Awaitable[None]]) -> None:
        """Call `refresh` whenever the database has changed since it was `seen`, while the page is open.

        A page rests for as long as its last laying out took, so that a node with much to do is not kept from it.
        """
        client = ui.context.client
        going: list[asyncio.Task[None]] = []

        async def go_on() -> None:
            nonlocal seen
            while not client.is_deleted:
                seen = await self.house.live.next(seen)
                began = time.monotonic()
                try:
                    with client.content:
                        await refresh()
                except OperationalError as error:  # the next change shows all
                    log.error("page.database", error=fault(error))
                await asyncio.sleep(max(PAUSE_S, time.monotonic() - began))

        def begin() -> None:
            if not going:
                going.append(background_tasks.create(go_on(), name="page.follow"))

        client.on_connect(begin)
        client.on_delete(lambda: [task.cancel() for task in going])

    async def living(self, look: Callable[[], T], lay_out: Callable[[T], Any]) -> None:
        """A part of the page that is laid out anew when what it shows has changed."""
        version = self.version
        seen = await asyncio.to_thread(look)

        @ui.refreshable
        def shown() -> None:
            lay_out(seen)

        async def refresh() -> None:
            nonlocal seen
            found = await asyncio.to_thread(look)
            if found != seen:
                seen = found
                shown.refresh()

        shown()
        self.follow(version, refresh)

    @contextmanager
    def page(self, title: str, path: str) -> Iterator[None]:
        """The frame around a page: navigation, theme, who is logged in."""
        ui.page_title(f"{title} - Isocenter")
        dark = ui.dark_mode({"dark": True, "light": False}.get(self.theme))
        ui.colors(primary="#0b5cad", positive="#1b6b36", negative="#a3161f", warning="#8a5200")
        with ui.header(elevated=False).classes("bar"):
            link("Isocenter", "/", "brand")
            with box("nav") as nav:
                nav.props["aria-label"] = "Pages"
                for there, name, needs in PAGES:
                    if self.person.may(needs):
                        one = link(name, there)
                        if there == path:
                            one.props["aria-current"] = "page"
            modes = {"auto": None, "light": False, "dark": True}

            def turn() -> None:
                following = list(modes)[(list(modes).index(state["theme"]) + 1) % 3]
                state["theme"] = following
                dark.value = modes[following]
                shown.set_text(f"Theme: {following}")
                ui.run_javascript(f"document.cookie='isocenter_theme={following};path=/;max-age=31536000;samesite=lax'")

            state = {"theme": self.theme if self.theme in modes else "auto"}
            shown = button(f"Theme: {state['theme']}", turn)
            shown.classes(remove="act")
            Words("span", f"{self.person.name} ({self.person.role})", "small")
            with box("form") as form:
                form.props.update({"method": "post", "action": "/logout"})
                Words("button", "Log out").props["type"] = "submit"
        Words("h1", title)
        yield
