"""A bundle in memory, and one volume through it.

Two ways lead through, with the same labels at the end. Where the published chain turns the image and spaces it along
its axes, and then works voxel by voxel, `pipelines.infer` and `pipelines.inverse` do it in few passes; any other chain
runs as published, with MONAI's own transforms on a MetaTensor. This module chooses; it imports torch and monai.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor, nn

from dicom_sr.nouns import Algorithm, Findings, Volume
from pipelines import (
    agreement,
    boxes,
    classified,
    delineated,
    ending,
    engines,
    fused,
    ladder,
    published,
    reported,
    runtime,
    weights,
)
from pipelines.agreement import Runs
from pipelines.bundles import Bundle, BundleSettings
from pipelines.declared import Declaration, Dropped, Step
from pipelines.geometry import MOVES, Geometry, geometry, in_ras
from pipelines.infer import Placement, resampled
from pipelines.reported import Answer, Boxed, Labelled, Scored
from pipelines.spec import Progress, Refused
from pipelines.trust import Untrusted

VOXELWISE = frozenset(
    (
        "AdjustContrast",
        "ClipIntensityPercentiles",
        "NormalizeIntensity",
        "ScaleIntensity",
        "ScaleIntensityRange",
        "ScaleIntensityRangePercentiles",
        "ShiftIntensity",
        "StdShiftIntensity",
        "ThresholdIntensity",
    )
)
"""Steps that move no voxel: they run as they are, on the network's grid."""
FLOAT32 = frozenset((None, torch.float32, np.float32, "float32", "torch.float32", "float"))
PRE, NETWORK, POST = 0.0, 0.1, 0.85
"""Where the phases begin, as fractions of a run."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A bundle's network, inferer and steps, on one device."""

    bundle: Bundle
    network: ladder.Network
    inferer: Any
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    chain: published.Chain = field(repr=False)
    device: str
    half: bool


def load(bundle: Bundle, device: str) -> Model:
    """Builds a bundle's network and fills in its weights.

    Raises:  Untrusted
    """
    where = runtime.device(device)
    declaration, engine = bundle.declaration(where), engines.of(bundle.root)
    network: Any
    try:
        network = declaration.get("network_def") if engine is None else engine[0].network(engine[1], where)
        inferer = declaration.get("inferer")
        before, dropped = _steps(declaration, "preprocessing")
        after, _ = _steps(declaration, "postprocessing")
        if declaration.has("evaluator::_requires_"):
            declaration.get("evaluator::_requires_")
        chain = published.chain(_image_key(dropped, before), before, after)
    except (TypeError, ValueError, AttributeError, KeyError, ImportError, RuntimeError) as misfit:
        raise Untrusted(
            f"the bundle {bundle.name} cannot be built: {type(misfit).__name__}: {str(misfit)[:300]}",
            remedy="Try it with the MONAI version that its metadata names; it may need an optional package",
        ) from misfit
    if engine is None:
        _fill(network, bundle, declaration, where)
    half = bool(declaration.config.get("evaluator", {}).get("amp")) and where != "cpu"
    return Model(
        bundle=bundle,
        network=network,
        inferer=inferer,
        before=before,
        after=after,
        chain=chain,
        device=where,
        half=half,
    )


def _fill(network: nn.Module, bundle: Bundle, declaration: Declaration, device: str) -> None:
    """Puts the bundle's weights into a network that MONAI built, and makes it ready on the device."""
    path, wrapper, strict = weights.find(bundle.root, declaration)
    weights.load(network, path, wrapper=wrapper, strict=strict, unpickle=bundle.isolated)
    network.requires_grad_(False).eval().to(device)
    if device == "cpu" and bundle.task == "segmentation" and not bundle.isolated:
        fused.together(fused.fuse(network))


