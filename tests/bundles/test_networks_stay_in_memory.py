"""Networks stay in memory between runs, within the room that they have, and leave it when somebody needs it more."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.inferers import SimpleInferer

from pipelines import bundles, catalog, ladder, ledger
from pipelines.ledger import Ledger
from tests.bundles import toys
from tests.bundles.test_labels_are_monais import CHAINS, NAMES
from tests.bundles.toys import UNET

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:FutureWarning", "ignore:.*:UserWarning", "ignore:.*:DeprecationWarning"
)


class Device:
    """A device whose memory is counted; `loads` are the networks that were put there."""

    def __init__(self, room: int) -> None:
        self.used, self.loads = 0, list[str]()
        self.ledger = Ledger(lambda device: room, lambda device: self.used)

    def take(self, name: str, size: int, device: str = "cuda:0", *, least: int = 0) -> Any:
        def load() -> Any:
            self.loads.append(name)
            self.used += size
            return SimpleNamespace(network=name)

        return self.ledger.take(name, device, load, least=least)


def test_what_was_loaded_is_there_for_the_next_run() -> None:
    device = Device(100)
    assert device.take("a", 10) is device.take("a", 10)
    assert device.loads == ["a"]
    assert device.ledger.taken("cuda:0") == 10


def test_the_network_that_was_not_used_for_the_longest_time_leaves_first() -> None:
    device = Device(100)
    for name, size in (("a", 40), ("b", 40), ("a", 40), ("c", 40)):
        device.take(name, size)
    assert list(device.ledger.entries) == ["a", "c"]
    assert device.loads == ["a", "b", "c"]
    assert device.ledger.taken("cuda:0") == 80


def test_room_is_made_before_a_network_comes_as_far_as_its_size_is_known() -> None:
    device = Device(100)
    device.take("a", 60)
    held: list[int] = []

    def load() -> Any:
        held.append(device.ledger.taken("cuda:0"))
        return SimpleNamespace(network="b")

    device.ledger.take("b", "cuda:0", load, least=50)
    assert held == [0]
    assert device.ledger.taken("cuda:0") == 50


def test_one_that_is_larger_than_the_room_is_kept_alone_and_other_devices_are_left_alone() -> None:
    device = Device(100)
    device.take("elsewhere", 90, "cuda:1")
    device.take("a", 20)
    device.take("large", 300)
    assert list(device.ledger.entries) == ["elsewhere", "large"]


def test_a_run_that_finds_no_memory_has_the_others_gone_before_it_becomes_frugal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(100)
    device.take("waiting", 50, "cpu")
    monkeypatch.setattr(ladder, "LEDGER", device.ledger)

    class Tight(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if device.ledger.entries:
                raise MemoryError("out of memory")
            return image

    image = torch.rand(1, 8, 8, 8)
    answer, remarks = ladder.through(image, Tight(), SimpleInferer(), device="cpu")
    assert torch.equal(answer[0], image)
    assert remarks == ()


def test_bundles_take_turns_in_a_room_for_one_and_their_labels_do_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = CHAINS["untouched grid"]
    folders = [
        toys.save(tmp_path / name, toys.config(UNET, before, after), toys.metadata(NAMES), gain=3, seed=seed)
        for seed, name in enumerate(("one", "two"))
    ]
    ledger.LEDGER.spare("cpu")
    first = [toys.run(folder, toys.volume()).labels for folder in folders]
    assert len(ledger.LEDGER.entries) == 2
    monkeypatch.setenv(ledger.ROOM, "1e-9")
    for folder, labels in zip(folders, first, strict=True):
        found = toys.run(folder, toys.volume()).labels
        assert labels is not None
        assert found is not None
        assert (found == labels).all()
    ledger.LEDGER.spare("cpu")
    toys.run(folders[0], toys.volume())
    toys.run(folders[1], toys.volume())
    assert [key[1] for key in ledger.LEDGER.entries] == [bundles.read(folders[1]).digest]


def test_the_sites_setting_reaches_the_ledger() -> None:
    try:
        catalog.look_in(None, gigabytes=1.5)
        assert ledger.room("cpu") == ledger.room("cuda:0") == 1_500_000_000
    finally:
        catalog.look_in(None)
    assert ledger.room("cpu") > 0
    assert ledger.used("cpu") > 10_000_000
