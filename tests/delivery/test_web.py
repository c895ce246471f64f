"""STOW-RS and Orthanc's REST as services really answer: partly, late, not at all, or only to whom they know."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from router.destinations import Context, Interrupted, Rejected, _http, orthanc, stow
from router.destinations._http import UnreadableSecret
from router.domain.delivery import Verdict
from tests.conftest import component
from tests.delivery.objects import image
from tests.servers import orthanc as running_orthanc

CONTEXT = Context(calling_ae_title="ISOCENTER", timeout_s=5)


@dataclass
class Service:
    """A service that gives one prepared answer to all, and notes what it was asked."""

    status: int = 200
    body: bytes | None = b""
    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def service(status: int, body: bytes | None = b"") -> Iterator[Service]:
    """With `body` None it hangs up instead of answering."""
    held = Service(status=status, body=body)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            held.headers.append(dict(self.headers))
            held.asked.append(f"{self.command} {self.path}")
            while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16) + 2):
                if len(self.rfile.read(size)) == 2:
                    break
            if held.body is None:
                self.close_connection = True
                return
            self.send_response(held.status)
            self.send_header("Content-Type", stow.JSON)
            self.send_header("Content-Length", str(len(held.body)))
            self.end_headers()
            self.wfile.write(held.body)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - the base class's names

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    held.url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    try:
        yield held
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def settings(far: Service, **more: Any) -> stow.Settings:
    return stow.Settings.model_validate({"kind": "stow", "name": "web", "url": far.url, **more})


def answer(uid: str, *, failed: int | None = None, warning: int | None = None) -> bytes:
    """The body of a Store Transaction's response."""
    dataset, item = Dataset(), Dataset()
    item.ReferencedSOPInstanceUID = uid
    if failed is not None:
        item.FailureReason = failed
        dataset.FailedSOPSequence = [item]
    else:
        if warning is not None:
            item.WarningReason = warning
        dataset.ReferencedSOPSequence = [item]
    return json.dumps(dataset.to_json_dict()).encode()


@pytest.mark.parametrize(
    ("status", "failed", "verdict", "said"),
    [
        (202, 0xA700, Verdict.LATER, "A700 (Refused: out of resources)"),
        (409, 0x0122, Verdict.NEVER, "0122 (Refused: SOP Class not supported)"),
        (409, 0xC122, Verdict.LATER, "C122 (Cannot understand)"),
        (200, 0xA900, Verdict.NEVER, "A900 (Data Set does not match SOP Class)"),
    ],
)
def test_the_answer_for_the_instance_counts_whatever_http_says(
    tmp_path: Path, status: int, failed: int, verdict: Verdict, said: str
) -> None:
    item = image(tmp_path)
    with service(status, answer(item.sop_instance_uid, failed=failed)) as far:
        (receipt,) = stow.send(settings(far), [item], CONTEXT)
    assert (receipt.verdict, receipt.detail) == (verdict, said)


def test_a_warning_is_a_success(tmp_path: Path) -> None:
    item = image(tmp_path)
    with service(202, answer(item.sop_instance_uid, warning=0xB000)) as far:
        (receipt,) = stow.send(settings(far), [item], CONTEXT)
    assert (receipt.verdict, receipt.status) == (Verdict.ACCEPTED, 0xB000)


@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b"[]", answer("1.2.3")])
def test_a_success_that_does_not_name_the_instance_proves_nothing(tmp_path: Path, body: bytes) -> None:
    with service(200, body) as far:
        (receipt,) = stow.send(settings(far), [image(tmp_path)], CONTEXT)
    assert (receipt.verdict, receipt.detail) == (Verdict.LATER, "HTTP 200 (OK), and says nothing of the instance")


@pytest.mark.parametrize(("status", "verdict"), [(503, "later"), (429, "later"), (400, "never"), (415, "never")])
def test_a_refused_request_is_tried_again_only_where_that_may_help(tmp_path: Path, status: int, verdict: str) -> None:
    with service(status) as far:
        (receipt,) = stow.send(settings(far), [image(tmp_path)], CONTEXT)
    assert receipt.verdict == verdict


@pytest.mark.parametrize("status", [401, 403])
def test_a_service_that_does_not_want_us_is_not_tried_again(tmp_path: Path, status: int) -> None:
    with service(status) as far, pytest.raises(Rejected, match=f"answers HTTP {status}"):
        list(stow.send(settings(far), [image(tmp_path)], CONTEXT))


def test_a_service_that_hangs_up_is_worth_another_try(tmp_path: Path) -> None:
    with service(200, None) as far, pytest.raises(Interrupted, match="went away in the middle"):
        list(stow.send(settings(far), [image(tmp_path)], CONTEXT))


def test_a_service_that_cannot_search_cannot_be_read_back(tmp_path: Path) -> None:
    with service(501) as far:
        assert stow.confirm(settings(far), [image(tmp_path)], CONTEXT) is None


def test_secrets_come_from_files_and_only_from_there(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    (tmp_path / "password").write_text("secret\n")
    with service(204) as far:
        stow.echo(settings(far, token_file=tmp_path / "token"), CONTEXT)
        stow.echo(settings(far, username="u", password_file=tmp_path / "password"), CONTEXT)
    assert [one["Authorization"] for one in far.headers] == ["Bearer abc", "Basic dTpzZWNyZXQ="]


def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    with service(204) as far, pytest.raises(UnreadableSecret, match=r"destination web: .*/token cannot be read"):
        stow.echo(settings(far, token_file=tmp_path / "token"), CONTEXT)


@pytest.mark.parametrize(
    "wrong",
    [{"username": "u"}, {"password_file": "/p"}, {"username": "u", "password_file": "/p", "token_file": "/t"}],
)
def test_half_an_identity_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="username"):
        stow.Settings.model_validate({"kind": "stow", "name": "web", "url": "http://x/", **wrong})


def test_settings_survive_being_kept_as_json() -> None:
    made = stow.Settings.model_validate({"kind": "stow", "name": "web", "url": "https://pacs.example/dicom-web"})
    assert stow.Settings.model_validate(json.loads(json.dumps(made.model_dump(mode="json")))) == made
    assert made.base == "https://pacs.example/dicom-web"
    assert _http.HttpDestination.model_fields.keys() >= {"url", "token_file", "ca_file"}


def test_orthanc_says_what_it_had_already_and_lives_without_labels_where_it_is_old(tmp_path: Path) -> None:
    component("Orthanc")
    item = image(tmp_path)
    with running_orthanc(tmp_path / "orthanc", {}) as far:
        there = orthanc.Settings.model_validate(
            {"kind": "orthanc", "name": "o", "url": f"http://127.0.0.1:{far.http_port}", "labels": ["AI"]}
        )
        said = [receipt.detail for _ in range(2) for receipt in orthanc.send(there, [item], CONTEXT)]
    assert said == ["Success", "AlreadyStored"]


def test_orthanc_marks_the_study_with_its_labels(tmp_path: Path) -> None:
    stored = json.dumps({"ID": "i", "ParentStudy": "s", "Status": "Success"}).encode()
    with service(200, stored) as far:
        there = orthanc.Settings.model_validate(
            {"kind": "orthanc", "name": "o", "url": far.url, "labels": ["AI", "ct_lung"]}
        )
        assert [receipt.verdict for receipt in orthanc.send(there, [image(tmp_path)], CONTEXT)] == ["accepted"]
    root = "/dicom-web"
    assert far.asked == [
        f"POST {root}/instances",
        f"PUT {root}/studies/s/labels/AI",
        f"PUT {root}/studies/s/labels/ct_lung",
    ]
