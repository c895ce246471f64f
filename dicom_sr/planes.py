"""The planes of one DICOM object: one of a single-frame image, many of an enhanced one, each with all it needs to be
placed and read on its own.

Values are taken leniently, since leading-zero UIDs, IS "1.0" and over-long DS are clinical daily life: a form is never
a reason to refuse, a missing or impossible position is.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pydicom
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from dicom_sr import geometry, part10
from dicom_sr.part10 import Head, text
from dicom_sr.refusals import NoGeometry, NoImages, UnreadablePixels

FRAME_GROUPS = {
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelMeasuresSequence": {
        "PixelSpacing": "PixelSpacing",
        "SliceThickness": "SliceThickness",
        "SpacingBetweenSlices": "SpacingBetweenSlices",
    },
    "PixelValueTransformationSequence": {"RescaleSlope": "RescaleSlope", "RescaleIntercept": "RescaleIntercept"},
    "CTReconstructionSequence": {"ConvolutionKernel": "ConvolutionKernel"},
    "FrameContentSequence": {
        "StackID": "StackID",
        "TemporalPositionIndex": "TemporalPositionIndex",
        "FrameAcquisitionNumber": "AcquisitionNumber",
    },
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRDiffusionSequence": {"DiffusionBValue": "DiffusionBValue"},
    "CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": "TriggerTime"},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "MRImageFrameTypeSequence": {"FrameType": "ImageType"},
    "PETFrameTypeSequence": {"FrameType": "ImageType"},
}
"""Functional group -> its attribute -> the keyword of the same thing in a single-frame image (PS3.3 C.7.6.16)."""

MARKS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoTime",
    "InversionTime",
    "DiffusionBValue",
    "TriggerTime",
    "StackID",
    "ImageType",
)
"""What may tell two planes at one position apart, in the order in which it is tried."""

NOT_SOURCES = {
    uid.SegmentationStorage,
    uid.RTDoseStorage,
    uid.ParametricMapStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
}
"""Objects with grey pixels that are about images rather than images."""

BIG_ENDIAN = str(uid.ExplicitVRBigEndian)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelForm:
    """How stored values lie in the pixel data (PS3.5 8.1.1, PS3.3 C.7.6.3)."""

    keyword: str
    transfer_syntax_uid: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    padding: tuple[int, int] | None
    """Lowest and highest stored value that stands for "not measured", as the file gives them (PS3.3 C.7.5.1.1.2)."""

    @property
    def frame_bytes(self) -> int:
        """Length of one native frame."""
        return self.rows * self.columns * self.bits_allocated // 8

    @property
    def range(self) -> tuple[int, int]:
        """Lowest and highest value that BitsStored can hold."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1

    @property
    def encapsulated(self) -> bool:
        """Whether frames lie compressed in fragments; unknown transfer syntaxes are taken for native."""
        syntax = uid.UID(self.transfer_syntax_uid)
        return bool(syntax.is_transfer_syntax and not syntax.is_private and syntax.is_encapsulated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One image plane: where it lies in the patient, where its pixels lie in its file, what they mean.

    UIDs are verbatim as in the file. `frame` is 1-based, 1 in a single-frame object.
    """

    path: Path
    frame: int
    number_of_frames: int
    sop_class_uid: str
    sop_instance_uid: str
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    """PixelSpacing: between rows, between columns; mm."""
    thickness: float | None
    """Of a plane that stands alone: SliceThickness, else SpacingBetweenSlices; mm."""
    frame_of_reference_uid: str
    pixels: PixelForm
    pixel_offset: int | None
    """Of this plane's native pixels in the file; None when they are encapsulated or lie in no usual way."""
    pixel_length: int | None
    fragments_offset: int | None
    """Of the first item of encapsulated pixel data in the file, else None."""
    slope: float
    intercept: float
    marks: tuple[str, ...]
    """Values of MARKS, "" where absent."""
    image_type: tuple[str, ...]
    convolution_kernel: str
    slice_thickness: float | None

    @property
    def transfer_syntax_uid(self) -> str:
        """How the file is encoded."""
        return self.pixels.transfer_syntax_uid

    @property
    def name(self) -> str:
        """What a refusal calls it: instance, frame if there are several, and position."""
        frame = f" frame {self.frame}" if self.number_of_frames > 1 else ""
        return f"{self.sop_instance_uid}{frame} at ({', '.join(f'{x:g}' for x in self.position)}) mm"


@lru_cache(maxsize=4096)
def numbers(raw: bytes) -> tuple[float, ...]:
    """The numbers of a DS or IS value, however they are written; () where one of them is none."""
    try:
        return tuple(float(part) for part in text(raw).replace(",", ".").split("\\")) if text(raw) else ()
    except ValueError:
        return ()


@lru_cache(maxsize=1024)
def texts(raw: bytes) -> tuple[str, ...]:
    """The parts of a text value without their padding."""
    return tuple(part.strip(" \0") for part in raw.decode("latin-1").split("\\"))


def number(values: dict[str, bytes], keyword: str, otherwise: float | None = None) -> float | None:
    """The first number of a value, or `otherwise` where there is none."""
    found = numbers(values.get(keyword, b""))
    return found[0] if found else otherwise


def planes(path: Path) -> tuple[Head, list[Plane]]:
    """The header of one file and its planes, in the order of its frames.

    Raises:  NotDicom, NoImages, NoGeometry, UnreadablePixels, OSError
    """
    head = part10.head(path)
    form = pixel_form(head)
    frames = int(number(head.values, "NumberOfFrames") or 1)
    if "PerFrameFunctionalGroupsSequence" in head.values:
        each = list(frame_values(head))
        if len(each) != frames:
            raise NoGeometry(
                f"instance {instance_of(head)} has {frames} frames and describes {len(each)}",
                remedy="Send the object again as the scanner made it",
            )
    elif frames == 1:
        each = [head.values]
    else:
        raise NoGeometry(
            f"instance {instance_of(head)} has {frames} frames and says of none where it lies",
            remedy="Use a source with functional groups or single slices (PS3.3 C.7.6.16)",
        )
    return head, [plane(head, form, values, index + 1, frames) for index, values in enumerate(each)]


def instance_of(head: Head) -> str:
    """SOPInstanceUID, verbatim but for its padding."""
    return text(head.values.get("SOPInstanceUID", b"")) or "(without SOPInstanceUID)"


def pixel_form(head: Head) -> PixelForm:
    """How the object's stored values lie.

    Raises:  NoImages, UnreadablePixels
    """
    values, name = head.values, instance_of(head)
    sop_class = text(values.get("SOPClassUID", b""))
    grey = text(values.get("PhotometricInterpretation", b"MONOCHROME2"))
    if head.pixel_keyword is None or sop_class in NOT_SOURCES:
        raise NoImages(
            f"instance {name} ({uid.UID(sop_class).name or 'no SOP Class'}) holds no image slices",
            remedy="Choose a series of images",
        )
    if not grey.startswith("MONOCHROME"):
        raise NoImages(f"instance {name} is {grey}, not grey-scale", remedy="Choose a series of grey-scale images")
    if "ModalityLUTSequence" in values:
        raise UnreadablePixels(
            f"instance {name} gives its values by a Modality LUT", remedy="Use the original slices (PS3.3 C.11.1)"
        )
    return form_of(
        head.pixel_keyword,
        head.transfer_syntax_uid,
        tuple(values.get(keyword, b"") for keyword in part10.NUMBERS),
        tuple(values.get(keyword, b"") for keyword in part10.PADDING),
        name,
    )


def form_of(keyword: str, syntax: str, raw: tuple[bytes, ...], raw_padding: tuple[bytes, ...], name: str) -> PixelForm:
    """The PixelForm of raw US values; slices of a series share one."""
    try:
        return _form(keyword, syntax, raw, raw_padding)
    except (ValueError, struct.error) as fault:
        raise UnreadablePixels(
            f"instance {name}: {fault or 'Rows, Columns or bits are missing'}", remedy="Send the original slices again"
        ) from None


@lru_cache(maxsize=256)
def _form(keyword: str, syntax: str, raw: tuple[bytes, ...], raw_padding: tuple[bytes, ...]) -> PixelForm:
    found = {name: struct.unpack("<H", value[:2])[0] for name, value in zip(part10.NUMBERS, raw, strict=True) if value}
    missing = {"Rows", "Columns", "BitsAllocated"} - found.keys()
    if missing or not found["Rows"] or not found["Columns"]:
        raise ValueError(f"{', '.join(sorted(missing)) or 'Rows or Columns'} is missing or 0")
    if found.get("SamplesPerPixel", 1) != 1:
        raise ValueError(f"{found['SamplesPerPixel']} samples per pixel in a grey-scale image")
    allocated = found["BitsAllocated"]
    stored = found.get("BitsStored", allocated)
    high = found.get("HighBit", stored - 1)
    if allocated not in (8, 16, 32, 64) or not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise ValueError(f"{stored} bits up to bit {high} do not lie in {allocated}")
    signed = bool(found.get("PixelRepresentation", 0))
    bounds = [struct.unpack("<h" if signed else "<H", value[:2])[0] for value in raw_padding if len(value) == 2]
    return PixelForm(
        keyword=keyword,
        transfer_syntax_uid=syntax,
        rows=found["Rows"],
        columns=found["Columns"],
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=signed,
        padding=(min(bounds), max(bounds)) if raw_padding[0] and bounds else None,
    )


def frame_values(head: Head) -> Iterator[dict[str, bytes]]:
    """The values of each frame: its own functional groups before the shared ones before the object's.

    Source:  PS3.3 C.7.6.16 (Multi-frame Functional Groups)
    """
    dataset = pydicom.dcmread(head.path, stop_before_pixels=True)
    shared = [group_values(item) for item in dataset.get("SharedFunctionalGroupsSequence") or ()]
    common = head.values | (shared[0] if shared else {})
    for item in dataset.PerFrameFunctionalGroupsSequence:
        yield common | group_values(item)


def group_values(item: Dataset) -> dict[str, bytes]:
    """What the functional groups of one item say, under the keywords of single-frame images."""
    found = {}
    for sequence, attributes in FRAME_GROUPS.items():
        for group in item.get(sequence) or ():
            for keyword, known_as in attributes.items():
                element = group.get_item(keyword)
                if isinstance(element, RawDataElement) and element.VR not in ("US", "UL", "FD"):
                    found[known_as] = bytes(element.value or b"")
                elif element is not None:
                    found[known_as] = str(group[keyword].value).encode("latin-1", "replace")
    return found


def plane(head: Head, form: PixelForm, values: dict[str, bytes], frame: int, frames: int) -> Plane:
    """One plane from the values of its frame.

    Raises:  NoGeometry, UnreadablePixels
    """
    position = numbers(values.get("ImagePositionPatient", b""))
    orientation = numbers(values.get("ImageOrientationPatient", b""))
    spacing = numbers(values.get("PixelSpacing", b""))
    believable(head, position, orientation, spacing)
    slope, intercept = number(values, "RescaleSlope", 1.0), number(values, "RescaleIntercept", 0.0)
    if not slope or intercept is None or not math.isfinite(slope * intercept):
        raise UnreadablePixels(
            f"instance {instance_of(head)} has rescale slope {slope} and intercept {intercept}",
            remedy="Send the original slices again",
        )
    native = head.pixel_offset is not None and head.pixel_length is not None
    if native:
        complete(head, form, frames)
    offset = None if head.pixel_offset is None else head.pixel_offset + (frame - 1) * form.frame_bytes
    return Plane(
        path=head.path,
        frame=frame,
        number_of_frames=frames,
        sop_class_uid=text(values.get("SOPClassUID", b"")),
        sop_instance_uid=text(values.get("SOPInstanceUID", b"")),
        position=position,
        orientation=orientation,
        spacing=spacing,
        thickness=number(values, "SliceThickness") or number(values, "SpacingBetweenSlices"),
        frame_of_reference_uid=text(values.get("FrameOfReferenceUID", b"")),
        pixels=form,
        pixel_offset=offset if native else None,
        pixel_length=form.frame_bytes if native else None,
        fragments_offset=None if native else head.pixel_offset,
        slope=slope,
        intercept=intercept,
        marks=tuple(text(values.get(mark, b"")) for mark in MARKS),
        image_type=texts(values.get("ImageType", b"")),
        convolution_kernel="\\".join(texts(values.get("ConvolutionKernel", b""))),
        slice_thickness=number(values, "SliceThickness"),
    )


def believable(
    head: Head, position: tuple[float, ...], orientation: tuple[float, ...], spacing: tuple[float, ...]
) -> None:
    """Refuse a plane that does not say where it lies.

    Raises:  NoGeometry
    """
    if len(position) != 3 or not all(abs(x) < 1e6 for x in position):
        fault = "no usable ImagePositionPatient"
    elif not geometry.is_orthonormal(orientation):
        fault = "no usable ImageOrientationPatient"
    elif len(spacing) != 2 or not all(1e-4 < x < 1e4 for x in spacing):
        fault = "no usable PixelSpacing"
    else:
        return
    raise NoGeometry(f"instance {instance_of(head)} has {fault}", remedy="Send the slices as the scanner made them")


def complete(head: Head, form: PixelForm, frames: int) -> None:
    """Refuse native pixel data that is shorter than its frames, or than its file has room for.

    Raises:  UnreadablePixels
    """
    assert head.pixel_length is not None
    assert head.pixel_offset is not None
    there = min(head.pixel_length, head.size - head.pixel_offset)
    if there < form.frame_bytes * frames:
        raise UnreadablePixels(
            f"instance {instance_of(head)}: {there} of {form.frame_bytes * frames} bytes of pixel data",
            remedy="The object was cut short; send it again",
        )
