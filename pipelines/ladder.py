"""An image through its network, whatever memory there is: each rung needs less than the one above, the last a CPU.

Before a rung is left, networks that only wait in memory for their next run are let go of.

Source:  MONAI's SlidingWindowInferer, whose arguments are read from the bundle's own inferer
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from dicom_sr.problem import Problem
from pipelines.infer import Placement, Tiling, UnfitAnswerError, blended
from pipelines.ledger import LEDGER

if TYPE_CHECKING:
    from torch import Tensor

Told = Callable[[float], None]


class Network(Protocol):
    """What computes: a batch of images in, its answer out."""

    def __call__(self, images: "Tensor", /) -> Any: ...

    def to(self, device: str, /) -> Any:
        """Moves what it keeps in memory to a device."""


class OutOfMemory(Problem):
    """Not even the last rung of the ladder held."""

    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One way to run: where, how precise, in which tiles, and where the sums are kept; `said` when it was taken."""

    device: str
    half: bool = False
    batch: int | None = None
    keep_on: str | None = None
    smaller: bool = False
    said: str = ""


def rungs(device: str, *, half: bool) -> tuple[Rung, ...]:
    """From the fastest way to the most frugal."""
    top = Rung(device=device, half=half)
    if device == "cpu":
        return top, Rung(device="cpu", smaller=True, said="in smaller tiles")
    return (
        top,
        Rung(device=device, half=half, batch=1, keep_on="cpu", said="tile by tile"),
        Rung(device=device, half=half, batch=1, keep_on="cpu", smaller=True, said="in smaller tiles"),
        Rung(
            device=device, half=True, batch=1, keep_on="cpu", smaller=True, said="in smaller tiles and half precision"
        ),
        Rung(device="cpu", said="on the CPU"),
    )


def through(
    image: "Tensor",
    network: Network,
    inferer: Any,
    *,
    device: str,
    half: bool = False,
    placement: Placement = "published",
    told: Told = lambda fraction: None,
) -> tuple[Any, tuple[str, ...]]:
    """The network's answer for an image, and what must be said about the way it was got.

    Shapes:  (channel, x, y[, z]) -> (1, class, x, y[, z]), or whatever else the inferer gives for a batch of one
    Raises:  OutOfMemory
    """
    one_size = any(getattr(network, "tile", ()))  # an exported network may know no other
    todo = [rung for rung in rungs(device, half=half) if not (rung.smaller and one_size)]
    while todo:
        rung = todo[0]
        try:
            answer = _attempt(rung, image, network, inferer, placement, told)
        except (RuntimeError, MemoryError) as error:
            if not _is_lack_of_memory(error):
                raise
            if not LEDGER.spare(rung.device, but=network):
                todo.pop(0)
            _free(device)
            continue
        finally:
            network.to(device)
        return answer, (f"Memory ran out, so the network ran {rung.said}",) if rung.said else ()
    raise OutOfMemory(
        f"there is not enough memory for this image on {device} nor on the CPU",
        remedy="Run fewer jobs at once on this machine, or give it more memory",
    )


def _attempt(rung: Rung, image: "Tensor", network: Network, inferer: Any, placement: Placement, told: Told) -> Any:
    network.to(rung.device)
    image = image.to(rung.device)
    tiling = tiling_of(inferer, tuple(image.shape[1:]), placement)
    with _precision(rung):
        if tiling is not None:
            tiling = replace(tiling, batch=rung.batch or tiling.batch)
            tiling = _smaller(tiling) if rung.smaller else tiling
            try:
                return blended(image, network, tiling, keep_on=rung.keep_on, told=told)[None]
            except UnfitAnswerError:
                told(0.0)
        return inferer(image[None], network)


def tiling_of(inferer: Any, size: tuple[int, ...], placement: Placement) -> Tiling | None:
    """How MONAI's sliding-window inferer would cut an image of this size; None for any other inferer."""
    from monai.inferers import SlidingWindowInferer, SlidingWindowInfererAdapt
    from monai.utils import BlendMode, ensure_tuple_rep, fall_back_tuple

    if type(inferer) not in (SlidingWindowInferer, SlidingWindowInfererAdapt) or inferer.with_coord:
        return None
    return Tiling(
        roi=tuple(int(n) for n in fall_back_tuple(inferer.roi_size, size)),
        overlap=tuple(float(o) for o in ensure_tuple_rep(inferer.overlap, len(size))),
        gaussian=inferer.mode == BlendMode.GAUSSIAN,
        sigma=tuple(float(s) for s in ensure_tuple_rep(inferer.sigma_scale, len(size))),
        padding_mode=str(getattr(inferer.padding_mode, "value", inferer.padding_mode)),
        fill=float(inferer.cval),
        batch=int(inferer.sw_batch_size),
        placement=placement,
    )


def _smaller(tiling: Tiling) -> Tiling:
    """Tiles of about two thirds, still a multiple of what networks halve into, spread evenly."""
    return replace(tiling, roi=tuple(_two_thirds(tile) for tile in tiling.roi), batch=1, placement="even")


def _two_thirds(tile: int) -> int:
    step = next((step for step in (32, 16, 8, 4, 2, 1) if tile % step == 0 and step < tile), 1)
    return max(round(tile * 2 / 3 / step), 1) * step


def _precision(rung: Rung) -> AbstractContextManager[Any]:
    import torch

    if rung.half and rung.device != "cpu":
        return torch.autocast("cuda", dtype=torch.float16)
    return nullcontext()


def _is_lack_of_memory(error: BaseException) -> bool:
    import torch

    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        phrase in words for phrase in ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
    )


def _free(device: str) -> None:
    import gc

    import torch

    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
