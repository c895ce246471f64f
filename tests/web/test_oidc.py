"""Logging in with accounts of another place, by a small OpenID provider that can lie."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from router.db import accounts
from router.db.engine import reading, writing
from router.domain.access import Role
from router.web import oidc
from tests.web.conftest import KEPT, Window, opened

SECRET = "between us and the provider"
HOME = "https://isocenter.example"


@dataclass
class Provider:
    """An OpenID provider on which one person is logged in; `claims` and the rest are what it says of them."""

    url: str = ""
    claims: dict[str, Any] = field(default_factory=lambda: {"preferred_username": "Anna", "groups": ["radiology"]})
    userinfo: dict[str, Any] = field(default_factory=dict)
    key: Any = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1"}))
    signs_with: Any = None
    algorithm: str = "RS256"
    calls_itself: str | None = None
    asked: dict[str, str] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, str]:
        return {
            "issuer": self.calls_itself or self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/keys",
        }

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the browser is sent back to."""
        assert asked["response_type"] == "code"
        assert asked["client_id"] == "isocenter"
        assert asked["redirect_uri"] == f"{HOME}/login/oidc/done"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self.asked = self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.url})}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, str] | None:
        known = base64.b64encode(f"isocenter:{SECRET}".encode()).decode()
        asked = self.codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if authorization != f"Basic {known}" or asked is None or asked["code_challenge"] != challenge.decode():
            return None
        at = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "isocenter",
            "sub": "4711",
            "iat": at,
            "exp": at + 60,
            "nonce": asked["nonce"],
        }
        said = {name: value for name, value in (claims | self.claims).items() if value is not None}
        key = self.signs_with or self.key
        header = {"alg": self.algorithm, "kid": key.kid or "1"}
        return {
            "id_token": jwt.encode(header, said, key, [self.algorithm]),
            "access_token": "t",
            "token_type": "Bearer",
        }


@pytest.fixture(scope="module")
def shared() -> Iterator[Provider]:
    """The one provider of this module."""
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            where = urlsplit(self.path)
            made.fetched.append(where.path)
            if where.path == "/authorize":
                asked = {name: values[0] for name, values in parse_qs(where.query).items()}
                self.send_response(302)
                self.send_header("location", made.authorize(asked))
                self.end_headers()
            elif where.path == "/userinfo":
                self.answer(made.userinfo if self.headers["authorization"] == "Bearer t" else None)
            elif where.path == "/keys":
                self.answer({"keys": [made.key.as_dict(private=False)]})
            else:
                self.answer(made.describe())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self.answer(made.token(form, self.headers["authorization"]))

        def answer(self, said: dict[str, Any] | None) -> None:
            self.send_response(400 if said is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(said or {"error": "invalid_grant"}).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def provider(shared: Provider) -> Provider:
    """It speaks the truth again."""
    plain = Provider(url=shared.url, key=shared.key)
    for name in ("claims", "userinfo", "signs_with", "algorithm", "calls_itself"):
        setattr(shared, name, getattr(plain, name))
    return shared


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory, shared: Provider) -> Iterator[Window]:
    folder = tmp_path_factory.mktemp("window")
    (folder / "oidc.secret").write_text(f"{SECRET}\n")
    settings = {
        "issuer": shared.url, "client_id": "isocenter", "client_secret_file": "oidc.secret", "label": "<b>MIT</b>",
        "viewers": ["radiology", "physics"], "operators": ["pacs"], "admins": ["it"],
    }  # fmt: skip
    with opened(folder, web={"public_url": HOME, "oidc": settings}) as made:
        yield made


def come_back(window: Window, client: httpx.Client, *, goal: str = "/studies") -> httpx.Response:
    """Log in there, up to our own answer; the browser comes back to where the test's window is."""
    sent = client.get("/login/oidc", params={"next": goal})
    assert sent.status_code == 303, sent.text
    back = httpx.get(sent.headers["location"]).headers["location"]
    assert back.startswith(f"{HOME}/login/oidc/done?")
    return client.get(back.removeprefix(HOME), headers={"sec-fetch-site": "cross-site"})


