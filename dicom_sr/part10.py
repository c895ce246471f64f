"""What one DICOM file says, as bytes, and where its pixels lie; no value is judged here, and none is changed."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicom_sr.refusals import NotDicom
from dicom_sr.walk import ITEM, KNOWN, PIXELS, UNDEFINED, UnusualError, Wanted, walk

NUMBERS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
"""Attributes of VR US; all others in TEXTS are text."""

PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")
"""VR US or SS, as PixelRepresentation says."""

TEXTS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "Modality",
    "Manufacturer",
    "ImageType",
    "ConvolutionKernel",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ContrastBolusAgent",
    "LossyImageCompression",
    "BurnedInAnnotation",
    "PhotometricInterpretation",
    "ViewPosition",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "EchoTime",
    "InversionTime",
    "TriggerTime",
)

PRESENCE = ("PerFrameFunctionalGroupsSequence", "ModalityLUTSequence")
"""Attributes of which only their being there is noted."""

WANTED = Wanted((*NUMBERS, *PADDING, *TEXTS, *PRESENCE))
PIXEL_TAGS = frozenset(tag_for_keyword(keyword) for keyword in PIXELS.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """The header of one file: raw values by keyword, little endian, and the place of the pixel data's value."""

    path: Path
    size: int
    """Bytes of the file."""
    values: dict[str, bytes]
    transfer_syntax_uid: str
    pixel_keyword: str | None
    pixel_offset: int | None
    """Of the first byte of the value; None where the file must be inflated to find it."""
    pixel_length: int | None
    """None when the value is encapsulated or its place is not known."""


def not_dicom(path: Path) -> NotDicom:
    """The refusal of a file that does not begin as a DICOM file does."""
    return NotDicom(
        f"{path} is not a DICOM Part 10 file",
        remedy="Give DICOM files only; a data set without preamble can be wrapped by dcmconv of DCMTK",
    )


def text(raw: bytes) -> str:
    """A text value without its padding; nothing else is changed, so an odd UID stays as odd as it came."""
    return raw.decode("latin-1").rstrip("\0 ").lstrip(" ")


def head(path: Path) -> Head:
    """The header of a Part 10 file.

    Raises:  NotDicom, OSError
    Source:  PS3.10 7.1, PS3.5 7.1
    """
    try:
        found = walk(path, WANTED)
    except UnusualError:
        return slow_head(path)
    return Head(
        path=path,
        size=found.size,
        values=found.values,
        transfer_syntax_uid=found.transfer_syntax_uid,
        pixel_keyword=PIXELS.get(found.pixel_word),
        pixel_offset=found.pixel_offset or None,
        pixel_length=found.pixel_length if found.pixel_word and found.pixel_length != UNDEFINED else None,
    )


def slow_head(path: Path) -> Head:
    """The header as pydicom reads it: any transfer syntax, any oddity; the fast way must say the same."""
    at_pixels: list[tuple[int, int]] = []

    def is_pixel_data(tag: int, vr: str | None, length: int) -> bool:
        if tag in PIXEL_TAGS:
            at_pixels.append((tag, length))
        return tag in PIXEL_TAGS

    with path.open("rb") as file:
        try:
            dataset = read_partial(file, stop_when=is_pixel_data)
        except InvalidDicomError:
            raise not_dicom(path) from None
        element_offset = file.tell()
    if not dataset and not dataset.file_meta:
        raise not_dicom(path)
    implicit, little = dataset.original_encoding
    values = {}
    for keyword in (*NUMBERS, *PADDING, *TEXTS):
        element = dataset.get_item(keyword)
        if element is None:
            continue
        if isinstance(element, RawDataElement):
            value = bytes(element.value or b"")
            values[keyword] = value if little or keyword in TEXTS else value[::-1]
        else:
            values[keyword] = spelled(element.value)
    values.update({keyword: b"" for keyword in PRESENCE if keyword in dataset})
    syntax = UID(dataset.file_meta.get("TransferSyntaxUID", ""))
    tag, length = at_pixels[0] if at_pixels else (None, 0)
    placed = tag is not None and syntax in KNOWN and syntax != DeflatedExplicitVRLittleEndian
    return Head(
        path=path,
        size=path.stat().st_size,
        values=values,
        transfer_syntax_uid=str(syntax),
        pixel_keyword=keyword_for_tag(tag) if tag else None,
        pixel_offset=element_offset + (8 if implicit else 12) if placed else None,
        pixel_length=length if placed and length != UNDEFINED else None,
    )


def spelled(value: object) -> bytes:
    """A text value that pydicom has already understood, as it lies in a file."""
    parts = value if isinstance(value, (list, MultiValue)) else [value]
    raw = "\\".join(str(part) for part in parts if part is not None).encode("latin-1", "replace")
    return raw + b" " * (len(raw) % 2)


def pixel_digest(path: Path) -> str:
    """SHA-256 over the pixel data's value as stored: native bytes, or the items of encapsulated data up to their
    delimiter; of no bytes where the object has no pixel data. A deflated data set is inflated first.

    Raises:  NotDicom, OSError
    Source:  PS3.5 A.4 (Encapsulated Pixel Data)
    """
    found = head(path)
    if found.pixel_keyword is None:
        return hashlib.sha256().hexdigest()
    if found.pixel_offset is None:
        return hashlib.sha256(pydicom.dcmread(path).get_item(found.pixel_keyword).value).hexdigest()
    with path.open("rb") as file:
        length = found.pixel_length if found.pixel_length is not None else items_length(file, found.pixel_offset)
        file.seek(found.pixel_offset)
        digest = hashlib.sha256()
        while length > 0 and (piece := file.read(min(length, 1 << 20))):
            digest.update(piece)
            length -= len(piece)
    return digest.hexdigest()


def items_length(file: BinaryIO, offset: int) -> int:
    """Bytes from the first item of encapsulated pixel data to its delimiter, or to where the items end."""
    at = offset
    while True:
        file.seek(at)
        item = file.read(8)
        if len(item) < 8 or int.from_bytes(item[:4], "little") != ITEM:
            return at - offset
        at += 8 + int.from_bytes(item[4:], "little")
