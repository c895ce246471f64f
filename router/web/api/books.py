"""Rules, sources and destinations: revisions, lint, import, comparison, rollback, promotion, and trying them out."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Query, UploadFile
from pydantic import BaseModel, Field

from router import backtest, revise, rulebook, trial, views
from router import destinations as ways_out
from router.checkup import Diagnosis, Verdict, world
from router.config import ae_title
from router.db import callers, overview, revisions
from router.db.engine import now, reading, writing
from router.db.revisions import Kind
from router.destinations import Context, Rejected, Unreachable
from router.domain.rules import Mode
from router.errors import WrongFile
from router.node import Node
from router.web.api.words import Asking, Name, NoControl, Reason, may_answer

LARGEST_FILE = 64 << 20
Wanted = Annotated[int | None, Query(ge=1, le=2**31, description="A revision; default: the one in force")]


class RevisionLine(BaseModel):
    """A revision in a list."""

    number: int
    at: str
    author: str
    note: str


class RevisionPage(RevisionLine):
    """A revision with its entries, and as YAML that can be imported."""

    entries: list[dict[str, Any]]
    text: str


class FaultLine(BaseModel):
    """One thing that is wrong in a document; line and column count from 1, 0 is the whole of it."""

    line: int
    column: int
    where: str
    message: str


class Text(BaseModel):
    """A document."""

    text: str = Field(max_length=1 << 20, description="YAML that begins with rules:, sources: or destinations:")


class Import(Text):
    """A document that is to be in force."""

    note: str = Field("", max_length=500, pattern=NoControl, description="Why, for the history")


class Rollback(Reason):
    """Which revision is to be in force again."""

    number: int = Field(ge=1, le=2**31)


class Promotion(Reason):
    """Which rule gets which mode."""

    name: str = Field(min_length=1, max_length=80, pattern=NoControl)
    mode: Mode = Mode.ON


class Newcomer(Reason):
    """A caller that may send from now on."""

    ae_title: str = Field(min_length=1, max_length=16, pattern=NoControl)
    address: str = Field(min_length=1, max_length=64, pattern=NoControl, description="IP address, network, or any")


class CallerLine(BaseModel):
    """A caller that was turned away."""

    ae_title: str
    address: str
    attempts: int
    last_seen: str
    reason: str


class Past(Text):
    """Rules to try on past studies."""

    days: float = Field(30, gt=0, le=3650, description="Studies that became complete within so many days")


class ShadowPage(BaseModel):
    """What a rule has come to in shadow; it is on these grounds that it is switched on."""

    studies: int
    fired: int
    ended: dict[str, int]
    refusals: dict[str, int]
    sends_to: list[str]


class Difference(BaseModel):
    """What a later revision says otherwise."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    lines: list[str]


class Echo(BaseModel):
    """Whether a destination answers."""

    answers: bool
    what: str
    remedy: str
    took_ms: int


class Finding(BaseModel):
    """One thing that the doctor looked at."""

    verdict: Verdict
    about: str
    what: str
    remedy: str


def routes(node: Node) -> APIRouter:
    """Of the three books, then what only one of them has."""
    router = APIRouter()
    for kind in Kind:
        _shelf(router, node, kind)
    _rules(router, node)
    _sources(router, node)

    @router.post("/destinations/{name}/echo", tags=["destinations"], responses=may_answer(404, 409))
    def echo_(name: Name) -> Echo:
        """Ask a destination whether it answers."""
        return echo(node, name)

    @router.post("/destinations/{name}/examine", tags=["destinations"], responses=may_answer(404, 409))
    def examine_(name: Name) -> list[Finding]:
        """What the doctor says of a destination: name, port, TLS, AE titles, each SOP class of our results."""
        return [Finding(**asdict(one)) for one in examine(node, name)]

    return router


def page_of(one: revisions.Revision) -> RevisionPage:
    """A revision in full."""
    entries = [dict(entry) for entry in one.body]
    return RevisionPage(**views.revision(one), entries=entries, text=revise.export(one))