def person(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/api/v1/me").json())


def test_who_logs_in_there_has_the_role_of_their_groups_here(window: Window, provider: Provider) -> None:
    browser = window.client()
    assert "Log in with &lt;b&gt;MIT&lt;/b&gt;" in browser.get("/login").text
    answer = come_back(window, browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/studies")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert (person(browser)["name"], person(browser)["role"]) == ("anna", "viewer")
    assert ("user:anna", "user.logged_in") in window.acts()
    provider.claims |= {"preferred_username": "anna.married", "groups": ["it", "physics"]}
    come_back(window, browser)
    assert (person(browser)["name"], person(browser)["role"]) == ("anna", "admin"), "the same person as before"
    provider.claims["groups"] = "pacs"
    come_back(window, browser)
    assert person(browser)["role"] == "operator"
    with reading(window.node.engine) as connection:
        named = {one.name for one in accounts.list_(connection)}
    assert named & {"anna", "anna.married"} == {"anna"}


def test_groups_may_stand_in_userinfo(window: Window, provider: Provider) -> None:
    provider.claims["groups"] = None
    provider.userinfo = {"sub": "4711", "groups": ["pacs"]}
    browser = window.client()
    assert come_back(window, browser).status_code == 303
    assert person(browser)["role"] == "operator"
    provider.userinfo["sub"] = "4712"
    assert "two people" in come_back(window, window.client()).text


LIES: dict[str, dict[str, Any]] = {
    "another audience": {"aud": "another program"},
    "another issuer": {"iss": "https://evil.example"},
    "another login's nonce": {"nonce": "x"},
    "no nonce": {"nonce": None},
    "expired": {"exp": 1},
    "no end": {"exp": None},
    "nobody": {"sub": None},
    "for several": {"aud": ["isocenter", "other"]},
    "for another of several": {"aud": ["isocenter", "other"], "azp": "other"},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_word_that_is_not_for_this_login_lets_nobody_in(window: Window, provider: Provider, lie: str) -> None:
    provider.claims |= LIES[lie]
    browser = window.client()
    answer = come_back(window, browser)
    assert answer.status_code == 403
    assert "isocenter_session" not in answer.headers.get("set-cookie", "")
    assert browser.get("/api/v1/me").status_code == 401


@pytest.mark.parametrize("forged", ["another key", "our secret as a key", "none"])
def test_a_word_that_the_provider_has_not_signed_lets_nobody_in(
    window: Window, provider: Provider, forged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forged == "another key":
        provider.signs_with = RSAKey.generate_key(2048, {"kid": "1"})
    elif forged == "our secret as a key":
        provider.signs_with, provider.algorithm = OctKey.import_key(SECRET * 2), "HS256"
    else:
        made = Provider.token

        def unsigned(self: Provider, form: dict[str, str], authorization: str) -> dict[str, str] | None:
            tokens = made(self, form, authorization)
            assert tokens is not None
            head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
            return tokens | {"id_token": f"{head}.{tokens['id_token'].split('.')[1]}."}

        monkeypatch.setattr(Provider, "token", unsigned)
    browser = window.client()
    answer = come_back(window, browser)
    assert (answer.status_code, "cannot be believed" in answer.text) == (403, True)
    assert browser.get("/api/v1/me").status_code == 401


def test_a_login_that_another_browser_began_or_that_was_used_lets_nobody_in(window: Window, provider: Provider) -> None:
    one, other = window.client(), window.client()
    sent = one.get("/login/oidc")
    back = httpx.get(sent.headers["location"]).headers["location"].removeprefix(HOME)
    assert "not begun in this browser" in other.get(back).text
    assert one.get(back.replace("state=", "state=x")).status_code == 403
    sent = one.get("/login/oidc")
    back = httpx.get(sent.headers["location"]).headers["location"].removeprefix(HOME)
    kept = one.cookies["isocenter_oidc"]
    assert one.get(back).status_code == 303
    assert other.get(back, headers={"cookie": f"isocenter_oidc={kept}"}).status_code == 403, "a code is taken once"
    assert "access_denied" in one.get(_denied(one)).text


def _denied(browser: httpx.Client) -> str:
    state = parse_qs(urlsplit(browser.get("/login/oidc").headers["location"]).query)["state"][0]
    return f"/login/oidc/done?{urlencode({'error': 'access_denied', 'state': state})}"


def test_who_is_in_no_group_or_would_take_a_local_users_name_is_not_let_in(window: Window, provider: Provider) -> None:
    provider.claims["groups"] = ["cooks"]
    assert "in no group that may use Isocenter" in come_back(window, window.client()).text
    provider.claims |= {"groups": ["it"], "preferred_username": "admin", "sub": "4712"}
    answer = come_back(window, window.client())
    assert (answer.status_code, "there is a user admin already" in answer.text) == (403, True)
    provider.claims["preferred_username"] = "<img src=x>"
    assert come_back(window, window.client()).status_code == 403


@pytest.mark.parametrize("lately", [True, False])
def test_a_key_that_is_new_is_fetched_and_not_for_every_forgery(
    provider: Provider, tmp_path: Path, lately: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s").write_text(SECRET)
    ours = oidc.Provider(
        oidc.Oidc(issuer=provider.url, client_id="isocenter", client_secret_file=tmp_path / "s", viewers=["radiology"]),
        HOME,
    )
    ours.describe().keys_at = time.monotonic() + (1000 if lately else -1000)
    monkeypatch.setattr(provider, "key", RSAKey.generate_key(2048, {"kid": "2"}))
    before = provider.fetched.count("/keys")
    there, attempt = ours.begin("/")
    back = parse_qs(urlsplit(httpx.get(there).headers["location"]).query)
    answer = {name: values[0] for name, values in back.items()}
    if lately:
        with pytest.raises(oidc.NotLetIn, match="cannot be believed"):
            ours.finish(attempt, answer)
    else:
        assert ours.finish(attempt, answer).name == "anna"
    assert provider.fetched.count("/keys") - before == (0 if lately else 1)


def test_a_provider_that_is_not_who_we_mean_or_is_away_is_said(provider: Provider, tmp_path: Path) -> None:
    provider.calls_itself = "https://evil.example"
    settings = {"client_id": "isocenter", "viewers": ["radiology"]}
    with pytest.raises(oidc.ProviderUnreachable, match=r"calls itself https://evil\.example"):
        oidc.Provider(oidc.Oidc.model_validate({"issuer": provider.url, **settings}), HOME).begin("/")
    web = {"public_url": HOME, "oidc": {"issuer": "http://127.0.0.1:1", **settings}}
    with opened(tmp_path, web=web) as made:
        answer = made.client().get("/login/oidc")
    assert (answer.status_code, "does not answer (ConnectError)" in answer.text) == (502, True)


def test_without_a_provider_there_is_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as plain:
        assert "/login/oidc" not in plain.client().get("/login").text
        for path in ("/login/oidc", "/login/oidc/done?state=&code=x"):
            assert plain.client().get(path).status_code == 404


def test_who_comes_from_elsewhere_has_no_password(window: Window, provider: Provider) -> None:
    come_back(window, window.client())
    for password in ("", "x" * 20):
        answer = window.client().post("/login", data={"name": "anna", "password": password})
        assert answer.status_code in (401, 422)
    with writing(window.node.engine) as connection:
        accounts.add(connection, "berta", Role.VIEWER, KEPT, who="test")
        with pytest.raises(accounts.UserExists):
            accounts.from_elsewhere(connection, "berta", "elsewhere 1", Role.ADMIN)
