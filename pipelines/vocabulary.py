"""What a model calls a structure, in the standard's codes; a name that has none there stays a name.

A model's label ("kidney_right", "Right Kidney", "lv_pool") is free text. It is matched word by word, exactly, with the
concepts that the standard lists for segmented structures, unless it is a label of a published set, whose codes stand in
`dicom_sr/label_sets.csv`; a near concept is never taken. What matches nothing is
coded as an anatomical structure, and its name stands in the label.

Source:  PS3.16 CID 7192 (Anatomical Structure Segmentation Property Type), CID 7159 (Lesion Segmentation Type),
         CID 7150 (Segmentation Property Category), CID 244 (Laterality)
"""

import colorsys
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from dicom_sr import codes
from dicom_sr.nouns import Code

SIDES = {"left": "left", "right": "right", "l": "left", "r": "right"}
EMPTY = frozenset(("of", "the", "and", "structure", "entire"))
SYNONYMS = {
    "vertebrae": "vertebra",
    "kideny": "kidney",
    "kidneys": "kidney",
    "lungs": "lung",
    "oesophagus": "esophagus",
    "tumor": "neoplasm",
    "tumour": "neoplasm",
    "oedema": "edema",
    "ivc": "inferior vena cava",
    "gallblader": "gallbladder",
    "clavicula": "clavicle",
    "nodules": "nodule",
    "lesions": "lesion",
}
"""Other spellings of the very same thing, as published models have them."""


@dataclass(frozen=True, slots=True)
class Term:
    """A structure's codes; `known` is false when the standard has no concept of that name."""

    category: Code
    type: Code
    laterality: Code | None
    known: bool


@cache
def term(label: str) -> Term:
    """The codes of what a model calls `label`."""
    structure = codes.labelled(label)
    if structure is not None:
        return Term(structure.category, structure.type, structure.laterality, True)
    words = _words(label)
    found = _concepts().get(frozenset(words))
    if found:
        return Term(*found, None, True)
    sides = {SIDES[word] for word in words if word in SIDES}
    found = _concepts().get(frozenset(word for word in words if word not in SIDES))
    if found and len(sides) <= 1:
        return Term(*found, codes.find(sides.pop()) if sides else None, True)
    generic = codes.find("anatomical_structure")
    return Term(generic, generic, None, False)


def colour(number: int) -> tuple[int, int, int]:
    """A display colour for the n-th structure; neighbours differ, and the same number has always the same one."""
    red, green, blue = colorsys.hsv_to_rgb((number * 0.618034) % 1.0, 0.65, 0.95 - 0.2 * (number % 3 == 2))
    return round(red * 255), round(green * 255), round(blue * 255)


def is_background(label: str) -> bool:
    """Whether a model means "nothing" by this label."""
    return label.strip().lower() in ("background", "bg", "everything else", "other", "none", "outside")


def _words(label: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[A-Z][a-z])", " ", label)
    words = re.findall(r"[a-z0-9]+", spaced.lower())
    return [word for given in words for word in SYNONYMS.get(given, given).split() if word not in EMPTY]


@cache
def _concepts() -> dict[frozenset[str], tuple[Code, Code]]:
    """Category and type of each concept, by the words of its name."""
    from pydicom.sr.codedict import codes as standard

    structure = codes.find("anatomical_structure")
    abnormal = _code(standard.cid7150.MorphologicallyAbnormalStructure)
    concepts: dict[frozenset[str], tuple[Code, Code]] = {}
    for category, group in ((structure, standard.cid7192), (abnormal, standard.cid7159)):
        for name in dir(group):
            if name[0].isupper():
                concept = _code(getattr(group, name))
                for spelling in (name, concept.meaning):
                    concepts.setdefault(frozenset(_words(spelling)), (category, concept))
    concepts.pop(frozenset(), None)
    return concepts


def _code(concept: Any) -> Code:
    return Code(value=concept.value, scheme=concept.scheme_designator, meaning=concept.meaning)
