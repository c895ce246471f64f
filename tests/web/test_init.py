"""`isocenter init` on settings that lie elsewhere, as a container does it at every start."""

from pathlib import Path

import pytest

from tests.servers import isocenter


@pytest.mark.long
def test_a_node_is_made_once_on_settings_that_lie_elsewhere(tmp_path: Path) -> None:
    config = tmp_path / "etc" / "isocenter.yaml"
    config.parent.mkdir()
    folder = tmp_path / "srv"
    config.write_text(f"storage: {{path: {folder}/store}}\ndatabase: {{url: 'sqlite:///{folder}/isocenter.db'}}\n")
    words = ("init", folder, "--settings", config, "--pacs", "PACS@127.0.0.1:104")
    first = isocenter(*words, "--once")
    assert "shown this once" in first.stderr
    assert sorted(one.name for one in folder.iterdir() if one.suffix != ".db-wal") == ["isocenter.db", "store"]
    assert config.read_text().startswith("storage:")
    again = isocenter(*words, "--once")
    assert (again.returncode, again.stdout + again.stderr) == (0, "")
    refused = isocenter(*words, check=False)
    assert refused.returncode == 2
    assert "has a node already" in refused.stderr
    assert "admin" in isocenter("users", "list", "--config", config).stdout
