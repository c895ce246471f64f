"""Who may do what, as a page: `python -m tests.web.access > deploy/ACCESS.md` writes it from the tables of the code."""

from router.domain.access import SCOPES, WITH_ADDRESS, WITH_NAME, Role, Scope
from router.web.doors import DOORS, OPEN, Door
from tests.house.test_docs import COMMANDS

ANYBODY = frozenset(
    {
        "init", "inspect", "models verify", "pipelines list", "pipelines show", "query", "fetch", "rules lint",
        "rules test", "run", "send", "show",
    }
)  # fmt: skip
"""Commands that open no node: they work on files, and on peers, that are given to them."""

HEAD = f"""\
# Who may do what

Written by `python -m tests.web.access` from the tables that the code uses; a test compares it and walks every line.

## The window

One table, `router/web/doors.py`, and what is not in it is shut. A person has a role, a program a token with scopes. A
stranger gets the login page and `/health`, and `/metrics` where `web.open_metrics` says so. After {WITH_NAME.free}
wrong passwords for one name, or {WITH_ADDRESS.free} from one address, each further one doubles the wait, up to a minute
or a quarter of an hour; a restart does not help.

| method | path | scope | stranger | viewer | operator | admin |
|---|---|---|---|---|---|---|
"""

BETWEEN = """
## The command line

No role is asked for: who may read the node's database may do all that a node does. So `isocenter init` writes folder,
settings, database and store for its own account and group alone, and the audit names the account (`cli:NAME`). Give the
group to whoever operates the node, and the account to nobody else.

| command | who |
|---|---|
"""


def line(one: Door) -> str:
    """A door as a line of the page."""
    yes = {role: one.needs == OPEN or one.needs in SCOPES[role] for role in Role}
    cells = ["yes" if one.needs == OPEN else "no", *("yes" if yes[role] else "no" for role in Role)]
    return f"| {' '.join(one.methods)} | `{one.path}` | {one.needs} | {' | '.join(cells)} |"


def page() -> str:
    """The whole page."""
    order = [OPEN, *Scope]
    doors = sorted(DOORS, key=lambda one: (order.index(one.needs), one.path, one.methods))
    commands = sorted(" ".join(path) for path in COMMANDS)
    who = {name: "anybody on the machine" if name in ANYBODY else "the node's account and group" for name in commands}
    lines = [f"| `isocenter {name}` | {who[name]} |" for name in commands]
    return HEAD + "\n".join(map(line, doors)) + "\n" + BETWEEN + "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
