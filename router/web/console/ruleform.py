"""What helps to write a rule: a form beside the text, past studies asked before saving, what it did in shadow."""

import asyncio
from collections.abc import Callable
from typing import Any

import yaml
from nicegui import ui

from pipelines import catalog
from router import backtest, rulebook
from router.db import overview, revisions
from router.db.engine import now, reading
from router.db.overview import Trial
from router.db.revisions import Kind
from router.domain.condition import Operator
from router.domain.rules import Mode
from router.errors import WrongRulebook
from router.web.console.desk import Desk
from router.web.console.parts import Words, box, button, choice, field, tick
from router.web.draft import Draft, Line, draft_of, put, rule_of

NEW = "a new rule"
DAYS = 30


def form(desk: Desk, editor: Any) -> None:
    """A form that writes one rule into the editor's text."""
    draft, before = Draft(), NEW

    @ui.refreshable
    def fields() -> None:
        _fields(desk, draft, again=fields.refresh)

    @ui.refreshable
    def chooser() -> None:
        try:
            names = [str(one.get("name", "")) for one in rulebook.entries(Kind.RULES, editor.value)]
        except WrongRulebook:
            names = []
        choice("Rule", (NEW, *names), load, value=before if before in names else NEW)

    def load(name: str) -> None:
        nonlocal draft, before
        before = name
        found = next((one for one in rulebook.entries(Kind.RULES, editor.value) if one.get("name") == name), None)
        draft = draft_of(found) if found else Draft()
        fields.refresh()

    def write() -> None:
        nonlocal before
        if not draft.name.strip():
            ui.notify("A rule needs a name.", type="warning")
            return
        try:
            known = rulebook.entries(Kind.RULES, editor.value)
        except WrongRulebook as problem:
            ui.notify(f"The text is not YAML yet: {problem.what}", type="negative", multi_line=True)
            return
        editor.value = rulebook.write(Kind.RULES, put(known, "" if before == NEW else before, rule_of(draft)))
        before = draft.name.strip()
        chooser.refresh()
        ui.notify("It stands in the text above. Nothing is in force yet.", type="positive")

    with box("details", "card"):
        Words("summary", "Write a rule with a form")
        Words(
            "p",
            "It is put into the text above, whose comments are lost then; nothing changes before you save.",
            "soft small",
        )
        with box("div", "row"):
            chooser()
            button("Read the text again", chooser.refresh, label="Read the rules of the text again")
        fields()
        button("Write it into the text", write, kind="main")


def _fields(desk: Desk, draft: Draft, *, again: Callable[[], Any]) -> None:
    with box("div", "row"):
        _text("Name", draft.name, lambda text: setattr(draft, "name", text), maxlength="80")
        choice("Asked about each", ("series", "study"), lambda word: setattr(draft, "scope", word), value=draft.scope)
        priorities = ("stat", "routine", "off_peak")
        choice("Priority", priorities, lambda word: setattr(draft, "priority", word), value=draft.priority)
        choice("Mode", tuple(map(str, Mode)), lambda word: setattr(draft, "mode", word), value=draft.mode)
        tick("A person releases its jobs", lambda on: setattr(draft, "hold", on), value=draft.hold)
    Words("h3", "All of this has to hold")
    for number, line in enumerate(draft.lines, 1):
        _line(draft, number, line, again)
    for part in draft.deeper:
        Words("pre", yaml.safe_dump(part, default_flow_style=None, allow_unicode=True).rstrip(), "mono pre deeper")
    if draft.deeper:
        Words("p", "What stands in grey is kept as it is; change it in the text.", "soft small")

    def more() -> None:
        draft.lines.append(Line())
        again()

    button("Add a condition", more)
    _ticks("Runs", catalog.names(), draft.pipelines)
    with reading(desk.node.engine) as connection:
        known = [str(one["name"]) for one in revisions.current(connection, Kind.DESTINATIONS).body]
    _ticks("Sends to", known, draft.destinations)


def _line(draft: Draft, number: int, line: Line, again: Callable[[], Any]) -> None:
    def drop() -> None:
        draft.lines.remove(line)
        again()

    with box("div", "row"):
        _text(f"Keyword {number}", line.keyword, lambda text: setattr(line, "keyword", text), placeholder="Modality")
        choice(f"Comparison {number}", tuple(map(str, Operator)),
               lambda word: setattr(line, "operator", Operator(word)), value=str(line.operator))  # fmt: skip
        _text(f"Value {number}", line.value, lambda text: setattr(line, "value", text))
        button("Remove", drop, kind="bad", label=f"Remove condition {number}")


def _text(label: str, value: str, then: Callable[[str], Any], **props: str) -> None:
    made = field(label, value=value, **props)
    made.on("input", lambda event: then(str(event.args)), js_handler="(event) => emit(event.target.value)")


def _ticks(title: str, names: list[str] | tuple[str, ...], chosen: list[str]) -> None:
    Words("h3", title)

    def turn(name: str, on: bool) -> None:
        if on and name not in chosen:
            chosen.append(name)
        elif not on and name in chosen:
            chosen.remove(name)

    with box("div", "row"):
        for name in dict.fromkeys((*names, *chosen)):
            tick(name, lambda on, name=name: turn(name, on), value=name in chosen)  # type: ignore[misc]


def told(done: backtest.Backtest, clock: Callable[[int | None], str]) -> None:
    """What other rules would have done with past studies."""
    with box("div", "need" if done.different else "fine"):
        for line in done.lines("these rules", "those in force", clock(done.since)):
            Words("div", line, "pre")


async def shadowed(desk: Desk, name: str) -> Trial:
    """What a rule has come to in shadow in the last days."""

    def look() -> Trial:
        with reading(desk.node.engine) as connection:
            return overview.in_shadow(connection, name, now() - DAYS * backtest.DAY)

    return await asyncio.to_thread(look)


def grounds(found: Trial) -> None:
    """The comparison on which a rule is switched on: what it did in shadow, and what would have left."""
    if not found.fired:
        Words("p", f"In shadow this rule has not fired in the last {DAYS} days: nothing speaks for it yet.", "need")
        return
    ended = ", ".join(f"{count} {name}" for name, count in sorted(found.ended.items())) or "none"
    results = found.ended.get("result", 0)
    with box("div", "fine"):
        Words("div", f"In shadow in the last {DAYS} days: fired {found.fired} times on {found.studies} studies.")
        Words("div", f"Its runs: {ended}.")
        Words("div", f"Switched on it would have sent {results} results to {', '.join(found.sends_to) or 'nowhere'}.")
    for reason, count in found.refusals.items():
        Words("div", f"{count} times: {reason}", "need")
