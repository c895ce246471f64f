"""A node with users of every role and an open window; requests go through the whole application."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import select

from router import passwords
from router.config import Settings, absolute
from router.db import accounts, node, tokens
from router.db.engine import connect, reading, writing
from router.db.migrate import upgrade
from router.db.tables import audit
from router.domain.access import Role, Scope
from router.node import Node
from router.store import Store
from router.wake import Bell
from router.web import server as application
from tests.conftest import until

PASSWORD = "a long enough sentence"
KEPT = passwords.hashed(PASSWORD, name="")


def new_node(folder: Path, **settings: Any) -> Node:
    """A node of its own in this folder, with one user of each role, whose name is the role's."""
    (folder / "store").mkdir(parents=True, exist_ok=True)
    made = absolute(Settings.model_validate(settings), folder)
    engine = connect(made.database.url)
    upgrade(engine)
    number = node.create(engine)
    with writing(engine) as connection:
        for role in Role:
            accounts.add(connection, str(role), role, KEPT, who="test")
    return Node(
        node_id=number,
        settings=made,
        engine=engine,
        store=Store(made.storage.path),
        bell=Bell(made.run_path / "wake"),
    )


@dataclass
class Window:
    """The application on its node."""

    node: Node
    url: str
    clients: list[httpx.Client] = field(default_factory=list)

    def bare(self, **headers: str) -> httpx.Client:
        """A client with these headers alone, that follows no redirect."""
        made = httpx.Client(base_url=self.url, headers=headers, timeout=30)
        self.clients.append(made)
        return made

    def client(self, **headers: str) -> httpx.Client:
        """A browser that is on a page of ours."""
        return self.bare(origin=self.url, **headers)

    def log_in(self, name: str, password: str = PASSWORD) -> httpx.Client:
        """A browser of this user."""
        client = self.client()
        answer = client.post("/login", data={"name": name, "password": password})
        assert answer.status_code == 303, answer.text
        return client

    def program(self, *scopes: Scope) -> httpx.Client:
        """A program with a token of these scopes."""
        secret = passwords.secret()
        with writing(self.node.engine) as connection:
            tokens.add(connection, f"t{secret[:8]}", passwords.digest(secret), scopes, who="test")
        return self.bare(authorization=f"Bearer {secret}")

    def acts(self) -> list[tuple[str, str]]:
        """Who did what, by the audit."""
        with reading(self.node.engine) as connection:
            return [(row.who, row.act) for row in connection.execute(select(audit).order_by(audit.c.id))]


@contextmanager
def served(made: Node) -> Iterator[Window]:
    """The window of this node, open on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(application.running(made, console=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        window = Window(node=made, url=f"http://127.0.0.1:{listening.getsockname()[1]}")
        try:
            until(lambda: server.started, what="the window's opening")
            yield window
        finally:
            for client in window.clients:
                client.close()
            server.should_exit = True
            thread.join()


@contextmanager
def opened(folder: Path, **settings: Any) -> Iterator[Window]:
    """An open window on a new node."""
    made = new_node(folder, **settings)
    with served(made) as window:
        yield window
    made.engine.dispose()


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Window]:
    with opened(tmp_path) as made:
        yield made
