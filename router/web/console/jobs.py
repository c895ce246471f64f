"""Jobs: the list, and one of them with everything that is known of it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from nicegui import ui

from router import views
from router.db import jobs as queue
from router.db.engine import reading, writing
from router.domain.access import Scope
from router.domain.job import LIFE, Event, Job, Lane, State
from router.web.api.jobs import COMMANDS
from router.web.console.desk import PATIENCE_S, Desk, House
from router.web.console.parts import Words, box, button, card, chip, choice, link
from router.web.console.rows import Chip, Link, table

ANY, ANY_LANE = "any state", "any lane"
PAGE = 50
MOVES: dict[str, Event] = {
    "retry": Event.REVIVE, "hold": Event.HOLD, "release": Event.RELEASE, "cancel": Event.CANCEL,
}  # fmt: skip


def add_to(house: House) -> None:
    """Both pages."""

    @ui.page("/jobs", response_timeout=PATIENCE_S)
    async def page(request: Request, state: str = ANY, lane: str = ANY_LANE, before: int = 0) -> None:
        desk = house.desk(request)
        with desk.page("Jobs", "/jobs"):
            in_state = State(state) if state in list(State) else None
            in_lane = Lane(lane) if lane in list(Lane) else None
            last = before if 0 < before < 2**53 else None

            def look() -> list[Job]:
                with reading(desk.node.engine) as connection:
                    return queue.list_(connection, state=in_state, lane=in_lane, before=last, limit=PAGE + 1)

            with box("div", "row"):
                choice("State", (ANY, *map(str, State)), lambda value: ui.navigate.to(address(value, lane)),
                       value=str(in_state or ANY))  # fmt: skip
                choice("Lane", (ANY_LANE, *map(str, Lane)), lambda value: ui.navigate.to(address(state, value)),
                       value=str(in_lane or ANY_LANE))  # fmt: skip
            await desk.living(look, lambda found: paged(desk, found, address(state, lane), first=last is None))

    @ui.page("/jobs/{job_id}", response_timeout=PATIENCE_S)
    async def one(request: Request, job_id: str) -> None:
        desk = house.desk(request)
        number = int(job_id) if job_id.isdecimal() and len(job_id) < 16 else 0
        with desk.page(f"Job {number}", "/jobs"):

            def look() -> tuple[Job, dict[str, Any]] | None:
                with reading(desk.node.engine) as connection:
                    found = queue.find(connection, number)
                    return (found, views.job_in_full(connection, number, desk.clock)) if found else None

            await desk.living(look, lambda found: in_full(desk, found))


def address(state: str, lane: str) -> str:
    """Where the list of these jobs is."""
    chosen = {"state": state, "lane": lane}
    words = urlencode({name: value for name, value in chosen.items() if value in (*State, *Lane)})
    return f"/jobs?{words}" if words else "/jobs"


def paged(desk: Desk, found: list[Job], here: str, *, first: bool) -> None:
    """A page of jobs, of which one more was read than fits, and the ways on."""
    listed(desk, found[:PAGE])
    with box("nav", "row") as nav:
        nav.props["aria-label"] = "Pages of the list"
        if not first:
            ui.link("Newest", here)
        if len(found) > PAGE:
            ui.link("Older", f"{here}{'&' if '?' in here else '?'}before={found[PAGE - 1].id}")


def listed(desk: Desk, found: list[Job]) -> None:
    """Jobs, a line each."""
    with card(""):
        table(
            ("Job", "Work", "State", "Study", "Attempt", "Made", "Reason"),
            [
                (
                    Link(str(one.id), f"/jobs/{one.id}"),
                    one.work,
                    Chip(str(one.outcome or one.state)),
                    Link(one.study_instance_uid, f"/studies/{one.study_instance_uid}", "mono"),
                    f"{one.attempt} of {one.max_attempts}",
                    desk.clock(one.created_at),
                    one.reason or "",
                )
                for one in found
            ],
            about="Jobs",
            empty="No jobs.",
        )


def in_full(desk: Desk, found: tuple[Job, dict[str, Any]] | None) -> None:
    """Everything about one job."""
    if found is None:
        Words("p", "There is no such job.", "need")
        return
    job, values = found
    with card(job.work):
        with box("div", "row"):
            chip(str(job.outcome or job.state))
            link(job.study_instance_uid, f"/studies/{job.study_instance_uid}", "mono")
            Words("span", f"attempt {job.attempt} of {job.max_attempts}, run {job.run}", "soft")
        if job.reason:
            Words("p", job.reason, "need bad pre" if job.state is State.FAILED else "need pre")
        commands(desk, job, lambda: None)
        facts = ("created", "started", "finished", "phase", "percent", "problem", "series_instance_uid", "settings")
        table(
            ("What", "Value"),
            [(name.replace("_", " "), str(values[name])) for name in facts if values.get(name) not in (None, "", {})],
            about="Facts of the job",
            empty="",
        )
    for name in ("measurements", "objects", "receipts"):
        rows = values.get(name) or []
        if rows:
            with card(name.capitalize()):
                columns = tuple(rows[0])
                table(
                    tuple(column.replace("_", " ") for column in columns),
                    [tuple(_cell(desk, column, row[column]) for column in columns) for row in rows],
                    about=name,
                    empty="",
                )


def _cell(desk: Desk, column: str, value: Any) -> str:
    if column == "sent_at":
        return desk.clock(value)
    if column == "status" and isinstance(value, int):
        return f"{value:04X}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def possible(job: Job) -> tuple[str, ...]:
    """What a person may say to a job in its state."""
    moves = [verb for verb, event in MOVES.items() if (job.state, event) in LIFE]
    again = job.state in (State.DONE, State.FAILED, State.CANCELLED, State.SUPERSEDED)
    return (*moves, "rerun") if again else tuple(moves)


def commands(desk: Desk, job: Job, then: Callable[[], object]) -> None:
    """Buttons for what this person may say to this job."""
    if not desk.person.may(Scope.OPERATE):
        return
    with box("div", "row"):
        for verb in possible(job):
            says = {"rerun": "re-send" if job.lane is Lane.DELIVER else "re-run"}.get(verb, verb).capitalize()
            kind = "bad" if verb == "cancel" else ""
            button(says, lambda verb=verb: command(desk, job, verb, then), kind=kind, label=f"{says} job {job.id}")  # type: ignore[misc]


def command(desk: Desk, job: Job, verb: str, then: Callable[[], object]) -> None:
    """Ask for a reason, and say this word to the job."""
    act, _ = COMMANDS[verb]

    def do(who: str, reason: str) -> None:
        with writing(desk.node.engine) as connection:
            act(connection, job.id, who=who, why=reason)
        desk.node.bell.ring(str(job.lane))

    desk.ask(f"{verb.capitalize()} job {job.id}", Scope.OPERATE, do, then=then)
