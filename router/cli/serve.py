"""`isocenter serve`: the node itself."""

from typing import Annotated

import typer

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, Config

Role = Annotated[str, typer.Option(help="all, or one of: listen, decide, infer, deliver, web, tick")]


@app.command(epilog="Example: isocenter serve --config /srv/isocenter/isocenter.yaml")
def serve(config: Config = DEFAULT_CONFIG, role: Role = "all") -> None:
    """Run the node, or one role of it, until SIGTERM; it finishes what it has in hand and stops."""
    from router import compose

    if role != "all" and role not in compose.ROLES:
        raise compose.UnknownRole(
            f"there is no role {role!r}", remedy=f"Choose all or one of: {', '.join(compose.ROLES)}"
        )
    raise typer.Exit(compose.serve(config, role))