def _steps(declaration: Declaration, place: str) -> tuple[tuple[Step, ...], list[Dropped]]:
    """The transforms of a Compose, nested ones included, and what was left out of it."""
    if not declaration.has(place):
        return (), []
    todo, steps, dropped = [declaration.get(place)], [], []
    while todo:
        item = todo.pop(0)
        if isinstance(item, Step) and item.name == "Compose":
            todo = [*item.arguments.get("transforms", ()), *todo]
        elif isinstance(item, Step) and item.keyed:
            steps.append(item)
        elif isinstance(item, Dropped):
            dropped.append(item)
        elif item is not None:
            raise ValueError(f"{place} holds a {getattr(item, 'name', type(item).__name__)} that works on bare arrays")
    return tuple(steps), dropped


def _image_key(dropped: Sequence[Dropped], before: Sequence[Step]) -> str:
    """Under which key the image is read."""
    read = [item.arguments.get("keys") for item in dropped if item.name == "LoadImage"]
    read += [step.arguments.get("keys") for step in before]
    keys = next((key for key in read if key), published.IMAGE)
    return keys if isinstance(keys, str) else str(next(iter(keys)))


# ---------------------------------------------------------------- one volume


def run(model: Model, volume: Volume, settings: BaseModel, progress: Progress) -> Findings:
    """The bundle's findings on a volume.

    Raises:  Refused, Untrusted, OutOfMemory
    """
    options = settings if isinstance(settings, BundleSettings) else BundleSettings()
    answer, remarks = answered(model, volume, options, progress)
    parameters = [(name, str(value)) for name, value in sorted(options.model_dump(mode="json").items())]
    computed = getattr(model.network, "said", None)
    parameters += [("network", computed)] if computed else []
    return reported.findings(
        answer,
        volume,
        algorithm=Algorithm(
            name=model.bundle.name,
            version=model.bundle.version,
            weights_digest=model.bundle.digest,
            parameters=tuple(parameters),
        ),
        names=model.bundle.labels,
        remarks=remarks,
        minimum_score=options.minimum_score,
    )


def answered(
    model: Model, volume: Volume, options: BundleSettings, progress: Progress
) -> tuple[Answer, tuple[str, ...]]:
    """What the network says of a volume, on the volume's own grid, and what must be said about the way it was got.

    Raises:  Refused, Untrusted, OutOfMemory
    """
    _accept(model.bundle, volume, options)
    with runtime.settled():
        progress("pre", PRE)
        answer, remarks = _answer(model, volume, options, progress)
        if options.saliency and isinstance(answer, Scored):
            answer = replace(answer, saliency=classified.seen(model, volume, answer, partial(_share, progress)))
    return answer, (*remarks, *_lacking(answer, options))


def _share(progress: Progress, fraction: float) -> None:
    """Tells how far what comes after the network is."""
    progress("post", POST + (1 - POST) * fraction)


def _lacking(answer: Answer, options: BundleSettings) -> Iterator[str]:
    """What was asked for and cannot be said of this answer."""
    if isinstance(answer, Scored | Boxed):
        return
    labelled = answer if isinstance(answer, Labelled) else None
    if options.certainty and (labelled is None or labelled.sure is None):
        yield "The probability of each structure is not given: this bundle's chain does not end in classes"
    if options.mirrored != "no" and (labelled is None or labelled.agreed is None):
        yield "The agreement of mirrored runs is not given: this bundle's chain does not end in classes"


