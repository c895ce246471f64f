"""Networks that stay in memory between runs, and the ledger of what each of them takes.

Loading a network takes longer than many a run, so it stays where it was put until the room is needed: by another
network, then the one that was not used for the longest time goes; or by a run that finds no memory, then all others go
before the run becomes more frugal (`pipelines.ladder`). Sizes are measured: on a GPU what torch has allocated there, on
a CPU by how much the process has grown, and never less than the file of the weights.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.model import Model

ROOM = "ISOCENTER_MODELS_GB"
"""Environment variable with the memory that networks may take on a device, in 10^9 bytes; by default a share of it."""
SHARES = {"cuda": 0.5, "cpu": 0.25}


@dataclass(frozen=True, slots=True)
class Entry:
    """A network in memory: where, and how many bytes it takes there."""

    model: "Model"
    device: str
    size: int


class Ledger:
    """The networks of this process; `room` says how many bytes they may take on a device, `used` how many are used."""

    def __init__(self, room: Callable[[str], int], used: Callable[[str], int]) -> None:
        self.room, self.used = room, used
        self.entries: OrderedDict[Hashable, Entry] = OrderedDict()

    def take(self, key: Hashable, device: str, load: Callable[[], "Model"], *, least: int) -> "Model":
        """The network of this key, loaded if it is not there; `least` is what it takes at least, in bytes."""
        if key in self.entries:
            self.entries.move_to_end(key)
            return self.entries[key].model
        self._make_room(device, least)
        before = self.used(device)
        model = load()
        self.entries[key] = Entry(model, device, max(self.used(device) - before, least))
        self._make_room(device, 0, but=key)
        return model

    def spare(self, device: str, *, but: object = None) -> bool:
        """Lets go of every network on a device but this one; whether there was any."""
        others = [key for key, one in self.entries.items() if one.device == device and one.model.network is not but]
        for key in others:
            del self.entries[key]
        return bool(others)

    def taken(self, device: str) -> int:
        """Bytes that the networks on a device take."""
        return sum(one.size for one in self.entries.values() if one.device == device)

    def _make_room(self, device: str, size: int, *, but: Hashable = None) -> None:
        """Lets go of networks, those first that were not used for the longest time, until so many bytes fit in."""
        for key in [key for key, one in self.entries.items() if one.device == device and key != but]:
            if self.taken(device) + size <= self.room(device):
                return
            del self.entries[key]


def room(device: str) -> int:
    """Bytes that networks may take on a device: as the site says, else a share of its memory."""
    stated = os.environ.get(ROOM)
    if stated:
        return int(float(stated) * 1e9)
    kind = device.partition(":")[0]
    if kind == "cpu":
        return int(SHARES[kind] * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    import torch

    return int(SHARES[kind] * torch.cuda.mem_get_info(device)[1])


def used(device: str) -> int:
    """Bytes in use on a device by this process."""
    if device == "cpu":
        with open("/proc/self/statm", encoding="ascii") as memory:
            return int(memory.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import torch

    return int(torch.cuda.memory_allocated(device))


LEDGER = Ledger(room, used)
"""Of this process."""
