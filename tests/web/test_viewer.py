"""OHIF's pages under /viewer: moved there whole, for whoever is logged in, and nothing beside them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.conftest import Window, opened

INDEX = b"""<!doctype html><html><head><link rel="icon" href="/assets/favicon.ico">
<link rel="manifest" href="/manifest.json">
<script>window.PUBLIC_URL="/"</script><script src="/app-config.js"></script>
<a href="//else.example/x">x</a><script defer src="/app.js"></script></head></html>"""
BUNDLE = b'/* webpack */ __webpack_require__.p = "/"; const other = "/";'


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Window]:
    pages = tmp_path / "ohif"
    pages.mkdir()
    (pages / "index.html").write_bytes(INDEX)
    (pages / "app.0123456789abcdef.js").write_bytes(BUNDLE)
    (pages / "app.css").write_bytes(b"a{src:url(/a.woff2)}")
    (pages / "a.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text("hush")
    with opened(tmp_path, web={"viewer_path": "ohif"}) as made:
        yield made


def test_its_pages_name_places_under_viewer(window: Window) -> None:
    viewer = window.log_in("viewer")
    page = viewer.get("/viewer/viewer", params={"StudyInstanceUIDs": "1.2.3"})
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    assert 'src="/viewer/app.js"' in page.text
    assert 'href="/viewer/assets/favicon.ico"' in page.text
    assert 'PUBLIC_URL="/viewer/"' in page.text
    assert 'href="//else.example/x"' in page.text
    assert "manifest" not in page.text, "it is fetched without a session"
    assert page.text.count("<script nonce=") == 3
    bundle = viewer.get("/viewer/app.0123456789abcdef.js")
    assert bundle.text.endswith('.p = "/viewer/"; const other = "/";')
    assert "immutable" in bundle.headers["cache-control"]
    kept = viewer.get("/viewer/app.0123456789abcdef.js")
    assert (kept.content, kept.headers["cache-control"]) == (bundle.content, bundle.headers["cache-control"])
    assert kept.headers["x-content-type-options"] == "nosniff"
    assert kept.headers["content-security-policy"] != bundle.headers["content-security-policy"], "its nonce is its own"
    assert viewer.get("/viewer/app.css").text == "a{src:url(/viewer/a.woff2)}"
    assert viewer.get("/viewer/a.wasm").headers["content-type"] == "application/wasm"
    told = viewer.get("/viewer/app-config.js").text
    assert 'location.origin + "/dicom-web"' in told
    assert '"routerBasename": "/viewer"' in told
    assert viewer.get("/viewer").headers["location"] == "/viewer/"
    assert viewer.get("/dicom-web/studies").status_code == 200, "its session is ours"


def test_a_stranger_gets_nothing_and_nobody_gets_what_lies_beside_it(window: Window) -> None:
    assert window.log_in("viewer").get("/viewer/app.0123456789abcdef.js").status_code == 200
    for path in (
        "/viewer/app.0123456789abcdef.js",
        "/viewer/",
        "/viewer/app-config.js",
        "/viewer/a.wasm",
        "/dicom-web/studies",
    ):
        assert window.client().get(path).status_code == 401, path
    viewer = window.log_in("viewer")
    for path in ("/viewer/..%2fsecret.txt", "/viewer/%2e%2e/secret.txt", "/viewer//secret.txt", "/viewer/missing.js"):
        assert viewer.get(path).status_code == 404, path


def test_without_the_setting_there_is_no_viewer(tmp_path: Path) -> None:
    with opened(tmp_path) as plain:
        assert plain.log_in("viewer").get("/viewer/").status_code == 404
