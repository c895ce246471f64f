"""`isocenter tokens`: programs that may use the API."""

from typing import Annotated

import typer

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows, talk, who
from router.db.engine import reading, writing
from router.domain.access import Scope

tokens = typer.Typer(help="Programs that may use the API.", no_args_is_help=True)
app.add_typer(tokens, name="tokens")


@tokens.command("add", epilog="Example: isocenter tokens add grafana --scope metrics --days 365")
def add(
    name: Annotated[str, typer.Argument(help="What it is for")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; repeat for more")],
    days: Annotated[
        float | None, typer.Option(min=0.001, help="How long it is good for; default: until removed")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """A new token; its secret is printed once and cannot be shown again."""
    from router import passwords
    from router.db import tokens as keys

    secret = passwords.secret()
    with writing(database(config)) as connection:
        keys.add(connection, name, passwords.digest(secret), scope, who=who(), days=days)
    talk.print(f"Send it as: Authorization: Bearer SECRET. The secret of {name}, shown this once:", markup=False)
    typer.echo(secret)


@tokens.command("list", epilog="Example: isocenter tokens list")
def list_(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """All tokens, a line each; never their secrets."""
    from router.db import tokens as keys

    with reading(database(config)) as connection:
        found = keys.list_(connection)
    rows = [
        {
            "name": one.name, "scopes": list(map(str, one.scopes)), "created_by": one.created_by,
            "created": clock(one.created_at), "expires": clock(one.expires_at), "used": clock(one.used_at),
        }
        for one in found
    ]  # fmt: skip
    columns = ("name", "scopes", "created_by", "created", "expires", "used")
    print_rows(rows, columns, as_json=as_json, empty="There are no tokens.")


@tokens.command("remove", epilog="Example: isocenter tokens remove grafana")
def remove(name: str, config: Config = DEFAULT_CONFIG) -> None:
    """Make a token worthless, at once."""
    from router.db import tokens as keys

    with writing(database(config)) as connection:
        keys.remove(connection, name, who=who())
    talk.print(f"{name} is removed", markup=False)
