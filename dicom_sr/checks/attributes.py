"""Attributes: Type 1 present with a value, Type 2 present, values of a form that their VR allows, codes complete.

The lists hold what our IODs demand at least; conditions that our own objects always meet are taken as met.

Source:  PS3.3 A.51, A.35.13 and the modules they name; PS3.5 6.2
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from dicom_sr import codes
from dicom_sr.checks.fault import Fault, every, items, one_of, text
from dicom_sr.checks.seen import Seen
from dicom_sr.elements import tag_of
from dicom_sr.header import IDENTITY, REQUEST

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
"""What is not looked at element by element: the source's own, and groups that are looked at once each."""

DECIMAL = rb"-?\d{1,5}(?:\.\d{1,9})?"
EACH_ITS_OWN = re.compile(
    rb"\x08\x00\x55\x11UI..[0-9.]*\0?|\x20\x00\x32\x00DS..%b\\%b\\%b ?" % (DECIMAL, DECIMAL, DECIMAL), re.DOTALL
)
"""ReferencedSOPInstanceUID, and an ImagePositionPatient without fault, as they are encoded.

Groups that differ in them alone are as well formed as each other.
"""

NOTHING_ELSE = re.compile(
    rb"(?:\xfe\xff\x00\xe0....\x08\x00\x50\x11UI..[0-9.]*\0?\x08\x00\x55\x11UI..[0-9.]*\0?)+", re.DOTALL
)
"""Items that are a class and an instance and nothing else, as they are encoded: there is no form to look at."""

REFERENCES = frozenset(
    {"ReferencedSOPInstanceUID", "ReferencedSOPClassUID", "SeriesInstanceUID", "FrameOfReferenceUID"}
)
"""UIDs that quote the source, leading zeros and all; that they resolve is looked at elsewhere."""


def attributes(seen: Seen, type_1: tuple[str, ...], type_2: tuple[str, ...]) -> Iterator[Fault]:
    """Missing, empty and malformed attributes of one object; a code of ours has the very meaning of our table."""
    dataset, place = seen.dataset, seen.place
    yield from missing(dataset, (*TYPE_1, *type_1), (*TYPE_2, *type_2), place)
    for where, equipment in every(dataset, "ContributingEquipmentSequence", place):
        yield from missing(equipment, EQUIPMENT_1, (), where)
    used: set[str] = set()
    yield from forms(dataset, place, Seeking(ours=seen.ours, used=used))
    clean: set[bytes] = set()
    for index, group in seen.framed.distinct:
        pattern = EACH_ITS_OWN.sub(b"", group.encoded)
        if pattern and pattern in clean:
            continue
        where = f"{place}.PerFrameFunctionalGroupsSequence[{index}]"
        faults = list(forms(group.dataset, where, Seeking(ours=seen.ours, used=used)))
        if not faults:
            clean.add(pattern)
        yield from faults
    declared = {text(item, "CodingSchemeDesignator") for item in items(dataset, "CodingSchemeIdentificationSequence")}
    for scheme in sorted(used - declared):
        if scheme.startswith("99"):  # PS3.3 C.12.1 (Coding Scheme Identification)
            yield Fault(f"{place}.CodingSchemeIdentificationSequence", f"does not identify {scheme}")


@dataclass(frozen=True, slots=True)
class Seeking:
    """Where a look into one object stands: whose it is, coding schemes met, and encoded sequences found clean."""

    ours: bool
    used: set[str]
    clean: set[tuple[int, bytes]] = field(default_factory=set)


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


def forms(dataset: Dataset, place: str, seeking: Seeking) -> Iterator[Fault]:
    """Values that their VR does not allow, and incomplete or misnamed codes, at any depth."""
    for tag in sorted(dataset.keys()):
        keyword = _keyword(tag)
        if keyword in NOT_CODED:
            continue
        raw = dataset.get_item(tag)
        vr = raw.VR if isinstance(raw, RawDataElement) and raw.VR else dataset[tag].VR
        if vr == "SQ":
            yield from _sequence(dataset, tag, raw, f"{place}.{keyword or tag}", seeking)
            continue
        pattern = FORMS.get(vr)
        if pattern is None:
            continue
        values = _written(dataset, tag, raw)
        if keyword not in REFERENCES:
            for written in values:
                if not pattern.fullmatch(written):
                    shown = "a value" if tag >> 16 == 0x0010 else repr(written)
                    yield Fault(f"{place}.{keyword or tag}", f"{shown} is no {vr}")
        if keyword in ENUMERATED:
            for written in values:
                yield from one_of(place, keyword, written, ENUMERATED[keyword])


