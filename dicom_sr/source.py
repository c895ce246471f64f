"""A series of slices as one volume's geometry: sorted, of one kind, complete, or refused with the slice named.

Slices are ordered by where they lie along their normal, never by InstanceNumber or file name. What is refused and why
is drawn at the head of `refusals.py`; `Policy` holds the few choices that a site may make.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_sr import geometry
from dicom_sr.acquisition import acquisition_of
from dicom_sr.nouns import Acquisition
from dicom_sr.part10 import Head, head, pixel_digest, text
from dicom_sr.planes import Plane, planes
from dicom_sr.refusals import (
    DuplicatePosition,
    GapInSeries,
    Localizer,
    MixedFrameOfReference,
    MixedMatrix,
    MixedOrientation,
    MixedSeries,
    NoImages,
    NotDicom,
    SeveralAcquisitions,
    UnevenSpacing,
    UnusableSeries,
)
from dicom_sr.traits import MARKS

__all__ = ["Plane", "Policy", "SourceSeries", "UnusableSeries", "by_series", "read"]

PARALLEL = 1e-3
"""How far direction cosines may differ within a stack: 0.4 mm over the field of view of a chest."""

SAME_SPACING = 2e-4
"""How far pixel spacings may differ, relatively: the same number written with fewer decimals."""

TILT_DEG = 0.5
"""From this angle on a sheared stack is worth a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a site lets pass, with a warning, that is refused by default."""

    frames_of_reference: Literal["refuse", "warn"] = "refuse"
    """Slices that disagree on FrameOfReferenceUID, as some de-identified archives have them."""
    several_acquisitions: Literal["refuse", "first"] = "refuse"
    """Several volumes in one series: refuse, or take the one with the lowest number or first name."""


STRICT = Policy()
"""Nothing odd is let pass."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceSeries:
    """The planes of one volume, sorted, and what they have in common.

    `planes[i]` is slice i of the volume; `affine` maps (slice, row, column) to patient millimetres (L, P, S); `header`
    is the data set of the first plane's object without its pixels, from which identity is copied verbatim.
    """

    planes: tuple[Plane, ...]
    header: Dataset
    affine: NDArray[np.float64]
    frame_of_reference_uid: str
    acquisition: Acquisition
    warnings: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        form = self.planes[0].pixels
        return len(self.planes), form.rows, form.columns

    @property
    def placed(self) -> bool:
        """Whether it lies in the patient; a projection image does not, so nothing may be delineated on it."""
        return self.planes[0].placed

    @property
    def tilt_deg(self) -> float:
        """Angle by which the stack is sheared, as by a tilted gantry; 0 for most."""
        return geometry.shear_deg(self.affine)


def read(paths: Iterable[Path], *, policy: Policy = STRICT) -> SourceSeries:
    """The volume's geometry of the Part 10 files of one series, in whatever order they come.

    Raises:  a subclass of UnusableSeries, OSError
    Source:  PS3.3 C.7.6.2 (Image Plane), C.7.6.16 (Multi-frame Functional Groups)
    """
    objects = [planes(path) for path in paths]
    if not objects:
        raise NoImages("there is no file to read", remedy="Give the files of one series")
    heads = [head for head, _ in objects]
    of_one_series(heads)
    found, said = without_copies([plane for _, each in objects for plane in each])
    no_localizers(found)
    one_projection(found)
    like_the_first(found)
    frame_of_reference_uid, more = one_frame_of_reference(found, policy)
    said += more
    stack, more = one_volume(sorted_planes(found), text(heads[0].values.get("Modality", b"")), policy)
    said += more
    evenly_spaced(stack)
    first = stack[0]
    affine = geometry.affine(
        [plane.position for plane in stack], first.orientation, first.spacing, first.thickness or 1.0
    )
    said += remarks(stack, affine)
    header = pydicom.dcmread(first.path, stop_before_pixels=True)
    return SourceSeries(
        planes=tuple(stack),
        header=header,
        affine=affine,
        frame_of_reference_uid=frame_of_reference_uid,
        acquisition=acquisition_of(heads, stack, tuple(said)),
        warnings=tuple(said),
    )


def of_one_series(heads: Sequence[Head]) -> None:
    """Refuse files that do not belong together.

    Raises:  MixedSeries
    """
    for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "PatientID"):
        values = {head.values.get(keyword, b"").rstrip(b"\0 ") for head in heads}
        if len(values) > 1:
            shown = "" if keyword == "PatientID" else f": {', '.join(sorted(text(value) for value in values)[:4])}"
            raise MixedSeries(
                f"the {len(heads)} files have {len(values)} different {keyword}{shown}",
                remedy="Give the files of one series at a time",
            )