def _shelf(router: APIRouter, node: Node, kind: Kind) -> None:
    tags: list[Any] = [str(kind)]

    @router.get(f"/{kind}", tags=tags, responses=may_answer(404), name=f"{kind}_in_force")
    def in_force(revision: Wanted = None) -> RevisionPage:
        """What is in force, or was by an older revision."""
        with reading(node.engine) as connection:
            if revision is None:
                return page_of(revisions.current(connection, kind))
            return page_of(revisions.find(connection, kind, revision))

    @router.get(f"/{kind}/history", tags=tags, responses=may_answer(), name=f"{kind}_history")
    def history() -> list[RevisionLine]:
        """All revisions, the newest first: who, when and why."""
        with reading(node.engine) as connection:
            return [RevisionLine(**views.revision(one)) for one in revisions.list_(connection, kind)]

    @router.get(f"/{kind}/diff", tags=tags, responses=may_answer(404), name=f"{kind}_diff")
    def diff(old: Annotated[int, Query(ge=1, le=2**31)], new: Wanted = None) -> Difference:
        """What a later revision says otherwise than an older one."""
        with reading(node.engine) as connection:
            before = revisions.find(connection, kind, old)
            later = revisions.current(connection, kind) if new is None else revisions.find(connection, kind, new)
        found = revise.difference(before, later)
        return Difference(
            added=list(found.added), removed=list(found.removed), changed=list(found.changed), lines=list(found.lines)
        )

    @router.post(f"/{kind}/lint", tags=tags, responses=may_answer(), name=f"lint_{kind}")
    def lint(document: Text) -> list[FaultLine]:
        """Every fault of a document with line and column; changes nothing."""
        return faults_of(node, kind, document.text)

    @router.post(f"/{kind}", tags=tags, responses=may_answer(409), name=f"import_{kind}")
    def import_(document: Import, person: Asking) -> RevisionPage:
        """Put a document in force as the next revision, or name every fault and change nothing."""
        with writing(node.engine) as connection:
            made = revise.import_(
                connection, document.text, f"{kind}.yaml", author=person.who, note=document.note, kind=kind
            )
        return page_of(made)

    @router.post(f"/{kind}/rollback", tags=tags, responses=may_answer(404), name=f"roll_{kind}_back")
    def rollback(wanted: Rollback, person: Asking) -> RevisionPage:
        """Put an older revision in force again, as a new one."""
        with writing(node.engine) as connection:
            made = revise.rollback(connection, kind, wanted.number, author=person.who, why=wanted.reason)
        return page_of(made)


def faults_of(node: Node, kind: Kind, text: str) -> list[FaultLine]:
    """Everything that is wrong with a document of this kind."""
    with reading(node.engine) as connection:
        known = revise.known(connection)
    try:
        found, _ = rulebook.parse(text, f"{kind}.yaml", known=known)
    except WrongFile as problem:
        return [FaultLine(line=f.line, column=f.column, where=f.where, message=f.message) for f in problem.faults]
    said = f"this document holds {found}, not {kind}"
    return [] if found is kind else [FaultLine(line=1, column=1, where="", message=said)]


def _rules(router: APIRouter, node: Node) -> None:
    @router.post("/rules/promote", tags=["rules"], responses=may_answer(404))
    def promote(wanted: Promotion, person: Asking) -> RevisionPage:
        """Give one rule another mode, such as shadow to on."""
        with writing(node.engine) as connection:
            made = revise.promote(
                connection, wanted.name, author=person.who, mode=wanted.mode, why=wanted.reason
            )  # fmt: skip
        return page_of(made)

    @router.post("/rules/test", tags=["rules"], responses=may_answer(404))
    def test(
        files: Annotated[list[UploadFile], File(max_length=200, description="DICOM files")],
        revision: Wanted = None,
    ) -> dict[str, Any]:
        """What the rules would decide on these files: facts, verdicts, the first failing condition. Keeps nothing."""
        with reading(node.engine) as connection:
            kept = revisions.current(connection, Kind.RULES) if revision is None else None
            if revision is not None:
                kept = revisions.find(connection, Kind.RULES, revision)
        assert kept is not None
        return tried([one.file.read(LARGEST_FILE) for one in files], kept.body)

    @router.post("/rules/backtest", tags=["rules"], responses=may_answer(404))
    def past(document: Past) -> dict[str, Any]:
        """Which past studies these rules would have routed otherwise than those in force. Changes nothing."""
        return time_machine(node, document.text, document.days).as_json()

    @router.get("/rules/shadow", tags=["rules"], responses=may_answer())
    def shadow(
        name: Annotated[str, Query(min_length=1, max_length=80, pattern=NoControl)],
        days: Annotated[float, Query(gt=0, le=3650)] = 30,
    ) -> ShadowPage:
        """What a rule has come to in shadow in the last days."""
        with reading(node.engine) as connection:
            found = overview.in_shadow(connection, name, now() - round(days * backtest.DAY))
        return ShadowPage(
            studies=found.studies, fired=found.fired, ended=found.ended, refusals=found.refusals,
            sends_to=list(found.sends_to),
        )  # fmt: skip


