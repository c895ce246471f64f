"""Users and tokens; and who is asking."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from router import passwords, views
from router.db import accounts, tokens
from router.db.engine import reading, writing
from router.domain.access import USER_NAME, Role, Scope
from router.node import Node
from router.web.api.words import Asking, Name, NoControl, may_answer

UserName = Annotated[str, Field(pattern=f"^{USER_NAME.pattern}$", description="In small letters")]


class Me(BaseModel):
    """Who is asking, and what they may."""

    name: str
    role: Role | None
    scopes: list[Scope]


class UserLine(BaseModel):
    """A user in a list."""

    name: str
    role: Role
    created: str
    password_set: str


class Secret(BaseModel):
    """A secret that is shown this once."""

    name: str
    secret: str


class NewUser(BaseModel):
    """A new user; a password is made up and answered."""

    name: UserName
    role: Role


class NewRole(BaseModel):
    """Another role."""

    role: Role


class TokenLine(BaseModel):
    """A token in a list."""

    name: str
    scopes: list[Scope]
    created_by: str
    created: str
    expires: str
    used: str


class NewToken(BaseModel):
    """A new token."""

    name: str = Field(min_length=1, max_length=80, pattern=NoControl)
    scopes: list[Scope] = Field(min_length=1, max_length=len(Scope))
    days: float | None = Field(None, gt=0, le=36_500)


def routes(node: Node) -> APIRouter:
    """Of people and programs."""
    router = APIRouter(tags=["users"])

    @router.get("/me", responses=may_answer())
    def me(person: Asking) -> Me:
        """Who is asking, and what they may."""
        return Me(name=person.name, role=person.role, scopes=sorted(person.scopes))

    _users(router, node)
    _tokens(router, node)
    return router


def _users(router: APIRouter, node: Node) -> None:
    @router.get("/users", responses=may_answer())
    def list_users() -> list[UserLine]:
        """All users by name."""
        with reading(node.engine) as connection:
            found = accounts.list_(connection)
        return [
            UserLine(
                name=one.name,
                role=one.role,
                created=views.utc(one.created_at),
                password_set=views.utc(one.password_at),
            )
            for one in found
        ]

    @router.post("/users", responses=may_answer(409))
    def add_user(wanted: NewUser, person: Asking) -> Secret:
        """A new user with a password that is made up, and shown this once."""
        secret = passwords.made()
        kept = passwords.hashed(secret, name=wanted.name)
        with writing(node.engine) as connection:
            accounts.add(connection, wanted.name, wanted.role, kept, who=person.who)
        return Secret(name=wanted.name, secret=secret)

    @router.post("/users/{name}/password", responses=may_answer(404))
    def new_password(name: Name, person: Asking) -> Secret:
        """Another password, made up and shown this once; all browsers of the user have to log in again."""
        secret = passwords.made()
        kept = passwords.hashed(secret, name=name)
        with writing(node.engine) as connection:
            accounts.set_password(connection, name, kept, who=person.who)
        return Secret(name=name, secret=secret)

    @router.post("/users/{name}/role", responses=may_answer(404, 409), status_code=204)
    def new_role(name: Name, wanted: NewRole, person: Asking) -> None:
        """Another role, in force at once."""
        with writing(node.engine) as connection:
            accounts.set_role(connection, name, wanted.role, who=person.who)

    @router.delete("/users/{name}", responses=may_answer(404, 409), status_code=204)
    def remove_user(name: Name, person: Asking) -> None:
        """Remove a user; their browsers are logged out at once."""
        with writing(node.engine) as connection:
            accounts.remove(connection, name, who=person.who)


def _tokens(router: APIRouter, node: Node) -> None:
    @router.get("/tokens", responses=may_answer())
    def list_tokens() -> list[TokenLine]:
        """All tokens by name, never their secrets."""
        with reading(node.engine) as connection:
            found = tokens.list_(connection)
        return [
            TokenLine(
                name=one.name,
                scopes=list(one.scopes),
                created_by=one.created_by,
                created=views.utc(one.created_at),
                expires=views.utc(one.expires_at),
                used=views.utc(one.used_at),
            )
            for one in found
        ]

    @router.post("/tokens", responses=may_answer(409))
    def add_token(wanted: NewToken, person: Asking) -> Secret:
        """A new token, whose secret is shown this once."""
        secret = passwords.secret()
        with writing(node.engine) as connection:
            tokens.add(
                connection, wanted.name, passwords.digest(secret), wanted.scopes, who=person.who, days=wanted.days
            )
        return Secret(name=wanted.name, secret=secret)

    @router.delete("/tokens/{name}", responses=may_answer(404), status_code=204)
    def remove_token(name: Name, person: Asking) -> None:
        """Make a token worthless, at once."""
        with writing(node.engine) as connection:
            tokens.remove(connection, name, who=person.who)