_keyword = cache(keyword_for_tag)


def _written(dataset: Dataset, tag: int, raw: object) -> list[str]:
    """The values as they are written; those in letters beyond ASCII as pydicom reads them."""
    if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes) and raw.value.isascii():
        return raw.value.decode().rstrip(" \0").split("\\")
    element = dataset[tag]
    values = element.value if element.VM > 1 else [element.value]
    return [str(getattr(one, "original_string", None) or ("" if one is None else one)) for one in values]


def _sequence(dataset: Dataset, tag: int, raw: object, where: str, seeking: Seeking) -> Iterator[Fault]:
    """The items of a sequence; one that is encoded as an earlier one without fault is not looked at again."""
    encoded = (int(tag), bytes(raw.value)) if isinstance(raw, RawDataElement) and raw.value else None
    if encoded in seeking.clean or (encoded and NOTHING_ELSE.fullmatch(encoded[1])):
        return
    faults: list[Fault] = []
    keyword = _keyword(tag)
    for number, item in enumerate((dataset.get(keyword) if keyword else dataset[tag].value) or (), start=1):
        seeking.used.add(text(item, "CodingSchemeDesignator") if "CodeMeaning" in item else "")
        faults += _code(item, f"{where}[{number}]", ours=seeking.ours)
        faults += forms(item, f"{where}[{number}]", seeking)
    if encoded and not faults:
        seeking.clean.add(encoded)
    yield from faults


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
    if ours and known is not None and meaning.casefold() != known.casefold():
        yield Fault(place, f"({value}, {scheme}) means {known!r}, not {meaning!r}")
    if not ours and scheme != "UCUM" and not _near(meaning, said := _published(value, scheme) or known):
        yield Fault(place, f"({value}, {scheme}) means {said!r}, not {meaning!r}")
    if scheme == codes.OWN and known is None:
        yield Fault(place, f"({value}, {scheme}) is not defined")


LATIN = {
    "veno": "vein",
    "arte": "artery",
    "rena": "kidn",
    "pulm": "lung",
    "card": "hear",
    "hepa": "live",
    "spin": "vert",
}
"""Stems of words that mean the same."""


def _near(meaning: str, known: str | None) -> bool:
    """Whether two wordings share a word, or one has the initials of the other; nothing contradicts an unknown code."""
    if known is None or _stems(meaning) & _stems(known):
        return True
    initials = {"".join(word[0] for word in words.casefold().split()) for words in (meaning, known)}
    return bool(initials & {meaning.casefold(), known.casefold()})


def _stems(meaning: str) -> set[str]:
    """The words of a meaning without their endings, Latin ones as plain ones."""
    stems = {word[:4] for word in re.findall(r"[a-z0-9]+", meaning.casefold())}
    return {LATIN.get(stem, stem) for stem in stems}


@cache
def _publications() -> dict[tuple[str, str], str]:
    """The meaning of each code (value, scheme) in the standard's context groups, as pydicom has them."""
    return {
        (value, scheme): str(meaning)
        for scheme, keywords in concepts.items()
        for found in keywords.values()
        for value, (meaning, _) in found.items()
    }


def _published(value: str, scheme: str) -> str | None:
    if scheme in ("SRT", "99SDM", "SNM3"):  # what SNOMED CT was called in DICOM before 2019 (PS3.16 8.1)
        value, scheme = mapping["SRT"].get(value, ""), "SCT"
    return _publications().get((value, scheme))


@cache
def meanings() -> dict[tuple[str, str], str]:
    """The meaning of each code (value, scheme) that we write."""
    return {(term.code.value, term.code.scheme): term.code.meaning for term in codes.terms().values()}
