"""The command line: verbs an operator would say. Standard output is the answer, standard error the talk.

Exit codes: 0 done, 1 it failed, 2 it was asked wrongly. Every listing has `--json`, with the same fields as the web.
One module a noun, of the same name: a command imports its own and no other, and what it needs when it is called.
"""

import importlib
import pkgutil
import sys

import typer
from rich.console import Console

from dicom_sr.problem import Problem

app = typer.Typer(
    name="isocenter",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def isocenter() -> None:
    """A DICOM-native PACS node and AI router. Research use only; not a medical device."""


def nouns() -> list[str]:
    """The first words of all commands: the modules of this folder."""
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]


def main() -> None:
    """Run one command; a Problem becomes a sentence and its remedy, never a traceback."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    for noun in [asked] if asked in nouns() else nouns():
        importlib.import_module(f"{__name__}.{noun}")
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
