"""What a bundle's network answered, said as Findings: labels, overlapping masks, scores or boxes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dicom_sr import codes
from dicom_sr.nouns import (
    Algorithm,
    Box,
    Evaluation,
    Findings,
    LabelMap,
    Measurement,
    MeasurementGroup,
    NotFound,
    ParametricMap,
    Segment,
    Volume,
)
from pipelines import vocabulary
from pipelines.agreement import FULL
from pipelines.spec import Refused

CUT_OFF = "Reaches the first or last slice, so it may be cut off"
MAX_SEGMENTS = 255
MAX_LABEL = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """The network's class of each voxel, (slice, row, column).

    `sure` is the probability of that class and `agreed` the share of repeated runs that gave it, both uint8 with 255
    for 1, where they were asked for.
    """

    labels: LabelMap
    sure: LabelMap | None = None
    agreed: LabelMap | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masked:
    """Where each class is, (class, slice, row, column); classes may overlap."""

    masks: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """Score of each class of the whole image, and which the config's own rule chooses.

    `agreed` is the share of repeated runs that decide on a class as their mean does, where runs were repeated.
    `saliency` is where the likeliest class was seen, (slice, row, column) from 0 to 1, where it was asked for.
    """

    scores: NDArray[np.float64]
    chosen: NDArray[np.bool_]
    agreed: NDArray[np.float64] | None = None
    saliency: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxed:
    """Boxes (n, 2, 3) least and greatest L, P, S in mm, each with its class and score; best first."""

    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]


Answer = Labelled | Masked | Scored | Boxed


def findings(
    answer: Answer,
    volume: Volume,
    *,
    algorithm: Algorithm,
    names: Mapping[int, str],
    remarks: Sequence[str] = (),
    minimum_score: float = 0.0,
) -> Findings:
    """The answer as Findings on the volume's grid; `names` are the network's classes by channel.

    Raises:  Refused
    """
    if volume.acquisition.projection and not isinstance(answer, Scored):
        raise Refused(
            f"{algorithm.name} delineates or boxes, and a projection image lies nowhere in the patient",
            remedy="Only classifiers can report on radiographs",
        )
    match answer:
        case Labelled():
            return _labelled(answer, volume, algorithm, names, remarks)
        case Masked(masks=masks):
            return _masked(masks, volume, algorithm, names, remarks)
        case Scored():
            groups = _scored(answer, names)
        case Boxed():
            groups = tuple(_boxed(answer, names, minimum_score))
    maps = _looked(answer, names) if isinstance(answer, Scored) else ()
    return Findings(algorithm=algorithm, groups=groups, remarks=tuple(remarks), maps=maps)


def _looked(answer: Scored, names: Mapping[int, str]) -> tuple[ParametricMap, ...]:
    """Where the likeliest class was seen."""
    if answer.saliency is None:
        return ()
    label = f"Saliency of {_name(int(answer.scores.argmax()), names)}"[:MAX_LABEL]
    quantity, unit = codes.find("saliency"), codes.find("no_units")
    return (ParametricMap(label=label, quantity=quantity, unit=unit, values=answer.saliency),)


def _labelled(
    answer: Labelled, volume: Volume, algorithm: Algorithm, names: Mapping[int, str], remarks: Sequence[str]
) -> Findings:
    labels = answer.labels
    present = np.flatnonzero(sum(np.bincount(plane.ravel(), minlength=256) for plane in labels))
    wanted = [int(channel) for channel in present if not _is_nothing(int(channel), names)]
    renumbered = np.zeros(256, np.uint8)
    renumbered[wanted] = np.arange(1, len(wanted) + 1)
    layer = labels if wanted == list(range(1, len(wanted) + 1)) and len(wanted) == len(present[present > 0]) else None
    layer = renumbered[labels] if layer is None else layer
    said = _delineated([layer] if wanted else [], wanted, volume, algorithm, names, remarks)
    return replace(said, groups=tuple(_with_doubt(said.groups, layer, answer))) if wanted else said


def _with_doubt(groups: Iterable[MeasurementGroup], labels: LabelMap, answer: Labelled) -> Iterator[MeasurementGroup]:
    """The groups with the mean of each asked-for figure over the voxels of their segments."""
    maps = [
        (name, values)
        for name, values in (("certainty", answer.sure), ("agreement", answer.agreed))
        if values is not None
    ]
    means = [(name, _means(values, labels)) for name, values in maps]
    for group in groups:
        more = tuple(codes.quantity(name).measured(100.0 * mean[group.segment_number or 0]) for name, mean in means)
        yield replace(group, measurements=(*group.measurements, *more))


def _means(values: LabelMap, labels: LabelMap) -> list[float]:
    """Mean of a figure over the voxels of each label, as a share of 1."""
    counts, sums = np.zeros(256), np.zeros(256)
    for plane, here in zip(labels, values, strict=True):
        counts += np.bincount(plane.ravel(), minlength=256)
        sums += np.bincount(plane.ravel(), weights=here.ravel(), minlength=256)
    return [float(mean) for mean in sums / np.maximum(counts, 1) / FULL]


def _masked(
    masks: NDArray[np.bool_], volume: Volume, algorithm: Algorithm, names: Mapping[int, str], remarks: Sequence[str]
) -> Findings:
    """Masks put into as few label maps as keep each whole."""
    names = _of_masks(names, len(masks))
    wanted = [channel for channel in range(len(masks)) if masks[channel].any() and not _is_nothing(channel, names, -1)]
    if len(wanted) > MAX_SEGMENTS:
        raise Refused(f"the network delineates {len(wanted)} structures", remedy="A label map holds at most 255")
    layers: list[LabelMap] = []
    for number, channel in enumerate(wanted, start=1):
        mask = masks[channel]
        free = next((layer for layer in layers if not layer[mask].any()), None)
        if free is None:
            layers.append(free := np.zeros(mask.shape, np.uint8))
        free[mask] = number
    return _delineated(layers, wanted, volume, algorithm, names, remarks, first=0)


def _of_masks(names: Mapping[int, str], masks: int) -> dict[int, str]:
    """Names by mask: of a single mask, that of the one structure that is not the background."""
    if masks == 1:
        structures = [name for _, name in sorted(names.items()) if not vocabulary.is_background(name)]
        return {0: structures[0]} if structures else {}
    return dict(names)


def _is_nothing(channel: int, names: Mapping[int, str], background: int = 0) -> bool:
    return channel == background or vocabulary.is_background(names.get(channel, ""))


def _delineated(
    layers: list[LabelMap],
    channels: list[int],
    volume: Volume,
    algorithm: Algorithm,
    names: Mapping[int, str],
    remarks: Sequence[str],
    first: int = 1,
) -> Findings:
    """Segments, their volumes, and what was looked for in vain, from label maps numbered in the order of `channels`."""
    segments = tuple(_segment(number, _name(channel, names)) for number, channel in enumerate(channels, start=1))
    ends = {int(number) for layer in layers for plane in (layer[0], layer[-1]) for number in np.unique(plane)}
    counts = sum((np.bincount(plane.ravel(), minlength=256) for layer in layers for plane in layer), np.zeros(256, int))
    several = len(volume.array) > 1
    groups = (
        _volume(segment, int(counts[segment.number]) * volume.voxel_ml, several and segment.number in ends)
        for segment in segments
    )
    missing = [
        name
        for channel, name in sorted(names.items())
        if channel >= first and channel not in channels and not vocabulary.is_background(name)
    ]
    return Findings(
        algorithm=algorithm,
        labels=layers[0] if layers else None,
        overlaps=tuple(layers[1:]),
        segments=segments,
        groups=tuple(groups),
        not_found=tuple(_not_found(name) for name in missing),
        remarks=tuple(remarks),
    )


def _name(channel: int, names: Mapping[int, str]) -> str:
    return (names.get(channel) or f"Class {channel}")[:MAX_LABEL]


def _segment(number: int, name: str) -> Segment:
    term = vocabulary.term(name)
    return Segment(
        number=number,
        label=name,
        category=term.category,
        type=term.type,
        rgb=vocabulary.colour(number),
        laterality=term.laterality,
    )


def _volume(segment: Segment, millilitres: float, cut_off: bool) -> MeasurementGroup:
    remark = CUT_OFF if cut_off else None
    return MeasurementGroup(
        label=segment.label,
        finding=segment.type,
        site=segment.type,
        laterality=segment.laterality,
        segment_number=segment.number,
        measurements=(codes.quantity("volume").measured(millilitres, remark=remark),),
    )


def _not_found(name: str) -> NotFound:
    term = vocabulary.term(name)
    return NotFound(
        label=name[:MAX_LABEL],
        finding=term.type,
        laterality=term.laterality,
        reason="The network gave this class to no voxel",
    )


def _certainty(score: float) -> Measurement:
    return codes.quantity("certainty").measured(100.0 * min(max(score, 0.0), 1.0))


def _scored(answer: Scored, names: Mapping[int, str]) -> tuple[MeasurementGroup, ...]:
    """A group a class: its score, and whether the bundle's own rule chooses it."""
    finding, anywhere = codes.find("finding"), codes.find("anatomical_structure")
    alike = [None] * len(answer.scores) if answer.agreed is None else list(answer.agreed)

    def measured(score: float, share: float | None) -> tuple[Measurement, ...]:
        agreement = () if share is None else (codes.quantity("agreement").measured(100.0 * float(share)),)
        return (_certainty(score), *agreement)

    return tuple(
        MeasurementGroup(
            label=_name(channel, names),
            finding=finding,
            site=anywhere,
            measurements=measured(float(score), share),
            evaluations=(Evaluation(name=finding, answer=f"{_name(channel, names)}: {'yes' if is_chosen else 'no'}"),),
        )
        for channel, (score, is_chosen, share) in enumerate(zip(answer.scores, answer.chosen, alike, strict=True))
    )


