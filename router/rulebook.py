"""Rules, sources and destinations: their forms, read from YAML with every fault at its line, and what they mean.

A document has one key, the name of its kind, with a list under it: `rules:`, `sources:` or `destinations:`. What the
database keeps of it (`router.db.revisions`) is that list as plain JSON, as it was written.
"""

import hmac
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, create_model, model_validator

from dicom_sr.problem import Problem
from pipelines import catalog
from pipelines.spec import Spec
from router import destinations as ways_out
from router import document
from router.conditions import Complaint, Reader, never_reached, unknown_keyword, vr_of
from router.config import AETitle, Port, Section
from router.db.revisions import Kind
from router.destinations import Destination
from router.document import Document, Loc, suggestion
from router.domain import heartbeat
from router.domain.body_part import OnConflict
from router.domain.condition import named_modalities
from router.domain.rules import Mode, Preference, Priority, Rule, Scope, Take, Wanted
from router.errors import Fault, WrongRulebook
from router.starter import starter as starter

MISTYPED = 0.85
"""Names more alike than this are one name, mistyped: ct_lungs and ct_lung, but not ct_abdomen and ct_bone."""

Body = Sequence[Mapping[str, Any]]
"""What a revision holds: its entries, as they were written."""


def network(value: str) -> str:
    """An IP address, a network such as 10.1.0.0/16, or "any"."""
    if value != "any":
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise ValueError('an address is an IP address, a network such as 10.1.0.0/16, or "any"') from None
    return value


class UnreadablePasscode(Problem):
    """A file that holds a source's passcode cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Whom a caller says to be.  Source: PS3.7 D.3.3.7 (User Identity Negotiation), types 1 and 2."""

    name: str
    passcode: str = field(default="", repr=False)


class CountAt(Section):
    """An archive that answers C-FIND at SERIES level."""

    ae_title: AETitle = Field(description="Its AE title")
    host: str = Field(min_length=1, description="Its name or address")
    port: Port = Field(description="Its TCP port")


