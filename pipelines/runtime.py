"""Where a pipeline computes: which device, how many threads, and the same answer every time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dicom_sr.problem import Problem

AUTO = "auto"

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
"""Read once, when torch is first imported. Threads that wait by spinning made a run ten times slower on a busy node."""


class NoSuchDevice(Problem):
    """The configured device is not one of this machine's."""


def device(name: str = AUTO) -> str:
    """The torch device that `name` means here: "cpu", "cuda:N", or for "auto" the first GPU, else the CPU.

    Raises:  NoSuchDevice
    """
    import torch

    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == AUTO:
        return "cuda:0" if present else "cpu"
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    if kind == "cuda" and (not number or number.isdecimal()) and int(number or 0) < present:
        return f"cuda:{int(number or 0)}"
    raise NoSuchDevice(
        f"device {name!r} is not on this machine, which has {present} GPUs",
        remedy='Set the device to "auto", "cpu" or one of the GPUs that nvidia-smi lists, as "cuda:N"',
    )


def cores() -> int:
    """Number of cores that this process may use, which an affinity mask may make fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def settled(threads: int | None = None) -> Iterator[None]:
    """Computes deterministically and without gradients, on at most `threads` threads, by default all cores.

    More threads than cores cost a factor of three, so the number never exceeds them. Many small operations are best
    done on one: threads that wait for each other spin, and on a busy machine that takes longer than the work.
    """
    import torch

    flags: Any = torch.utils.deterministic
    before = torch.get_deterministic_debug_mode(), flags.fill_uninitialized_memory
    # not use_deterministic_algorithms: that imports torch's compiler, 2.5 s of the first run
    torch.set_deterministic_debug_mode("error")
    flags.fill_uninitialized_memory = False  # else every new tensor is written twice
    try:
        with torch.inference_mode(), at_most(threads or cores()):
            yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        flags.fill_uninitialized_memory = before[1]


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """Computes on this many threads, and on no more than there are cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(threads, cores())))
    try:
        yield
    finally:
        torch.set_num_threads(before)
