"""Which attributes the door reads, and what their bytes say.

Facts are keyword -> value: text as str, numbers as int or float, several values as a list, a sequence as a list of
items, an empty value as ""; an absent attribute is absent. A value's form is never a reason to refuse: a number that
does not parse stays text, verbatim. Both readers of headers end here, so that they cannot differ in decoding.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pydicom.datadict import dictionary_VR, tag_for_keyword

from router.ingest import text

Fact = str | int | float
Facts = dict[str, Fact | list[Fact] | list[dict[str, Fact | list[Fact]]]]
Items = Mapping[int, Sequence[Mapping[int, bytes]]]

KEYWORDS = (
    "SpecificCharacterSet", "ImageType", "InstanceCreationDate", "InstanceCreationTime", "SOPClassUID",
    "SOPInstanceUID", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "StudyTime",
    "SeriesTime", "AcquisitionTime", "ContentTime", "AccessionNumber", "Modality", "ConversionType",
    "PresentationIntentType", "Manufacturer", "InstitutionName", "ReferringPhysicianName", "StationName",
    "TimezoneOffsetFromUTC", "StudyDescription", "SeriesDescription", "InstitutionalDepartmentName",
    "ManufacturerModelName", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientAge", "PatientSpeciesDescription", "ContrastBolusAgent", "BodyPartExamined", "ScanningSequence",
    "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName", "SliceThickness", "KVP", "RepetitionTime",
    "EchoTime", "MagneticFieldStrength", "SpacingBetweenSlices", "SoftwareVersions", "ProtocolName",
    "GantryDetectorTilt", "ImagerPixelSpacing", "ConvolutionKernel", "PatientPosition", "ViewPosition",
    "StudyInstanceUID", "SeriesInstanceUID", "StudyID", "SeriesNumber", "AcquisitionNumber", "InstanceNumber",
    "PatientOrientation", "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "Laterality",
    "ImageLaterality", "ImagesInAcquisition", "SliceLocation", "NumberOfStudyRelatedInstances",
    "NumberOfSeriesRelatedInstances", "ImageComments", "SamplesPerPixel", "PhotometricInterpretation",
    "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "BurnedInAnnotation", "RescaleIntercept", "RescaleSlope", "LossyImageCompression",
    "RequestedProcedureDescription",
)  # fmt: skip

FRAME_KEYWORDS = (
    "SliceThickness", "SpacingBetweenSlices", "ConvolutionKernel", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "RescaleIntercept", "RescaleSlope", "FrameAcquisitionDateTime", "FrameLaterality", "EchoTime",
)  # fmt: skip
"""What functional groups may give, where the data set itself does not."""

CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
ITEM_KEYWORDS = {
    "AnatomicRegionSequence": CODE,
    "ProcedureCodeSequence": CODE,
    "ContributingEquipmentSequence": ("Manufacturer",),
    "RequestAttributesSequence": (
        "RequestedProcedureID", "RequestedProcedureDescription",
        "ScheduledProcedureStepID", "ScheduledProcedureStepDescription",
    ),
}  # fmt: skip
"""Sequences that are facts, and the attributes of their items that are kept."""

TEXT = frozenset({"LO", "SH", "PN", "LT", "ST", "UT", "UC"})
"""Value representations whose character set SpecificCharacterSet names."""
LONGEST_REMEMBERED = 128
"""Bytes of a value that is worth remembering; together with their number this bounds the memory."""
ONE_VALUE = frozenset({"LT", "ST", "UT"})
NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}


def tag_of(keyword: str) -> int:
    """The tag of a keyword of the standard, as one number.

    Raises:  LookupError
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise LookupError(keyword)
    return int(tag)


def _described(keyword: str) -> tuple[str, str]:
    return keyword, str(dictionary_VR(tag_of(keyword)))[:2]


