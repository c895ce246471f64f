"""A short storm of `python -m tests.chaos`; the long one has 200 kills."""

from pathlib import Path

import pytest

from tests.chaos.__main__ import run
from tests.conftest import component


@pytest.mark.long
@pytest.mark.timeout(900)
def test_whatever_dies_each_result_is_at_the_pacs_once(tmp_path: Path) -> None:
    component("Orthanc")
    assert run(tmp_path / "chaos", kills=8, studies=4, seed=2)["faults"] == []
