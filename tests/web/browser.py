"""A real browser before a real window: headless Chromium, and `isocenter serve --role web` as a process of its own."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from router import passwords
from router.compose import open_node
from router.config import load
from router.db import accounts
from router.db.engine import writing
from router.domain.access import Role
from router.node import Node
from tests.conftest import REPOSITORY, component, until
from tests.servers import free_port, isocenter, listens
from tests.web.conftest import KEPT, PASSWORD

SCREENS = Path(os.environ.get("ISOCENTER_SCREENS", REPOSITORY / "var" / "screens"))


@dataclass(slots=True)
class Browser:
    """A person before the console."""

    driver: webdriver.Chrome
    url: str

    def open(self, path: str) -> None:
        """Open a page and wait until it is there."""
        self.driver.get(f"{self.url}{path}")
        self.find("h1")

    def log_in(self, name: str) -> None:
        """Log in, after whoever was."""
        self.driver.delete_all_cookies()
        self.open("/login")
        self.find("#name").send_keys(name)
        self.find("#password").send_keys(PASSWORD)
        self.find("button").click()
        until(lambda: self.driver.find_elements(By.CSS_SELECTOR, "nav"), what="the console after the login")

    def find(self, selector: str) -> WebElement:
        """The first element of this CSS selector, once it is there."""
        found = until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), what=selector)
        return found[0]

    def press(self, label: str) -> None:
        """Click the button that says this, or is labelled so, once it is there."""
        wanted = f'//button[normalize-space(.)="{label}" or @aria-label="{label}"]'
        until(lambda: self._clicked(wanted), what=f"the button {label}")

    def _clicked(self, wanted: str) -> bool:
        found = [one for one in self.driver.find_elements(By.XPATH, wanted) if one.is_displayed()]
        if not found:
            return False
        self.driver.execute_script("arguments[0].click()", found[-1])
        return True

    def because(self, title: str) -> None:
        """Give a reason in the dialog, and confirm."""
        field = self.find('input[name="reason"]')
        until(field.is_displayed, what="the question for a reason")
        field.send_keys("a test wants it")
        until(lambda: field.get_attribute("value") == "a test wants it", what="the typed reason")
        self.press(title)

    @property
    def text(self) -> str:
        """All text that is shown."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def shows(self, words: str, *, deadline_s: float = 60) -> None:
        """Wait until these words are on the screen."""
        until(lambda: words in self.text, deadline_s=deadline_s, what=f"{words!r} on the screen")

    def size(self, width: int, height: int = 900) -> None:
        """Make the window's inside so wide."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def theme(self, scheme: str) -> None:
        """What the person's machine prefers: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def screen(self, name: str) -> None:
        """Keep a picture of the whole page for people to look at."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        (SCREENS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def overflowing(self) -> list[str]:
        """What is wider than the screen: the page itself, or, where rows are cards, a table in its frame."""
        return list(self.driver.execute_script(WIDE))

    def pixels(self, selector: str) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """What an image shows, in its own pixels: (height, width, red green blue)."""
        element = self.find(selector)
        until(lambda: self.driver.execute_script(LOADED, element), what="the picture")
        url = self.driver.execute_script(DRAWN, element)
        return np.asarray(Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))

    def complaints(self) -> list[str]:
        """What the browser has complained of, such as a script that its policy stopped."""
        return [str(one["message"]) for one in self.driver.get_log("browser") if one["level"] == "SEVERE"]


WIDE = """
const wide = document.documentElement.scrollWidth - innerWidth;
const frames = innerWidth > 600 ? [] : [...document.querySelectorAll(".scroll")];
return [...(wide > 0 ? [`the page is ${wide} px too wide`] : []),
  ...frames.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => `${one.ariaLabel} is too wide`)];
"""
LOADED = "return arguments[0].complete && arguments[0].naturalWidth > 0"
DRAWN = """
const image = arguments[0], canvas = document.createElement('canvas');
canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
canvas.getContext('2d').drawImage(image, 0, 0);
return canvas.toDataURL('image/png');
"""


@contextmanager
def chromium(url: str) -> Iterator[Browser]:
    """Debian's Chromium, without a screen."""
    component("Chromium")
    options = Options()
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1280,900",
    ):
        options.add_argument(word)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield Browser(driver, url)
    finally:
        driver.quit()


@contextmanager
def window_process(folder: Path) -> Iterator[tuple[Node, str]]:
    """A new node in this folder with a user of each role, and its window as a process; the node and its address."""
    isocenter("init", folder, "--pacs", "PACS@127.0.0.1:1")
    config = folder / "isocenter.yaml"
    document = yaml.safe_load(config.read_text())
    port = free_port()
    config.write_text(yaml.safe_dump({**document, "web": {"port": port}}))
    node = open_node(load(config))
    with writing(node.engine) as connection:
        for role in (Role.VIEWER, Role.OPERATOR):
            accounts.add(connection, str(role), role, KEPT, who="test")
        accounts.set_password(connection, "admin", passwords.hashed(PASSWORD, name=""), who="test")
    with (folder / "web.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "router.cli", "serve", "--config", str(config), "--role", "web"],
            stdout=log, stderr=subprocess.STDOUT, cwd=folder,
        )  # fmt: skip
    try:
        until(lambda: listens(port), deadline_s=60, what="the window")
        yield node, f"http://127.0.0.1:{port}"
        log_text = (folder / "web.log").read_text()
        assert not re.search("Traceback|ERROR|SECRET", log_text), log_text[-3000:]
    finally:
        process.terminate()
        process.wait(20)
        node.engine.dispose()
