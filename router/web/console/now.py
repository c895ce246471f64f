"""The page that stays open: what needs a person first, then what is going on."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fastapi import Request
from nicegui import ui

from router.db import alerts, callers, circuits, jobs, overview, revisions, studies
from router.db.alerts import Alert
from router.db.callers import Caller
from router.db.engine import now, reading, writing
from router.db.revisions import Kind
from router.domain.access import SECOND, Scope
from router.domain.alarms import DESTINATION
from router.domain.job import Job, Lane, State
from router.domain.study import Study, StudyState
from router.web.console.desk import PATIENCE_S, Desk, House
from router.web.console.jobs import command
from router.web.console.parts import Words, box, button, card, link, tile
from router.web.console.rows import Cell, Chip, Link, Progress, table
from router.web.metrics import devices

SHOWN = 12
"""Rows of each list; all of them are on their own pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What the page shows, from one snapshot."""

    lanes: dict[Lane, dict[State, int]]
    studies: dict[StudyState, int]
    arriving: list[Study]
    held: list[Study]
    attention: list[Study]
    alerts: list[Alert]
    running: list[Job]
    failed: list[Job]
    waiting: list[Job]
    silent: list[str]
    destinations: list[str]
    deliveries: dict[str, dict[str, int]]
    turned_away: list[Caller]
    associations: int
    free: int = field(compare=False)
    devices: list[tuple[str, float, float]] = field(compare=False)

    def count(self, lane: Lane, *states: State) -> int:
        """How many jobs of a lane are in one of these states."""
        return sum(self.lanes[lane].get(state, 0) for state in states)


def look(desk: Desk) -> Picture:
    """The node as it is now."""
    with reading(desk.node.engine) as connection:
        try:
            destinations = [str(one["name"]) for one in revisions.current(connection, Kind.DESTINATIONS).body]
        except revisions.UnknownRevision:
            destinations = []
        day = now() - 86_400 * SECOND
        return Picture(
            lanes=overview.lanes(connection),
            studies=overview.studies_by_state(connection),
            arriving=studies.list_(connection, state=StudyState.RECEIVING, limit=SHOWN),
            held=studies.list_(connection, state=StudyState.HELD, limit=SHOWN),
            attention=studies.list_(connection, attention=True, limit=SHOWN),
            alerts=alerts.list_(connection, limit=SHOWN),
            running=jobs.list_(connection, state=State.RUNNING, limit=SHOWN),
            failed=jobs.list_(connection, state=State.FAILED, limit=SHOWN),
            waiting=jobs.list_(connection, state=State.HELD, limit=SHOWN),
            silent=circuits.unreachable(connection),
            destinations=destinations,
            deliveries=overview.deliveries(connection),
            turned_away=[one for one in callers.seen(connection) if one.last_seen_at > day][:5],
            associations=overview.open_associations(connection),
            free=desk.node.store.free_bytes(),
            devices=devices(),
        )


def add_to(house: House) -> None:
    """The page."""

    @ui.page("/", response_timeout=PATIENCE_S)
    async def page(request: Request) -> None:
        desk = house.desk(request)
        with desk.page("Now", "/"):
            seen: Picture | None = None

            @ui.refreshable
            def shown() -> None:
                assert seen is not None
                lay_out(desk, seen, refresh)

            async def refresh() -> None:
                nonlocal seen
                found = await asyncio.to_thread(look, desk)
                if found != seen:
                    seen = found
                    shown.refresh()

            version = desk.version
            seen = await asyncio.to_thread(look, desk)
            with box("div", "live").props("aria-live=polite"):
                shown()
            desk.follow(version, refresh)


def lay_out(desk: Desk, seen: Picture, again: Callable[[], object]) -> None:
    """The whole page."""
    with card("Needs a person"):
        needs = list(_needs(desk, seen, again))
        if not needs:
            Words("p", "Nothing. Everything that arrived is on its way or done.", "fine")
        for lay in needs:
            lay()
    with box("div", "tiles"):
        tile("Studies arriving", str(seen.studies[StudyState.RECEIVING]), f"{seen.associations} senders connected")
        tile("Studies complete", str(seen.studies[StudyState.COMPLETE]))
        tile("Pipelines running", str(seen.count(Lane.INFER, State.RUNNING)),
             f"{seen.count(Lane.INFER, State.QUEUED)} queued")  # fmt: skip
        tile("Delivering", str(seen.count(Lane.DELIVER, State.RUNNING, State.WAITING)),
             f"{seen.count(Lane.DELIVER, State.QUEUED)} queued")  # fmt: skip
        tile("Failed", str(sum(seen.count(lane, State.FAILED) for lane in Lane)))
        tile("Free disk", f"{seen.free / 1e9:.0f} GB")
        for number, used, total in seen.devices:
            tile(f"Device {number}", f"{used / 1e9:.1f} GB", f"of {total / 1e9:.0f} GB in use")
    with box("div", "grid"):
        with card("Arriving"):
            table(
                ("Study", "From", "Last image", "Waits for"),
                [
                    (_study(one.study_instance_uid, one.study_description), one.calling_ae_title,
                     desk.clock(one.last_instance_at), waits_for(desk, one))
                    for one in seen.arriving
                ],
                about="Studies that arrive",
                empty="No study is arriving.",
            )  # fmt: skip
        with card("Running"):
            table(
                ("Job", "Work", "Study", "Progress"),
                [
                    (_job(one), one.work, _study(one.study_instance_uid), _progress(one))
                    for one in seen.running
                ],
                about="Jobs that run",
                empty="Nothing is running.",
            )  # fmt: skip
        with card("Destinations"):
            table(
                ("Destination", "State", "Queued", "Delivered", "Failed"),
                [_destination(name, seen) for name in seen.destinations],
                about="Destinations",
                empty="No destination is in force.",
            )


def waits_for(desk: Desk, one: Study) -> str:
    """What an arriving study waits for."""
    announced = one.announced or {}
    if announced.get("instances"):
        return f"{announced['instances']} images, announced by {announced.get('by', 'the sender')}"
    return f"quiet until {desk.clock(one.decide_at)}" if one.decide_at else "nothing more"


def _needs(desk: Desk, seen: Picture, again: Callable[[], object]) -> Iterator[Callable[[], None]]:
    for alert in seen.alerts:
        yield lambda alert=alert: _alert(desk, alert, again)  # type: ignore[misc]
    told = {alert.subject for alert in seen.alerts if alert.kind == DESTINATION}
    for name in (one for one in seen.silent if one not in told):
        yield lambda name=name: _need(f"Destination {name} does not answer; its deliveries wait.", "/places", bad=True)  # type: ignore[misc]
    for one in seen.failed:
        yield lambda one=one: _failed(desk, one, again)  # type: ignore[misc]
    for study in seen.held:
        text = f"Study held: {study.held_reason}"
        yield lambda study=study, text=text: _need(text, f"/studies/{study.study_instance_uid}")  # type: ignore[misc]
    for study in seen.attention:
        text = f"Study to be looked at: {study.attention}"
        yield lambda study=study, text=text: _need(text, f"/studies/{study.study_instance_uid}")  # type: ignore[misc]
    for one in seen.waiting:
        yield lambda one=one: _need(f"Job {one.id}, {one.work}, is held: {one.reason or ''}", f"/jobs/{one.id}")  # type: ignore[misc]
    for caller in seen.turned_away:
        text = f"{caller.calling_ae_title} at {caller.address} was turned away: {caller.reason}"
        yield lambda text=text: _need(text, "/places")  # type: ignore[misc]
    if seen.free < desk.node.settings.storage.refuse_free_gb * 2e9:
        yield lambda: _need(f"The disk is nearly full: {seen.free / 1e9:.1f} GB are free.", "/node", bad=True)


def _need(text: str, path: str, *, bad: bool = False) -> None:
    with box("div", "need row bad" if bad else "need row"):
        Words("span", text, "grow")
        link("Look", path).props["aria-label"] = f"Look: {text[:80]}"


def _alert(desk: Desk, one: Alert, again: Callable[[], object]) -> None:
    def end(who: str, reason: str) -> None:
        with writing(desk.node.engine) as connection:
            alerts.end_one(connection, one.id, who=who, why=reason)

    with box("div", "need row bad"):
        Words("span", f"{one.what}. {one.remedy}", "grow")
        if desk.person.may(Scope.OPERATE):
            title = f"End alert {one.id}"
            button("It is over", lambda: desk.ask(title, Scope.OPERATE, end, then=again), label=title)


def _failed(desk: Desk, one: Job, again: Callable[[], object]) -> None:
    with box("div", "need row bad"):
        Words("span", f"Job {one.id}, {one.work}, failed: {one.reason or ''}", "grow")
        link("Look", f"/jobs/{one.id}").props["aria-label"] = f"Look at job {one.id}"
        if desk.person.may(Scope.OPERATE):
            button("Retry", lambda: command(desk, one, "retry", again), label=f"Retry job {one.id}")


def _study(uid: str, text: str = "") -> Link:
    return Link(text or uid, f"/studies/{uid}", long=True)


def _job(one: Job) -> Link:
    return Link(str(one.id), f"/jobs/{one.id}")


def _progress(one: Job) -> Progress:
    percent = round(100 * (one.fraction or 0))
    return Progress(f"{one.phase or 'begins'} {percent} %", percent, f"Progress of job {one.id}")


def _destination(name: str, seen: Picture) -> tuple[Cell, ...]:
    counted = seen.deliveries.get(name, {})
    state = "silent" if name in seen.silent else "no complaint"
    return (
        name, Chip(state), counted.get(State.QUEUED, 0), counted.get(State.DONE, 0),
        counted.get(State.FAILED, 0),
    )  # fmt: skip
