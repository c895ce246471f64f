"""Where it happens: a node on a disk of its own, a real Orthanc, small studies, and somebody who sends them."""

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from pydicom import Dataset

from router.config import load
from router.db import revisions
from router.db.engine import connect, writing
from router.db.revisions import Kind
from tests.conftest import REPOSITORY, until
from tests.disk import CannotPretend, mount, unmount
from tests.objects.conftest import ct_series
from tests.servers import Orthanc, RunningNode, free_port, isocenter, orthanc

SHELF = Path(__file__).parent / "shelf"
ROOT = "1.2.826.0.1.3680043.10.99999.7"
SLICES = 6
DISK_MB = 400

SETTINGS: dict[str, Any] = {
    "storage": {"path": "store", "purge_free_gb": 0, "refuse_free_gb": 0, "reject_free_gb": 0},
    "inference": {"device": "cpu", "lease_s": 5, "max_attempts": 100, "threads": 1},
    "delivery": {"retry_first_s": 0.5, "retry_cap_s": 4, "max_attempts": 1000},
    "completeness": {"quiet_period_s": 90},
    "web": {"port": 0},
}
"""The disk is small, so that it can be filled; attempts are many, since the kills spend them."""

RULE = {"name": "everything", "scope": "series", "when": {"Modality": "CT"}, "pipelines": ["moody"],
        "destinations": ["pacs"]}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Scene:
    """Everything that takes part."""

    folder: Path
    disk: Path
    image: Path | None
    """File system of `disk`; None where this machine mounts none."""
    pacs: Orthanc
    node: RunningNode
    studies: dict[str, list[Path]] = field(default_factory=dict)
    """Files by StudyInstanceUID."""

    def kill_node(self) -> None:
        """SIGKILL to every process of the node, and wait until all are gone."""
        self.node.kill()
        until(lambda: not self.node.left(), deadline_s=60, what="the end of the killed node")

    def kill_supervisor(self) -> None:
        """SIGKILL to the supervisor alone: the roles see that it is gone, finish what they have in hand, and end."""
        assert self.node.process is not None
        self.node.process.kill()
        self.node.process.wait()
        until(lambda: not self.node.left(), deadline_s=150, what="the end of the roles without their supervisor")


@contextmanager
def scene(folder: Path, *, studies: int, seed: int) -> Iterator[Scene]:
    """A node that runs and an Orthanc with the first rules and destinations; both end with the context.

    When the context ends with an error, what lay on the disk is copied to `folder` before it goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = f"{SHELF}:{REPOSITORY}"  # of the node and of our commands
    image: Path | None = folder / "disk.img"
    disk = folder / "disk"
    try:
        mount(folder / "disk.img", disk, megabytes=DISK_MB)
    except CannotPretend:
        image = None
        disk.mkdir(exist_ok=True)
    with ExitStack() as stack:
        stack.callback(_leave_disk, folder, disk, mounted=image is not None)
        port = free_port()
        pacs = stack.enter_context(orthanc(folder / "orthanc", {"isocenter": ("ISOCENTER", port)}))
        node = RunningNode(folder=disk / "node", port=port, log_path=folder / "serve.log")
        made = Scene(folder=folder, disk=disk, image=image, pacs=pacs, node=node)
        _settle_in(made, port)
        made.studies = dict(_study(folder / "scans", seed, number) for number in range(studies))
        stack.callback(_end, made)
        node.start()
        yield made


def _settle_in(made: Scene, port: int) -> None:
    node = made.node
    isocenter("init", node.folder, "--pacs", f"ORTHANC@127.0.0.1:{made.pacs.dicom_port}", "--port", str(port))
    document = yaml.safe_load(node.config.read_text())
    document["listener"]["host"] = "127.0.0.1"
    node.config.write_text(yaml.safe_dump({**document, **SETTINGS}))
    engine = connect(load(node.config).database.url)
    source = {"ae_title": "ORTHANC", "addresses": ["127.0.0.1"], "witnesses": ["every_series"]}
    with writing(engine) as connection:
        revisions.add(connection, Kind.RULES, [RULE], author="chaos")
        revisions.add(connection, Kind.SOURCES, [source], author="chaos")
    engine.dispose()


def _study(folder: Path, seed: int, number: int) -> tuple[str, list[Path]]:
    uid = f"{ROOT}.{seed}.{number}"

    def change(slice_: Dataset, index: int) -> None:
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = uid, f"{uid}.1"
        slice_.SOPInstanceUID, slice_.FrameOfReferenceUID = f"{uid}.2.{index}", f"{uid}.3"
        slice_.PatientID, slice_.PatientName = f"CHAOS{number:03}", f"Chaos^{number:03}"
        slice_.AccessionNumber, slice_.ImagesInAcquisition = f"A{number:03}", SLICES
        slice_.PixelData = bytes(random.Random(f"{uid}.{index}").randbytes(len(slice_.PixelData)))

    return uid, ct_series(folder / f"{number:03}", shape=(SLICES, 16, 24), change=change)


def _end(made: Scene) -> None:
    if made.node.left():
        os.killpg(made.node.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        until(lambda: not made.node.left(), deadline_s=60, what="the end of the node")


def _leave_disk(folder: Path, disk: Path, *, mounted: bool) -> None:
    if mounted:
        kept = folder / "node"
        shutil.copytree(disk / "node", kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("run"))
        unmount(disk)
        (folder / "disk.img").unlink()


class Feeder(threading.Thread):
    """Puts studies into Orthanc and lets it forward them, each again until every instance has got its Success.

    A study comes when `due` says so, so that studies come for as long as things die.
    """

    def __init__(self, made: Scene) -> None:
        super().__init__(daemon=True)
        self.made = made
        self.due = 0
        self.sent: list[str] = []
        self.tries = 0
        self.over = threading.Event()

    @property
    def done(self) -> bool:
        """Whether every study has been forwarded."""
        return len(self.sent) == len(self.made.studies)

    def run(self) -> None:
        """Forward them in their order."""
        for number, (uid, paths) in enumerate(self.made.studies.items()):
            while self.due <= number and not self.over.is_set():
                time.sleep(0.05)
            while not self.over.is_set() and not self.forward(paths):
                self.tries += 1
                time.sleep(0.5)
            self.sent.append(uid)

    def forward(self, paths: list[Path]) -> bool:
        """Whether Orthanc has the study, and has got a Success for each of its instances."""
        try:
            with httpx.Client(base_url=self.made.pacs.http.base_url, timeout=120) as http:
                for path in paths:
                    stored = http.post("/instances", content=path.read_bytes())
                    stored.raise_for_status()
                study = stored.json()["ParentStudy"]
                order = {"Resources": [study], "Synchronous": True, "Timeout": 30}
                answer = http.post("/modalities/isocenter/store", content=json.dumps(order))
            return answer.status_code == 200 and answer.json()["FailedInstancesCount"] == 0
        except httpx.HTTPError:
            return False
