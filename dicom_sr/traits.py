"""What the planes of a series have in common: how stored values lie, how planes are turned, spaced and rescaled.

Values are taken leniently, since IS "1.0" and over-long DS are clinical daily life: a form is never a reason to refuse,
a missing or impossible number is. Slices repeat these values hundreds of times, so each is understood once.
"""

import math
import struct
from dataclasses import dataclass
from functools import lru_cache

from pydicom import uid

from dicom_sr import geometry, part10
from dicom_sr.part10 import text
from dicom_sr.walk import DEFLATED_FRAMES

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

TRAITS = (
    "SOPClassUID",
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "RescaleSlope",
    "RescaleIntercept",
    "ConvolutionKernel",
    *MARKS,
)
"""The attributes behind Traits, in the order in which `traits_of` takes their values."""


ENCAPSULATED = frozenset(
    [*(str(syntax) for syntax in uid.AllTransferSyntaxes if syntax.is_encapsulated), DEFLATED_FRAMES]
)
"""Transfer syntaxes whose pixel data lies in fragments (PS3.5 A.4)."""


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
        """Whether frames lie in fragments."""
        return self.transfer_syntax_uid in ENCAPSULATED

    @property
    def big_endian(self) -> bool:
        """Whether the file's byte order is the retired one."""
        return self.transfer_syntax_uid == str(uid.ExplicitVRBigEndian)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What most planes of a series share, understood; `fault` says what is impossible about its geometry."""

    sop_class_uid: str
    frame_of_reference_uid: str
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    slice_thickness: float | None
    spacing_between_slices: float | None
    slope: float
    intercept: float
    convolution_kernel: str
    marks: tuple[str, ...]
    """Values of MARKS, "" where absent."""
    fault: str | None

    @property
    def can_rescale(self) -> bool:
        """Whether slope and intercept are numbers that can be meant."""
        return self.slope != 0 and math.isfinite(self.slope) and math.isfinite(self.intercept)

    @property
    def image_type(self) -> tuple[str, ...]:
        """ImageType, value by value."""
        value = self.marks[MARKS.index("ImageType")]
        return tuple(part.strip() for part in value.split("\\")) if value else ()


@lru_cache(maxsize=4096)
def numbers(raw: bytes) -> tuple[float, ...]:
    """The finite numbers of a DS or IS value, however they are written; () where one of them is none."""
    try:
        found = tuple([float(part) for part in raw.strip(b" \0").replace(b",", b".").split(b"\\")]) if raw else ()
    except ValueError:
        return ()
    return found if all(map(math.isfinite, found)) else ()


def number(raw: bytes) -> float | None:
    """The first number of a value, None where there is none."""
    found = numbers(raw)
    return found[0] if found else None


def number_or(absent: float, raw: bytes) -> float:
    """The first number of a value, `absent` where the value is empty, not a number where it is something else."""
    found = number(raw)
    if found is not None:
        return found
    return math.nan if text(raw) else absent


@lru_cache(maxsize=4096)
def traits_of(raw: tuple[bytes, ...]) -> Traits:
    """Traits from the raw values of TRAITS."""
    values = dict(zip(TRAITS, raw, strict=True))
    orientation, spacing = numbers(values["ImageOrientationPatient"]), numbers(values["PixelSpacing"])
    return Traits(
        sop_class_uid=text(values["SOPClassUID"]),
        frame_of_reference_uid=text(values["FrameOfReferenceUID"]),
        orientation=orientation,
        spacing=spacing,
        slice_thickness=number(values["SliceThickness"]),
        spacing_between_slices=number(values["SpacingBetweenSlices"]),
        slope=number_or(1.0, values["RescaleSlope"]),
        intercept=number_or(0.0, values["RescaleIntercept"]),
        convolution_kernel=text(values["ConvolutionKernel"]),
        marks=tuple(text(values[mark]) for mark in MARKS),
        fault=fault_of(orientation, spacing),
    )


def fault_of(orientation: tuple[float, ...], spacing: tuple[float, ...]) -> str | None:
    """What makes these values unusable, None when nothing does."""
    if not geometry.is_orthonormal(orientation):
        return "no usable ImageOrientationPatient"
    if len(spacing) != 2 or not all(1e-4 < x < 1e4 for x in spacing):
        return "no usable PixelSpacing"
    return None


@lru_cache(maxsize=256)
def form_of(keyword: str, syntax: str, raw: tuple[bytes, ...], raw_padding: tuple[bytes, ...]) -> PixelForm:
    """The PixelForm from the raw values of part10.NUMBERS and part10.PADDING.

    Raises:  ValueError, when they contradict each other
    """
    found = {name: unsigned(value) for name, value in zip(part10.NUMBERS, raw, strict=True) if len(value) >= 2}
    if not all(found.get(name) for name in ("Rows", "Columns", "BitsAllocated")):
        raise ValueError("Rows, Columns or BitsAllocated is missing or 0")
    if found.get("SamplesPerPixel", 1) != 1:
        raise ValueError(f"{found['SamplesPerPixel']} samples per pixel in a grey-scale image")
    allocated = found["BitsAllocated"]
    stored = found.get("BitsStored", allocated)
    high = found.get("HighBit", stored - 1)
    if allocated not in (8, 16, 32, 64) or not 0 < stored <= allocated or not stored - 1 <= high < allocated:
        raise ValueError(f"{stored} bits up to bit {high} do not lie in {allocated}")
    signed = bool(found.get("PixelRepresentation", 0))
    bounds = [struct.unpack("<h" if signed else "<H", value)[0] for value in raw_padding if len(value) == 2]
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


def unsigned(value: bytes) -> int:
    """The first number of a US value."""
    return int.from_bytes(value[:2], "little")
