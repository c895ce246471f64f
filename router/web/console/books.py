"""Rules, sources and destinations: what is in force, an editor with the linter beside it, revisions, and trying out."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import Request
from nicegui import events, ui

from dicom_sr.problem import Problem
from router import revise, rulebook
from router.checkup import Verdict
from router.db import callers, overview, revisions
from router.db.callers import Caller
from router.db.engine import now, reading, writing
from router.db.revisions import Kind, Revision
from router.domain.access import SECOND, Scope
from router.domain.rules import Mode
from router.web.api.books import LARGEST_FILE, FaultLine, echo, examine, faults_of, time_machine, tried
from router.web.console import placeform
from router.web.console.desk import PATIENCE_S, Desk, House
from router.web.console.parts import Words, box, button, card, chip
from router.web.console.rows import Chip, table
from router.web.console.ruleform import DAYS, form, grounds, shadowed, told
from router.web.console.studies import verdict

MONTH = 30 * 86_400 * SECOND


def add_to(house: House) -> None:
    """The page of the rules, and that of sources and destinations."""

    @ui.page("/rules", response_timeout=PATIENCE_S)
    async def rules(request: Request) -> None:
        desk = house.desk(request)
        with desk.page("Rules", "/rules"):
            await desk.living(lambda: in_force(desk, Kind.RULES), lambda found: rules_in_force(desk, *found))
            await shelf(desk, Kind.RULES, trial=True)

    @ui.page("/places", response_timeout=PATIENCE_S)
    async def places(request: Request) -> None:
        desk = house.desk(request)
        with desk.page("Sources and destinations", "/places"):
            await desk.living(
                lambda: in_force(desk, Kind.DESTINATIONS), lambda found: destinations_in_force(desk, *found)
            )
            await desk.living(lambda: in_force(desk, Kind.SOURCES), lambda found: sources_in_force(*found))
            await desk.living(lambda: turned_away(desk), lambda found: newcomers(desk, found))
            for kind in (Kind.DESTINATIONS, Kind.SOURCES):
                await shelf(desk, kind, trial=False)


def in_force(desk: Desk, kind: Kind) -> tuple[Revision | None, list[Revision], dict[str, int]]:
    """The revision in force, all of them, and how often each rule has fired in 30 days."""
    with reading(desk.node.engine) as connection:
        found = revisions.list_(connection, kind)
        hits = overview.hits(connection, now() - MONTH) if kind is Kind.RULES else {}
    return (found[0] if found else None), found, hits


def rules_in_force(desk: Desk, current: Revision | None, _: list[Revision], hits: dict[str, int]) -> None:
    """Each rule, a line."""
    with card("In force"):
        table(
            ("Rule", "Mode", "Runs", "Sends to", "Fired in 30 days", ""),
            [
                (
                    str(one["name"]),
                    Chip(str(one.get("mode", "on"))),
                    ", ".join(p if isinstance(p, str) else str(p["name"]) for p in one.get("pipelines", ())),
                    ", ".join(one.get("destinations", ())),
                    hits.get(str(one["name"]), 0),
                    partial(_modes, desk, one),
                )
                for one in (current.body if current else ())
            ],
            about="Rules in force",
            empty="There are no rules.",
        )


def _modes(desk: Desk, rule: dict[str, Any]) -> None:
    if not desk.person.may(Scope.CONFIGURE):
        return
    name = str(rule["name"])
    with box("div", "row"):
        for mode in Mode:
            if str(mode) != rule.get("mode", "on"):
                button(f"Switch {mode}", lambda mode=mode: _promote(desk, name, mode), label=f"Switch {name} {mode}")  # type: ignore[misc]


async def _promote(desk: Desk, name: str, mode: Mode) -> None:
    client = ui.context.client  # the button may be laid out anew while we look
    found = await shadowed(desk, name) if mode is Mode.ON else None

    def do(who: str, reason: str) -> None:
        with writing(desk.node.engine) as connection:
            revise.promote(connection, name, author=who, mode=mode, why=reason)

    shows = (lambda: grounds(found)) if found is not None else None
    with client.content:
        desk.ask(f"Switch {name} {mode}", Scope.CONFIGURE, do, then=lambda: None, shows=shows)


def destinations_in_force(desk: Desk, current: Revision | None, _: list[Revision], __: dict[str, int]) -> None:
    """Each destination with a button that tries it."""
    with card("Destinations in force"):
        table(
            ("Destination", "Kind", "Where", "Test"),
            [
                (
                    str(one["name"]), str(one["kind"]),
                    " ".join(str(one[k]) for k in ("ae_title", "host", "port", "url", "path") if k in one),
                    partial(_echo, desk, str(one["name"])),
                )
                for one in (current.body if current else ())
            ],
            about="Destinations",
            empty="There are no destinations.",
        )  # fmt: skip


def _echo(desk: Desk, name: str) -> None:
    with box("div", "row"):
        said = Words("span", "", "small")
        said.props["role"] = "status"

        async def ask() -> None:
            said.set_text("asking ...")
            found = await desk.act(Scope.OPERATE, lambda _: echo(desk.node, name))
            text = "" if found is None else f"{found.what} ({found.took_ms} ms). {found.remedy}"
            said.set_text(text)

        async def look() -> None:
            said.set_text("looking ...")
            found = await desk.act(Scope.OPERATE, lambda _: examine(desk.node, name)) or []
            said.set_text("" if found else "nothing was found")
            findings.clear()
            with findings:
                for one in found:
                    with box("li"):
                        chip({Verdict.OK: "ok", Verdict.WARNING: "warning", Verdict.FAULT: "fault"}[one.verdict])
                        Words("span", f" {one.what}{'. ' if one.remedy else ''}{one.remedy}")

        if desk.person.may(Scope.OPERATE):
            button("Echo", ask, label=f"Echo {name}")
            button("Examine", look, label=f"Examine {name}")
    findings = box("ul", "verdict")
    findings.props["role"] = "status"


def sources_in_force(current: Revision | None, _: list[Revision], __: dict[str, int]) -> None:
    """Each source, a line."""
    with card("Sources in force"):
        table(
            ("AE title", "From", "May", "Notes"),
            [
                (
                    str(one["ae_title"]), ", ".join(one.get("addresses", ())),
                    ", ".join(one.get("services", ("store", "echo"))), str(one.get("notes", "")),
                )
                for one in (current.body if current else ())
            ],
            about="Sources",
            empty="There are no sources.",
        )  # fmt: skip


def turned_away(desk: Desk) -> list[Caller]:
    """Who was turned away."""
    with reading(desk.node.engine) as connection:
        return callers.seen(connection)[:20]


def newcomers(desk: Desk, found: list[Caller]) -> None:
    """Callers that were turned away, and a button that lets each in."""
    with card("Turned away"):
        table(
            ("AE title", "Address", "Attempts", "Last", "Why", ""),
            [
                (
                    one.calling_ae_title, one.address, one.attempts, desk.clock(one.last_seen_at), one.reason,
                    partial(_accept, desk, one),
                )
                for one in found
            ],
            about="Callers that were turned away",
            empty="Nobody was turned away.",
        )  # fmt: skip


def _accept(desk: Desk, one: Caller) -> None:
    def do(who: str, _: str) -> None:
        with writing(desk.node.engine) as connection:
            revise.accept_source(connection, one.calling_ae_title, one.address, author=who)
            callers.forget(connection, one.calling_ae_title, one.address)

    if desk.person.may(Scope.CONFIGURE):
        title = f"Let {one.calling_ae_title} send"
        button("Accept", lambda: desk.ask(title, Scope.CONFIGURE, do, then=lambda: None), label=title)


async def shelf(desk: Desk, kind: Kind, *, trial: bool) -> None:
    """The editor of a kind with its linter, a trial on a file for rules, and all revisions."""
    current, _, _ = await asyncio.to_thread(in_force, desk, kind)
    text = revise.export(current) if current else f"{kind}: []\n"
    with card(f"Edit {kind}"):
        Words("p", "Faults are named as you type; nothing changes before you save.", "soft small")
        editor = ui.codemirror(text, language="YAML", line_wrapping=True)
        faults = box("div")
        faults.props["aria-live"] = "polite"

        async def lint() -> None:
            said = editor.value
            found = await asyncio.to_thread(faults_of, desk.node, kind, said)
            if said == editor.value:
                faults.clear()
                with faults:
                    _faults(found, said)
                ui.run_javascript(f"markFaults({editor.id}, {json.dumps(said)}, {json.dumps(marks(found, said))})")

        editor.on_value_change(lint)
        if desk.person.may(Scope.CONFIGURE):
            _save(desk, kind, lambda: editor.value)
        if kind is not Kind.RULES:
            placeform.form(kind, editor)
        if trial:
            form(desk, editor)
            _trial(desk, lambda: editor.value)
    await desk.living(lambda: in_force(desk, kind), lambda found: history(desk, kind, found[1], editor))


def marks(found: list[FaultLine], text: str) -> list[dict[str, Any]]:
    """What an editor shows of faults: each line coloured, and the message behind it."""
    lines = text.split("\n")
    made: list[dict[str, Any]] = []
    for number in sorted({one.line for one in found if 0 < one.line <= len(lines)}):
        end = sum(len(line) + 1 for line in lines[: number - 1]) + len(lines[number - 1])
        said = "; ".join(dict.fromkeys(one.message for one in found if one.line == number))
        made.append({"kind": "line", "line": number, "class": "fault-line"})
        made.append({"kind": "widget", "position": end, "text": said, "class": "fault-word", "side": 1})
    return made


def _faults(found: list[FaultLine], text: str) -> None:
    if not found:
        Words("p", "No fault.", "fine")
    lines = text.splitlines()
    for one in found:
        with box("div", "need bad"):
            where = f", {one.where}" if one.where else ""
            Words("div", f"Line {one.line}, column {one.column}{where}: {one.message}")
            if 0 < one.line <= len(lines):
                Words("pre", lines[one.line - 1], "mono pre")


def _save(desk: Desk, kind: Kind, text: Callable[[], str]) -> None:
    title = f"Put {kind} in force"

    async def ask() -> None:
        wanted, shows = text(), None

        def do(who: str, reason: str) -> None:
            with writing(desk.node.engine) as connection:
                revise.import_(connection, wanted, "this text", author=who, note=reason, kind=kind)

        if kind is Kind.RULES:
            try:
                past = await asyncio.to_thread(time_machine, desk.node, wanted, DAYS)
            except Problem as problem:
                ui.notify(f"{problem.what}. {problem.remedy}", type="negative", multi_line=True, timeout=10_000)
                return
            shows = partial(told, past, desk.clock)
        desk.ask(title, Scope.CONFIGURE, do, then=lambda: None, shows=shows)

    with box("div", "row").style("margin-top:.6rem"):
        button(title, ask, kind="main")


def _trial(desk: Desk, text: Callable[[], str]) -> None:
    """Drop DICOM files and see what the rules in the editor say."""
    Words("h3", "Try it on DICOM files")
    contents: list[bytes] = []

    async def one(event: events.UploadEventArguments) -> None:
        contents.append(await event.file.read())

    async def all_(_: object) -> None:
        given, contents[:] = list(contents), []
        shown.clear()
        with shown:
            try:
                _, body = await asyncio.to_thread(rulebook.parse, text(), "the editor")
                done = await asyncio.to_thread(tried, given, body)
            except Problem as problem:
                Words("p", f"{problem.what}. {problem.remedy}", "need bad pre")
                return
            _verdicts(done)

    upload = ui.upload(
        label="Drop DICOM files here; they are kept nowhere", multiple=True, auto_upload=True,
        max_file_size=LARGEST_FILE, max_files=200, on_upload=one, on_multi_upload=all_,
    )  # fmt: skip
    upload.props["flat"] = True
    upload.props["bordered"] = True
    upload.style("width:100%;max-width:36rem")
    shown = box("div")
    shown.props["aria-live"] = "polite"


def _verdicts(done: dict[str, Any]) -> None:
    for study in done["studies"]:
        for one in study["decisions"]:
            runs = f"fires: {', '.join(one['pipelines'])} to {', '.join(one['destinations']) or 'nowhere'}"
            with box("details", "card") as made:
                made.props["open"] = True
                Words("summary", f"{one['rule']}: {runs if one['fires'] else 'does not fire: ' + one['reason']}")
                with box("ul", "verdict"):
                    verdict(one["verdict"])
        for series in study["series"]:
            with box("details"):
                Words("summary", f"Facts of series {series['series_instance_uid']}")
                table(
                    ("Fact", "Value", "From"),
                    [(name, fact["text"], fact["origin"]) for name, fact in series["facts"].items()],
                    about="Facts",
                    empty="",
                )


def history(desk: Desk, kind: Kind, found: list[Revision], editor: Any) -> None:
    """All revisions of a kind: compare, open in the editor, roll back."""
    with card(f"Revisions of {kind}"):
        shown = box("div")

        def compare(one: Revision) -> None:
            shown.clear()
            with shown:
                lines = revise.difference(one, found[0]).lines
                Words("h3", f"From revision {one.number} to {found[0].number}")
                with box("div", "diff mono pre"):
                    for line in lines or ("no difference",):
                        Words("div", line, "plus" if line[:1] == "+" else "minus" if line[:1] == "-" else "")

        def back(one: Revision) -> None:
            def do(who: str, reason: str) -> None:
                with writing(desk.node.engine) as connection:
                    revise.rollback(connection, kind, one.number, author=who, why=reason)

            def load() -> None:
                editor.value = revise.export(one)

            desk.ask(f"Roll {kind} back to revision {one.number}", Scope.CONFIGURE, do, then=load)

        def acts(one: Revision) -> None:
            if one.number == found[0].number:
                chip("in force")
                return
            with box("div", "row"):
                button("Compare", lambda: compare(one), label=f"Compare revision {one.number} of {kind}")
                if desk.person.may(Scope.CONFIGURE):
                    button("Roll back", lambda: back(one), label=f"Roll {kind} back to revision {one.number}")

        table(
            ("Number", "When", "By", "Why", ""),
            [(one.number, desk.clock(one.created_at), one.author, one.note, partial(acts, one)) for one in found[:30]],
            about=f"Revisions of {kind}",
            empty="None yet.",
        )
