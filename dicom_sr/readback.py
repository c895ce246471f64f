"""A SEG read back as findings on its source: for pictures of objects that came from anywhere.

Frames are placed by their own position and orientation, never by what they claim to be derived from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_sr.checks import masks
from dicom_sr.checks.fault import code_of, items, numbers, text
from dicom_sr.checks.frames import planes_of
from dicom_sr.checks.seen import Seen
from dicom_sr.nouns import Acquisition, Algorithm, Code, Findings, LabelMap, Segment, Volume
from dicom_sr.problem import Problem
from dicom_sr.source import SourceSeries

UNCODED = Code(value="unknown", scheme="99UNKNOWN", meaning="Unknown")
GREY = (160, 160, 160)

SHOWN = 255
"""Segments that a label map of eight bits can tell apart."""


class NotOnItsSource(Problem):
    """A SEG does not lie on the grid of the series that it is to be shown on."""


def findings(dataset: Dataset, source: SourceSeries) -> Findings:
    """The segments of a SEG as a label map on the source's grid; where two overlap, the later one shows.

    Of a FRACTIONAL one the voxels that are more likely in than out.

    Raises:  NotOnItsSource
    """
    seen = Seen(dataset, "SEG", dataset.get("PixelData") or b"")
    if masks.shape(seen)[1:] != source.shape[1:]:
        raise NotOnItsSource(
            f"SEG {dataset.get('SOPInstanceUID')} has frames of {dataset.get('Rows')} x {dataset.get('Columns')}; "
            f"its source has planes of {source.shape[1]} x {source.shape[2]}",
            remedy="Give the series that it was made from",
        )
    layer: LabelMap = np.zeros(source.shape, np.uint8)
    described = [item for item in items(dataset, "SegmentSequence") if item.get("SegmentNumber")][:SHOWN]
    renumbered = {int(item.SegmentNumber): number for number, item in enumerate(described, start=1)}
    for index, (values, plane) in enumerate(zip(stored(seen), planes_of(seen, source), strict=True)):
        if plane is None:
            raise NotOnItsSource(
                f"frame {index + 1} lies on no plane of the source", remedy="Give its own source series"
            )
        for value in (int(one) for one in np.unique(values) if one):
            identified = value if text(dataset, "SegmentationType") == "LABELMAP" else seen.frames[index].number
            number = renumbered.get(identified or 0)
            if number is not None:
                layer[plane][values == value] = number
    return _findings(dataset, layer, described, renumbered)


def together(datasets: Sequence[Dataset], source: SourceSeries) -> Findings:
    """The segments of several SEGs of one result as one label map, as `findings` has them of each.

    Raises:  NotOnItsSource
    """
    first, *others = [findings(dataset, source) for dataset in datasets]
    layer: LabelMap = np.array(first.labels)
    segments = [*first.segments]
    for other in others:
        shift = len(segments)
        labels = np.array(other.labels)
        if shift + len(other.segments) > SHOWN:
            break
        layer[labels > 0] = labels[labels > 0] + shift
        segments += [replace(one, number=one.number + shift) for one in other.segments]
    present = set(np.unique(layer))
    kept = [one for one in segments if one.number in present]
    renumbered = np.zeros(SHOWN + 1, np.uint8)
    renumbered[[one.number for one in kept]] = np.arange(1, len(kept) + 1)
    return Findings(
        algorithm=first.algorithm,
        labels=renumbered[layer],
        segments=tuple(replace(one, number=number) for number, one in enumerate(kept, start=1)),
    )


def _findings(
    dataset: Dataset, layer: LabelMap, described: Sequence[Dataset], renumbered: Mapping[int, int]
) -> Findings:
    """The label map with only the segments that it shows, numbered without gaps."""
    present = [number for number in renumbered.values() if (layer == number).any()]
    last = np.zeros(SHOWN + 1, np.uint8)
    last[present] = np.arange(1, len(present) + 1)
    return Findings(
        algorithm=Algorithm(
            name=next((name for one in described if (name := text(one, "SegmentAlgorithmName"))), "")
            or text(dataset, "SeriesDescription")
            or text(dataset, "ManufacturerModelName")
            or "segmentation",
            version=text(dataset, "SoftwareVersions"),
        ),
        labels=last[layer],
        segments=tuple(segment(described[old - 1], new) for new, old in enumerate(present, start=1)),
    )


def alone(dataset: Dataset) -> tuple[Volume, Findings]:
    """A SEG without its source: its frames as grey slices of their own, each under the segments that lie on it.

    Frames are gathered by their position, or by their order where they say none.

    Raises:  NotOnItsSource, for pixels that are shorter than the header says
    """
    seen = Seen(dataset, "SEG", dataset.get("PixelData") or b"")
    values, by_value = stored(seen), text(dataset, "SegmentationType") == "LABELMAP"
    described = [item for item in items(dataset, "SegmentSequence") if item.get("SegmentNumber")][:SHOWN]
    renumbered = {int(item.SegmentNumber): number for number, item in enumerate(described, start=1)}
    keys = [(frame.position, frame.tile) for frame in seen.frames] or [((), (index,)) for index in range(len(values))]
    places = {key: place for place, key in enumerate(sorted(set(keys), key=lambda key: (key[0][::-1], key[1])))}
    layer: LabelMap = np.zeros((len(places), *masks.shape(seen)[1:]), np.uint8)
    for index, plane in enumerate(values):
        slice_ = layer[places[keys[index]]]
        for value in (int(one) for one in np.unique(plane) if one):
            own = value if by_value else number_of(seen, index, len(values))
            number = renumbered.get(own or 0)
            if number is not None:
                slice_[plane == value] = number
    return _empty(seen, layer.shape), _findings(dataset, layer, described, renumbered)


def number_of(seen: Seen, index: int, frames: int) -> int | None:
    """The segment of a frame; tiles that are not described come segment by segment (PS3.3 C.7.6.17.3, TILED_FULL)."""
    if seen.frames:
        return seen.frames[index].number
    numbers_ = [item.get("SegmentNumber") for item in items(seen.dataset, "SegmentSequence")]
    return numbers_[min(index * len(numbers_) // frames, len(numbers_) - 1)] if numbers_ else None


def _empty(seen: Seen, shape: tuple[int, ...]) -> Volume:
    """Nothing but the grid: what a SEG has of its source."""
    measures = [part for group in seen.for_all for part in items(group.dataset, "PixelMeasuresSequence")]
    spacing = (numbers(measures[0], "PixelSpacing") if measures else ()) or (1.0, 1.0)
    return Volume(
        array=np.zeros(shape, np.int16),
        affine=np.diag([1.0, spacing[0], spacing[1], 1.0]),
        acquisition=Acquisition(modality="SEG", series_instance_uid=text(seen.dataset, "SeriesInstanceUID")),
    )


def map_alone(dataset: Dataset) -> Volume:
    """A Parametric Map's stored values as slices of their own, in the order of its frames.

    Raises:  NotOnItsSource, for pixels that are shorter than the header says
    """
    values = numbers_of(dataset)
    empty = _empty(Seen(dataset, "map"), values.shape)
    return replace(
        empty,
        array=values.astype(np.float32),
        acquisition=replace(empty.acquisition, modality=text(dataset, "Modality")),
    )


def numbers_of(dataset: Dataset) -> NDArray[np.float64]:
    """Stored values of a Parametric Map, shape (frame, row, column).

    Raises:  NotOnItsSource, for pixels that are missing or shorter than the header says
    """
    try:
        values: NDArray[np.float64] = np.asarray(dataset.pixel_array, np.float64)
        return values.reshape((-1, *values.shape[-2:]))
    except (AttributeError, ValueError, NotImplementedError, RuntimeError) as error:
        raise NotOnItsSource(f"this map is damaged: {error}", remedy="Send it again") from error


def stored(seen: Seen) -> NDArray[Any]:
    """Values of all frames, shape (frame, row, column): 0 is outside.

    Raises:  NotOnItsSource, for pixels that are shorter than the header says
    """
    faults = [*masks.lengths(seen)]
    if faults and "padded" not in faults[0].what:
        raise NotOnItsSource(f"this SEG is damaged: {faults[0]}", remedy="Send it again")
    values = masks.values(seen)
    if text(seen.dataset, "SegmentationType") != "FRACTIONAL":
        return values
    return (values * 2 > int(seen.dataset.get("MaximumFractionalValue") or 255)).astype(np.uint8)


def segment(item: Dataset, number: int) -> Segment:
    """One item of the Segment Sequence under another number (PS3.3 C.8.20.4)."""
    colour = numbers(item, "RecommendedDisplayCIELabValue")
    return Segment(
        number=number,
        label=text(item, "SegmentLabel"),
        category=code_of(item, "SegmentedPropertyCategoryCodeSequence") or UNCODED,
        type=code_of(item, "SegmentedPropertyTypeCodeSequence") or UNCODED,
        rgb=srgb(colour) if len(colour) == 3 else GREY,
    )


def srgb(scaled: tuple[float, ...]) -> tuple[int, int, int]:
    """DICOM's scaled CIELab under D50 as an sRGB colour.  Source: PS3.3 C.10.7.1.1"""
    from highdicom.color import CIELabColor  # a second to import, and only pictures of foreign objects need it

    red, green, blue = CIELabColor.from_dicom_value([round(value) for value in scaled]).to_rgb()
    return int(red), int(green), int(blue)
