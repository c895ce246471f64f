"""Coded terms mean what their tables say."""

import csv
import re
from pathlib import Path

import pytest
from pydicom.sr.codedict import codes as pydicom_codes

from dicom_sr import codes
from dicom_sr.codes import Term

TERMS = codes.terms().values()


def test_a_name_finds_its_code():
    assert codes.find("lung").value == "39607008"


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(codes.UnknownTerm, match="laa_950"):
        codes.find("lunge")


@pytest.mark.parametrize("term", [t for t in TERMS if t.source == "pydicom"], ids=lambda t: t.name)
def test_terms_from_pydicom_are_the_ones_that_pydicom_has(term: Term):
    scheme, keyword = term.where.split(".")
    theirs = getattr(getattr(pydicom_codes, scheme), keyword)
    assert (theirs.value, theirs.scheme_designator, theirs.meaning) == (
        term.code.value,
        term.code.scheme,
        term.code.meaning,
    )


@pytest.mark.parametrize("term", [t for t in TERMS if t.source == "standard"], ids=lambda t: t.name)
def test_terms_from_the_standard_cite_a_clause(term: Term):
    assert re.search(r"PS3\.\d+.*(CID|TID) \d+|[CT]ID \d+", term.where)


@pytest.mark.parametrize("term", TERMS, ids=lambda t: t.name)
def test_own_terms_and_only_they_are_in_our_scheme_and_defined(term: Term):
    assert (term.source == "own") == (term.code.scheme == codes.OWN) == bool(term.definition)
    assert term.source in {"pydicom", "standard", "own"}
    assert len(term.code.value) <= 16
    assert len(term.code.meaning) <= 64


def test_no_code_stands_twice():
    keys = [(t.code.scheme, t.code.value) for t in TERMS]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("table", ["codes.csv", "structures.csv", "quantities.csv"])
def test_no_name_stands_twice(table: str):
    """The later row would win, unseen."""
    with Path(codes.__file__).with_name(table).open(encoding="utf-8", newline="") as lines:
        names = [row["name"] for row in csv.DictReader(lines)]
    assert [name for name in names if names.count(name) > 1] == []


def contradiction(label: str, meanings: list[str]) -> bool:
    """Whether the label says one side and the codes another."""
    sides = {side for side in ("left", "right") if re.search(rf"\b{side}\b", label.replace("_", " ").lower())}
    coded = {side for side in ("left", "right") for m in meanings if re.search(rf"\b{side}\b", m.lower())}
    return sides != coded


@pytest.mark.parametrize("structure", codes.structures().values(), ids=lambda s: s.name)
def test_a_structure_is_coded_on_the_side_that_its_name_says(structure: codes.Structure):
    meanings = [structure.type.meaning, *([structure.laterality.meaning] if structure.laterality else [])]
    assert not contradiction(structure.name, meanings)
    assert not contradiction(structure.label, meanings)


def test_the_known_contradiction_of_a_respected_table_is_caught():
    assert contradiction("subclavian_artery_left", ["Right subclavian artery"])
    assert contradiction("left_lung", ["Lung"])


OWN_LABELS = {
    "totalsegmentator_v1": 104, "totalsegmentator_v2": 117, "monai_wholebody": 104, "btcv": 14, "brats": 5,
    "prostate": 2, "spleen": 1,
}  # fmt: skip
WITHOUT_A_SURE_CODE = re.compile(
    r"rib_(left|right)_\d+|(gluteus_\w+|autochthon|iliopsoas|hip|kidney_cyst)_(left|right)|vertebrae_S1"
    r"|portal_vein_and_splenic_vein|Portal and Splenic Veins|heart_myocardium|central gland"
    r"|.*[Tt]umor.*|Peritumoral edema"
)
"""Labels that are exported with a code of our own, since none of the standard's was sure."""


def test_every_label_says_where_it_was_published():
    with (Path(codes.__file__).parent / "label_sets.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            assert re.search(r"@[0-9a-f]{7} .*(map_to_binary.py|metadata.json)|BraTS 2018|^the same", row["where"]), row


@pytest.mark.parametrize("name", OWN_LABELS)
def test_every_label_of_a_published_set_is_coded_and_its_own_codes_are_listed(name: str):
    labels = codes.label_sets()[name]
    assert len(labels) == OWN_LABELS[name]
    for label, structure in labels.items():
        assert bool(codes.own([structure.type])) == bool(WITHOUT_A_SURE_CODE.fullmatch(label)), label
        meanings = [structure.type.meaning, *([structure.laterality.meaning] if structure.laterality else [])]
        assert not contradiction(label, meanings)
        assert codes.labelled(label.upper()) is structure


@pytest.mark.parametrize("structure", codes.structures().values(), ids=lambda s: s.name)
def test_structures_have_colours_of_their_own(structure: codes.Structure):
    same = [s.name for s in codes.structures().values() if s.rgb == structure.rgb]
    assert same == [structure.name]


@pytest.mark.parametrize("quantity", codes.quantities().values(), ids=lambda q: q.name)
def test_a_quantity_is_found_again_by_what_it_writes(quantity: codes.Quantity):
    measured = quantity.measured((max(quantity.minimum, -1e6) + min(quantity.maximum, 1e6)) / 2)
    assert codes.quantity_of(measured.name, measured.derivation) is quantity
    assert quantity.minimum < quantity.maximum


def test_an_object_declares_the_own_terms_that_it_uses():
    used = codes.own([codes.find("perc15"), codes.find("lung"), codes.find("laa_950"), codes.find("perc15")])
    assert [term.name for term in used] == ["laa_950", "perc15"]
