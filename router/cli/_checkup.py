"""How `check` and `doctor` tell what they found."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dicom_sr.problem import Problem
from router.cli._common import answer, print_json

if TYPE_CHECKING:
    from router.checkup import Diagnosis
    from router.config import Settings

MARKS = {"ok": "ok     ", "warning": "WARNING", "fault": "FAULT  "}


def tell(config: Path, look: Callable[["Settings"], Iterable["Diagnosis"]], *, as_json: bool) -> None:
    """Print each diagnosis as it is made, then exit: 0 without a fault, 1 with one, 2 where the settings are wrong."""
    from router.checkup import Verdict, good, told, worst
    from router.config import load

    found: list[Diagnosis] = []

    def say(one: "Diagnosis") -> None:
        found.append(one)
        if not as_json:
            answer.print(f"{MARKS[one.verdict]} {one.about}: {one.what}", markup=False, soft_wrap=True)
            if one.remedy:
                answer.print(f"        {one.remedy}", markup=False, soft_wrap=True)

    code = 0
    try:
        settings = load(config)
    except Problem as problem:
        say(told(f"settings {config}", problem))
        code = 2
    else:
        say(good(f"settings {config}", f"{settings.ae_title}, {settings.timezone}"))
        for one in look(settings):
            say(one)
        code = 1 if worst(found) is Verdict.FAULT else 0
    if as_json:
        print_json([asdict(one) for one in found])
    raise typer.Exit(code)
