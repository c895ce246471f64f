"""The pieces of the console's pages. Every text goes in as text: no markup of others is ever read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

GOOD = frozenset({"done", "complete", "result", "delivered", "on", "answers", "ok"})
BAD = frozenset({"failed", "silent", "does not answer", "fault"})
WARN = frozenset({"held", "refused", "waiting", "shadow", "cancelled", "warning"})


VALUE = "(event) => emit(event.target.value)"
"""What a field tells of a change."""


class Words(TextElement):
    """An HTML element with a text."""

    def __init__(self, tag: str, text: str = "", classes: str = "") -> None:
        super().__init__(tag=tag, text=text)
        if classes:
            self.classes(classes)


def box(tag: str = "div", classes: str = "") -> Element:
    """An HTML element for others."""
    made = ui.element(tag)
    return made.classes(classes) if classes else made


def link(text: str, path: str, classes: str = "") -> Words:
    """A link to a page of ours."""
    made = Words("a", text, classes)
    made.props["href"] = path
    return made


def tone(text: str) -> str:
    """The colour of a state."""
    return "good" if text in GOOD else "bad" if text in BAD else "warn" if text in WARN else ""


def chip(text: str) -> Words:
    """A state as a coloured word; the word says it, the colour only helps."""
    return Words("span", text, f"chip {tone(text)}")


@contextmanager
def card(title: str, *, level: int = 2) -> Iterator[Element]:
    """A titled section."""
    with box("section", "card") as made:
        if title:
            Words(f"h{level}", title)
        yield made


def button(text: str, then: Callable[[], Any], *, kind: str = "", label: str = "") -> Words:
    """A button; `label` is what a screen reader says where the text alone is not enough."""
    made = Words("button", text, f"act {kind}")
    made.props["type"] = "button"
    if label:
        made.props["aria-label"] = label
    made.on("click", lambda _: then())
    return made


def field(label: str, tag: str = "input", *, value: str = "", **props: str) -> Element:
    """A labelled field; read it with `.value` of what is returned."""
    with box("label", "field"):
        Words("span", label)
        made = _Field(tag, value)
        for name, text in props.items():
            made.props[name] = text
    return made


class _Field(Element):
    """A form field that tells each change."""

    def __init__(self, tag: str, value: str) -> None:
        super().__init__(tag)
        self.value = value
        self.props["defaultValue"] = value  # `value` would undo what a person types whenever the page is drawn anew
        self.on("input", self._changed, js_handler=VALUE)

    def _changed(self, event: Any) -> None:
        self.value = str(event.args)


def choice(label: str, options: Sequence[str], then: Callable[[str], Any], *, value: str) -> Element:
    """A labelled choice among words."""
    with box("label", "field"):
        Words("span", label)
        made = box("select")
        with made:
            for option in options:
                one = Words("option", option)
                one.props["value"] = option
                if option == value:
                    one.props["selected"] = True
    made.on("change", lambda event: then(str(event.args)), js_handler=VALUE)
    return made


def slide(label: str, low: int, high: int, then: Callable[[int], Any], *, value: int) -> Element:
    """A labelled slider."""
    with box("label", "field"):
        Words("span", label)
        made = box("input")
        made.props.update({"type": "range", "min": low, "max": high, "defaultValue": value})
    made.on("input", lambda event: then(int(event.args)), throttle=0.05, js_handler=VALUE)
    return made


def tick(label: str, then: Callable[[bool], Any], *, value: bool, colour: str = "") -> Element:
    """A labelled check box, with a swatch of colour."""
    with box("label", "row"):
        made = box("input")
        made.props.update({"type": "checkbox", **({"checked": True} if value else {})})
        if colour:
            box("span", "swatch").style(f"background:{colour}")
        Words("span", label)
    made.on("change", lambda event: then(bool(event.args)), js_handler="(event) => emit(event.target.checked)")
    return made


def tile(title: str, figure: str, note: str = "") -> None:
    """A figure with its name."""
    with box("div", "tile"):
        Words("div", title, "soft small")
        Words("div", figure, "figure")
        if note:
            Words("div", note, "soft small")
