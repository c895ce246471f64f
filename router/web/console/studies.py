"""Studies: the list, and the page of one, which tells what `isocenter why` tells and shows the pictures."""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from nicegui import ui

from router.db import audit, jobs, studies
from router.db.decisions import Decision
from router.db.engine import now, reading, writing
from router.domain.access import Scope
from router.domain.facts import restore
from router.domain.job import Lane, Outcome, State
from router.domain.study import Series, Study, StudyState
from router.web import ohif
from router.web.console.desk import PATIENCE_S, Desk, House
from router.web.console.jobs import commands
from router.web.console.parts import Words, box, button, card, chip, choice, field, link
from router.web.console.rows import Chip, Head, Link, table
from router.web.console.viewer import viewer
from router.why import IDENTITY, SHOWN, Explanation, explain

PAGE = 50
ANY = "any state"
NEWEST = "-last_instance_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which studies a page lists: what they begin with, their state, and in which order (a minus sorts downwards)."""

    search: str
    state: StudyState | None
    sort: str

    def address(self, **other: str | int) -> str:
        """Where these studies are, or such as differ in this."""
        asked = {"search": self.search, "state": str(self.state or ""), "sort": self.sort} | other
        kept = {name: value for name, value in asked.items() if value not in ("", 0, ANY, NEWEST)}
        return f"/studies?{urlencode(kept)}" if kept else "/studies"


def add_to(house: House) -> None:
    """Both pages."""

    @ui.page("/studies", response_timeout=PATIENCE_S)
    async def page(request: Request, search: str = "", state: str = ANY, sort: str = "", start: int = 0) -> None:
        desk = house.desk(request)
        chosen = StudyState(state) if state in list(StudyState) else None
        asked = Asked(
            search=search[:64], state=chosen, sort=sort if sort.removeprefix("-") in studies.ORDERS else NEWEST
        )
        start = max(0, min(start, 10_000_000))
        with desk.page("Studies", "/studies"):
            with box("form", "row") as form:
                form.props.update({"method": "get", "action": "/studies", "role": "search"})
                field("Begins with (UID, PatientID, accession, description, sender)", value=asked.search, name="search")

                def to(value: str) -> None:
                    ui.navigate.to(asked.address(state=value))

                choice("State", (ANY, *map(str, StudyState)), to, value=str(chosen or ANY))
                Words("button", "Search", "act main").props["type"] = "submit"

            def look() -> tuple[list[Study], int]:
                with reading(desk.node.engine) as connection:
                    found = studies.list_(
                        connection, state=chosen, search=asked.search, sort=asked.sort, limit=PAGE, offset=start
                    )
                    return found, studies.count(connection, state=chosen, search=asked.search)

            await desk.living(look, lambda found: listed(desk, *found, start, asked))

    @ui.page("/studies/{uid}", response_timeout=PATIENCE_S)
    async def one(request: Request, uid: str) -> None:
        desk = house.desk(request)

        def note() -> bool:
            with writing(desk.node.engine) as connection:
                known = studies.find(connection, uid) is not None
                if known:
                    audit.write(connection, desk.person.who, "study.viewed", uid)
            return known

        def look() -> Explanation:
            with reading(desk.node.engine) as connection:
                return next(one for one in explain(connection, uid) if one.study.study_instance_uid == uid)

        with desk.page("Study", "/studies"):
            if not await asyncio.to_thread(note):
                Words("p", "There is no such study here.", "need")
                return
            await desk.living(look, lambda found: in_full(desk, found))
            await pictures(desk, uid)


async def pictures(desk: Desk, uid: str) -> None:
    """The pictures of the newest result, as soon as there is one; a newer one takes their place."""
    frame, shown = box("div", "live"), 0

    def newest() -> int:
        with reading(desk.node.engine) as connection:
            found = jobs.list_(connection, study_instance_uid=uid, lane=Lane.INFER, state=State.DONE)
        return max((job.id for job in found if job.outcome is Outcome.RESULT), default=0)

    async def look() -> None:
        nonlocal shown
        found = await asyncio.to_thread(newest)
        if found != shown:
            shown = found
            frame.clear()
            with frame:
                await viewer(desk, found)

    version = desk.version
    await look()
    desk.follow(version, look)


def head(name: str, column: str, asked: Asked) -> Head:
    """A column's head, which sorts by it, and the other way round where it is sorted by already."""
    here = asked.sort.removeprefix("-") == column
    falls = asked.sort.startswith("-")
    to = column if here and falls else f"-{column}"
    return Head(name, asked.address(sort=to), ("descending" if falls else "ascending") if here else "")


def listed(desk: Desk, found: list[Study], total: int, start: int, asked: Asked) -> None:
    """A page of studies."""
    with card(""):
        Words("p", f"{start + 1 if found else 0} to {start + len(found)} of {total}", "soft")
        table(
            (
                head("Study", "study_description", asked),
                head("State", "state", asked),
                head("PatientID", "patient_id", asked),
                head("Date", "study_date", asked),
                head("From", "calling_ae_title", asked),
                head("Last image", "last_instance_at", asked),
                "Note",
            ),
            [
                (
                    Link(
                        one.study_description or one.study_instance_uid,
                        f"/studies/{one.study_instance_uid}",
                        long=True,
                    ),
                    Chip(str(one.state)),
                    one.patient.patient_id,
                    one.study_date,
                    one.calling_ae_title,
                    desk.clock(one.last_instance_at),
                    one.held_because or one.completeness,
                )
                for one in found
            ],
            about="Studies",
            empty="No study here is like that.",
        )
        with box("nav", "row") as nav:
            nav.props["aria-label"] = "Pages of the list"
            for text, goal, there in (
                ("Newer", start - PAGE, start > 0),
                ("Older", start + PAGE, start + PAGE < total),
            ):
                if there:
                    link(text, asked.address(start=max(0, goal)))


