"""Result kind `segmentation`: a BINARY Segmentation on the source's grid, one frame per segment and non-empty plane.

Nothing per frame is an object: functional groups are templates with eight bytes patched in, pixels are packed run by
run. highdicom is the reference in the tests, element for element. Frames run as highdicom's do:
by segment, then by position against the normal. UIDs of an order used here: "segmentation", "segmentation.series",
"segmentation.dimension", "frame_of_reference" for a source without one, "tracking" with the segment's number.

Source:  PS3.3 A.51, C.8.20.2, C.7.6.16, C.7.6.17
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydicom.uid import SegmentationStorage

from dicom_sr import codes
from dicom_sr.elements import Elements, Text, code, elements
from dicom_sr.header import letterhead, on_letterhead
from dicom_sr.kinds import Built, Order
from dicom_sr.multiframe import dimensions, references
from dicom_sr.nouns import Code, LabelMap, Segment
from dicom_sr.references import frame_of_reference, tracking
from dicom_sr.runs import Frame, Runs, runs_of
from dicom_sr.script import Script

KIND = "segmentation"


class Settings(BaseModel):
    """How large a SEG may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    split_frames_above: int | None = Field(
        None, ge=1, description="Frames from which on the segments are spread over several SEGs"
    )


def build(order: Order) -> Built | tuple[Built, ...] | None:
    """The SEG of these findings, several where it would have too many frames, None when they delineate nothing.

    None, too, where the set has masks already, of the segments that its fractions leave.
    """
    findings = order.findings
    if findings.labels is None or not findings.segments or any(one.kind == KIND for one in order.companions):
        return None
    made = delineating(order, {segment.number for segment in findings.segments})
    return made[0] if len(made) == 1 else made


def delineating(order: Order, numbers: set[int]) -> tuple[Built, ...]:
    """The SEGs of these segments of the findings."""
    findings = order.findings
    runs = runs_of(findings.layers, len(findings.segments))
    settings = Settings.model_validate(order.settings.get(KIND, {}))
    frames = [frame for frame in runs.frames() if frame[0] in numbers]
    return tuple(
        _part(order, runs, part, ordinal) for ordinal, part in enumerate(parts(frames, settings.split_frames_above))
    )


def _part(order: Order, runs: Runs, frames: list[Frame], ordinal: int) -> Built:
    """The SEG with these frames; its segments are numbered from 1, as PS3.3 C.8.20.2 wants of each object."""
    findings = order.findings
    layers, there = findings.layers, {number for number, _ in frames}
    frames = evened(frames, runs.shape)
    mine = [segment for segment in findings.segments if segment.number in there]
    numbers = {segment.number: local for local, segment in enumerate(mine, start=1)}
    local_frames = [(numbers[number], plane) for number, plane in frames]
    overlapping = overlap([layers[index] for index in sorted({int(runs.layer[number]) for number in numbers})], numbers)

    def content(script: Script) -> tuple[Elements, list[Code]]:
        own = image(order, len(frames), script, overlapping=overlapping) | segments(order, script, numbers)
        own |= references(order.source)
        own |= dimensions(order, local_frames, uid=order.uid(f"{KIND}.dimension", ordinal), several=len(mine) > 1)
        return own, codes_of(mine)

    head = letterhead(order, KIND, ordinal=ordinal)
    pixels = runs.packed(frames).data
    built = on_letterhead(
        head, kind=KIND, sop_class_uid=SegmentationStorage, modality="SEG", content=content, pixels=pixels
    )
    return replace(built, segments=numbers)


def codes_of(described: Iterable[Segment]) -> list[Code]:
    """The codes that describe these segments."""
    return [part for s in described for part in (s.category, s.type, s.laterality) if part is not None]


def parts(frames: list[Frame], above: int | None) -> list[list[Frame]]:
    """The frames of each object: segments in their order, so many as do not exceed `above`, one always.

    A segment stays whole, since a report points at it in one object.
    """
    if above is None or len(frames) <= above:
        return [frames] if frames else []
    made: list[list[Frame]] = [[]]
    for _, of_segment in groupby(frames, key=lambda frame: frame[0]):
        whole = list(of_segment)
        if made[-1] and len(made[-1]) + len(whole) > above:
            made.append([])
        made[-1] += whole
    return made


