"""The tree of errors at the head of `router/errors.py` is the tree that the program has."""

import ast

from router import errors
from tests.conftest import REPOSITORY


def defined() -> set[tuple[str, str]]:
    """Room and name of every error that the router defines outside `errors`."""
    found = set()
    for path in sorted((REPOSITORY / "router").rglob("*.py")):
        parts = path.relative_to(REPOSITORY / "router").with_suffix("").parts
        room = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        for node in ast.walk(ast.parse(path.read_text())):
            bases = {base.id for base in getattr(node, "bases", ()) if isinstance(base, ast.Name)}
            if isinstance(node, ast.ClassDef) and "Problem" in bases and room != "errors":
                found.add((room, node.name))
    return found


def drawn() -> set[tuple[str, str]]:
    """Room and name of every error in the tree below the rooms' names."""
    found, room = set(), ""
    for line in (errors.__doc__ or "").splitlines():
        word = line.strip().lstrip("│├└─ ")
        if line.startswith(("    ├── ", "    └── ")):
            room = word if ":" not in word else ""
        elif "── " in line and room:
            found.add((room, word.partition(":")[0]))
    return found


def test_every_error_is_drawn_where_it_is_defined() -> None:
    assert drawn() == defined()