WANTED = {tag_of(keyword): _described(keyword) for keyword in KEYWORDS}
FRAME_WANTED = {tag_of(keyword): _described(keyword) for keyword in FRAME_KEYWORDS}
ITEM_WANTED = {tag_of(top): {tag_of(one): _described(one) for one in inner} for top, inner in ITEM_KEYWORDS.items()}
ITEM_NAMES = {tag_of(sequence): sequence for sequence in ITEM_KEYWORDS}
CHARACTER_SET = tag_of("SpecificCharacterSet")


def decode(found: Mapping[int, bytes], items: Items, frames: Mapping[int, bytes], order: str) -> Facts:
    """Decoded facts, all by one way of decoding."""
    encodings = text.encodings_of(found.get(CHARACTER_SET, b""))
    facts: Facts = {}
    for tag, value in found.items():
        keyword, vr = WANTED[tag]
        facts[keyword] = _fact(value, vr, encodings, order)
    for tag, value in frames.items():
        keyword, vr = FRAME_WANTED[tag]
        if not facts.get(keyword):
            facts[keyword] = _fact(value, vr, encodings, order)
    for tag, found_items in items.items():
        kept = [_item(one, ITEM_WANTED[tag], encodings, order) for one in found_items]
        facts[ITEM_NAMES[tag]] = kept
    if items and not facts.get("RequestedProcedureDescription"):
        _take_description(facts)
    return facts


def fact_of(tag: int, value: bytes, encodings: tuple[str, ...], order: str) -> Fact | list[Fact]:
    """What one first-level value says."""
    return _fact(value, WANTED[tag][1], encodings, order)


def _item(
    values: Mapping[int, bytes], wanted: Mapping[int, tuple[str, str]], encodings: tuple[str, ...], order: str
) -> dict[str, Fact | list[Fact]]:
    return {wanted[tag][0]: _fact(value, wanted[tag][1], encodings, order) for tag, value in values.items()}


def _take_description(facts: Facts) -> None:
    """The requested procedure is named in the data set or in its request; either will do for a rule."""
    for item in facts.get("RequestAttributesSequence") or ():  # type: ignore[union-attr]
        if isinstance(item, dict) and item.get("RequestedProcedureDescription"):
            facts["RequestedProcedureDescription"] = item["RequestedProcedureDescription"]
            return


def _fact(value: bytes, vr: str, encodings: tuple[str, ...], order: str) -> Fact | list[Fact]:
    """The value as a fact; short ones are remembered, since the slices of a series differ in few values."""
    return (_remembered if len(value) <= LONGEST_REMEMBERED else _read)(value, vr, encodings, order)


def _read(value: bytes, vr: str, encodings: tuple[str, ...], order: str) -> Fact | list[Fact]:
    if vr in NUMBERS:
        return _binary(value, order + NUMBERS[vr])
    words = text.decode(value, encodings) if vr in TEXT else value.decode("latin_1")
    if vr != "UI":
        words = words.replace("\0", " ")  # no database keeps a NUL; in a UID it is no matter of form
    if vr in ("LT", "ST", "UT") or "\\" not in words:
        return _word(words, vr)
    return [_word(word, vr) for word in words.split("\\")]


_remembered = lru_cache(maxsize=4096)(_read)
"""Nobody changes a fact, so that all may share it."""


def _word(word: str, vr: str) -> Fact:
    word = word.strip("\0 ")
    if vr not in ("DS", "IS"):
        return word
    try:
        number = float(word)
    except ValueError:
        return word
    if not math.isfinite(number):
        return word
    return int(number) if vr == "IS" and number.is_integer() else number


def _binary(value: bytes, form: str) -> Fact | list[Fact]:
    size = struct.calcsize(form)
    numbers = [number for (number,) in struct.iter_unpack(form, value[: len(value) // size * size])]
    numbers = [number if math.isfinite(number) else str(number) for number in numbers]
    return numbers if len(numbers) > 1 else numbers[0] if numbers else ""
