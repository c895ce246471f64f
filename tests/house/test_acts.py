"""Every act that the program writes into the audit is one that the audit knows."""

import ast
from collections.abc import Iterator

from router.domain.audit import EVENTS
from tests.conftest import REPOSITORY


def names(given: ast.expr) -> Iterator[str]:
    """What an argument may be; the part of an f-string that is filled in is `*`."""
    match given:
        case ast.Constant(value=str() as name):
            yield name
        case ast.IfExp(body=body, orelse=orelse):
            yield from names(body)
            yield from names(orelse)
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)


def written() -> set[tuple[str, str]]:
    """File and act of every `audit.write`."""
    found = set()
    for path in (REPOSITORY / "router").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "audit.write":
                act = node.args[2] if len(node.args) > 2 else next(k.value for k in node.keywords if k.arg == "act")
                found |= {(str(path.relative_to(REPOSITORY)), name) for name in names(act)}
    return found


def known(name: str) -> bool:
    before, star, behind = name.partition("*")
    return any(event.startswith(before) and event.endswith(behind) for event in EVENTS) if star else name in EVENTS


def test_every_act_that_is_written_is_known() -> None:
    assert len(written()) > 10
    unknown = {(path, name) for path, name in written() if not known(name)}
    assert not unknown, f"add them to EVENTS in router/domain/audit.py: {sorted(unknown)}"
