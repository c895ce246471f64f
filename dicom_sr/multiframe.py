"""What our multi-frame objects have in common: dimensions, and functional groups as templates.

Nothing per frame is an object: a frame's functional groups are a template of its plane with the indices patched in.

Source:  PS3.3 C.7.6.16 (Multi-frame Functional Groups), C.7.6.17 (Multi-frame Dimension), C.12.2
"""

import struct
from collections.abc import Sequence

from dicom_sr import codes, geometry
from dicom_sr.elements import Elements, coded, element, elements, item, tag_of, word
from dicom_sr.kinds import Order
from dicom_sr.references import instance, referenced_series, source_instances
from dicom_sr.runs import Frame
from dicom_sr.source import Plane, SourceSeries


def references(source: SourceSeries) -> Elements:
    """Every source instance: for the series, and as what the segmentation was made from."""
    listed = b"".join(map(item, source_instances(source)))
    return elements(
        ReferencedSeriesSequence=[referenced_series(source, listed)],
        SourceImageSequence=listed,
    )


def dimensions(
    order: Order,
    frames: Sequence[Frame],
    *,
    uid: str,
    several: bool,
    by_value: bool = False,
    derivation: str = "segmentation",
    shared: Elements | None = None,
) -> Elements:
    """Multi-frame Functional Groups and Multi-frame Dimension modules.

    `several` segments have a functional group in each frame, one has it in all; `by_value` none has any, since pixel
    values say it. `derivation` is a name in `codes.csv`; `shared` are further groups for all frames.
    """
    source = order.source
    used = sorted({plane for _, plane in frames}, reverse=True)
    along = [
        ("ReferencedSegmentNumber", "SegmentIdentificationSequence", "Referenced Segment Number"),
        ("ImagePositionPatient", "PlanePositionSequence", "Image Position Patient"),
    ][1 if by_value else 0 :]
    stack = not several and len(used) > 1 and used[0] - used[-1] == len(used) - 1
    return elements(
        DimensionOrganizationSequence=[elements(DimensionOrganizationUID=uid)],
        DimensionIndexSequence=[
            elements(
                DimensionOrganizationUID=uid,
                DimensionIndexPointer=tag_of(pointer),
                FunctionalGroupPointer=tag_of(group),
                DimensionDescriptionLabel=label,
            )
            for pointer, group, label in along
        ],
        **{"DimensionOrganizationType": "3D"} if stack else {},
        SharedFunctionalGroupsSequence=[
            grid(source)
            | (shared or {})
            | ({} if several or by_value else elements(SegmentIdentificationSequence=[_identified(1)]))
        ],
        PerFrameFunctionalGroupsSequence=_per_frame(
            source, frames, used, several=several, by_value=by_value, derivation=derivation
        ),
    )


def grid(source: SourceSeries) -> Elements:
    """The functional groups of orientation and spacing, which all frames share."""
    plane = source.planes[0]
    between = geometry.between(source.affine)
    measures = elements(SliceThickness=plane.thickness or between, PixelSpacing=plane.spacing)
    if len(source.planes) > 1:
        measures |= elements(SpacingBetweenSlices=between)
    return elements(
        PlaneOrientationSequence=[elements(ImageOrientationPatient=plane.orientation)],
        PixelMeasuresSequence=[measures],
    )


def _identified(number: int) -> Elements:
    return elements(ReferencedSegmentNumber=number)


def _per_frame(
    source: SourceSeries,
    frames: Sequence[Frame],
    used: Sequence[int],
    *,
    several: bool,
    by_value: bool,
    derivation: str,
) -> bytes:
    """The value of PerFrameFunctionalGroupsSequence: a template per plane, filled in per frame.

    Order of the groups is that of their tags: derivation, frame content, plane position, segment identification.
    """
    indices_of = struct.Struct("<I" if by_value else "<II")
    zeros = (0,) if by_value else (0, 0)
    content = element("FrameContentSequence", [elements(DimensionIndexValues=zeros)])[: -indices_of.size]
    identified = element("SegmentIdentificationSequence", [_identified(0)])[:-2] if several else b""
    number_of = struct.Struct("<H" if several else "")
    ends: dict[int, tuple[int, bytes, bytes]] = {}
    for rank, plane in enumerate(used, start=1):
        whence, position = derived(source.planes[plane], derivation)
        whole = item(b"".join((whence, content, bytes(indices_of.size), position, identified, bytes(number_of.size))))
        before = len(whole) - len(position) - len(identified) - number_of.size
        ends[plane] = rank, whole[: before - indices_of.size], whole[before : len(whole) - number_of.size]
    parts: list[bytes] = []
    for number, plane in frames:
        rank, before_indices, behind = ends[plane]
        indices = indices_of.pack(rank) if by_value else indices_of.pack(number, rank)
        parts += (before_indices, indices, behind, number_of.pack(*[number][:several]))
    return b"".join(parts)


def derived(plane: Plane, how: str) -> tuple[bytes, bytes]:
    """Encoded DerivationImageSequence and PlanePositionSequence of this plane's frames; `how` names a coded term."""
    image = instance(plane, frame=True) | {
        tag_of("SpatialLocationsPreserved"): word("SpatialLocationsPreserved", "YES"),
        tag_of("PurposeOfReferenceCodeSequence"): coded("PurposeOfReferenceCodeSequence", codes.find("source_image")),
    }
    whence = {
        tag_of("SourceImageSequence"): element("SourceImageSequence", [image]),
        tag_of("DerivationCodeSequence"): coded("DerivationCodeSequence", codes.find(how)),
    }
    derivation = element("DerivationImageSequence", [whence])
    return derivation, element("PlanePositionSequence", [elements(ImagePositionPatient=plane.position)])
