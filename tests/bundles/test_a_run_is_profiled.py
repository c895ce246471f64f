"""`isocenter run --profile` tells where the time went: every phase once, and together all of the run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import pytest
from typer.testing import CliRunner, Result

from pipelines import catalog, models, phantom
from router.cli import app, run
from router.cli import pipelines as cards
from tests.bundles import toys
from tests.bundles.test_installed_models import TINY
from tests.bundles.toys import ARGMAX, SOFTMAX, SPACE, TURN, WINDOW, inverted


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chest")
    phantom.write(phantom.chest(spacing=(5.0, 3.4, 3.4)), folder)
    return folder


@pytest.fixture
def piece(tmp_path: Path) -> Path:
    """A little of the chest: the toy looks at it through small tiles."""
    whole = phantom.chest(spacing=(5.0, 3.4, 3.4))
    part = replace(whole.volume, array=whole.volume.array[20:30, 20:44, 20:44].copy())
    phantom.write(replace(whole, volume=part), tmp_path / "piece")
    return tmp_path / "piece"


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[str]:
    """An installed bundle that the catalogue knows."""
    written = toys.config(TINY, [TURN, SPACE, WINDOW], [SOFTMAX, inverted(), ARGMAX])
    saved = toys.save(tmp_path / "toy", written, toys.metadata(["background", "spleen"]), gain=3)
    installed = models.add(saved, tmp_path / "models")
    catalog.look_in(tmp_path / "models")
    yield installed.name
    catalog.look_in(None)


def told(name: str, chest: Path, out: Path, *options: str) -> Result:
    assert run.run is not cards.show  # importing the modules registers their commands, and only several have names
    done = CliRunner().invoke(
        app, ["run", name, str(chest), "--out", str(out), "--config", str(out / "none"), *options]
    )
    assert done.exit_code == 0, done.output
    return done


def test_a_bundle_tells_read_pre_network_post_and_objects(toy: str, piece: Path, tmp_path: Path) -> None:
    began = perf_counter()
    said = json.loads(told(toy, piece, tmp_path / "out", "--profile", "--json").stdout)
    took = perf_counter() - began
    phases = [row["phase"] for row in said["profile"]]
    assert len(phases) == len(set(phases))
    wanted = ["start", "reading", "pre", "network", "post", "objects"]
    assert [phase for phase in phases if phase in wanted] == wanted
    assert all(row["seconds"] >= 0 for row in said["profile"])
    assert sum(row["seconds"] for row in said["profile"]) <= took
    assert sum(row["share"] for row in said["profile"]) == pytest.approx(1, abs=0.01)


def test_an_entry_of_the_catalogue_tells_its_own_phases_as_a_table(chest: Path, tmp_path: Path) -> None:
    shown = told("ct_bone", chest, tmp_path / "out", "--profile").stdout
    assert "Where the time went" in shown
    assert all(phase in shown for phase in ("reading", "seeing upright", "delineating", "measuring", "objects"))
    silent = told("ct_bone", chest, tmp_path / "out", "--json").stdout
    assert "profile" not in json.loads(silent)
