"""The console before one whole node: a person watches a study from the door to the archive, and has a word in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from axe_core_python.selenium import Axe
from pydicom import Dataset, dcmread
from pynetdicom import evt
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from sqlalchemy import Engine

from pipelines import phantom
from router.config import load
from router.db import accounts, jobs, revisions, studies
from router.db.engine import connect, reading, writing
from router.db.revisions import Kind
from router.domain.access import Role
from router.domain.job import Job, Lane, State
from tests.conftest import component, until
from tests.delivery.scp import Archive, archive
from tests.servers import RunningNode, free_port, listens, node
from tests.web.browser import Browser, chromium
from tests.web.conftest import KEPT

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

RULE = """
- name: whole node
  scope: series
  when: {Modality: MR}
  pipelines: [ct_lung]
  destinations: [pacs]
  mode: shadow
"""
FOLLOW = """
window.heard = {};
const note = () => {
  for (const link of document.querySelectorAll(`section a[href="/studies/${arguments[0]}"]`))
    window.heard[link.closest("section").querySelector("h2").textContent] = true;
};
new MutationObserver(note).observe(document, { subtree: true, childList: true, attributes: true });
"""
"""Keeps under which headings a study was ever seen."""


class Moody(Archive):
    """It says no while it is told to."""

    declines = False

    def store(self, event: evt.Event) -> int:
        return 0xC000 if self.declines else super().store(event)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A node that runs, the archive behind it, a browser before it, and a chest CT that was not sent yet."""

    node: RunningNode
    far: Moody
    browser: Browser
    files: list[Path]
    study: str
    engine: Engine

    def deliveries(self) -> list[Job]:
        """All deliveries, the newest first."""
        with reading(self.engine) as connection:
            return jobs.list_(connection, lane=Lane.DELIVER)

    def came(self) -> bool:
        """Whether its study was sent by now."""
        with reading(self.engine) as connection:
            return studies.find(connection, self.study) is not None

    def rules(self) -> list[str]:
        """Names of the rules in force."""
        with reading(self.engine) as connection:
            return [str(one["name"]) for one in revisions.current(connection, Kind.RULES).body]


@contextmanager
def database(running: RunningNode) -> Iterator[Engine]:
    """The node's database, from outside."""
    engine = connect(load(running.config).database.url)
    try:
        yield engine
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    component("Chromium")
    folder = tmp_path_factory.mktemp("whole")
    files = phantom.write(phantom.chest(spacing=(5.0, 1.7, 1.7)), folder / "phantom")
    port = free_port()
    with archive(state=Moody()) as far:
        assert isinstance(far, Moody)
        with node(
            folder / "node", f"ARCHIVE@127.0.0.1:{far.port}", quiet_period_s=4, web={"port": port},
            delivery={"max_attempts": 2}, inference={"device": "cpu"},
        ) as running:  # fmt: skip
            until(lambda: listens(port), deadline_s=180, what="the window")
            with database(running) as engine, chromium(f"http://127.0.0.1:{port}") as browser:
                with writing(engine) as connection:
                    for role in (Role.VIEWER, Role.OPERATOR):
                        accounts.add(connection, str(role), role, KEPT, who="test")
                    accounts.set_password(connection, "admin", KEPT, who="test")
                study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
                yield Scene(node=running, far=far, browser=browser, files=files, study=study, engine=engine)
        assert running.log
        assert "Traceback" not in running.log


@pytest.fixture
def browser(scene: Scene) -> Browser:
    scene.browser.size(1280)
    scene.browser.theme("light")
    return scene.browser


