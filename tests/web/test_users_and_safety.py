"""Who may look in, how wrong passwords are met, and what a stranger is given."""

import ssl
from pathlib import Path

import httpx
import pytest

from router import passwords
from router.cli import app as commands
from router.db import accounts, tokens
from router.db.engine import now, reading, writing
from router.domain.access import FORGET_AFTER_S, SECOND, WITH_ADDRESS, WITH_NAME, Role, Scope
from router.web import signin
from tests.certificates import authority, issue
from tests.servers import isocenter
from tests.web.conftest import PASSWORD, Window, opened, served


def test_a_stranger_gets_the_login_page_and_health_and_nothing_else(window: Window) -> None:
    stranger = window.client(accept="text/html")
    assert stranger.get("/login").status_code == 200
    assert stranger.get("/health").json()["status"] == "ok"
    for path in ("/", "/studies/1.2.3", "/rules", "/_nicegui/x/static/nicegui.js", "/nothing"):
        answer = stranger.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/login"), path
    for path in ("/metrics", "/api/v1/studies", "/api/v1/openapi.json", "/nothing"):
        answer = window.client(accept="*/*").get(path)
        assert (answer.status_code, answer.json()["problem"]) == (401, "NotLoggedIn"), path


def test_metrics_are_open_by_config_only(window: Window, tmp_path: Path) -> None:
    assert window.client().get("/metrics").status_code == 401
    assert window.program(Scope.READ).get("/metrics").status_code == 403
    assert b"isocenter_jobs" in window.program(Scope.METRICS).get("/metrics").content
    with opened(tmp_path / "other", web={"open_metrics": True}) as other:
        assert other.client().get("/metrics").status_code == 200


def test_a_session_begins_and_ends(window: Window) -> None:
    browser = window.log_in("Viewer ")
    assert browser.get("/metrics").status_code == 200
    cookie = browser.cookies["isocenter_session"]
    assert browser.post("/logout").status_code == 303
    browser.cookies.set("isocenter_session", cookie)
    assert browser.get("/metrics").status_code == 401
    assert ("user:viewer", "user.logged_in") in window.acts()


def test_the_cookie_is_for_the_server_alone_and_its_secret_is_kept_nowhere(window: Window) -> None:
    answer = window.client().post("/login", data={"name": "admin", "password": PASSWORD})
    sent = answer.headers["set-cookie"].lower()
    assert "httponly" in sent
    assert "samesite=lax" in sent
    secret = answer.cookies["isocenter_session"].encode()
    files = [path for path in Path(window.node.settings.run_path).parent.rglob("isocenter.db*") if path.is_file()]
    assert files
    assert not any(secret in path.read_bytes() or PASSWORD.encode() in path.read_bytes() for path in files)


def test_sessions_end_by_themselves(tmp_path: Path) -> None:
    with opened(tmp_path, web={"idle_minutes": 1, "session_hours": 1}) as window:
        browser = window.log_in("viewer")
        digest = passwords.digest(browser.cookies["isocenter_session"])
        with writing(window.node.engine) as connection:
            accounts.saw(connection, digest, now() - 61 * SECOND)
        assert browser.get("/metrics").status_code == 401
        with reading(window.node.engine) as connection:
            assert accounts.session_of(connection, digest) is None


def test_a_new_password_a_new_role_and_a_removal_are_in_force_at_once(window: Window) -> None:
    browser = window.log_in("operator")
    with writing(window.node.engine) as connection:
        accounts.set_password(connection, "operator", passwords.hashed("another long sentence", name=""), who="test")
    assert browser.get("/metrics").status_code == 401
    browser = window.log_in("operator", "another long sentence")
    with writing(window.node.engine) as connection:
        accounts.remove(connection, "operator", who="test")
    assert browser.get("/metrics").status_code == 401


def test_the_last_admin_stays(window: Window) -> None:
    with writing(window.node.engine) as connection, pytest.raises(accounts.LastAdmin):
        accounts.remove(connection, "admin", who="test")
    with writing(window.node.engine) as connection, pytest.raises(accounts.LastAdmin):
        accounts.set_role(connection, "admin", Role.VIEWER, who="test")


def test_guessing_is_slowed_and_a_restart_does_not_help(window: Window) -> None:
    browser = window.client()
    wrong = {"name": "admin", "password": "a wrong long sentence"}
    assert browser.post("/login", data=wrong).status_code == 401
    key = f"name:{passwords.digest('admin')}"
    with writing(window.node.engine) as connection:
        assert accounts.failures(connection, key, now())[0] == 1
        for _ in range(WITH_NAME.free + 8):  # a minute's wait, longer than this test takes on a busy machine
            accounts.count_failure(connection, key, now())
    answer = browser.post("/login", data={"name": "admin", "password": PASSWORD})
    assert answer.status_code == 429, "not even the right password is looked at"
    assert int(answer.headers["retry-after"]) >= 1
    with served(window.node) as restarted:
        assert restarted.client().post("/login", data=wrong).status_code == 429
    with writing(window.node.engine) as connection:
        assert accounts.failures(connection, key, now() + round(FORGET_AFTER_S + 1) * SECOND) == (0, 0)
    assert ("user:admin", "user.logged_in") in window.acts()


def test_many_names_from_one_address_are_slowed_too(window: Window) -> None:
    with writing(window.node.engine) as connection:
        for _ in range(WITH_ADDRESS.free + 5):
            accounts.count_failure(connection, "address:2001:db8::/64", now())
    with pytest.raises(signin.TooManyAttempts):
        signin.log_in(window.node.engine, "viewer", PASSWORD, "2001:db8::7")
    assert signin.log_in(window.node.engine, "viewer", PASSWORD, "2001:db8:1::7")