def _boxed(answer: Boxed, names: Mapping[int, str], minimum_score: float) -> Iterable[MeasurementGroup]:
    """A group a box: its score and its place."""
    kept = [index for index, score in enumerate(answer.scores) if score >= minimum_score]
    for rank, index in enumerate(kept, start=1):
        name = names.get(int(answer.classes[index])) or f"Class {int(answer.classes[index])}"
        term = vocabulary.term(name)
        low, high = (tuple(float(value) for value in corner) for corner in answer.boxes[index])
        yield MeasurementGroup(
            label=f"{name[: MAX_LABEL - 6]} {rank}",
            finding=term.type if term.known else codes.find("finding"),
            site=codes.find("anatomical_structure"),
            laterality=term.laterality,
            measurements=(_certainty(float(answer.scores[index])),),
            evaluations=(Evaluation(name=codes.find("comment"), answer=_words(low, high)),),
            box=Box(minimum=(low[0], low[1], low[2]), maximum=(high[0], high[1], high[2])),
        )


def _words(low: Sequence[float], high: Sequence[float]) -> str:
    """A box for a reader: its middle and its size."""
    middle = ", ".join(f"{(a + b) / 2:.1f}" for a, b in zip(low, high, strict=True))
    size = " x ".join(f"{b - a:.1f}" for a, b in zip(low, high, strict=True))
    return f"Box {size} mm about ({middle}) mm in patient coordinates (L, P, S)"
