"""Two rules that pick one pipeline for two destinations: one run, two deliveries."""

from pathlib import Path

import pytest
import yaml

from tests.conftest import until
from tests.corridor.conftest import Archive
from tests.servers import isocenter, node


@pytest.mark.long
def test_two_rules_and_two_destinations_share_one_run(tmp_path: Path, archive: Archive, chest_phantom: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with node(tmp_path / "node", archive.address) as ours:
        config = ("--config", ours.config)
        destinations = yaml.safe_load(isocenter("destinations", "export", *config).stdout)
        (pacs,) = destinations["destinations"]
        destinations["destinations"].append({"kind": "folder", "name": "shelf", "path": str(shelf)})
        (tmp_path / "destinations.yaml").write_text(yaml.safe_dump(destinations))
        isocenter("destinations", "import", tmp_path / "destinations.yaml", *config)
        rules = yaml.safe_load(isocenter("rules", "export", *config).stdout)
        rules["rules"].append(
            {
                "name": "every CT to the shelf",
                "scope": "series",
                "when": {"Modality": "CT"},
                "pipelines": ["ct_lung"],
                "destinations": ["shelf"],
            }
        )
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
        isocenter("rules", "import", tmp_path / "rules.yaml", *config)

        ours.send(chest_phantom)
        jobs = ours.settled()
        assert sorted((job["lane"], job["work"], job["state"]) for job in jobs if job["lane"] == "deliver") == [
            ("deliver", f"delivery to {pacs['name']}", "done"),
            ("deliver", "delivery to shelf", "done"),
        ]
        assert len([job for job in jobs if job["lane"] == "infer"]) == 1
        until(lambda: archive.objects("SR"), what="the SR in the archive")
        there = {d.SOPInstanceUID for m in ("SEG", "SR") for d in archive.objects(m)}
        assert len(there) == len([file for file in shelf.rglob("*") if file.is_file()]) == 2
