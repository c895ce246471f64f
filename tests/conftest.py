"""What all tests share: where the real data lies, which components the machine has, and waiting with a deadline."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

VENV = str(Path(sys.executable).parent)
os.environ["PATH"] = os.pathsep.join([*(d for d in os.environ["PATH"].split(os.pathsep) if d != VENV), VENV])
"""DCMTK's storescu, findscu ... come before pynetdicom's programs of the same names, which lie beside our Python."""

REPOSITORY = Path(__file__).parent.parent
DATA = Path(os.environ.get("ISOCENTER_DATA", REPOSITORY.parent / "shared" / "data"))

COMPONENTS: dict[str, Callable[[], object]] = {
    "Orthanc": lambda: shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin"),
    "Orthanc DICOMweb": lambda: next(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb*"), None),
    "DCMTK": lambda: shutil.which("storescu"),
    "dicom3tools": lambda: shutil.which("dciodvfy"),
    "PixelMed": lambda: Path("/usr/share/java/pixelmed.jar").exists() and shutil.which("java"),
    "Chromium": lambda: shutil.which("chromium"),
    "Chromedriver": lambda: shutil.which("chromedriver"),
    "OHIF": lambda: shutil.which("npm") and viewer_pages(),
    "PostgreSQL": lambda: next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None),
    "strace": lambda: shutil.which("strace"),
}


def viewer_pages() -> bool:
    """OHIF's pages, fetched by npm once."""
    from tests.viewer.ohif import fetch

    return fetch()


def component(name: str) -> None:
    """Skip by name where a component is missing; with CI=true its absence is a failure."""
    if COMPONENTS[name]():
        return
    message = f"{name} is not installed here (deploy/test installs it on Debian)"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the real scans."""
    if not DATA.is_dir():
        pytest.skip(f"the real scans are not at {DATA} (set ISOCENTER_DATA)")
    return DATA


def until(condition: Callable[[], T], *, deadline_s: float = 60.0, what: str = "condition") -> T:
    """The first true value of `condition`, asked again and again until the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {deadline_s} s")
        time.sleep(0.02)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A throw-away PostgreSQL (tests.postgres.Cluster) for the whole session; each `database()` is new and empty."""
    from tests.postgres import cluster

    with cluster() as running:
        yield running