def _accept(bundle: Bundle, volume: Volume, options: BundleSettings) -> None:
    if options.mirrored != "no" and bundle.task == "detection":
        raise Refused(
            f"{bundle.name} gives boxes, whose mean over mirrored images means nothing",
            remedy='Set mirrored to "no" for it',
        )
    if options.saliency and bundle.task != "classification":
        raise Refused(
            f"{bundle.name} classifies nothing, so there is nothing to explain", remedy="Set saliency to false for it"
        )
    if bundle.modalities and volume.acquisition.modality not in bundle.modalities:
        raise Refused(
            f"{bundle.name} was made for {' or '.join(bundle.modalities)}, not for {volume.acquisition.modality}",
            remedy="Route only series of that modality to it",
        )
    if bundle.channels > 1 and not (bundle.channels == 3 and bundle.dimensions == 2):
        raise Refused(
            f"{bundle.name} needs {bundle.channels} images at once, a series gives one",
            remedy="Such bundles cannot run on single series",
        )
    if bundle.task == "classification" and bundle.dimensions == 2 and len(volume.array) > 1:
        raise Refused(
            f"{bundle.name} classifies single images, this series has {len(volume.array)}",
            remedy="Route only single images to it",
        )


def _answer(
    model: Model, volume: Volume, options: BundleSettings, progress: Progress
) -> tuple[Answer, tuple[str, ...]]:
    moves = _fast(model.before)
    flat = model.bundle.dimensions == 2 and not isinstance(model.inferer, SliceInferer)
    grid = None
    if moves is not None and not flat:
        grid = geometry(volume.array.shape[::-1], in_ras(volume.affine), moves[0])
    if moves is not None and grid is not None:
        image, affine = _fast_image(model, volume, grid, moves[1]), grid.affine
        return _on_grid(model, volume, image, affine, grid, options, progress)
    if flat:
        return _plane_by_plane(model, volume, options, progress)
    data = model.chain.prepared(published.of_volume(volume.array, in_ras(volume.affine)))
    seen = model.chain.input(data)
    if model.bundle.task == "detection":
        answer, remarks = _through(model, seen.as_tensor(), options.tiles, progress)
        return boxes.answer(model.after, answer, seen.as_tensor(), seen.affine.numpy()), remarks
    runs = _runs(model, seen.as_tensor(), options, progress)
    if model.bundle.task == "classification":
        return classified.scored(model, data, runs), runs.remarks
    progress("post", POST)
    return delineated.of_chain(model.after, model.chain.finished(data, runs.mean), len(runs.mean)), runs.remarks


def _fast(steps: Sequence[Step]) -> tuple[tuple[Step, ...], tuple[Step, ...]] | None:
    """Steps that move voxels and then steps that do not, when that is all there is."""
    moves: list[Step] = []
    rest: list[Step] = []
    for step in steps:
        if len(step.keys()) != 1:
            return None
        if step.name in ending.TYPES:
            if step.arguments.get("dtype") not in FLOAT32:
                return None
        elif step.name in MOVES and not rest:
            moves.append(step)
        elif step.name in VOXELWISE:
            rest.append(step)
        else:
            return None
    return tuple(moves), tuple(rest)


def _fast_image(model: Model, volume: Volume, grid: Geometry, steps: Sequence[Step]) -> Tensor:
    """What the network sees, (1, x, y, z)."""
    window = _window(steps[0]) if steps and steps[0].name == "ScaleIntensityRange" else None
    image = resampled(volume.array, grid, model.device, **({"window": window} if window else {}))
    for step in steps[1 if window else 0 :]:
        (key,) = step.keys()
        found = step.build()({key: image})[key]
        image = found.as_tensor() if isinstance(found, MetaTensor) else found
    return image


def _window(step: Step) -> Callable[[Tensor], Tensor]:
    """MONAI's ScaleIntensityRange, in place and in its order of operations."""
    low, high = float(step.arguments["a_min"]), float(step.arguments["a_max"])
    least, greatest = step.arguments.get("b_min"), step.arguments.get("b_max")
    if high == low:
        raise Untrusted("ScaleIntensityRange has an empty range", remedy="Mend the config")

    def window(values: Tensor) -> Tensor:
        values.sub_(low).div_(high - low)
        if least is not None and greatest is not None:
            values.mul_(greatest - least).add_(least)
        if step.arguments.get("clip"):
            values.clamp_(least, greatest)
        return values

    return window