def without_copies(found: list[Plane]) -> tuple[list[Plane], list[str]]:
    """The planes without second copies of the same object; two contents under one UID are refused.

    Raises:  DuplicatePosition
    """
    kept: dict[tuple[str, int], Plane] = {}
    copies = set()
    for plane in found:
        first = kept.setdefault((plane.sop_instance_uid, plane.frame), plane)
        if first is plane:
            continue
        if first.position != plane.position or pixel_digest(first.path) != pixel_digest(plane.path):
            raise DuplicatePosition(
                f"two different objects bear the SOPInstanceUID of {plane.name}",
                remedy="Find out which one is right and send only that",
            )
        copies.add(plane.path)
    return list(kept.values()), [f"{len(copies)} files are second copies and were left out"] if copies else []


def no_localizers(found: Sequence[Plane]) -> None:
    """Refuse scouts.

    Raises:  Localizer
    Source:  PS3.3 C.8.2.1.1.1 (Image Type of CT)
    """
    for plane in found:
        if "LOCALIZER" in plane.traits.image_type:
            raise Localizer(
                f"{plane.name} is a localizer",
                remedy="Choose the series of slices; a rule can exclude ImageType LOCALIZER",
            )


def one_projection(found: Sequence[Plane]) -> None:
    """Refuse several projections, each of which is a picture of its own.

    Raises:  SeveralAcquisitions
    """
    flat = [plane for plane in found if not plane.placed]
    if flat and len(found) > 1:
        raise SeveralAcquisitions(
            f"the series holds {len(found)} images, of which {flat[0].name} and {len(flat) - 1} more lie nowhere in "
            "the patient, so they make no volume",
            remedy="Send each radiograph as a series of its own",
        )


def like_the_first(found: Sequence[Plane]) -> None:
    """Refuse planes that are not parallel, or whose matrix or spacing differs.

    Raises:  MixedOrientation, MixedMatrix
    """
    first = found[0]
    for plane in found:
        one, other, form = plane.traits, first.traits, plane.pixels
        if one is other and form is first.pixels:
            continue
        if np.abs(np.subtract(one.orientation, other.orientation)).max() > PARALLEL:
            raise MixedOrientation(
                f"{plane.name} is not parallel to {first.name}",
                remedy="Send each orientation as a series of its own; a survey in three planes is no volume",
            )
        same_matrix = (form.rows, form.columns) == (first.pixels.rows, first.pixels.columns)
        if not same_matrix or not np.allclose(one.spacing, other.spacing, rtol=SAME_SPACING, atol=0):
            raise MixedMatrix(
                f"{plane.name} has {matrix(plane)}, {first.name} has {matrix(first)}",
                remedy="Send each reconstruction as a series of its own",
            )


def matrix(plane: Plane) -> str:
    """Its size in a refusal's words."""
    between_rows, between_columns = plane.traits.spacing
    return f"{plane.pixels.rows} x {plane.pixels.columns} pixels of {between_rows:g} x {between_columns:g} mm"


def one_frame_of_reference(found: Sequence[Plane], policy: Policy) -> tuple[str, list[str]]:
    """The FrameOfReferenceUID that the planes share, "" when none is given; the policy says whether most is enough.

    Raises:  MixedFrameOfReference
    Source:  PS3.3 C.7.4.1
    """
    counts = Counter(plane.traits.frame_of_reference_uid for plane in found)
    most = counts.most_common(1)[0][0]
    if len(counts) == 1:
        return most, []
    odd = next(plane for plane in found if plane.traits.frame_of_reference_uid != most)
    what = f"the slices name {len(counts)} frames of reference; {odd.name} differs from most"
    if policy.frames_of_reference == "refuse":
        raise MixedFrameOfReference(what, remedy="Send slices of one scan, or set inference.frames_of_reference: warn")
    return most, [what]


def sorted_planes(found: Sequence[Plane]) -> list[Plane]:
    """The planes along their normal; equal places keep the order of their instance UIDs, so that it is always one."""
    along = geometry.projections([plane.position for plane in found], found[0].orientation)
    order = sorted(range(len(found)), key=lambda i: (along[i], found[i].sop_instance_uid, found[i].frame))
    return [found[i] for i in order]


def pairs_at_one_place(stack: Sequence[Plane]) -> list[tuple[Plane, Plane]]:
    """Neighbours in a sorted stack that lie at one place."""
    along = geometry.projections([plane.position for plane in stack], stack[0].orientation)
    close = np.flatnonzero(np.diff(along) < geometry.same_place(along))
    return [(stack[i], stack[i + 1]) for i in close.tolist()]


def one_volume(stack: list[Plane], modality: str, policy: Policy) -> tuple[list[Plane], list[str]]:
    """The stack if it is one volume; else one of its volumes, if the policy takes the first.

    Raises:  SeveralAcquisitions, DuplicatePosition
    """
    pairs = pairs_at_one_place(stack)
    if not pairs:
        mark = interleaved(stack, modality)
        return one_of(split(stack, mark), mark, policy) if mark else (stack, [])
    for mark in MARKS:
        groups = split(stack, mark)
        if len(groups) > 1 and not any(pairs_at_one_place(group) for group in groups.values()):
            return one_of(groups, mark, policy)
    raise DuplicatePosition(
        f"{pairs[0][0].name} and {pairs[0][1].name} lie at one place, as do {len(pairs) - 1} other pairs",
        remedy="Send each volume as a series of its own, or the slices once only",
    )


