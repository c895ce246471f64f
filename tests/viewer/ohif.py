"""OHIF in headless Chromium: fetched once by npm, served beside an archive, and driven as a reader would."""

import base64
import http.client
import json
import mimetypes
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from tests.conftest import until

VERSION = "3.13.2"
CACHE = Path(os.environ.get("VIEWER_CACHE", Path.home() / ".cache" / "isocenter-viewer"))
DIST = CACHE / "ohif" / "dist"

DROPPED = {"host", "connection", "accept-encoding"}
"""Headers that are not passed on to the archive; its answers come as they are."""

CONFIG = {
    "routerBasename": None,
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "orthanc",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "orthanc",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "orthanc",
                "wadoUriRoot": "ORIGIN/wado",
                "qidoRoot": "ORIGIN/dicom-web",
                "wadoRoot": "ORIGIN/dicom-web",
                "qidoSupportsIncludeField": True,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
                "singlepart": "bulkdata,video",
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}

IN_PAGE = (Path(__file__).parent / "page.js").read_text()
"""What a test asks of the page, as `window.__h`."""


def fetch() -> bool:
    """Put OHIF's built pages into the cache, once; whether they are there."""
    if not (DIST / "index.html").exists():
        (CACHE / "ohif").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(
                ["npm", "pack", f"@ohif/app@{VERSION}", "--silent"], cwd=folder, capture_output=True, text=True
            )
            for archive in Path(folder).glob("*.tgz"):
                subprocess.run(
                    ["tar", "xzf", archive, "--strip-components=1", "-C", CACHE / "ohif", "package/dist"], check=True
                )
        if packed.returncode != 0:
            return False
    return (DIST / "index.html").exists()


