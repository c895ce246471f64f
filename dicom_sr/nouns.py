"""The words that pipelines and writers share: a volume in, findings out. All frozen; all in (slice, row, column).

Nothing here knows a socket, a queue or a model. A wrong object cannot exist: each noun validates itself.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicom_sr.problem import Problem

LabelMap = NDArray[np.uint8]
"""Label of each voxel, shape (slice, row, column); 0 is background, n is the Segment whose number is n."""


class ImpossibleFindings(Problem):
    """Findings that contradict themselves: a segment twice, a label nobody describes, a group on a missing segment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A coded concept (PS3.3 8.1: Code Value, Coding Scheme Designator, Code Meaning)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """What a pipeline may ask about how its volume was made, as the headers of the whole series say it.

    An attribute that the headers do not give, or on which slices disagree, is None. `lossy` is true when any slice
    was ever lossy compressed (LossyImageCompression 01 or a lossy transfer syntax), `burned_in` when any bears text in
    its pixels that may identify the patient. A `projection` is a single image without a place in the patient, as a
    radiograph: its affine measures its own plane only.
    """

    modality: str
    series_instance_uid: str
    convolution_kernel: str | None = None
    manufacturer: str | None = None
    slice_thickness: float | None = None
    image_type: tuple[str, ...] = ()
    contrast: bool | None = None
    lossy: bool = False
    burned_in: bool = False
    projection: bool = False
    photometric_interpretation: str | None = None
    view_position: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """Voxel values and where they lie: neither travels alone.

    `array` is (slice, row, column) in rescaled units (HU for CT); int16 where that is exact, else float32.
    `affine` is 4 x 4 and maps homogeneous (slice, row, column, 1) indices of voxel centres to patient millimetres
    (L, P, S). `padding` marks voxels that were never measured, or is None when all were.

    Source: PS3.3 C.7.6.2.1.1.
    """

    array: NDArray[np.int16] | NDArray[np.float32]
    affine: NDArray[np.float64]
    acquisition: Acquisition
    padding: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise ValueError(f"a volume has three axes, this array has {self.array.ndim}")
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError("an affine is a finite 4 x 4 matrix")
        if abs(float(np.linalg.det(self.affine[:3, :3]))) < 1e-9:
            raise ValueError("this affine maps the volume onto a plane")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (slice, row, column) index, in mm."""
        step = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(step[0]), float(step[1]), float(step[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """Who found it: what TID 4019 and Contributing Equipment will say. `weights_digest` is None without weights."""

    name: str
    version: str
    weights_digest: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One label of the label map (PS3.3 C.8.20.2, Segment Description). `rgb` is the recommended display colour."""

    number: int
    label: str
    category: Code
    type: Code
    rgb: tuple[int, int, int]
    laterality: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One number with its unit, or the reason why it is withheld (then `value` is None); never a guess."""

    name: Code
    unit: Code
    value: float | None
    derivation: Code | None = None
    withheld: str | None = None
    remark: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.withheld is None):
            raise ImpossibleFindings(
                f"measurement {self.name.meaning} has {'neither' if self.value is None else 'both'} a value "
                "and a reason for withholding it",
                remedy="Give exactly one of the two",
            )
        if self.value is not None and not np.isfinite(self.value):
            raise ImpossibleFindings(
                f"measurement {self.name.meaning} is {self.value}", remedy="Withhold it with a reason instead"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A qualitative statement about a finding: a concept and the coded answer, or text where no code exists."""

    name: Code
    answer: Code | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box along the patient's axes: least and greatest (L, P, S) in mm."""

    minimum: tuple[float, float, float]
    maximum: tuple[float, float, float]

    def __post_init__(self) -> None:
        if any(low > high for low, high in zip(self.minimum, self.maximum, strict=True)):
            raise ValueError(f"a box reaches from {self.minimum} back to {self.maximum}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A finding on one slice: a point, or a line through several, (L, P, S) in mm; closed when it ends as it began."""

    points: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        if not self.points or not np.isfinite(np.array(self.points)).all():
            raise ValueError("a region is at least one finite point")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementGroup:
    """What was measured on one finding (TID 1411 when `segment_number` names a segment, else a finding without one)."""

    label: str
    finding: Code
    site: Code
    segment_number: int | None = None
    laterality: Code | None = None
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    box: Box | None = None
    """Where the finding lies when it was detected rather than delineated."""
    region: Region | None = None
    """Where a planar finding lies (TID 1410)."""

    def __post_init__(self) -> None:
        if sum(place is not None for place in (self.segment_number, self.box, self.region)) > 1:
            raise ImpossibleFindings(
                f"group {self.label} lies in several places", remedy="Give a segment, a box or a region, not several"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParametricMap:
    """A number at each voxel of the source, such as a saliency or a probability (PS3.3 A.75).

    `values` are (slice, row, column) float32 on the source grid, finite; slices that are all zero are not written.
    With a `segment_number` they are from 0 to 1: how probable it is that the voxel is of that segment, or how much of
    the voxel it occupies, as `quantity` says; a FRACTIONAL segmentation can then be made of them.
    """

    label: str
    quantity: Code
    unit: Code
    values: NDArray[np.float32]
    segment_number: int | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.dtype != np.float32 or not np.isfinite(self.values).all():
            raise ImpossibleFindings(
                f"the map {self.label} is {self.values.dtype} with {self.values.ndim} axes, or holds what is no number",
                remedy="Give finite float32 values as (slice, row, column)",
            )
        low, high = float(self.values.min(initial=0)), float(self.values.max(initial=0))
        if self.segment_number is not None and (low < 0 or high > 1):
            raise ImpossibleFindings(
                f"the map {self.label} of segment {self.segment_number} reaches from {low:g} to {high:g}",
                remedy="Give fractions from 0 to 1",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFound:
    """A negative result: what was looked for, and why it is not among the segments."""

    label: str
    finding: Code
    reason: str
    laterality: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findings:
    """All that one run of a pipeline says about one volume, on that volume's own grid.

    `labels` is (slice, row, column) uint8 on the source grid, or None when nothing was delineated. Every label
    present is described by a Segment; a Segment without a voxel is refused here (say NotFound instead).
    Segments that overlap others lie in further label maps of the same shape, `overlaps`; each segment lies whole in
    one map.
    """

    algorithm: Algorithm
    labels: LabelMap | None = None
    segments: tuple[Segment, ...] = ()
    groups: tuple[MeasurementGroup, ...] = ()
    not_found: tuple[NotFound, ...] = ()
    remarks: tuple[str, ...] = ()
    overlaps: tuple[LabelMap, ...] = ()
    maps: tuple[ParametricMap, ...] = ()
    voxels: dict[int, int] = field(init=False, default_factory=dict)
    """Number of voxels of each segment, by segment number."""

    def __post_init__(self) -> None:
        numbers = [segment.number for segment in self.segments]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ImpossibleFindings(
                f"segments are numbered {numbers}", remedy="Number segments 1, 2, 3 ... (PS3.3 C.8.20.2)"
            )
        counts: Any = np.zeros(256, int)
        for layer in self.layers:
            here: Any = sum(np.bincount(plane.ravel(), minlength=256) for plane in layer)
            twice = [int(number) for number in np.flatnonzero(here * counts) if number]
            if twice or layer.shape != self.layers[0].shape:
                raise ImpossibleFindings(
                    f"label maps of one result differ in shape or share the labels {twice}",
                    remedy="Put each segment whole into one label map of the source's shape",
                )
            counts += here
        present = {int(number) for number in np.flatnonzero(counts) if number}
        if present != set(numbers):
            raise ImpossibleFindings(
                f"the label map holds labels {sorted(present)}, the segments describe {numbers}",
                remedy="Describe every label and report a structure without voxels as NotFound",
            )
        for group in self.groups:
            if group.segment_number is not None and group.segment_number not in present:
                raise ImpossibleFindings(
                    f"group {group.label} measures segment {group.segment_number}, which has no voxel",
                    remedy="Measure only segments that exist",
                )
        of_segments = [one.segment_number for one in self.maps if one.segment_number is not None]
        shapes = {one.values.shape for one in self.maps} | {layer.shape for layer in self.layers}
        if set(of_segments) - present or len(set(of_segments)) < len(of_segments) or (self.maps and len(shapes) > 1):
            raise ImpossibleFindings(
                f"maps are of the segments {of_segments}, there are {sorted(present)}; shapes are {sorted(shapes)}",
                remedy="Give each segment one map at most, all of the source's shape",
            )
        object.__setattr__(self, "voxels", {number: int(counts[number]) for number in numbers})

    @property
    def layers(self) -> tuple[LabelMap, ...]:
        """All label maps: the first and those of overlapping segments; empty when nothing was delineated."""
        return () if self.labels is None else (self.labels, *self.overlaps)

    def layer(self, number: int) -> LabelMap:
        """The label map in which this segment lies."""
        return next(layer for layer in self.layers if (layer == number).any())