def evened(frames: list[Frame], shape: tuple[int, ...]) -> list[Frame]:
    """The frames and, where whole-byte frames would fill an odd number of bytes, an empty one more.

    OHIF 3.13 refuses an odd number. It lies on a plane that its segment leaves free; where there is none the frames
    stay as they are. Frames that end within a byte are left alone too: OHIF draws every other one of them displaced
    by up to eight pixels, and had better refuse them.
    """
    planes, rows, columns = shape
    if rows * columns % 8 or len(frames) * rows * columns // 8 % 2 == 0:
        return frames
    taken = set(frames)
    free = [(number, plane) for number in sorted({n for n, _ in frames}) for plane in range(planes)]
    extra = [frame for frame in free if frame not in taken][:1]
    return sorted([*frames, *extra], key=lambda frame: (frame[0], -frame[1]))


def overlap(layers: Sequence[LabelMap], numbers: Iterable[int]) -> bool:
    """Whether any voxel belongs to more than one of these segments."""
    if len(layers) < 2:
        return False
    meant = np.zeros(256, np.uint8)
    meant[list(numbers)] = 1
    return any(sum(meant[layer[plane]] for layer in layers).max() > 1 for plane in range(len(layers[0])))


def image(
    order: Order, frames: int, script: Script, *, type: str = "BINARY", bits: int = 1, overlapping: bool = False
) -> Elements:
    """Image Pixel and Segmentation Image modules, less the segments."""
    source = order.source
    lossy = script.copied(source.header, ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))
    return (
        elements(
            ImageType=("DERIVED", "PRIMARY"),
            SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2",
            NumberOfFrames=frames,
            Rows=source.shape[1],
            Columns=source.shape[2],
            BitsAllocated=bits,
            BitsStored=bits,
            HighBit=bits - 1,
            PixelRepresentation=0,
            LossyImageCompression="01" if source.acquisition.lossy else "00",
            SegmentationType=type,
            SegmentsOverlap="YES" if overlapping else "NO",
            ContentLabel="SEGMENTATION",
            PresentationLUTShape="IDENTITY",
            PositionReferenceIndicator=None,
            FrameOfReferenceUID=frame_of_reference(order),
        )
        | script.copied(source.header, ("PositionReferenceIndicator",))
        | (lossy if source.acquisition.lossy else {})
    )


def segments(order: Order, text: Text, numbers: Mapping[int, int], before: Sequence[Elements] = ()) -> Elements:
    """SegmentSequence, of the segments of the findings that have a number here, and what the content is called."""
    described = [
        _segment(order, segment, numbers[segment.number], text)
        for segment in order.findings.segments
        if segment.number in numbers
    ]
    return elements(
        text,
        ContentDescription=order.title[:64],
        ContentCreatorName=None,
        SegmentSequence=[*before, *described],
    )


def _segment(order: Order, segment: Segment, number: int, text: Text) -> Elements:
    algorithm = order.findings.algorithm
    laterality = (
        elements(SegmentedPropertyTypeModifierCodeSequence=[code(segment.laterality, text)])
        if segment.laterality
        else {}
    )
    tracking_id, tracking_uid = tracking(order, segment.number)
    return elements(
        text,
        SegmentNumber=number,
        SegmentLabel=segment.label,
        SegmentedPropertyCategoryCodeSequence=[code(segment.category, text)],
        SegmentedPropertyTypeCodeSequence=[code(segment.type, text) | laterality],
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=algorithm.name,
        SegmentationAlgorithmIdentificationSequence=[
            elements(
                text,
                AlgorithmFamilyCodeSequence=[code(codes.find("artificial_intelligence"))],
                AlgorithmName=algorithm.name,
                AlgorithmVersion=algorithm.version,
            )
        ],
        RecommendedDisplayCIELabValue=cielab(segment.rgb),
        TrackingID=tracking_id,
        TrackingUID=tracking_uid,
    )


@cache
def cielab(rgb: tuple[int, int, int]) -> tuple[int, int, int]:
    """An sRGB colour as DICOM's scaled CIELab under D50.  Source: PS3.3 C.10.7.1.1"""
    share = np.array(rgb) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4360747, 0.3850649, 0.1430804],
            [0.2225045, 0.7168786, 0.0606169],
            [0.0139322, 0.0971045, 0.7141733],
        ]
    )
    x, y, z = to_xyz @ linear / (0.9642, 1.0, 0.8249)
    fx, fy, fz = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z))
    lightness, a, b = 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
    scaled = (lightness / 100 * 65535, (a + 128) / 255 * 65535, (b + 128) / 255 * 65535)
    first, second, third = (round(min(max(value, 0), 65535)) for value in scaled)
    return first, second, third
