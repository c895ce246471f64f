"""A form for one source or one destination, which writes it into the editor's text."""

from typing import Any

import yaml
from nicegui import ui
from pydantic import BaseModel

from router import destinations, rulebook
from router.db.revisions import Kind
from router.errors import WrongRulebook
from router.web.console.parts import Words, box, button, choice, field
from router.web.draft import put
from router.web.entry import Blank, blanks, entry_of, shown, typed

NEW = "a new one"
KEYS = {Kind.SOURCES: "ae_title", Kind.DESTINATIONS: "name"}
AS_BEFORE = "as by default"


def form(kind: Kind, editor: Any) -> None:
    """A form drawn from the settings model of this kind."""
    key, before = KEYS[kind], NEW
    way = destinations.names()[0] if kind is Kind.DESTINATIONS else ""
    kept: dict[str, Any] = {}
    texts: dict[str, str] = {}

    def model() -> type[BaseModel]:
        return destinations.find(way).settings if kind is Kind.DESTINATIONS else rulebook.Source

    def known() -> list[dict[str, Any]]:
        return rulebook.entries(kind, editor.value)

    @ui.refreshable
    def chooser() -> None:
        try:
            names = [str(one.get(key, "")) for one in known()]
        except WrongRulebook:
            names = []
        choice(f"Entry of {kind}", (NEW, *names), load, value=before if before in names else NEW)

    @ui.refreshable
    def fields() -> None:
        if kind is Kind.DESTINATIONS:
            choice("Kind of destination", destinations.names(), turn, value=way)
        with box("div", "form-grid"):
            for one in blanks(model()):
                if one.name != "kind":
                    _field(one, texts)

    def load(name: str) -> None:
        nonlocal before, way, kept, texts
        try:
            kept = next((dict(one) for one in known() if str(one.get(key)) == name), {})
        except WrongRulebook as problem:
            ui.notify(f"The text is not YAML yet: {problem.what}", type="negative", multi_line=True)
            return
        before = name
        if kind is Kind.DESTINATIONS and kept.get("kind") in destinations.names():
            way = str(kept["kind"])
        texts = {one.name: typed(kept, one.name) for one in blanks(model()) if one.name != "kind"}
        fields.refresh()

    def turn(word: str) -> None:
        nonlocal way
        way = word
        fields.refresh()

    def write() -> None:
        nonlocal before
        shows = {one.name for one in blanks(model())} - {"kind"}
        try:
            entry = entry_of(
                {name: text for name, text in texts.items() if name in shows}, kept if before != NEW else {}
            )
            entries = known()
        except yaml.YAMLError as error:
            ui.notify(f"A field is not as YAML wants it: {getattr(error, 'problem', error)}", type="negative")
            return
        except WrongRulebook as problem:
            ui.notify(f"The text is not YAML yet: {problem.what}", type="negative", multi_line=True)
            return
        if not entry.get(key):
            ui.notify(f"It needs {key}.", type="warning")
            return
        if kind is Kind.DESTINATIONS:
            entry = {"name": entry["name"], "kind": way} | {name: one for name, one in entry.items() if name != "kind"}
        editor.value = rulebook.write(kind, put(entries, "" if before == NEW else before, entry, key=key))
        before = str(entry[key])
        chooser.refresh()
        ui.notify("It stands in the text above. Nothing is in force yet.", type="positive")

    texts.update({one.name: "" for one in blanks(model()) if one.name != "kind"})
    with box("details", "card"):
        Words("summary", f"Write one of the {kind} with a form")
        Words("p", "An empty field is as by default. Lists stand in brackets: [10.1.2.3, 10.1.2.4].", "soft small")
        with box("div", "row"):
            chooser()
            button("Read the text again", chooser.refresh, label=f"Read the {kind} of the text again")
        fields()
        button("Write it into the text", write, kind="main", label=f"Write it into the text of {kind}")


def _field(one: Blank, texts: dict[str, str]) -> None:
    about = f"{one.about}{'' if one.needed or not one.default else f' (default: {one.default})'}"
    with box("div"):
        if one.choices:

            def choose(word: str) -> None:
                texts[one.name] = "" if word == AS_BEFORE else shown(word) if word not in ("true", "false") else word

            choice(one.name, (AS_BEFORE, *one.choices), choose, value=texts.get(one.name) or AS_BEFORE)
        else:
            made = field(f"{one.name}{' *' if one.needed else ''}", value=texts.get(one.name, ""))
            made.on(
                "input",
                lambda event: texts.__setitem__(one.name, str(event.args)),
                js_handler="(event) => emit(event.target.value)",
            )
        Words("div", about, "soft small")
