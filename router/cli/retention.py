"""`isocenter retention`: which studies' pixels and results would go, and letting them go now."""

from typing import Annotated

import typer

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, answer, clock, print_rows, talk, who
from router.domain.retention import Purge

retention = typer.Typer(
    help="Which studies' pixels and results would go, and why; let them go now.", no_args_is_help=True
)
app.add_typer(retention, name="retention")


def line(one: Purge) -> dict[str, object]:
    """A study that goes, for people and programs."""
    return {
        "study_instance_uid": one.held.study_instance_uid,
        "what": "results" if one.results else "pixels",
        "megabytes": round(one.held.size / 1e6, 1),
        "received": clock(one.held.last_instance_at),
        "delivered": clock(one.held.delivered_at),
        "why": one.why,
    }


COLUMNS = ("study_instance_uid", "what", "megabytes", "received", "delivered", "why")


@retention.command("plan", epilog="Example: isocenter retention plan")
def plan(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """What would go now, in the order of going; nothing is touched."""
    from router.compose import open_node
    from router.config import load
    from router.work.retain import planned

    print_rows(map(line, planned(open_node(load(config)))), COLUMNS, as_json=as_json, empty="Nothing would go.")


@retention.command("run", epilog="Example: isocenter retention run --yes")
def run(
    config: Config = DEFAULT_CONFIG,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only show the plan")] = False,
    as_json: AsJson = False,
) -> None:
    """Let go what is to go, now; `tick` does the same every few minutes."""
    from router.compose import open_node
    from router.config import load
    from router.work import retain

    node = open_node(load(config))
    going = retain.run(node, who=who()) if yes else retain.planned(node)
    print_rows(map(line, going), COLUMNS, as_json=as_json, empty="Nothing is to go.")
    if going and not yes:
        talk.print("Nothing was removed; say --yes")
    elif going and not as_json:
        answer.print(f"{sum(one.held.size for one in going) / 1e9:.2f} GB are free again")
