"""The console: NiceGUI's pages in the same process; all its assets come with it, so it needs no internet.

NiceGUI keeps one application a process, so a process has one console.
"""

from pathlib import Path

from fastapi import FastAPI
from nicegui import app as inner
from nicegui import ui

from router.node import Node
from router.web.console import audit, books, jobs, now, rest, studies
from router.web.console.desk import House
from router.web.live import Live
from router.web.pictures import Pictures

ASSETS = Path(__file__).parent / "assets"


def add_to(app: FastAPI, node: Node, live: Live) -> None:
    """Give the application its pages."""
    house = House(node=node, live=live, pictures=Pictures(node))
    inner.add_static_files("/console", ASSETS, max_cache_age=0)
    ui.add_head_html('<link rel="stylesheet" href="/console/console.css">', shared=True)
    ui.add_head_html('<script src="/console/console.js"></script>', shared=True)
    for module in (now, studies, jobs, books, rest, audit):
        module.add_to(house)
    ui.run_with(
        app,
        title="Isocenter",
        dark=None,
        language="en-US",
        tailwind=False,
        gzip_middleware_factory=None,
        show_welcome_message=False,
        reconnect_timeout=30,
    )
