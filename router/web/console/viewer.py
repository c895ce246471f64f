"""The slice viewer: scroll, window presets, segments with toggles, opacity and contours, measurements beside."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlencode

from nicegui import ui

from dicom_sr.problem import Problem
from router.db import results
from router.db.engine import reading
from router.web.api.pictures import Album, album
from router.web.console.desk import Desk
from router.web.console.parts import Words, box, card, choice, slide, tick
from router.web.console.rows import table
from router.web.doors import API


@dataclass(slots=True)
class View:
    """What is chosen."""

    job_id: int
    index: int
    window: str
    opacity: int = 35
    contours: bool = True
    shown: set[int] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where the picture is."""
        asked = {
            "window": self.window,
            "segments": ",".join(map(str, sorted(self.shown))),
            "opacity": self.opacity / 100,
            "contours": str(self.contours).lower(),
        }
        return f"{API}/jobs/{self.job_id}/pictures/{self.index}?{urlencode(asked)}"


async def viewer(desk: Desk, job_id: int) -> None:
    """The pictures of what this job found."""
    with card(f"Pictures of job {job_id}") as section:
        try:
            seen = await asyncio.to_thread(album, desk.house.pictures, job_id)
        except Problem as problem:
            Words("p", f"{problem.what}. {problem.remedy}", "need")
            return
        section.props["id"] = "viewer"
        lay_out(desk, job_id, seen)


def lay_out(desk: Desk, job_id: int, seen: Album) -> None:
    """Picture and controls."""
    view = View(job_id, seen.best_slice, seen.windows[0], shown={one.number for one in seen.segments})

    def draw() -> None:
        picture.props["src"] = view.url
        picture.props["alt"] = f"Slice {view.index + 1} of {seen.slices}, window {view.window}"
        place.set_text(f"Slice {view.index + 1} of {seen.slices}")

    def go(index: int, *, turned: bool = False) -> None:
        view.index = max(0, min(seen.slices - 1, index))
        if turned:
            ui.run_javascript(f"document.getElementById('slices').value = {view.index}")
        draw()

    def choose(window: str) -> None:
        view.window = window
        draw()

    def opacity(percent: int) -> None:
        view.opacity = percent
        draw()

    def contours(on: bool) -> None:
        view.contours = on
        draw()

    def toggle(number: int, on: bool) -> None:
        (view.shown.add if on else view.shown.discard)(number)
        draw()

    with box("div", "viewer"):
        with box("div"):
            picture = box("img")
            picture.props.update({"width": 512, "id": "slice"})
            picture.on(
                "wheel.prevent",
                lambda event: go(view.index + (1 if event.args > 0 else -1), turned=True),
                js_handler=WHEEL,
            )
            place = Words("p", "", "soft small")
            slider = slide("Slice (wheel over the picture, or arrow keys here)", 0, seen.slices - 1, go,
                           value=view.index)  # fmt: skip
            slider.props["id"] = "slices"
        with box("div"):
            choice("Window", seen.windows, choose, value=view.window)
            slide("Opacity", 0, 100, opacity, value=view.opacity)
            tick("Contours", contours, value=True)
            Words("h3", "Segments")
            if not seen.segments:
                Words("p", "Nothing was segmented.", "soft")
            for one in seen.segments:
                tick(
                    f"{one.label}, {one.millilitres:.0f} ml",
                    lambda on, number=one.number: toggle(number, on),  # type: ignore[misc]
                    value=True,
                    colour=one.colour,
                )
    with reading(desk.node.engine) as connection:
        rows = results.measurements_of(connection, job_id)
    Words("h3", "Measurements")
    table(
        ("Where", "What", "Value", "Remark"),
        [
            (one.label, one.name, "withheld" if one.value is None else f"{one.value:.4g} {one.unit}", one.remark or "")
            for one in rows
        ],
        about="Measurements",
        empty="Nothing was measured.",
    )
    Words("p", "Research use only; not a medical device.", "soft small")
    draw()


WHEEL = "(event) => { event.preventDefault(); emit(event.deltaY); }"
"""One step a notch, without the page scrolling."""