def in_full(desk: Desk, page: Explanation) -> None:
    """Everything that happened to a study."""
    study = page.study
    with card(study.study_description or "Study without a description"):
        with box("div", "row"):
            chip(str(study.state))
            Words("span", study.study_instance_uid, "mono")
            web = desk.node.settings.web
            if web.viewer_path is not None:
                link("Open in OHIF", ohif.link(study.study_instance_uid))
            if web.viewer_url:
                link("Open in the viewer", web.viewer_url.replace("{StudyInstanceUID}", study.study_instance_uid))
        if study.held_because:
            Words("p", f"Held: {study.held_because}. Nothing of it is routed until it is released.", "need")
        _study_commands(desk, study)
        Words("h3", "What happened")
        with box("ol", "timeline"):
            for at, text in sorted(events(page)):
                with box("li"):
                    Words("div", desk.clock(at), "soft small")
                    Words("div", text, "pre")
    with card("Series"):
        table(
            ("Series", "Modality", "Facts"),
            [(one.series_description or one.series_instance_uid, one.modality, facts(one)) for one in page.series],
            about="Series",
            empty="No series is here.",
        )
    with card("Decisions"):
        if not page.decisions:
            Words("p", "No rule has been asked yet.", "soft")
        for decision in page.decisions:
            _decision(decision)
    with card("Jobs"):
        if not page.jobs:
            Words("p", "No job was made.", "soft")
        for job in sorted(page.jobs, key=lambda job: job.id):
            with box("div", "row"):
                link(f"Job {job.id}", f"/jobs/{job.id}")
                Words("span", job.work)
                chip(str(job.outcome or job.state))
                Words("span", f"attempt {job.attempt} of {job.max_attempts}", "soft small")
            if job.reason:
                Words("p", job.reason, "soft pre")
            for receipt in page.receipts.get(job.id, ()):
                said = "accepted" if receipt["accepted"] else "not accepted"
                Words("div", f"{receipt['sop_instance_uid']}: {said} {receipt['detail']}", "mono")
            commands(desk, job, lambda: None)


def events(page: Explanation) -> list[tuple[int, str]]:
    """What happened, and when."""
    study = page.study
    found = [
        (study.first_instance_at, f"The first image came from {study.calling_ae_title}."),
        (study.last_instance_at, "The last image so far came."),
    ]
    if study.completed_at is not None:
        found.append((study.completed_at, f"Complete for the {study.generation}. time. {study.completeness}"))
    for job in page.jobs:
        found.append((job.created_at, f"Job {job.id} was made: {job.work}."))
        if job.started_at is not None:
            found.append((job.started_at, f"Job {job.id} began its attempt {job.attempt}."))
        if job.finished_at is not None:
            found.append((job.finished_at, f"Job {job.id}: {job.outcome or job.state}."))
    return found


def facts(one: Series) -> str:
    """A series in a line; nothing of whose it is."""
    known = restore({name: kept for name, kept in (one.facts or {}).items() if name not in IDENTITY})
    return ", ".join(f"{name} {known[name].text}" for name in SHOWN if name in known) or "not decided on yet"


def _decision(one: Decision) -> None:
    about = f" on series {one.series_instance_uid}" if one.series_instance_uid else ""
    runs = f": {one.pipeline} to {', '.join(one.destinations) or 'nowhere'}" if one.fires else ""
    with box("details"):
        Words("summary", f"{'Fires' if one.fires else 'Does not fire'}: {one.rule}{runs} ({one.mode}){about}")
        with box("ul", "verdict"):
            verdict(one.reasons)


def verdict(one: dict[str, Any]) -> None:
    """A condition and the value seen, then its parts below it."""
    with box("li"):
        seen = f": {one['seen']}" if one.get("seen") else ""
        Words("span", f"{one.get('asked', '')}{seen}", "yes" if one.get("holds") else "no")
        if one.get("parts"):
            with box("ul", "verdict"):
                for part in one["parts"]:
                    verdict(part)


def _study_commands(desk: Desk, study: Study) -> None:
    if not desk.person.may(Scope.OPERATE):
        return
    uid = study.study_instance_uid

    def hold(who: str, reason: str) -> None:
        with writing(desk.node.engine) as connection:
            studies.held_by(connection, uid, who=who, reason=reason)

    def release(who: str, reason: str) -> None:
        with writing(desk.node.engine) as connection:
            studies.released_by(connection, uid, now(), who=who, reason=reason)
        desk.node.bell.ring("decide")

    with box("div", "row"):
        if study.state is StudyState.HELD:
            button(
                "Release study", lambda: desk.ask("Release study", Scope.OPERATE, release, then=lambda: None)
            )  # fmt: skip
        elif study.state is StudyState.RECEIVING:
            button("Hold study", lambda: desk.ask("Hold study", Scope.OPERATE, hold, then=lambda: None))