def time_machine(node: Node, text: str, days: float) -> backtest.Backtest:
    """What these rules would have done otherwise than those in force with the studies of the last days.

    Raises:  WrongRulebook, WrongKind
    """
    with reading(node.engine) as connection:
        kind, body = rulebook.parse(text, "rules.yaml", known=revise.known(connection))
        if kind is not Kind.RULES:
            raise revise.WrongKind(f"this document holds {kind}, not rules", remedy="Begin it with rules:")
        old = revisions.current(connection, Kind.RULES)
        return backtest.run(connection, rulebook.rules(body), rulebook.rules(old.body), days=days)


def tried(contents: list[bytes], body: rulebook.Body) -> dict[str, Any]:
    """The verdicts of these rules on these DICOM files, which are kept nowhere.

    Raises:  NothingToTest
    """
    with tempfile.TemporaryDirectory(prefix="isocenter-trial-") as folder:
        paths = []
        for number, content in enumerate(contents):
            paths.append(Path(folder) / f"{number}.dcm")
            paths[-1].write_bytes(content)
        done = trial.on_files(paths, rulebook.rules(body))
        return {"studies": done.as_json()["studies"], "skipped": len(done.skipped)}


def _sources(router: APIRouter, node: Node) -> None:
    @router.get("/sources/seen", tags=["sources"], responses=may_answer())
    def seen() -> list[CallerLine]:
        """Callers that were turned away, the last one first, and why."""
        with reading(node.engine) as connection:
            found = callers.seen(connection)
        return [
            CallerLine(
                ae_title=one.calling_ae_title,
                address=one.address,
                attempts=one.attempts,
                last_seen=views.utc(one.last_seen_at),
                reason=one.reason,
            )
            for one in found
        ]

    @router.post("/sources/accept", tags=["sources"], responses=may_answer())
    def accept(wanted: Newcomer, person: Asking) -> RevisionPage:
        """Let a caller send from now on."""
        with writing(node.engine) as connection:
            made = revise.accept_source(connection, wanted.ae_title, wanted.address, author=person.who)
            callers.forget(connection, wanted.ae_title, wanted.address)
        return page_of(made)


def echo(node: Node, name: str) -> Echo:
    """Whether this destination answers now.

    Raises:  NotInTheBook
    """
    settings = _destination(node, name)
    delivery = node.settings.delivery
    context = Context(
        calling_ae_title=ae_title(delivery.calling_ae_title or node.settings.ae_title),
        timeout_s=delivery.timeout_s,
        tls=node.settings.tls,
    )
    began = time.monotonic()
    said = Echo(answers=True, what=f"{name} answers", remedy="", took_ms=0)
    try:
        ways_out.find(settings.kind).echo(settings, context)
    except (Unreachable, Rejected) as problem:
        said = Echo(answers=False, what=problem.what, remedy=problem.remedy, took_ms=0)
    return said.model_copy(update={"took_ms": round((time.monotonic() - began) * 1000)})


def examine(node: Node, name: str) -> list[Diagnosis]:
    """What `isocenter doctor` says of this destination.

    Raises:  NotInTheBook
    """
    settings = _destination(node, name)
    with reading(node.engine) as connection:
        known = rulebook.sources(revisions.current(connection, Kind.SOURCES).body)
    return list(world.destination(node.settings, settings, {one.ae_title for one in known}))


def _destination(node: Node, name: str) -> ways_out.Destination:
    """The settings of a destination in force.

    Raises:  NotInTheBook
    """
    with reading(node.engine) as connection:
        body = revisions.current(connection, Kind.DESTINATIONS).body
    revise.entry_of([dict(entry) for entry in body], Kind.DESTINATIONS, name)
    (found,) = (one for one in rulebook.destinations(body) if one.name == name)
    return found
