"""A chest CT phantom, and an archive that stands in for a PACS and can be looked into."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from pipelines import phantom
from tests.conftest import REPOSITORY, until
from tests.servers import free_port, listens


@pytest.fixture(scope="session")
def chest_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one synthetic chest CT series."""
    folder = tmp_path_factory.mktemp("phantom")
    phantom.write(phantom.chest(), folder)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The demonstration archive, running."""

    folder: Path
    port: int

    @property
    def address(self) -> str:
        return f"ARCHIVE@127.0.0.1:{self.port}"

    def objects(self, modality: str) -> list[Dataset]:
        """What it holds of this modality, whole objects only."""
        found = [dcmread(file) for file in sorted(self.folder.glob("*.dcm"))]
        return [dataset for dataset in found if dataset.Modality == modality]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An archive of its own, empty at first."""
    running = Archive(folder=tmp_path / "archive", port=free_port())
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "deploy" / "archive.py"), str(running.folder), str(running.port)]
    )
    try:
        until(lambda: listens(running.port), what="the archive's start")
        yield running
    finally:
        process.terminate()
        process.wait(20)