def split(stack: Sequence[Plane], mark: str) -> dict[str, list[Plane]]:
    """The planes by their value of a mark, lowest number or first name first."""
    index, groups = MARKS.index(mark), dict[str, list[Plane]]()
    for plane in stack:
        groups.setdefault(plane.traits.marks[index], []).append(plane)
    return dict(sorted(groups.items(), key=lambda item: by_number(item[0])))


def by_number(value: str) -> tuple[float, str]:
    """Sorts "2" before "10" and words after numbers."""
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def interleaved(stack: Sequence[Plane], modality: str) -> str | None:
    """The mark by which a stack without duplicates still is several volumes that lie through each other.

    Blocks one after the other, as a CT that moves its table between rotations numbers them, are one volume. The slices
    of one MR acquisition may be numbered in any order, and no two need have the same trigger time.
    """
    for index, mark in enumerate(MARKS):
        if mark == "TriggerTime" or (mark == "AcquisitionNumber" and modality == "MR"):
            continue
        values = [plane.traits.marks[index] for plane in stack]
        counts = Counter(values)
        runs = 1 + sum(one != other for one, other in pairwise(values))
        if runs > len(counts) and min(counts.values()) > 1:
            return mark
    return None


def one_of(groups: dict[str, list[Plane]], mark: str, policy: Policy) -> tuple[list[Plane], list[str]]:
    """The first of several volumes, if the policy allows.

    Raises:  SeveralAcquisitions
    """
    values = ", ".join(value or "(none)" for value in list(groups)[:6])
    what = f"the series holds {len(groups)} volumes that differ in {mark} ({values})"
    if policy.several_acquisitions == "refuse":
        raise SeveralAcquisitions(
            f"{what}, such as {' and '.join(group[0].name for group in list(groups.values())[:2])}",
            remedy="Send each as a series of its own, or set inference.several_acquisitions: first",
        )
    chosen = next(iter(groups))
    return groups[chosen], [f"{what}; only {mark} {chosen or '(none)'} was read"]


def evenly_spaced(stack: Sequence[Plane]) -> None:
    """Refuse a stack with missing or uneven slices, or with slices beside the line.

    Raises:  GapInSeries, UnevenSpacing
    """
    if len(stack) < 3:
        return
    positions = [plane.position for plane in stack]
    steps = np.diff(geometry.projections(positions, stack[0].orientation))
    usual = float(np.median(steps))
    if len(steps) == 2:
        usual = float(steps.min())
    allowed = geometry.evenness(usual)
    worst = int(np.abs(steps - usual).argmax())
    at = f"{steps[worst]:.3f} mm between slices {worst + 1} and {worst + 2} of {len(stack)}, {usual:.3f} mm elsewhere"
    which = f"({stack[worst].name} and {stack[worst + 1].name})"
    if steps[worst] > 1.5 * usual:
        raise GapInSeries(f"{at} {which}", remedy="Send the missing slices again; the study will re-open by itself")
    if abs(steps[worst] - usual) > allowed:
        raise UnevenSpacing(f"{at} {which}", remedy="Send a reconstruction with even spacing")
    off = geometry.aside(positions, stack[0].orientation)
    if off.max() > allowed:
        worst = int(off.argmax())
        raise UnevenSpacing(
            f"slice {worst + 1} of {len(stack)} ({stack[worst].name}) lies {off[worst]:.3f} mm beside the others' line",
            remedy="Send a reconstruction with one centre",
        )


def remarks(stack: Sequence[Plane], affine: NDArray[np.float64]) -> list[str]:
    """What a reader of the results should know although the series was accepted."""
    if not stack[0].placed:
        return ["a projection image: it lies nowhere in the patient"]
    said = []
    tilt = geometry.shear_deg(affine)
    if tilt >= TILT_DEG:
        said.append(f"the slices are sheared by {tilt:.1f} degrees (gantry tilt)")
    if len(stack) == 1 and stack[0].thickness is None:
        said.append("a single slice without thickness; 1 mm was assumed")
    if not stack[0].traits.frame_of_reference_uid:
        said.append("the slices name no frame of reference")
    step, stated = float(np.linalg.norm(affine[:3, 0])), stack[0].traits.spacing_between_slices
    if len(stack) > 1 and stated and stated > 0 and step > 1.5 * stated:
        said.append(
            f"slices lie {step:.3f} mm apart where SpacingBetweenSlices says {stated:g} mm: some may be missing"
        )
    return said


def by_series(folder: Path) -> dict[str, list[Path]]:
    """The image files of a folder and its sub-folders by SeriesInstanceUID; what is not DICOM is passed over.

    Raises:  NoImages, OSError
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            each = head(path)
        except NotDicom:
            continue
        if each.pixel_keyword is not None:
            found.setdefault(text(each.values.get("SeriesInstanceUID", b"")), []).append(path)
    if not found:
        raise NoImages(f"no DICOM image lies in {folder}", remedy="Give a folder of Part 10 files")
    return found