def test_an_own_login_between_guesses_forgives_the_address_nothing(window: Window) -> None:
    for _ in range(3):
        with pytest.raises(signin.WrongPassword):
            signin.log_in(window.node.engine, "admin", "a wrong long sentence", "10.0.0.1")
        signin.log_in(window.node.engine, "viewer", PASSWORD, "10.0.0.1")
    with reading(window.node.engine) as connection:
        assert accounts.failures(connection, "address:10.0.0.1", now())[0] == 3


def test_patience_grows_and_has_an_end() -> None:
    for one in (WITH_NAME, WITH_ADDRESS):
        waits = [one.wait_s(failures) for failures in range(100)]
        assert waits == sorted(waits)
        assert waits[one.free] == 0 < waits[one.free + 1]
        assert waits[-1] == one.longest_s


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {},
    ],
)
def test_another_sites_page_can_change_nothing(window: Window, headers: dict[str, str]) -> None:
    browser = window.log_in("admin")
    del browser.headers["origin"]
    answer = browser.post("/logout", headers=headers)
    assert (answer.status_code, answer.json()["problem"]) == (403, "ForeignPage")
    login = window.bare(**headers).post("/login", data={"name": "admin", "password": PASSWORD})
    assert login.status_code == 403


def test_every_answer_is_shielded(window: Window) -> None:
    for path in ("/login", "/health", "/metrics", "/nothing"):
        headers = window.client().get(path).headers
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        policy = headers["content-security-policy"]
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


@pytest.mark.parametrize("goal", ["//evil.example", "https://evil.example", "/\\evil.example", "/\nx", ""])
def test_the_login_leads_only_to_pages_of_ours(window: Window, goal: str) -> None:
    answer = window.client().post("/login", data={"name": "viewer", "password": PASSWORD, "next": goal})
    assert answer.headers["location"] == "/"


def test_text_of_others_is_escaped_on_the_login_page(window: Window) -> None:
    page = window.client().get("/login", params={"next": '/"><img src=x onerror=alert(1)>'}).text
    assert "<img" not in page


def test_tokens_expire_and_can_be_taken_back(window: Window) -> None:
    program = window.program(Scope.METRICS)
    assert program.get("/metrics").status_code == 200
    with writing(window.node.engine) as connection:
        (token,) = tokens.list_(connection)
        assert token.used_at is not None
        tokens.remove(connection, token.name, who="test")
    assert program.get("/metrics").status_code == 401
    secret = passwords.secret()
    with writing(window.node.engine) as connection:
        tokens.add(connection, "short", passwords.digest(secret), [Scope.READ], who="test", days=1)
        assert tokens.of_digest(connection, passwords.digest(secret), now() + 86_401 * SECOND) is None


def test_short_passwords_are_refused() -> None:
    for password in ("short", "x" * 300, "alice.is.alice"):
        with pytest.raises(passwords.WeakPassword):
            passwords.hashed(password, name="Alice.is.alice")
    assert len({passwords.made() for _ in range(50)}) == 50


@pytest.mark.long
def test_the_first_admin_is_made_by_init_and_told_once(tmp_path: Path) -> None:
    assert commands
    done = isocenter("init", tmp_path / "node", "--pacs", "ORTHANC@127.0.0.1:4242")
    password = done.stderr.strip().rpartition("once: ")[2]
    config = ("--config", tmp_path / "node" / "isocenter.yaml")
    (tmp_path / "word").write_text("quite a long sentence\n")
    isocenter("users", "add", "Alice", "--role", "viewer", "--password-file", tmp_path / "word", *config)
    added = isocenter("users", "add", "bob", "--role", "operator", *config)
    assert "shown this once" in added.stderr
    isocenter("users", "role", "bob", "admin", *config)
    isocenter("users", "passwd", "bob", *config)
    listed = isocenter("users", "list", "--json", *config).stdout
    assert '"alice"' in listed
    assert "argon2" not in listed
    isocenter("users", "remove", "bob", *config)
    assert isocenter("users", "remove", "bob", *config, check=False).returncode == 2
    secret = isocenter("tokens", "add", "grafana", "--scope", "metrics", *config).stdout.strip()
    assert secret not in isocenter("tokens", "list", "--json", *config).stdout
    isocenter("tokens", "remove", "grafana", *config)
    from router.config import load
    from router.db.engine import connect

    engine = connect(load(tmp_path / "node" / "isocenter.yaml").database.url)
    assert signin.log_in(engine, "admin", password, "127.0.0.1")
    assert signin.log_in(engine, "alice", "quite a long sentence", "127.0.0.1")
    engine.dispose()


def test_https_by_config(tmp_path: Path) -> None:
    root = authority(tmp_path / "pki")
    own = issue(root, tmp_path / "pki", "window", "127.0.0.1")
    files = {"certificate_file": str(own.certificate_file), "key_file": str(own.key_file)}
    with opened(tmp_path / "node", tls=files, web={"tls": True}) as window:
        url = window.url.replace("http:", "https:")
        trust = ssl.create_default_context(cafile=str(root.certificate_file))
        with httpx.Client(base_url=url, verify=trust, headers={"origin": url}) as browser:
            answer = browser.post("/login", data={"name": "viewer", "password": PASSWORD})
            assert "secure" in answer.headers["set-cookie"].lower()
            assert answer.headers["strict-transport-security"]
            assert browser.get("/metrics").status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{window.url}/health")
