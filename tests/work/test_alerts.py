"""Somebody is told in time: what is late, what has moved, the disk; and it leaves by e-mail, webhook and syslog."""

import email
import email.policy
import hashlib
import hmac
import json
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, update

from router.db import alerts, commands, jobs, lateness, outcomes, results
from router.db.engine import now, reading, writing
from router.db.tables import beat, job
from router.domain.alarms import FEWEST, MINUTE, Words, shift
from router.domain.delivery import MeasurementRow
from router.domain.job import Lane, Outcome
from router.node import Node
from router.work import watch
from tests.servers import free_port, isocenter
from tests.work.site import STUDY, Site, close_site, open_site

DAY = 24 * 60 * MINUTE


@dataclass
class Post:
    """A mail server and a web server that keep what they get, and can be out of order."""

    mail_port: int
    url: str
    mails: list[EmailMessage] = field(default_factory=list)
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    broken: bool = False

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        if self.broken:
            return "451 not now"
        content = envelope.content
        assert isinstance(content, bytes)
        made = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(made, EmailMessage)
        self.mails.append(made)
        return "250 taken"


@contextmanager
def post_office() -> Iterator[Post]:
    post = Post(mail_port=free_port(), url="")

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not post.broken:
                post.posts.append((dict(self.headers), body))
            self.send_response(503 if post.broken else 204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    mail = Controller(post, hostname="127.0.0.1", port=post.mail_port)
    web = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    mail.start()
    post.url = f"http://127.0.0.1:{web.server_port}/hook?token=hush"
    try:
        yield post
    finally:
        mail.stop()
        web.shutdown()
        thread.join()
        web.server_close()


@pytest.fixture
def post() -> Iterator[Post]:
    with post_office() as made:
        yield made


def told(site: Site) -> dict[str, list[str]]:
    """What stands, subjects by kind."""
    with reading(site.node.engine) as connection:
        found = alerts.list_(connection)
    return {kind: sorted(one.subject for one in found if one.kind == kind) for kind in {one.kind for one in found}}


def change(node: Node, job_id: int, **values: Any) -> None:
    with writing(node.engine) as connection:
        connection.execute(update(job).where(job.c.id == job_id).values(**values))


def test_a_stat_job_that_nobody_begins_is_an_alert_until_it_is_begun(site: Site) -> None:
    number = site.decide("pacs")
    watch.look(site.node, at=now() + 3 * MINUTE)
    assert told(site) == {}, "it is not urgent"
    change(site.node, number, priority=10)
    watch.look(site.node, at=now() + MINUTE)
    assert told(site) == {}, "it is not late"
    watch.look(site.node, at=now() + 3 * MINUTE)
    assert told(site) == {"stat.waiting": ["moody"]}
    with reading(site.node.engine) as connection:
        (one,) = alerts.list_(connection)
    assert f"job {number} of study {STUDY} has waited for 3 min" in one.what
    with writing(site.node.engine) as connection:
        assert jobs.claim(connection, Lane.INFER, "test", 60)
    watch.look(site.node, at=now() + 3 * MINUTE)
    assert told(site) == {}


def test_no_result_by_the_rules_deadline_is_an_alert_until_all_is_delivered(site: Site) -> None:
    number = site.decide("pacs")
    late = now() + 60 * MINUTE
    watch.look(site.node, at=late)
    assert told(site) == {}, "no rule says when"
    change(site.node, number, deadline=now() + 30 * MINUTE)
    watch.look(site.node, at=now() + 29 * MINUTE)
    assert told(site) == {}
    watch.look(site.node, at=late)
    assert told(site) == {"result.overdue": ["moody"]}
    with writing(site.node.engine) as connection:
        held = jobs.claim(connection, Lane.INFER, "test", 60)
        assert held
        jobs.finish(connection, held, Outcome.RESULT)
        made = results.add_set(connection, job_id=number, profile="{}", study_instance_uid=STUDY, generation=1)
        jobs.add_delivery(
            connection, study_instance_uid=STUDY, generation=1, result_set_id=made, destination="pacs", priority=50,
            max_attempts=1,
        )  # fmt: skip
    watch.look(site.node, at=late)
    assert told(site) == {"result.overdue": ["moody"]}, "it is made and not there"
    with writing(site.node.engine) as connection:
        held = jobs.claim(connection, Lane.DELIVER, "test", 60)
        assert held
        jobs.finish(connection, held, Outcome.DELIVERED)
    watch.look(site.node, at=late)
    assert told(site) == {}


@pytest.mark.parametrize("answer", ["refused", "shadow", "cancelled"])
def test_nobody_waits_for_a_refusal_a_shadow_or_what_a_person_ended(site: Site, answer: str) -> None:
    number = site.decide("pacs", mode="shadow" if answer == "shadow" else "on")
    change(site.node, number, deadline=now() + MINUTE)
    with writing(site.node.engine) as connection:
        if answer == "cancelled":
            commands.cancel(connection, number, who="test", why="a test")
        if answer == "refused":
            held = jobs.claim(connection, Lane.INFER, "test", 60)
            assert held
            jobs.finish(connection, held, Outcome.REFUSED, reason="contrast")
    watch.look(site.node, at=now() + 60 * MINUTE)
    assert told(site) == {}


def test_a_full_disk_is_an_alert(tmp_path: Path) -> None:
    full = open_site(tmp_path, storage={"path": tmp_path / "store", "refuse_free_gb": 9e6, "purge_free_gb": 9e6})
    watch.look(full.node)
    assert told(full) == {"disk.full": [str(tmp_path / "store")]}
    close_site(full)


def measure(site: Site, values: list[float], at: int) -> None:
    """As many runs that ended then, each with one number."""
    with writing(site.node.engine) as connection:
        for value in values:
            number, _ = jobs.add_inference(
                connection, study_instance_uid=STUDY, series_instance_uid="1", generation=1,
                pixels_digest=f"{value}{at}", pipeline="moody", pipeline_version="1.0", weights_digest=None,
                settings={}, settings_digest="", priority=50, max_attempts=1,
            )  # fmt: skip
            rows = [MeasurementRow(ordinal=1, label="Left lung", name="Volume", value=value, unit="ml", remark=None)]
            results.add_measurements(connection, number, rows)
            connection.execute(
                update(job).where(job.c.id == number).values(state="done", outcome="result", finished_at=at)
            )


def test_results_that_are_distributed_otherwise_are_an_alert(site: Site) -> None:
    dice, at = random.Random(1), now()
    measure(site, [dice.gauss(2500, 300) for _ in range(60)], at - 30 * DAY)
    measure(site, [dice.gauss(2500, 300) for _ in range(40)], at - DAY)
    watch.compare(site.node, at=at)
    assert told(site) == {}
    measure(site, [dice.gauss(4000, 300) for _ in range(60)], at - DAY // 2)
    watch.compare(site.node, at=at)
    assert told(site) == {"results.moved": ["moody: Left lung, Volume"]}
    with reading(site.node.engine) as connection:
        (one,) = alerts.list_(connection)
        assert "its median is 3" in one.what
        (_, values), *_ = lateness.measured(connection, since=at - 40 * DAY, until=at)
    assert len(values) == 160
    with writing(site.node.engine) as connection:
        empty = {"asked_by": "test", "folder": "x", "began_at": 1, "deadline_at": 2}
        connection.execute(insert(beat).values(study_instance_uid=STUDY, **empty))
    watch.compare(site.node, at=at)
    assert told(site) == {}, "the heartbeat's phantom is no patient"


@given(st.lists(st.floats(0, 1000), max_size=FEWEST - 1), st.lists(st.floats(0, 1000), max_size=80))
def test_few_numbers_say_nothing(few: list[float], many: list[float]) -> None:
    assert shift(few, many) is None
    assert shift(many, few) is None


@given(st.lists(st.floats(0, 1000), min_size=FEWEST, max_size=80), st.integers(0, 10))
def test_a_distribution_has_not_moved_from_itself_but_from_what_lies_elsewhere(some: list[float], seed: int) -> None:
    again = random.Random(seed).sample(some, len(some))
    assert shift(some, again) is None
    found = shift(some, [one + 2000 for one in some])
    assert found is not None
    assert found.distance == 1
    assert found.lately > found.before


def test_chance_alone_seldom_looks_like_a_move() -> None:
    dice = random.Random(7)
    drawn = ([dice.gauss(0, 1) for _ in range(100)] for _ in range(400))
    assert sum(shift(next(drawn), next(drawn)) is not None for _ in range(200)) == 0


def raise_two(node: Node) -> None:
    with writing(node.engine) as connection:
        alerts.raise_(connection, "destination.down", "pacs", what="destination pacs is\nsilent", remedy="Look there")
        alerts.raise_(connection, "stat.waiting", "ct_lung", what="1 stat job waits", remedy="See jobs")


def test_each_channel_is_told_of_begin_and_end_once(tmp_path: Path, post: Post) -> None:
    (tmp_path / "key").write_text("0123456789\n")
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(60)
    mail = {"host": "127.0.0.1", "port": post.mail_port, "sender": "node@x.org", "to": ["it@x.org", "b@x.org"]}
    made = open_site(
        tmp_path,
        alerts={
            "webhook_url": post.url,
            "webhook_key_file": tmp_path / "key",
            "syslog": f"udp://127.0.0.1:{receiver.getsockname()[1]}",
            "email": mail,
        },
    )
    raise_two(made.node)
    for _ in range(3):
        watch.tell(made.node)
    (sent,), (posted,) = post.mails, post.posts
    assert sent["to"] == "it@x.org, b@x.org"
    assert sent["subject"] == "[ISOCENTER] destination pacs is silent (and 1 more)"
    assert "What to do: See jobs" in sent.get_content()
    headers, body = posted
    assert headers["X-Isocenter-Signature"] == f"sha256={hmac.new(b'0123456789', body, hashlib.sha256).hexdigest()}"
    said = json.loads(body)
    assert said["text"].splitlines() == ["[ISOCENTER] destination pacs is silent", "[ISOCENTER] 1 stat job waits"]
    assert [(one["state"], one["kind"]) for one in said["alerts"]] == [
        ("raised", "destination.down"), ("raised", "stat.waiting"),
    ]  # fmt: skip
    lines = [receiver.recv(4096).decode() for _ in range(2)]
    assert lines[0].startswith("<28>1 ")
    assert "destination.down pacs: destination pacs is silent. Look there" in lines[0]
    with writing(made.node.engine) as connection:
        alerts.end(connection, "destination.down", "pacs")
        alerts.raise_(connection, "short", "x", what="it came", remedy="and went")
        alerts.end(connection, "short", "x")
    for _ in range(3):
        watch.tell(made.node)
    assert [one["subject"] for one in post.mails[1:]] == ["[ISOCENTER] over: destination pacs is silent"]
    (last,) = json.loads(post.posts[1][1])["alerts"]
    assert (last["state"], last["subject"]) == ("over", "pacs")
    assert "over: destination pacs" in receiver.recv(4096).decode()
    assert len(post.posts) == 2
    receiver.close()
    close_site(made)


def test_a_channel_that_is_out_of_order_is_told_later_and_the_others_say_so(tmp_path: Path, post: Post) -> None:
    wanted = {
        "webhook_url": "http://127.0.0.1:1/hush",
        "email": {"host": "127.0.0.1", "port": post.mail_port, "to": ["a@b"]},
    }
    made = open_site(tmp_path, alerts=wanted)
    raise_two(made.node)
    with structlog.testing.capture_logs() as logs:
        watch.tell(made.node)
        watch.tell(made.node)
    assert {one["event"] for one in logs} == {"alerts.sent", "alerts.not_sent"}
    assert "hush" not in str(logs)
    assert "alerts cannot leave by webhook: http://127.0.0.1:1/ (ConnectError)" in post.mails[1].get_content()
    back = open_site(tmp_path, alerts={**wanted, "webhook_url": post.url})
    watch.tell(back.node)
    assert [one["id"] for one in json.loads(post.posts[0][1])["alerts"]] == [1, 2]
    assert "alerts.not_sent" not in told(back)
    watch.tell(back.node)
    assert len(post.posts) == 1
    assert post.mails[2]["subject"].startswith("[ISOCENTER] over: alerts cannot leave by webhook")
    for one in (made, back):
        close_site(one)


def test_a_mail_server_that_refuses_loses_nothing(tmp_path: Path, post: Post) -> None:
    made = open_site(tmp_path, alerts={"email": {"host": "127.0.0.1", "port": post.mail_port, "to": ["a@b"]}})
    raise_two(made.node)
    post.broken = True
    watch.tell(made.node)
    assert told(made)["alerts.not_sent"] == ["email"]
    post.broken = False
    watch.tell(made.node)
    assert len(post.mails) == 1
    assert "alerts.not_sent" not in told(made)
    close_site(made)


def test_what_is_found_twice_is_written_once(engine: Engine) -> None:
    found = {"pacs": Words("it is silent", "look")}
    with writing(engine) as connection:
        for _ in range(2):
            alerts.keep(connection, "k", found)
        (one,) = alerts.list_(connection)
        assert one.times == 1
        alerts.keep(connection, "k", {"pacs": Words("it is silent for long", "look"), "b": Words("x", "y")})
        assert {one.what for one in alerts.list_(connection)} == {"it is silent for long", "x"}
        assert alerts.alone(connection)
        assert len(alerts.untold(connection, "email")) == 2
        alerts.told(connection, "email", alerts.list_(connection))
        assert alerts.untold(connection, "email") == []
        alerts.keep(connection, "k", {})
        assert len(alerts.untold(connection, "email")) == 2
        assert alerts.untold(connection, "webhook") == []
        at = now() + 10 * MINUTE
        assert lateness.stat_waiting(connection, since_before=at) == []
        assert lateness.no_result(connection, at=at) == []
        assert list(lateness.measured(connection, since=0, until=at)) == []
        assert outcomes.took(connection, 0) == outcomes.refusals(connection, 0) == {}
        assert outcomes.distributions(connection, 0) == {}


@pytest.mark.long
def test_the_command_tries_every_channel(tmp_path: Path, post: Post) -> None:
    isocenter("init", tmp_path / "n", "--pacs", "PACS@127.0.0.1:104")
    config = tmp_path / "n" / "isocenter.yaml"
    said = isocenter("alerts", "test", "--config", config, check=False).stdout
    assert "No channel is configured" in said
    with config.open("a") as file:
        file.write(f"\nalerts:\n  webhook_url: {post.url}\n  syslog: tcp://127.0.0.1:1\n")
    done = isocenter("alerts", "test", "--config", config, check=False)
    assert done.returncode == 1
    assert "webhook: sent" in done.stdout
    assert "syslog: alerts cannot leave by syslog" in done.stdout
    assert json.loads(post.posts[0][1])["alerts"][0]["kind"] == "alerts.test"
