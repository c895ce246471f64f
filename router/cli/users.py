"""`isocenter users`: who may use the console."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from router.cli import app
from router.cli._common import DEFAULT_CONFIG, AsJson, Config, clock, database, print_rows, talk, who
from router.db.engine import reading, writing
from router.domain.access import Role

users = typer.Typer(help="Who may use the console.", no_args_is_help=True)
app.add_typer(users, name="users")

Name = Annotated[str, typer.Argument(help="The user's name; letter case does not matter")]
From = Annotated[
    Path | None, typer.Option("--password-file", help="File that holds the password; - reads standard input")
]


def chosen(path: Path | None) -> tuple[str, bool]:
    """The password, and whether we have made it up."""
    from router import passwords

    if path is None:
        return passwords.made(), True
    text = sys.stdin.readline() if str(path) == "-" else path.read_text(encoding="utf-8")
    return text.rstrip("\r\n"), False


def tell(name: str, password: str, *, made_up: bool) -> None:
    """Say a password once, where nobody else knows it."""
    if made_up:
        talk.print(f"The password of {name}, shown this once: {password}", markup=False, soft_wrap=True)


@users.command("add", epilog="Example: isocenter users add alice --role operator")
def add(
    name: Name,
    role: Annotated[Role, typer.Option(help="viewer looks, operator moves jobs, admin changes everything")],
    config: Config = DEFAULT_CONFIG,
    password_file: From = None,
) -> None:
    """A new user; without a password file one is made up and shown once."""
    from router import passwords
    from router.db import accounts

    password, made_up = chosen(password_file)
    name = name.strip().lower()
    kept = passwords.hashed(password, name=name)
    with writing(database(config)) as connection:
        accounts.add(connection, name, role, kept, who=who())
    talk.print(f"{name} may log in as {role}", markup=False)
    tell(name, password, made_up=made_up)


@users.command("list", epilog="Example: isocenter users list")
def list_(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """All users, a line each."""
    from router.db import accounts

    with reading(database(config)) as connection:
        found = accounts.list_(connection)
    rows = [
        {
            "name": one.name, "role": str(one.role), "created": clock(one.created_at),
            "password_set": clock(one.password_at),
        }
        for one in found
    ]  # fmt: skip
    print_rows(rows, ("name", "role", "created", "password_set"), as_json=as_json, empty="There are no users.")


@users.command("passwd", epilog="Example: isocenter users passwd alice")
def passwd(name: Name, config: Config = DEFAULT_CONFIG, password_file: From = None) -> None:
    """Another password; all browsers of the user have to log in again."""
    from router import passwords
    from router.db import accounts

    password, made_up = chosen(password_file)
    name = name.strip().lower()
    kept = passwords.hashed(password, name=name)
    with writing(database(config)) as connection:
        accounts.set_password(connection, name, kept, who=who())
    talk.print(f"{name} has another password", markup=False)
    tell(name, password, made_up=made_up)


@users.command("role", epilog="Example: isocenter users role alice admin")
def role_(name: Name, role: Role, config: Config = DEFAULT_CONFIG) -> None:
    """Another role, in force at once."""
    from router.db import accounts

    with writing(database(config)) as connection:
        accounts.set_role(connection, name.strip().lower(), role, who=who())
    talk.print(f"{name} is {role}", markup=False)


@users.command("remove", epilog="Example: isocenter users remove alice")
def remove(name: Name, config: Config = DEFAULT_CONFIG) -> None:
    """Remove a user; their browsers are logged out at once."""
    from router.db import accounts

    with writing(database(config)) as connection:
        accounts.remove(connection, name.strip().lower(), who=who())
    talk.print(f"{name} is removed", markup=False)