class Source(Section):
    """Who may send to us, and when what it sent counts as complete."""

    ae_title: AETitle = Field(description="Its calling AE title; letter case matters, outer blanks do not")
    addresses: list[Annotated[str, AfterValidator(network)]] = Field(
        min_length=1, description='IP addresses or networks it calls from; "any" for all'
    )
    certificate_names: list[Annotated[str, Field(min_length=1)]] = Field(
        [],
        description="Names of which its TLS certificate must have one (SubjectAltName, or common name); "
        "with any here, a connection without TLS is not this source",
    )
    username: str | None = Field(None, min_length=1, description="User that it must give in user identity negotiation")
    passcode_file: Path | None = Field(None, description="File on the node that holds the user's passcode")
    services: list[Literal["store", "echo", "query", "retrieve", "commit", "mpps"]] = Field(
        ["store", "echo"], description="What it may ask for; who may store may not thereby read"
    )
    quiet_period_s: float | None = Field(None, ge=0, description="Silence after its last instance; default: as set")
    series_quiet_period_s: float | None = Field(
        None, ge=0, description="Silence after the last instance of a series; default: quiet_period_s, or as learned"
    )
    deadline_s: float | None = Field(None, gt=0, description="Longest wait after its first instance; default: as set")
    at_deadline: Literal["decide", "hold"] | None = Field(
        None, description="What happens then: decide with what is there, or hold for a person; default: as set"
    )
    witnesses: list[Literal["announced", "series", "every_series", "mpps", "commitment", "count"]] = Field(
        ["announced", "mpps"],
        description="What proves completeness without waiting: announced is NumberOfStudyRelatedInstances, "
        "series is that a series gives its size, every_series that the study is complete when every series that has "
        "come is (right where all come at once, or there is but one), mpps is that all steps of the study are over and "
        "name all, commitment is a storage commitment request that names all, count is a C-FIND at count_at that "
        "twice gives what has come",
    )
    count_at: CountAt | None = Field(None, description="Archive to be asked; with the witness count")
    commits: Literal["never", "archived"] = Field(
        "never",
        description="When its requests for storage commitment (service commit) are answered as committed: never, or "
        "archived, which is when the file, read again, is what was received, and a destination to which it was "
        "forwarded has committed to keep it",
    )
    notes: str = Field("", description="For people")

    @model_validator(mode="after")
    def _can_count(self) -> "Source":
        if ("count" in self.witnesses) != (self.count_at is not None):
            raise ValueError("the witness count and count_at go together")
        return self

    @model_validator(mode="after")
    def _has_a_user(self) -> "Source":
        if self.passcode_file is not None and self.username is None:
            raise ValueError("passcode_file needs a username")
        return self

    def admits(
        self, ae_title: str, address: str, certificate_names: Collection[str] = (), user: User | None = None
    ) -> bool:
        """Whether a caller with this AE title, IP address, verified certificate and user is this source.

        Raises:  UnreadablePasscode
        """
        return (
            ae_title.strip(" ") == self.ae_title
            and self.calls_from(address)
            and self.is_named(certificate_names)
            and self.is_user(user)
        )

    def is_user(self, user: User | None) -> bool:
        """Whether this is the user, with the passcode, that this source must give.

        Raises:  UnreadablePasscode
        """
        if self.username is None:
            return True
        if user is None or user.name != self.username:
            return False
        if self.passcode_file is None:
            return True
        try:
            passcode = self.passcode_file.read_text().strip()
        except (OSError, UnicodeError) as error:
            raise UnreadablePasscode(
                f"source {self.ae_title}: passcode_file {self.passcode_file} cannot be read",
                remedy="Give the node a file that its user may read, or take passcode_file out of the source",
            ) from error
        return hmac.compare_digest(passcode.encode(), user.passcode.encode())

    def is_named(self, certificate_names: Collection[str]) -> bool:
        """Whether a verified certificate with these names is the one that this source must show."""
        shown = {name.casefold() for name in certificate_names}
        return not self.certificate_names or any(name.casefold() in shown for name in self.certificate_names)

    def calls_from(self, address: str) -> bool:
        """Whether this IP address is one of this source's."""
        caller = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(caller, "ipv4_mapped", None)  # ::ffff:10.0.0.1 is 10.0.0.1 on a socket for both
        return any(
            allowed == "any" or (mapped or caller) in ipaddress.ip_network(allowed, strict=False)
            for allowed in self.addresses
        )


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class PipelineForm(Section):
    """A pipeline as a rule names it: its name alone, or with settings."""

    name: str
    settings: dict[str, Any] = Field({}, description="What differs from the pipeline's defaults")


class TakeForm(Section):
    """Which series of the study a study-level rule takes."""

    when: Any = Field(description="Condition on one series")
    prefer: list[dict[str, Literal["lowest", "highest"] | list[str | float]]] = Field(
        [], description="Order among those that fit, such as [{SliceThickness: lowest}, {kernel: [soft, sharp]}]"
    )
    most: int = Field(1, ge=1, description="At most so many")


class RuleForm(Section):
    """A rule as people write it."""

    name: str = Field(min_length=1, max_length=80, description="What it is called; unique in the rulebook")
    scope: Scope = Field(Scope.SERIES, description="Asked about each series, or about the study as a whole")
    when: Any = Field(description="Condition tree; see router/conditions.py")
    take: TakeForm | None = Field(None, description="For scope study: which series the pipelines get")
    pipelines: list[Annotated[PipelineForm, BeforeValidator(_named)]] = Field([], description="What runs")
    destinations: list[str] = Field([], description="Where results go")
    forward: bool = Field(
        False, description="The study itself goes there as it was received, once it is complete; with scope: study"
    )
    priority: Literal["stat", "routine", "off_peak"] = Field("routine", description="How urgent")
    deadline_min: float | None = Field(
        None, gt=0, description="Results are wanted within so many minutes after the study is complete"
    )
    hold: bool = Field(False, description="Its jobs wait until a person releases them: isocenter jobs release")
    on_conflict: OnConflict = Field(
        OnConflict.TRUST_PIXELS,
        description="What body_part is where BodyPartExamined contradicts what was detected; "
        "hold sees both and lets the job wait for a person",
    )
    mode: Mode = Field(Mode.ON, description="shadow runs and sends nothing; off only says what it would decide")
    stop: bool = Field(False, description="When it fires, later rules are not asked about this series")
    notes: str = Field("", description="For people")