def faults_of_access(browser: Browser) -> list[str]:
    """Serious faults of accessibility on the page as it is now."""
    found = Axe().run(browser.driver)["violations"]
    return [
        f"{one['id']}: {[part['html'][:200] for part in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def went_through(scene: Scene) -> None:
    """Its study was sent, and what was found on it is at the archive."""
    if not scene.came():
        scene.node.send(*scene.files)
    until(lambda: {one.state for one in scene.deliveries()} == {State.DONE}, deadline_s=180, what="the first delivery")


def mask_of(far: Archive, files: list[Path]) -> np.ndarray:
    """What the archive was given, as (slice, row, column) of segment numbers, slices from feet to head."""
    heights = sorted(float(dcmread(one, stop_before_pixels=True).ImagePositionPatient[2]) for one in files)
    (seg,) = (found for found in map(far.dataset, far.kept) if found.Modality == "SEG")
    seg.file_meta = Dataset()
    seg.file_meta.TransferSyntaxUID = far.syntaxes[str(seg.SOPInstanceUID)]
    made = np.zeros((len(heights), seg.Rows, seg.Columns), np.uint8)
    for frame, item in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        at = heights.index(float(item.PlanePositionSequence[0].ImagePositionPatient[2]))
        made[at][frame > 0] = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    return made


def test_a_study_goes_through_live(scene: Scene, browser: Browser) -> None:
    browser.log_in("viewer")
    browser.open("/")
    browser.shows("No study is arriving.")
    browser.driver.execute_script(FOLLOW, scene.study)
    scene.node.send(*scene.files)
    until(lambda: "Arriving" in browser.driver.execute_script("return heard"), what="the study in the list")
    browser.screen("node-a-study-arrives")
    until(lambda: "Running" in browser.driver.execute_script("return heard"), deadline_s=120, what="its run")
    went_through(scene)
    row = '//section[h2="Destinations"]//td[.="pacs"]/../td[@data-label="Delivered"]'
    until(lambda: browser.driver.find_element(By.XPATH, row).text == "1", what="a delivery on the page, live")
    browser.shows("Nothing. Everything that arrived is on its way or done.")
    browser.screen("node-a-study-went-through")
    assert not faults_of_access(browser)
    assert len(scene.far.kept) == 2, "SEG and SR"


def test_what_the_archive_got_is_what_the_console_draws(scene: Scene, browser: Browser) -> None:
    went_through(scene)
    truth = mask_of(scene.far, scene.files)
    browser.log_in("viewer")
    browser.open(f"/studies/{scene.study}")
    browser.shows("Left lung")
    slider = browser.find('#viewer input[type="range"]')
    planes, rows, columns = truth.shape
    best = int(np.count_nonzero(truth, axis=(1, 2)).argmax())
    for index in {0, planes // 3, best, planes - 1}:
        browser.driver.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", slider, index
        )
        browser.shows(f"Slice {index + 1} of {planes}")
        picture = browser.pixels("#slice").astype(int)
        height, width, _ = picture.shape
        at = np.ix_(
            ((np.arange(rows) + 0.5) * height / rows).astype(int),
            ((np.arange(columns) + 0.5) * width / columns).astype(int),
        )
        assert ((np.ptp(picture[at], axis=2) > 12) == (truth[index] > 0)).all(), f"slice {index}"
    browser.screen("node-study-with-lungs")
    for scheme, width in (("dark", 1280), ("light", 360)):
        browser.theme(scheme)
        browser.size(width)
        browser.screen(f"node-study-with-lungs-{scheme}-{width}")
        assert not faults_of_access(browser)
        assert not browser.overflowing()


def test_a_failed_delivery_is_retried_and_arrives(scene: Scene, browser: Browser) -> None:
    went_through(scene)
    first = scene.deliveries()[0].id
    browser.log_in("operator")
    browser.open(f"/jobs/{first}")
    scene.far.declines = True
    browser.press(f"Re-send job {first}")
    browser.because(f"Rerun job {first}")
    until(lambda: scene.deliveries()[0].state is State.FAILED, what="the failure")
    job_id = scene.deliveries()[0].id
    assert job_id != first
    browser.open("/")
    browser.shows("C000")
    browser.screen("node-a-delivery-failed")
    assert not faults_of_access(browser)
    scene.far.declines = False
    before = len(scene.far.asked)
    browser.press(f"Retry job {job_id}")
    browser.because(f"Retry job {job_id}")
    browser.shows("Nothing. Everything that arrived is on its way or done.")
    until(lambda: scene.deliveries()[0].state is State.DONE, what="the delivery")
    assert len(scene.far.asked) > before
    assert not scene.far.changed, "what is sent again is the kept file"


def test_a_rule_is_tried_made_and_rolled_back(scene: Scene, browser: Browser) -> None:
    browser.log_in("admin")
    browser.open("/rules")
    some = "\n".join(str(one) for one in scene.files[10:22])
    browser.find('input[type="file"]').send_keys(some)
    browser.shows("chest ct lungs: fires: ct_lung to pacs")
    browser.screen("node-rules-files-were-dropped")
    assert not faults_of_access(browser)
    editor = browser.find(".cm-content")
    editor.click()
    editor.send_keys(Keys.CONTROL + Keys.END)
    browser.driver.execute_cdp_cmd("Input.insertText", {"text": RULE})
    browser.shows("No fault.")
    browser.press("Put rules in force")
    browser.because("Put rules in force")

    until(lambda: scene.rules() == ["chest ct lungs", "whole node"], what="the new rule")
    browser.shows("Roll back")
    browser.press("Roll rules back to revision 1")
    browser.because("Roll rules back to revision 1")
    until(lambda: scene.rules() == ["chest ct lungs"], what="the old rules")
    with reading(scene.engine) as connection:
        assert [one.number for one in revisions.list_(connection, Kind.RULES)] == [3, 2, 1]


def test_a_viewer_is_refused(scene: Scene, browser: Browser) -> None:
    went_through(scene)
    job_id = scene.deliveries()[0].id
    browser.log_in("viewer")
    browser.open(f"/jobs/{job_id}")
    assert not browser.driver.find_elements(By.CSS_SELECTOR, f'[aria-label="Re-send job {job_id}"]')
    browser.driver.get(f"{browser.url}/users")
    assert "needs the scope administer" in browser.driver.page_source
    browser.open("/")
    asked = browser.driver.execute_async_script(
        "const done = arguments[1]; fetch(`/api/v1/jobs/${arguments[0]}/rerun`, {method: 'POST', headers: "
        "{'content-type': 'application/json'}, body: '{\"reason\": \"just so\"}'}).then(r => done(r.status))",
        job_id,
    )
    assert asked == 403
    assert scene.deliveries()[0].id == job_id
