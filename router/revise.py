"""Rules, sources and destinations as revisions: import, export, compare, go back, promote. Every change is audited."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from dicom_sr.problem import Problem
from router import document, rulebook
from router.db import audit, revisions
from router.db.revisions import Kind, Revision
from router.domain.rules import Mode
from router.errors import WrongRulebook
from router.rulebook import Body, Known


class NotInTheBook(Problem):
    """The revision in force has no entry of this name."""

    exit_code = 2


class WrongKind(Problem):
    """A document of one kind came where another was wanted."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What another revision says otherwise: names of entries, and the lines of the YAML text."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    lines: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.lines)


def known(connection: Connection) -> Known:
    """What a document may refer to, as this node has it."""
    destinations = _entries(connection, Kind.DESTINATIONS)
    rules = _entries(connection, Kind.RULES)
    return Known(
        destinations=frozenset(str(one["name"]) for one in destinations),
        used=frozenset(str(name) for rule in rules or () for name in rule.get("destinations", ())),
    )


def import_(
    connection: Connection, text: str, name: str, *, author: str, note: str = "", kind: Kind | None = None
) -> Revision:
    """Put the document in this YAML text in force; unchanged content makes no new revision. `name` stands in faults.

    Raises:  WrongRulebook with every fault, WrongKind
    """
    found, body = rulebook.parse(text, name, known=known(connection))
    if kind is not None and found is not kind:
        raise WrongKind(f"{name} holds {found}, not {kind}", remedy=f"Use `isocenter {found} import`")
    return put(connection, found, body, author=author, note=note or f"import of {name}")


def export(revision: Revision) -> str:
    """A revision as YAML that can be imported again."""
    head = f"# {revision.kind}, revision {revision.number}: {revision.note}\n"
    return head + rulebook.write(revision.kind, revision.body)


def difference(old: Revision, new: Revision) -> Difference:
    """What `new` says otherwise than `old`; both are of one kind."""
    before, after = _by_name(old.kind, old.body), _by_name(new.kind, new.body)
    lines = difflib.unified_diff(
        rulebook.write(old.kind, old.body).splitlines(),
        rulebook.write(new.kind, new.body).splitlines(),
        f"{old.kind} {old.number}",
        f"{new.kind} {new.number}",
        lineterm="",
        n=2,
    )
    return Difference(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and after[name] != before[name]),
        lines=tuple(lines),
    )


def rollback(connection: Connection, kind: Kind, number: int, *, author: str, why: str = "") -> Revision:
    """Put an older revision in force again, as a new one; it must still make sense with what is in force now.

    Raises:  UnknownRevision, WrongRulebook
    """
    old = revisions.find(connection, kind, number)
    text = rulebook.write(kind, old.body)
    page = document.parse(text, f"{kind} revision {number}", wrong=WrongRulebook)
    _, body = rulebook.accept(page, known(connection))
    return put(connection, kind, body, author=author, note=_because(f"back to revision {number}", why))


def promote(connection: Connection, name: str, *, author: str, mode: Mode = Mode.ON, why: str = "") -> Revision:
    """Give one rule this mode (`on` by default) and leave all others as they are.

    Raises:  NotInTheBook, WrongRulebook
    """
    body = [dict(entry) for entry in revisions.current(connection, Kind.RULES).body]
    entry = entry_of(body, Kind.RULES, name)
    entry["mode"] = str(mode)
    page = document.parse(rulebook.write(Kind.RULES, body), "the rules in force", wrong=WrongRulebook)
    rulebook.accept(page, known(connection))
    return put(connection, Kind.RULES, body, author=author, note=_because(f"{name}: {mode}", why))


def accept_source(connection: Connection, ae_title: str, address: str, *, author: str) -> Revision:
    """Let a caller that was turned away in: its AE title from this address."""
    body = [dict(entry) for entry in revisions.current(connection, Kind.SOURCES).body]
    same = [entry for entry in body if entry["ae_title"].strip() == ae_title.strip()]
    if same and not same[0].keys() - {"ae_title", "addresses", "notes"}:
        same[0]["addresses"] = [*same[0]["addresses"], address]
    else:
        body.append({"ae_title": ae_title, "addresses": [address]})
    page = document.parse(rulebook.write(Kind.SOURCES, body), "sources", wrong=WrongRulebook)
    rulebook.accept(page, known(connection))
    return put(connection, Kind.SOURCES, body, author=author, note=f"{ae_title} accepted")


def entry_of(body: list[dict[str, Any]], kind: Kind, name: str) -> dict[str, Any]:
    """The entry of this name.

    Raises:  NotInTheBook
    """
    key = "ae_title" if kind is Kind.SOURCES else "name"
    for entry in body:
        if entry[key] == name:
            return entry
    names = [str(entry[key]) for entry in body]
    raise NotInTheBook(
        f"the {kind} in force have no {name}{document.suggestion(name, names)}", remedy=f"See `isocenter {kind} list`"
    )


def put(connection: Connection, kind: Kind, body: Body, *, author: str, note: str) -> Revision:
    """Make this checked body the revision in force, unless it is so already."""
    try:
        now_in_force = revisions.current(connection, kind)
    except revisions.UnknownRevision:
        now_in_force = None
    if now_in_force is not None and revisions.digest(now_in_force.body) == revisions.digest(body):
        return now_in_force
    made = revisions.add(connection, kind, body, author=author, note=note)
    audit.write(connection, author, f"{kind}.changed", revision=made.number, note=note)
    return made


def _because(done: str, why: str) -> str:
    return f"{done} ({why})" if why else done


def _entries(connection: Connection, kind: Kind) -> list[Mapping[str, Any]]:
    try:
        return list(revisions.current(connection, kind).body)
    except revisions.UnknownRevision:
        return []


def _by_name(kind: Kind, body: Body) -> dict[str, Mapping[str, Any]]:
    key = "ae_title" if kind is Kind.SOURCES else "name"
    return {str(entry[key]): entry for entry in body}