class Rules(Section):
    """A rulebook."""

    on_conflict: OnConflict | None = Field(None, description="For all rules that do not say it themselves")
    rules: list[RuleForm]


class Sources(Section):
    """Known senders."""

    sources: list[Source]


@cache
def form(kind: Kind) -> type[BaseModel]:
    """The model of a whole document of this kind."""
    if kind is Kind.RULES:
        return Rules
    if kind is Kind.SOURCES:
        return Sources
    kinds = [ways_out.find(name).settings for name in ways_out.names()]
    union: Any = Annotated[reduce(or_, kinds), Field(discriminator="kind")] if len(kinds) > 1 else kinds[0]
    return create_model("Destinations", __base__=Section, destinations=(list[union], ...))


def sources(body: Body) -> tuple[Source, ...]:
    """The sources of a revision."""
    return tuple(Sources.model_validate({Kind.SOURCES: body}).sources)


def destinations(body: Body) -> tuple[Destination, ...]:
    """The destinations of a revision, each of its own kind's model."""
    return tuple(form(Kind.DESTINATIONS).model_validate({Kind.DESTINATIONS: body}).destinations)  # type: ignore[attr-defined]


def rules(body: Body) -> tuple[Rule, ...]:
    """The rules of a revision, in their order, patterns compiled.

    Raises:  WrongRulebook, when this program no longer understands what an older one has kept
    """
    reader = Reader()
    entries = Rules.model_validate({Kind.RULES: body}).rules
    made = tuple(_rule(one, reader, ("rules", index)) for index, one in enumerate(entries))
    if reader.complaints:
        page = Document(name="the rulebook in the database", value=body, root=None)
        raise WrongRulebook(page.fault(one.loc, one.message) for one in reader.complaints)
    return made


def in_full(kind: Kind, body: Body) -> list[dict[str, Any]]:
    """The entries of a revision with every setting, also those that are as by default.

    Raises:  WrongRulebook, when this program no longer understands what an older one has kept
    """
    model = form(kind)
    try:
        entries: list[dict[str, Any]] = model.model_validate({kind: body}).model_dump(mode="json")[kind]
    except ValidationError as error:
        page = Document(name=f"the {kind} in the database", value=body, root=None)
        raise WrongRulebook(page.faults(error, model)) from None
    return entries


HEARTBEAT = Source(ae_title=heartbeat.AE_TITLE, addresses=["127.0.0.1", "::1"], services=["store"], quiet_period_s=0)
"""Who sends the heartbeat's phantom, all of it on one association."""


