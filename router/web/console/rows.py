"""Tables: one element of the page for all of a table, which the browser lays out.

A page of fifty studies would be seven hundred elements, each of which the server makes, keeps and describes one by one;
that took longer than all the rest. What is said travels as data and is set as text in the browser, so no markup of
others is ever read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nicegui.element import Element

from router.web.console.parts import Words, tone


@dataclass(frozen=True, slots=True)
class Link:
    """A link to a page of ours; one that is `long` shows two lines, and all of it where the pointer rests."""

    text: str
    path: str
    look: str = ""
    long: bool = False

    def said(self) -> dict[str, Any]:
        """What the browser is told."""
        return {"text": self.text, "path": self.path, "look": self.look, "long": self.long}


@dataclass(frozen=True, slots=True)
class Chip:
    """A state as a coloured word."""

    text: str

    def said(self) -> dict[str, Any]:
        """What the browser is told."""
        return {"chip": self.text, "tone": tone(self.text)}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is, in percent, and what a screen reader calls it."""

    text: str
    percent: int
    label: str

    def said(self) -> dict[str, Any]:
        """What the browser is told."""
        return {"text": self.text, "percent": max(0, min(100, self.percent)), "label": self.label}


@dataclass(frozen=True, slots=True)
class Head:
    """A column's head that sorts by it."""

    name: str
    path: str
    sorted: Literal["ascending", "descending", ""] = ""

    def said(self) -> dict[str, Any]:
        """What the browser is told."""
        arrow = {"ascending": " ▲", "descending": " ▼"}.get(self.sorted, "")
        return {"name": self.name, "text": f"{self.name}{arrow}", "path": self.path, "look": "", "sorted": self.sorted}


Cell = str | int | None | Link | Chip | Progress | Callable[[], object]


class Rows(Element, component="assets/rows.js"):
    """A table; a cell that is callable lays itself out, with buttons for instance."""

    def __init__(self, columns: Sequence[str | Head], rows: Sequence[Sequence[Cell]], *, about: str) -> None:
        super().__init__()
        self.props["about"] = about
        self.props["columns"] = [one if isinstance(one, str) else one.said() for one in columns]
        self.props["rows"] = [[self._said(cell) for cell in row] for row in rows]

    def _said(self, cell: Cell) -> str | dict[str, Any]:
        if isinstance(cell, Link | Chip | Progress):
            return cell.said()
        if not callable(cell):
            return "" if cell is None else str(cell)
        slot = f"cell{len(self.slots)}"
        with self.add_slot(slot):
            cell()
        return {"slot": slot}


def table(columns: Sequence[str | Head], rows: Sequence[Sequence[Cell]], *, about: str, empty: str) -> None:
    """A table, each row a card where the screen is narrow; a sentence where there are no rows."""
    if rows:
        Rows(columns, rows, about=about)
    else:
        Words("p", empty, "soft")
