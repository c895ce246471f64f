"""Pipelines with their model cards, users with their tokens, and the node's health."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import Request
from nicegui import ui

from pipelines import catalog
from router import passwords
from router.db import accounts, associations, outcomes, overview, tokens
from router.db.accounts import Account
from router.db.associations import Association
from router.db.engine import now, reading, writing
from router.db.tokens import Token
from router.domain.access import SECOND, Role, Scope
from router.domain.spread import Spread
from router.web.api.people import NewUser
from router.web.console.desk import PATIENCE_S, Desk, House
from router.web.console.parts import Words, box, button, card, choice, field, tile
from router.web.console.rows import table

QUARTER = 90 * 86_400 * SECOND


def add_to(house: House) -> None:
    """All three pages."""

    @ui.page("/pipelines", response_timeout=PATIENCE_S)
    async def pipelines(request: Request) -> None:
        desk = house.desk(request)
        with desk.page("Pipelines", "/pipelines"):
            await desk.living(lambda: ran(desk), cards)

    @ui.page("/users", response_timeout=PATIENCE_S)
    async def users(request: Request) -> None:
        desk = house.desk(request)
        with desk.page("Users", "/users"):
            _new_user(desk)
            await desk.living(lambda: _people(desk), lambda found: people(desk, *found))

    @ui.page("/node", response_timeout=PATIENCE_S)
    async def health(request: Request) -> None:
        desk = house.desk(request)
        with desk.page("Health", "/node"):
            await desk.living(lambda: _connected(desk), lambda found: node(desk, found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What pipelines have come to here: counts since ever, the rest of a quarter of a year."""

    runs: dict[str, dict[str, int]]
    took: dict[str, Spread]
    refusals: dict[str, list[tuple[str, int]]]
    results: dict[str, dict[tuple[str, str], dict[str, Spread]]]


def ran(desk: Desk) -> Ran:
    """What pipelines have come to."""
    since = now() - QUARTER
    with reading(desk.node.engine) as connection:
        return Ran(
            runs=overview.runs(connection),
            took=outcomes.took(connection, since),
            refusals=outcomes.refusals(connection, since),
            results=outcomes.distributions(connection, since),
        )


def numbers(name: str, seen: Ran) -> None:
    """How often a pipeline ran, how long, why it refused, and how its results are distributed."""
    ended = ", ".join(f"{count} {end}" for end, count in sorted(seen.runs.get(name, {}).items()))
    Words("p", f"Runs here: {ended or 'none yet'}.", "soft")
    if name in seen.took:
        Words("p", f"A run took {seen.took[name]} s in the last 90 days: the median, and nine of ten.", "soft")
    for reason, count in seen.refusals.get(name, ())[:5]:
        Words("p", f"Refused {count} times: {reason}", "soft")
    if name not in seen.results:
        return
    with box("details"):
        Words("summary", "Results of the last 90 days, by month and by sender")
        for (what, unit), groups in seen.results[name].items():
            table(
                (what, "Number", f"Median in {unit}", "Nine of ten"),
                [
                    (group, one.count, f"{one.middle:.4g}", f"{one.low:.4g} to {one.high:.4g}")
                    for group, one in groups.items()
                ],
                about=f"{what} of {name}",
                empty="",
            )


def cards(seen: Ran) -> None:
    """The model card of each pipeline, and what it has come to."""
    with box("div", "grid"):
        for name in catalog.names():
            spec = catalog.find(name).spec
            with card(f"{spec.name} {spec.version}"):
                Words("p", spec.title)
                if spec.research_use:
                    Words("p", "Research use only.", "need")
                Words("p", spec.intended_use)
                numbers(name, seen)
                for title, lines in (
                    ("Needs", (*spec.modalities, *spec.needs)),
                    ("Limitations", spec.limitations),
                    ("Segments", [f"{s.label}: {s.type.meaning} ({s.type.value}, {s.type.scheme})"
                                  for s in spec.segments]),
                    ("Measurements", [f"{m.name.meaning} in {m.unit.meaning} ({m.name.value}, {m.name.scheme})"
                                      for m in spec.measurements]),
                ):  # fmt: skip
                    if lines:
                        Words("h3", title)
                        with box("ul"):
                            for line in lines:
                                Words("li", line)
                Words("p", f"Licence {spec.licence}. Weights: {spec.weights_digest or 'none'}.", "soft small mono")


def _people(desk: Desk) -> tuple[list[Account], list[Token]]:
    with reading(desk.node.engine) as connection:
        return accounts.list_(connection), tokens.list_(connection)


def _remove(desk: Desk, one: Token) -> None:
    """The button that takes a token back."""
    button("Remove", lambda: _remove_token(desk, one.name), kind="bad", label=f"Remove token {one.name}")