@cache
def heartbeat_rules() -> tuple[Rule, ...]:
    """What the heartbeat's phantom is asked, instead of the rules in force."""
    return rules([heartbeat.RULE])


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a document may refer to. `destinations` is None where it is not known, `used` are those that rules name."""

    pipelines: Mapping[str, Spec] = field(
        default_factory=lambda: {name: catalog.find(name).spec for name in catalog.names()}
    )
    destinations: frozenset[str] | None = None
    used: frozenset[str] = frozenset()


def read(path: Path, *, known: Known | None = None) -> tuple[Kind, Body]:
    """A document's kind and body from a YAML file.

    Raises:  UnreadableFile, WrongRulebook with every fault
    """
    return accept(document.read(path, wrong=WrongRulebook), known or Known())


def parse(text: str, name: str, *, known: Known | None = None) -> tuple[Kind, Body]:
    """A document's kind and body from YAML text; `name` stands in the faults.

    Raises:  WrongRulebook with every fault
    """
    return accept(document.parse(text, name, wrong=WrongRulebook), known or Known())


def entries(kind: Kind, text: str) -> list[dict[str, Any]]:
    """The entries of a document that is still being written: whatever in it is YAML, right or wrong.

    Raises:  WrongRulebook, when it is no YAML
    """
    value = document.parse(text, "the text", wrong=WrongRulebook).value
    found = value.get(str(kind)) if isinstance(value, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def accept(page: Document, known: Known) -> tuple[Kind, Body]:
    """The document's kind and body when nothing is wrong with it.

    Raises:  WrongRulebook with every fault
    """
    kind = _kind_of(page)
    faults = list(lint(kind, page, known))
    if faults:
        raise WrongRulebook(dict.fromkeys(faults))
    return kind, _each_by_itself(page.value, kind)


def _each_by_itself(value: Mapping[str, Any], kind: Kind) -> Body:
    """The entries, each with what the document says once for all of them."""
    entries: Body = value[kind]
    common = {key: value[key] for key in value if key != kind and value[key] is not None}
    return [{**entry, **{key: said for key, said in common.items() if key not in entry}} for entry in entries]


def lint(kind: Kind, page: Document, known: Known) -> Iterator[Fault]:
    """Everything that is wrong with a document of this kind."""
    model = form(kind)
    try:
        read_as = model.model_validate(page.value)
    except ValidationError as error:
        yield from page.faults(error, model)
        read_as = None
    entries = page.value.get(kind)
    entries = entries if isinstance(entries, list) else []
    yield from _twice(page, kind, entries)
    if kind is Kind.RULES:
        yield from _lint_conditions(page, entries)
        for index, entry in enumerate(entries):
            if isinstance(entry, Mapping):
                yield from _lint_references(page, ("rules", index), entry, known)
        if isinstance(read_as, Rules):
            yield from _lint_sense(page, read_as, known)
    elif kind is Kind.DESTINATIONS:
        kept = {entry.get("name") for entry in entries if isinstance(entry, Mapping)}
        for name in sorted(known.used - kept):
            yield page.fault(("destinations",), f"the rules in force send to {name}, which is missing here")


def write(kind: Kind, body: Body) -> str:
    """A document as YAML, as people write it."""
    return yaml.dump(
        {str(kind): list(body)},
        Dumper=_Plain,
        sort_keys=False,
        allow_unicode=True,
        width=110,
        default_flow_style=None,
    )


class _Plain(yaml.SafeDumper):
    """Writes everything out, as it has to be read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _kind_of(page: Document) -> Kind:
    keys = list(page.value) if isinstance(page.value, Mapping) else []
    for kind in Kind:
        if kind in keys:
            return kind
    near = suggestion(str(keys[0]), Kind) if keys else ""
    raise WrongRulebook([page.fault((), f"the document begins with rules:, sources: or destinations:{near}")])


def _twice(page: Document, kind: Kind, entries: list[Any]) -> Iterator[Fault]:
    """Names that stand twice; two sources may share an AE title when they call from different addresses."""
    key = "ae_title" if kind is Kind.SOURCES else "name"
    seen: list[Any] = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or key not in entry:
            continue
        mark = (entry[key], entry.get("addresses")) if kind is Kind.SOURCES else entry[key]
        if mark in seen:
            yield page.fault((kind, index, key), f"{entry[key]} stands here twice")
        seen.append(mark)


def _lint_conditions(page: Document, entries: list[Any]) -> Iterator[Fault]:
    reader = Reader()
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            continue
        if "when" in entry:
            reader.condition(entry["when"], ("rules", index, "when"))
        take = entry.get("take")
        if isinstance(take, Mapping):
            reader.condition(take.get("when"), ("rules", index, "take", "when"))
            reader.complaints += _lint_prefer(take.get("prefer"), ("rules", index, "take", "prefer"))
    for one in reader.complaints:
        yield page.fault(one.loc, one.message, at_key=one.at_key)


def _lint_prefer(prefer: Any, loc: Loc) -> Iterator[Complaint]:
    for index, step in enumerate(prefer if isinstance(prefer, list) else []):
        for keyword in step if isinstance(step, Mapping) else ():
            if vr_of(str(keyword)) is None:
                yield Complaint((*loc, index, keyword), unknown_keyword(str(keyword)), at_key=True)