class Pages(SimpleHTTPRequestHandler):
    """OHIF's pages, and the archive's DICOMweb under the same origin."""

    archive_port = 0
    credentials: ClassVar[dict[str, str]] = {}
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(("/dicom-web", "/wado")):
            return self.relay()
        if path == "/app-config.js":
            words = json.dumps(CONFIG).replace('"ORIGIN', 'location.origin + "')
            return self.answer(f"window.config = {words};".encode(), "text/javascript")
        file = (DIST / path.lstrip("/")).resolve()
        if not file.is_relative_to(DIST.resolve()) or not file.is_file():
            if Path(path).suffix not in ("", ".html"):
                return self.send_error(404)
            file = DIST / "index.html"
        kind = "application/wasm" if file.suffix == ".wasm" else mimetypes.guess_type(file.name)[0]
        return self.answer(file.read_bytes(), kind or "application/octet-stream")

    do_POST = do_GET  # noqa: N815

    def relay(self) -> None:
        """To the archive and back; Orthanc's DICOMweb plugin reads `includefield=a,b` and not `a%2Cb`."""
        host = self.headers["Host"]
        headers = {key: value for key, value in self.headers.items() if key.lower() not in DROPPED}
        headers |= {"Host": host, "Forwarded": f"by=localhost;for=localhost;host={host};proto=http"}
        headers |= self.credentials
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        peer = http.client.HTTPConnection("127.0.0.1", self.archive_port, timeout=60)
        try:
            peer.request(self.command, self.path.replace("%2C", ",").replace("%2c", ","), body, headers)
            reply = peer.getresponse()
            content = reply.read()
            self.answer(content, reply.getheader("Content-Type") or "application/octet-stream", reply.status)
        finally:
            peer.close()

    def answer(self, content: bytes, kind: str, status: int = 200) -> None:
        """One whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def served(archive_port: int, **credentials: str) -> Iterator[str]:
    """The address of OHIF beside the archive on this port of loopback."""
    handler = type("PagesOf", (Pages,), {"archive_port": archive_port, "credentials": credentials})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass
class Reader:
    """A person before OHIF."""

    driver: webdriver.Chrome
    address: str
    errors: list[str] = field(default_factory=list)

    def js(self, script: str, *arguments: Any) -> Any:
        """The value of an expression in the page, awaited; `a` is the list of arguments."""
        found = self.driver.execute_async_script(
            f"const done = arguments[arguments.length - 1], a = [...arguments].slice(0, -1);"
            f"(async () => ({script}))().then(v => done({{v}}), e => done({{e: String(e)}}));",
            *arguments,
        )
        if "e" in found:
            raise AssertionError(found["e"])
        return found.get("v")

    def open(self, study: str) -> None:
        """Open a study and wait until an image is shown and stands still."""
        self.driver.get(f"{self.address}/viewer?StudyInstanceUIDs={study}")
        until(lambda: self.js("!!(window.__h && window.__h.ready())"), deadline_s=90, what="an image in OHIF")
        for button in self.driver.find_elements(By.XPATH, "//*[text()='Skip all']"):
            button.click()
        self.canvas()

    def find(self, words: str) -> None:
        """Open the study list and wait until it shows these words."""
        self.driver.get(f"{self.address}/")
        body = "return document.body.innerText.toLowerCase()"
        until(
            lambda: words.lower() in self.driver.execute_script(body), deadline_s=90, what=f"{words!r} in OHIF's list"
        )

    def load(self, description: str, modality: str) -> None:
        """Double-click the series of this description and modality in the study browser."""
        name = '[data-cy="study-browser-thumbnail-no-image"]'

        def listed() -> Any:
            found = self.driver.find_elements(By.CSS_SELECTOR, name)
            wanted = {description, modality}
            return next((one for one in found if wanted <= set(one.text.splitlines())), None)

        entry = until(listed, deadline_s=30, what=f"{description!r} in the study browser")
        self.driver.execute_script("arguments[0].scrollIntoView()", entry)
        ActionChains(self.driver).double_click(entry).perform()

    def accept(self, wait_s: float = 6.0) -> bool:
        """Say yes where OHIF asks whether to take over what it has loaded."""

        def asked() -> Any:
            found = self.driver.find_elements(By.XPATH, "//button[normalize-space()='Yes']")
            return next((one for one in found if one.is_displayed()), None)

        try:
            until(asked, deadline_s=wait_s, what="a question").click()
        except AssertionError:
            return False
        return True

    def show(self, sop_instance_uid: str) -> int:
        """Go to the slice that is this instance; its index, -1 when the viewport has it not."""
        until(lambda: self.js("window.__h.ready()"), deadline_s=30, what="a viewport")  # loading an SR makes a new one
        return int(self.js("await window.__h.go(a[0])", sop_instance_uid))

    def canvas(self) -> np.ndarray:
        """The viewport's pixels once they stand still, shape (height, width, 3); no text, no lines."""
        return self._still(lambda: self.js("window.__h.vp().getCanvas().toDataURL('image/png').split(',')[1]"))

    def grid(self) -> np.ndarray:
        """The viewports as on the screen, lines and texts included, once they stand still."""
        element = self.driver.find_element(By.CSS_SELECTOR, '[data-cy="viewport-grid"]')
        return self._still(lambda: element.screenshot_as_base64)

    def _still(self, take: Any) -> np.ndarray:
        seen: list[str] = []

        def twice() -> bool:
            seen.append(take())
            return len(seen) > 1 and seen[-1] == seen[-2]

        until(lambda: twice() or self.driver.execute_async_script("setTimeout(arguments[0], 250)"),
              deadline_s=90, what="a picture that stands still")  # fmt: skip
        return np.asarray(Image.open(BytesIO(base64.b64decode(seen[-1]))).convert("RGB")).astype(int)

    def panel(self, name: str) -> str:
        """The text of a panel on the right, opened where it is closed."""
        for _ in range(3):
            found = self.driver.find_elements(By.CSS_SELECTOR, f'[data-cy="{name}-panel"]')
            if found and found[0].is_displayed():
                return found[0].text
            for button in self.driver.find_elements(By.CSS_SELECTOR, f'[data-cy="{name}-btn"]')[:1]:
                self.driver.execute_script("arguments[0].click()", button)
            self.driver.execute_async_script("setTimeout(arguments[0], 900)")
        return str(self.driver.find_element(By.TAG_NAME, "body").text)

    def drawn(self) -> np.ndarray:
        """Which pixels of the viewports the annotation layer changes, shape (height, width); a question covers none."""
        self.js("window.__h.question(false)")
        hide = "[data-sonner-toaster],[data-sonner-toast]{display:none!important}"
        self._style(hide)
        over = self.grid()
        self._style(hide + "svg.svg-layer{visibility:hidden!important}")
        bare = self.grid()
        self._style(hide)
        self.js("window.__h.question(true)")
        return np.abs(over - bare).max(axis=2) > 6

    def _style(self, words: str) -> None:
        self.driver.execute_script(
            "let s = document.getElementById('__s'); if (!s) { s = document.createElement('style'); s.id = '__s';"
            "document.head.append(s); } s.textContent = arguments[0];", words,
        )  # fmt: skip

    def complaints(self) -> list[str]:
        """Errors on the console and in the messages that a reader sees."""
        logged = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        bad = ("went wrong", "fail", "error", "not supported", "unable", "cannot")
        toasts = [toast for toast in self.js("window.__h.toasts") if any(word in toast.lower() for word in bad)]
        return [line for line in logged if "favicon" not in line] + toasts

    def picture(self, path: Path) -> None:
        """Keep what is on the screen."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))


@contextmanager
def reader(address: str) -> Iterator[Reader]:
    """A headless Chromium at this address."""
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new", "--no-sandbox", "--window-size=1400,900", "--use-gl=angle", "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader", "--no-first-run", "--disable-background-networking", "--disable-sync",
        "--disable-component-update", "--disable-dev-shm-usage",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        driver.set_script_timeout(60)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": IN_PAGE})
        yield Reader(driver, address)
    finally:
        driver.quit()