def _through(model: Model, image: Tensor, tiles: Placement, progress: Progress) -> tuple[Any, tuple[str, ...]]:
    progress("network", NETWORK)
    return ladder.through(
        image,
        model.network,
        model.inferer,
        device=model.device,
        half=model.half,
        placement=tiles,
        told=lambda fraction: progress("network", NETWORK + (POST - NETWORK) * fraction),
    )


def _runs(model: Model, image: Tensor, options: BundleSettings, progress: Progress) -> Runs:
    """The network on an image, and on its mirror images when that was asked for."""

    def once(turned: Tensor, told: Callable[[float], None]) -> tuple[Tensor, tuple[str, ...]]:
        def part(phase: str, fraction: float) -> None:
            told((fraction - NETWORK) / (POST - NETWORK))

        answer, remarks = _through(model, turned, options.tiles, part)
        return _first(answer), remarks

    def told(fraction: float) -> None:
        progress("network", NETWORK + (POST - NETWORK) * fraction)

    return agreement.repeated(once, image, options.mirrored, told)


def _on_grid(
    model: Model,
    volume: Volume,
    image: Tensor,
    affine: NDArray[np.float64],
    grid: Geometry,
    options: BundleSettings,
    progress: Progress,
) -> tuple[Answer, tuple[str, ...]]:
    """The answer for an image that was made on the network's grid, brought back to the source's."""
    if model.bundle.task == "detection":
        answer, remarks = _through(model, image, options.tiles, progress)
        progress("post", POST)
        return boxes.answer(model.after, answer, image, affine), remarks
    runs = _runs(model, image, options, progress)
    progress("post", POST)
    values = runs.mean
    if model.bundle.task == "classification" or values.ndim == 1:
        return classified.scored(model, {model.chain.key: image}, runs), runs.remarks
    end = ending.ending(model.after, classes=len(values), moved=bool(_fast(model.before)[0]))  # type: ignore[index]
    if end is None or tuple(values.shape[1:]) != grid.shape:
        data = model.chain.prepared(published.of_volume(volume.array, in_ras(volume.affine)))
        return delineated.of_chain(model.after, model.chain.finished(data, values), len(values)), runs.remarks
    told = partial(_share, progress)
    return delineated.on_grid(model.after, end, runs, grid, certainty=options.certainty, told=told), runs.remarks


# ---------------------------------------------------------------- the chain as published


def _plane_by_plane(
    model: Model, volume: Volume, options: BundleSettings, progress: Progress
) -> tuple[Answer, tuple[str, ...]]:
    """A network that sees single images, on each image of the volume."""
    finished: list[Tensor] = []
    remarks: dict[str, None] = {}
    values = torch.empty(0)
    for index, plane in enumerate(volume.array):

        def part(phase: str, fraction: float, index: int = index) -> None:
            share = (index + (fraction - NETWORK) / (POST - NETWORK)) / len(volume.array)
            progress(phase, NETWORK + (POST - NETWORK) * share)

        data = model.chain.prepared(published.of_plane(plane, volume.spacing[1:], model.bundle.channels))
        runs = _runs(model, model.chain.input(data).as_tensor(), options, part)
        if runs.mean.ndim == 1:
            return classified.scored(model, data, runs), runs.remarks
        values = runs.mean
        remarks |= dict.fromkeys(runs.remarks)
        finished.append(model.chain.finished(data, values.cpu()))
    progress("post", POST)
    return delineated.of_chain(model.after, torch.stack(finished, dim=-1), len(values)), tuple(remarks)


def _first(answer: Any) -> Tensor:
    """The values of the one image in the batch; of several outputs, the first."""
    while not isinstance(answer, Tensor):
        answer = next(iter(answer.values())) if isinstance(answer, dict) else answer[0]
    found: Tensor = answer.as_tensor() if isinstance(answer, MetaTensor) else answer
    return found[0].float()