def people(desk: Desk, users: list[Account], keys: list[Token]) -> None:
    """Users and tokens, each with what can be done about them."""
    with card("Users"):
        table(
            ("Name", "Role", "Password set", ""),
            [(one.name, str(one.role), desk.clock(one.password_at), partial(_user, desk, one)) for one in users],
            about="Users",
            empty="There are no users.",
        )
    with card("Tokens of programs"):
        Words("p", "They are made with `isocenter tokens add`, where the secret is shown once.", "soft small")
        table(
            ("Name", "May", "Made by", "Made", "Expires", "Last used", ""),
            [
                (
                    one.name, ", ".join(map(str, one.scopes)), one.created_by, desk.clock(one.created_at),
                    desk.clock(one.expires_at) or "never", desk.clock(one.used_at) or "never",
                    partial(_remove, desk, one),
                )
                for one in keys
            ],
            about="Tokens",
            empty="There are no tokens.",
        )  # fmt: skip


def _user(desk: Desk, one: Account) -> None:
    def role(word: str) -> Any:
        return desk.act(Scope.ADMINISTER, _writes(desk, accounts.set_role, one.name, Role(word)), "Done")

    with box("div", "row"):
        choice(f"Role of {one.name}", tuple(map(str, Role)), role, value=str(one.role))
        button("New password", lambda: _new_password(desk, one.name), label=f"New password for {one.name}")
        button(
            "Remove",
            lambda: desk.ask(
                f"Remove {one.name}",
                Scope.ADMINISTER,
                lambda who, _: _writes(desk, accounts.remove, one.name)(who),
                then=lambda: None,
            ),
            kind="bad",
            label=f"Remove {one.name}",
        )


def _writes(desk: Desk, act: Callable[..., object], *given: object) -> Callable[[str], bool]:
    def do(who: str) -> bool:
        with writing(desk.node.engine) as connection:
            act(connection, *given, who=who)
        return True

    return do


def _remove_token(desk: Desk, name: str) -> None:
    desk.ask(
        f"Remove token {name}",
        Scope.ADMINISTER,
        lambda who, _: _writes(desk, tokens.remove, name)(who),
        then=lambda: None,
    )


async def _new_password(desk: Desk, name: str) -> None:
    secret = passwords.made()

    def do(who: str) -> bool:
        return _writes(desk, accounts.set_password, name, passwords.hashed(secret, name=name))(who)

    if await desk.act(Scope.ADMINISTER, do):
        _tell(name, secret)


def _tell(name: str, secret: str) -> None:
    with ui.dialog() as dialog, box("div", "card"):
        Words("h2", f"The password of {name}")
        Words("p", "It is shown this once. Hand it over in person.", "soft")
        Words("p", secret, "mono figure")
        button("Close", dialog.close, kind="main")
    dialog.open()


def _new_user(desk: Desk) -> None:
    with card("New user"), box("form", "row") as form:
        name = field("Name, in small letters", value="", autocomplete="off", maxlength="80")
        chosen = [Role.VIEWER]
        choice("Role", tuple(map(str, Role)), lambda word: chosen.__setitem__(0, Role(word)), value="viewer")

        async def add() -> None:
            secret = passwords.made()
            try:
                wanted = NewUser(name=name.value.strip().lower(), role=chosen[0])  # type: ignore[attr-defined]
            except ValueError:
                ui.notify("A name has letters, digits, dots, dashes, and @.", type="warning")
                return

            def do(who: str) -> bool:
                kept = passwords.hashed(secret, name=wanted.name)
                return _writes(desk, accounts.add, wanted.name, wanted.role, kept)(who)

            if await desk.act(Scope.ADMINISTER, do):
                _tell(wanted.name, secret)

        form.on("submit.prevent", lambda _: add())
        Words("button", "Add", "act main").props["type"] = "submit"


def _connected(desk: Desk) -> list[Association]:
    with reading(desk.node.engine) as connection:
        return associations.open_now(connection)


def node(desk: Desk, connected: list[Association]) -> None:
    """Who we are, how full the disk is, who is connected."""
    settings = desk.node.settings
    with box("div", "tiles"):
        tile("AE title", settings.ae_title, f"port {settings.listener.port}")
        tile("Free disk", f"{desk.node.store.free_bytes() / 1e9:.1f} GB",
             f"refused below {settings.storage.refuse_free_gb:g} GB")  # fmt: skip
        tile("Database", desk.node.engine.dialect.name)
        tile("Version", version("isocenter"))
    with card("Connected now"):
        table(
            ("Calling AE title", "Address", "Since", "Images"),
            [(one.calling_ae_title, one.address, desk.clock(one.opened_at), one.instances) for one in connected],
            about="Associations that are open",
            empty="Nobody is connected.",
        )
