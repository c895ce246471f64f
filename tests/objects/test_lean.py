"""The gate's own reading of a data set says what pydicom says, or leaves it to pydicom."""

from dataclasses import replace
from io import BytesIO
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian

from dicom_sr import lean, result_set
from dicom_sr.check import GateClosed, check
from dicom_sr.checks.seen import read
from dicom_sr.elements import element, elements, joined, tag_of
from dicom_sr.kinds import Built, Order, names
from tests.objects import conftest as make
from tests.objects.test_gate import flip_bit
from tests.objects.test_maps import mapped


def said(value: Any) -> Any:
    """A value in a form that both readings share."""
    if hasattr(value, "append"):
        return [said(part) for part in value]
    return value if isinstance(value, int | float) else str(value or "")


def compare(found: Any, wanted: Dataset, place: str = "") -> int:
    """Every element at every depth is the same; how many there were."""
    assert list(found.keys()) == [int(tag) for tag in wanted.keys()], place  # noqa: SIM118
    number = 0
    for one in wanted:
        where, mine = f"{place}.{one.keyword}", found.get(one.keyword)
        if one.keyword == "PixelData" or not one.keyword:
            continue
        assert found.get_item(one.tag).VR == one.VR, where
        if one.VR == "SQ":
            assert len(mine) == len(one.value), where
            number += sum(compare(*pair, where) for pair in zip(mine, one.value, strict=True))
        else:
            assert said(mine) == said(one.value), where
            number += 1
    return number


def test_every_kind_of_object_is_read_as_pydicom_reads_it(chest: Order):
    order = replace(chest, findings=mapped(chest.findings, 1, 2), supersedes=make.superseded(chest))
    made = result_set.build([*sorted(set(names()) - {"measurement_report"}), "measurement_report"], order)
    assert {one.kind for one in made} == set(names())
    for built in made:
        seen = read(built)
        assert isinstance(seen.dataset, lean.Lean), f"{built.kind} is left to pydicom, which is slow"
        whole = pydicom.dcmread(BytesIO(built.part10))
        assert bytes(seen.pixels) == bytes(whole.get("PixelData") or b"")
        whole.pop("PixelData", None)
        assert compare(seen.dataset, whole) > 40
        assert compare(seen.dataset.file_meta, whole.file_meta) > 4


def test_frames_are_the_same_by_both_ways(chest: Order):
    (built,) = result_set.build(["segmentation"], chest)
    quick, plain = read(built), read(in_words(built, implicit=True))
    assert isinstance(quick.dataset, lean.Lean)
    assert isinstance(plain.dataset, Dataset)
    assert quick.frames == plain.frames
    assert len(quick.frames) > 6


def in_words(built: Built, *, implicit: bool) -> Built:
    """The same object, encoded in a way that our writers do not use."""
    dataset = pydicom.dcmread(BytesIO(built.part10))
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    else:
        dataset["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    out = BytesIO()
    pydicom.dcmwrite(out, dataset, implicit_vr=implicit, little_endian=True)
    return replace(built, head=out.getvalue(), pixels=b"")


@pytest.mark.parametrize("implicit", [True, False])
def test_what_is_encoded_otherwise_is_judged_all_the_same(chest: Order, implicit: bool):
    (built,) = result_set.build(["segmentation"], chest)
    check([in_words(built, implicit=implicit)], chest)
    dataset = pydicom.dcmread(BytesIO(built.part10))
    flip_bit(dataset)
    out = BytesIO()
    pydicom.dcmwrite(out, dataset)
    with pytest.raises(GateClosed, match="PixelData"):
        check([in_words(replace(built, head=out.getvalue(), pixels=b""), implicit=implicit)], chest)


@pytest.mark.parametrize(
    "encoded",
    [
        element("Rows", 5) + element("Modality", "SEG"),  # tags that fall
        element("Rows", 5) * 2,  # one tag twice
        element("PatientName", "A^B")[:-1] + b"",  # cut short
        b"\x10\x00\x10\x00PN\x03\x00A^B",  # an odd length
        b"\x10\x00\x10\x00!!\x02\x00AB",  # no VR
        element("SegmentSequence", [elements(SegmentNumber=1)])[:8] + b"\xff\xff\xff\xff",  # undefined length
    ],
)
def test_the_unusual_is_not_guessed_at(encoded: bytes):
    with pytest.raises((lean.UnusualError, lean.struct.error)):
        lean.elements_of(encoded, 0, len(encoded))


@settings(deadline=None)
@given(
    st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-9999, max_value=9999), max_size=4),
    st.text("ABC xyz^-.", max_size=12),
)
def test_values_of_any_form_are_the_same(numbers: list[Any], words: str):
    encoded = joined(
        elements(
            PatientComments=words, StudyDescription=words, PatientName=words.strip("^"),
            ImagePositionPatient=[str(one) for one in numbers], NumberOfFrames=len(numbers),
        )
    )  # fmt: skip
    found = lean.Lean(lean.elements_of(encoded, 0, len(encoded))[0])
    wanted = pydicom.filereader.read_dataset(BytesIO(encoded), False, True)
    assert compare(found, wanted) == 5
    assert Tag(tag_of("StudyDescription")) in found
