"""Which algorithm made an object, where its header says so plainly: a result of an AI is no image to run another on.

Nothing is guessed. A segment that a person drew or corrected, a report that a person observed and a reconstruction by
a neural network, which is an original image, are not results of an AI.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from router.domain.classify import DOCUMENTS
from router.domain.facts import Fact, Header, derived

UNNAMED = "an algorithm without a name"
ALGORITHM_NAME = "111001"
"""Algorithm Name of the DICOM Controlled Terminology (PS3.16 CID 7162 and TID 4019)."""

WORDS = re.compile(
    r"\bAI\b|\bCADe?x?\b"
    r"|(?i:\b(deep|machine)[ -]?learning\b|\bneural net|\bartificial intelligence\b|\bcomputer[ -]aided\b)"
)
SAID_IN = ("DerivationDescription", "SoftwareVersions")
"""The name of the model is none of them: scanners are named so, too."""
EQUIPMENT = "ContributingEquipmentSequence"
CONTRIBUTED = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ContributionDescription")
KEYWORDS = ("ImageType", "SegmentSequence", "ContentSequence", EQUIPMENT, *SAID_IN, "Manufacturer",
            "ManufacturerModelName")  # fmt: skip
"""What `maker` reads of a header."""


def may_be_a_result(header: Header, sop_class: str) -> bool:
    """Whether the object is of a kind that algorithms make of images: then it is worth reading more of its file."""
    image_type = {str(one).upper() for one in _list(header.get("ImageType"))}
    secondary = "DERIVED" in image_type and "SECONDARY" in image_type
    picture = "SecondaryCapture" in sop_class or "ParametricMap" in sop_class
    return secondary or picture or header.get("Modality") in DOCUMENTS


def maker(header: Header, sop_class: str, *, ours: bool = False) -> Fact | None:
    """The fact `algorithm` of such an object: the algorithm's name, and which attribute gives it; None where none does.

    `sop_class` is the keyword of its SOP class; `ours` that a node of this program has made it.
    """
    if ours:
        return _fact(header.get("ManufacturerModelName"), "Manufacturer")
    segments = _items(header.get("SegmentSequence"))
    if segments:
        automatic = all(str(one.get("SegmentAlgorithmType", "")).upper() == "AUTOMATIC" for one in segments)
        return _fact(segments[0].get("SegmentAlgorithmName"), "SegmentSequence") if automatic else None
    named = next(_algorithm_names(header.get("ContentSequence")), None)
    if named is not None:
        return _fact(named, "ContentSequence")
    if "CAD" in sop_class:
        return _fact(header.get("ManufacturerModelName"), "SOPClassUID")
    return _told(header)


def _told(header: Header) -> Fact | None:
    """What the words of equipment, derivation or image type say."""
    for item in _items(header.get(EQUIPMENT)):
        if any(WORDS.search(text) for keyword in CONTRIBUTED for text in _texts(item, keyword)):
            return _fact(item.get("ManufacturerModelName") or item.get("Manufacturer"), EQUIPMENT)
    for keyword in SAID_IN:
        if any(WORDS.search(text) for text in _texts(header, keyword)):
            return _fact(header.get("ManufacturerModelName"), keyword)
    tokens = {token for text in _texts(header, "ImageType") for token in re.split(r"[^A-Z0-9]+", text.upper())}
    return _fact(header.get("ManufacturerModelName"), "ImageType") if tokens & {"AI", "CAD"} else None


def _algorithm_names(content: Any) -> Iterator[str]:
    for item in _items(content):
        for concept in _items(item.get("ConceptNameCodeSequence")):
            if (concept.get("CodeValue"), concept.get("CodingSchemeDesignator")) == (ALGORITHM_NAME, "DCM"):
                yield str(item.get("TextValue") or "")
        yield from _algorithm_names(item.get("ContentSequence"))


def _fact(name: Any, origin: str) -> Fact:
    return derived("algorithm", str(name or "").strip() or UNNAMED, origin)


def _texts(header: Header, keyword: str) -> list[str]:
    return [str(one) for one in _list(header.get(keyword))]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value in (None, "") else [value]


def _items(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in _list(value) if isinstance(one, Mapping)]
