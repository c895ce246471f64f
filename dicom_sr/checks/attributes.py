"""Attributes: Type 1 present with a value, Type 2 present, values of a form that their VR allows, codes complete.

The lists hold what our IODs demand at least; conditions that our own objects always meet are taken as met.

Source:  PS3.3 A.51, A.35.13 and the modules they name; PS3.5 6.2
"""

import re
from collections.abc import Iterator
from functools import cache

from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SegmentationStorage,
)

from dicom_sr import codes
from dicom_sr.checks.fault import Fault, every, items, one_of, text
from dicom_sr.elements import tag_of
from dicom_sr.header import IDENTITY, REQUEST
from dicom_sr.uids import LABEL_MAP_SEGMENTATION_STORAGE

TYPE_1 = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "InstanceNumber",
    "ContentDate",
    "ContentTime",
)

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Manufacturer",
)

SEGMENTATION_1 = (
    "ImageType",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "LossyImageCompression",
    "SegmentationType",
    "SegmentSequence",
    "ContentLabel",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
    "SharedFunctionalGroupsSequence",
    "PixelData",
)

SEGMENTATION_2 = ("ContentDescription",)

SEGMENT_1 = (
    "SegmentNumber",
    "SegmentLabel",
    "SegmentAlgorithmType",
    "SegmentedPropertyCategoryCodeSequence",
    "SegmentedPropertyTypeCodeSequence",
)

REPORT_1 = (
    "CompletionFlag",
    "VerificationFlag",
    "ValueType",
    "ConceptNameCodeSequence",
    "ContinuityOfContent",
    "ContentTemplateSequence",
    "ContentSequence",
)

REPORT_2 = ("PerformedProcedureCodeSequence", "ReferencedPerformedProcedureStepSequence")

EQUIPMENT_1 = ("PurposeOfReferenceCodeSequence", "Manufacturer")

ENUMERATED = {
    "SegmentationType": ("BINARY", "FRACTIONAL", "LABELMAP"),
    "LossyImageCompression": ("00", "01"),
    "SegmentsOverlap": ("YES", "NO", "UNDEFINED"),
    "CompletionFlag": ("PARTIAL", "COMPLETE"),
    "VerificationFlag": ("UNVERIFIED", "VERIFIED"),
    "ContinuityOfContent": ("SEPARATE", "CONTINUOUS"),
    "ContentQualification": ("PRODUCT", "RESEARCH", "SERVICE"),
}

SEGMENTATIONS = {str(SegmentationStorage), LABEL_MAP_SEGMENTATION_STORAGE}
REPORTS = {str(EnhancedSRStorage), str(ComprehensiveSRStorage), str(Comprehensive3DSRStorage)}

UID = re.compile(r"[0-9]+(\.[0-9]+)*")

FORMS = {
    "UI": re.compile(rf"(?=.{{0,64}}\Z)({UID.pattern})?"),
    "DS": re.compile(r"(?=.{0,16}\Z) *([+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)? *"),
    "IS": re.compile(r"(?=.{0,12}\Z) *([+-]?\d+)? *"),
    "CS": re.compile(r"[A-Z0-9_ ]{0,16}"),
    "DA": re.compile(r"(\d{8})?"),
    "TM": re.compile(r"(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)? *"),
    "DT": re.compile(r"(\d{4,14}(\.\d{1,6})?([+-]\d{4})?)? *"),
    "SH": re.compile(r"[^\\\x00-\x1a\x1c-\x1f]{0,16}"),
    "LO": re.compile(r"[^\\\x00-\x1a\x1c-\x1f]{0,64}"),
}
"""What one value may look like.  Source: PS3.5 6.2"""

COPIED = frozenset({*IDENTITY, REQUEST, "ReferencedRequestSequence", "PositionReferenceIndicator"})
"""Attributes whose form is the source's affair: they are kept as they came."""

NOT_CODED = COPIED | {"PerFrameFunctionalGroupsSequence"}
"""Sequences whose codes are not ours to declare, or are so many and so alike that they are not looked at."""

REFERENCES = frozenset(
    {"ReferencedSOPInstanceUID", "ReferencedSOPClassUID", "SeriesInstanceUID", "FrameOfReferenceUID"}
)
"""UIDs that quote the source, leading zeros and all; that they resolve is looked at elsewhere."""


def attributes(dataset: Dataset, place: str, *, ours: bool) -> Iterator[Fault]:
    """Missing, empty and malformed attributes of one object; a code of `ours` has the very meaning of our table."""
    yield from missing(dataset, TYPE_1, TYPE_2, place)
    sop_class = text(dataset, "SOPClassUID")
    if sop_class in SEGMENTATIONS:
        yield from _segmentation(dataset, place)
    elif sop_class in REPORTS:
        yield from missing(dataset, REPORT_1, REPORT_2, place)
    else:
        yield Fault(f"{place}.SOPClassUID", f"{sop_class or 'nothing'} is no result that this gate knows")
    for where, equipment in every(dataset, "ContributingEquipmentSequence", place):
        yield from missing(equipment, EQUIPMENT_1, (), where)
    yield from forms(dataset, place, ours=ours)
    yield from undeclared(dataset, place)


