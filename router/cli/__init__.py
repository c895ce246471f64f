"""The command line: verbs an operator would say. Standard output is the answer, standard error the talk.

Exit codes: 0 done, 1 it failed, 2 it was asked wrongly. Every listing has `--json`, with the same fields as the web.
One module a noun; each imports what it needs when it is called, so that `--help` is quick.
"""

import importlib
import pkgutil
import sys

import typer
from rich.console import Console

from dicom_sr.problem import Problem

app = typer.Typer(
    name="isocenter",
    help="A DICOM-native PACS node and AI router. Research use only; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run one command; a Problem becomes a sentence and its remedy, never a traceback."""
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")
    talk = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        app(prog_name="isocenter")
    except Problem as problem:
        talk.print(f"[red]isocenter:[/] {_plain(problem.what)}", markup=True)
        talk.print(f"  {problem.remedy}", markup=False)
        sys.exit(problem.exit_code)


def _plain(text: str) -> str:
    """Text that rich prints as it is."""
    return text.replace("[", r"\[")