def _lint_references(page: Document, loc: Loc, entry: Mapping[str, Any], known: Known) -> Iterator[Fault]:
    """Pipelines with their settings, and destinations, that do not exist."""
    pipelines = entry.get("pipelines")
    met: set[str] = set()
    for index, wanted in enumerate(pipelines if isinstance(pipelines, list) else []):
        place = (*loc, "pipelines", index)
        name = wanted if isinstance(wanted, str) else wanted.get("name") if isinstance(wanted, Mapping) else None
        if name in met:
            yield page.fault(place, f"{name} stands here twice; write a second rule to run it with other settings")
        if isinstance(name, str):
            met.add(name)
        if isinstance(name, str) and name not in known.pipelines:
            planned = entry.get("mode") == Mode.OFF and not suggestion(name, known.pipelines, cutoff=MISTYPED)
            if not planned:  # a rule that runs nothing may name what is not installed yet
                yield page.fault(place, _unknown("pipeline", name, known.pipelines))
        elif isinstance(wanted, Mapping) and isinstance(name, str):
            model = known.pipelines[name].settings
            try:
                model.model_validate(wanted.get("settings") or {})
            except ValidationError as error:
                yield from page.faults(error, model, below=(*place, "settings"))
    names = entry.get("destinations")
    for index, name in enumerate(names if isinstance(names, list) else []):
        if known.destinations is not None and isinstance(name, str) and name not in known.destinations:
            yield page.fault((*loc, "destinations", index), _unknown("destination", name, known.destinations))


def _unknown(what: str, name: str, names: Iterable[str]) -> str:
    have = ", ".join(sorted(names)) or "none"
    return f"there is no {what} {name}{suggestion(name, names)} (there is: {have})"


def _lint_sense(page: Document, book: Rules, known: Known) -> Iterator[Fault]:
    """What each part allows and the whole does not: rules that do nothing, or that nothing ever reaches."""
    taken: list[Rule] = []
    for index, one in enumerate(book.rules):
        loc: Loc = ("rules", index)
        rule = _rule(one, Reader(), loc)
        if not rule.pipelines and not rule.stop and not rule.forward:
            yield page.fault(loc, "this rule runs nothing and stops nothing; name a pipeline")
        if rule.forward and rule.scope is not Scope.STUDY:
            yield page.fault(loc, "`forward` sends whole studies: write scope: study")
        if rule.forward and not rule.destinations:
            yield page.fault(loc, "this rule forwards studies to nowhere; name a destination")
        if rule.pipelines and not rule.destinations and rule.mode is Mode.ON:
            yield page.fault(loc, "the results of this rule go nowhere; name a destination, or set mode: shadow")
        if (rule.take is None) != (rule.scope is Scope.SERIES) and rule.pipelines:
            yield page.fault(loc, "`take` says which series of the study to use: with scope: study, and only there")
        yield from _lint_modalities(page, loc, rule, known)
        for earlier in taken:
            if earlier.scope is rule.scope and never_reached(rule.when, earlier.when):
                yield page.fault(loc, f"never reached: {earlier.name} stops everything that this rule would match")
                break
        if rule.stop and rule.mode is Mode.ON:
            taken.append(rule)


def _lint_modalities(page: Document, loc: Loc, rule: Rule, known: Known) -> Iterator[Fault]:
    named = named_modalities(rule.take.when if rule.take else rule.when)
    for index, wanted in enumerate(rule.pipelines):
        spec = known.pipelines.get(wanted.pipeline)
        if spec is not None and named and not named & set(spec.modalities):
            yield page.fault(
                (*loc, "pipelines", index),
                f"{wanted.pipeline} reads {', '.join(spec.modalities)}, this rule asks for {', '.join(sorted(named))}",
            )


def _rule(one: RuleForm, reader: Reader, loc: Loc) -> Rule:
    take = one.take
    return Rule(
        name=one.name,
        scope=one.scope,
        when=reader.condition(one.when, (*loc, "when")),
        take=None
        if take is None
        else Take(
            when=reader.condition(take.when, (*loc, "take", "when")),
            prefer=tuple(
                Preference(keyword=keyword, order=tuple(order) if isinstance(order, list) else order)
                for step in take.prefer
                for keyword, order in step.items()
            ),
            most=take.most,
        ),
        pipelines=tuple(Wanted(pipeline=wanted.name, settings=wanted.settings) for wanted in one.pipelines),
        destinations=tuple(one.destinations),
        priority=Priority[one.priority.upper()],
        mode=one.mode,
        stop=one.stop,
        hold=one.hold,
        forward=one.forward,
        on_conflict=one.on_conflict,
        deadline_min=one.deadline_min,
        notes=one.notes,
    )