def _segmentation(dataset: Dataset, place: str) -> Iterator[Fault]:
    yield from missing(dataset, SEGMENTATION_1, SEGMENTATION_2, place)
    if text(dataset, "DimensionOrganizationType") != "TILED_FULL":
        yield from missing(dataset, ("PerFrameFunctionalGroupsSequence",), (), place)
    if "FrameOfReferenceUID" in dataset:
        yield from missing(dataset, ("FrameOfReferenceUID",), ("PositionReferenceIndicator",), place)
    for where, segment in every(dataset, "SegmentSequence", place):
        named = () if text(segment, "SegmentAlgorithmType") == "MANUAL" else ("SegmentAlgorithmName",)
        yield from missing(segment, (*SEGMENT_1, *named), (), where)


def undeclared(dataset: Dataset, place: str) -> Iterator[Fault]:
    """Private coding schemes that are used and not identified (PS3.3 C.12.1, Coding Scheme Identification)."""
    declared = {text(item, "CodingSchemeDesignator") for item in items(dataset, "CodingSchemeIdentificationSequence")}
    used = {text(item, "CodingSchemeDesignator") for item in _coded(dataset)}
    for scheme in sorted(used - declared):
        if scheme.startswith("99"):
            yield Fault(f"{place}.CodingSchemeIdentificationSequence", f"does not identify {scheme}")


def _coded(dataset: Dataset) -> Iterator[Dataset]:
    """All code items that are ours, at any depth."""
    for element in dataset:
        if element.VR == "SQ" and element.keyword not in NOT_CODED:
            for item in element.value or ():
                if "CodeMeaning" in item:
                    yield item
                yield from _coded(item)


def missing(dataset: Dataset, type_1: tuple[str, ...], type_2: tuple[str, ...], place: str) -> Iterator[Fault]:
    """Type 1 attributes absent or empty, Type 2 attributes absent."""
    for keyword in (*type_1, *type_2):
        if keyword not in dataset:
            yield Fault(f"{place}.{keyword}", "is missing")
    for keyword in type_1:
        if keyword in dataset and not _filled(dataset, keyword):
            yield Fault(f"{place}.{keyword}", "is empty")


def _filled(dataset: Dataset, keyword: str) -> bool:
    raw = dataset.get_item(tag_of(keyword))
    return bool(raw.value) or raw.value == 0


def forms(dataset: Dataset, place: str, *, ours: bool) -> Iterator[Fault]:
    """Values that their VR does not allow, and incomplete or misnamed codes, at any depth."""
    for element in dataset:
        keyword = element.keyword
        if keyword in COPIED:
            continue
        where = f"{place}.{keyword or element.tag}"
        if element.VR == "SQ":
            for number, item in enumerate(element.value or (), start=1):
                yield from _code(item, f"{where}[{number}]", ours=ours)
                if keyword != "PerFrameFunctionalGroupsSequence":
                    yield from forms(item, f"{where}[{number}]", ours=ours)
            continue
        values = element.value if element.VM > 1 else [element.value]
        pattern = FORMS.get(element.VR)
        if pattern is not None and keyword not in REFERENCES:
            for value in values:
                written = str(getattr(value, "original_string", None) or ("" if value is None else value))
                if not pattern.fullmatch(written):
                    shown = "a value" if element.tag.group == 0x0010 else repr(written)
                    yield Fault(where, f"{shown} is no {element.VR}")
        if keyword in ENUMERATED:
            for value in values:
                yield from one_of(place, keyword, str(value or ""), ENUMERATED[keyword])


def _code(item: Dataset, place: str, *, ours: bool) -> Iterator[Fault]:
    """A code item without all its three parts, or with another meaning than our table gives it.

    Others may word a meaning in their own way; it must still share a word with ours. Units are worded freely.
    """
    value = text(item, "CodeValue") or text(item, "LongCodeValue")
    if not value and "CodeMeaning" not in item and "CodeValue" not in item:
        return
    scheme, meaning = text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning")
    if not (value and scheme and meaning):
        yield Fault(place, f"the code ({value}, {scheme}, {meaning}) lacks a part")
        return
    known = meanings().get((value, scheme))
    words = set((known or "").casefold().split())
    near = not ours and (scheme == "UCUM" or words & set(meaning.casefold().split()))
    if known is not None and meaning.casefold() != known.casefold() and not near:
        yield Fault(place, f"({value}, {scheme}) means {known!r}, not {meaning!r}")
    if scheme == codes.OWN and known is None:
        yield Fault(place, f"({value}, {scheme}) is not defined")


@cache
def meanings() -> dict[tuple[str, str], str]:
    """The meaning of each code (value, scheme) that we write."""
    return {(term.code.value, term.code.scheme): term.code.meaning for term in codes.terms().values()}
