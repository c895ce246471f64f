"""Implicit VR Little Endian by moving bytes: whatever was in the data set is in it afterwards."""

import string
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_sr.transcode import CannotTranscode, to_implicit

TEXT = st.text(string.ascii_letters + " ", max_size=12)


def plain() -> st.SearchStrategy[Dataset]:
    def made(description: str, rows: int | None, blob: bytes, private: bytes) -> Dataset:
        dataset = Dataset()
        dataset.SeriesDescription = description
        dataset.Rows = rows
        dataset.EncapsulatedDocument = blob + b"\0" * (len(blob) % 2)
        dataset.private_block(0x0011, "ISOCENTER TEST", create=True).add_new(0x02, "OB", private + private)
        return dataset

    return st.builds(made, TEXT, st.none() | st.integers(0, 65535), st.binary(max_size=40), st.binary(max_size=9))


def nested() -> st.SearchStrategy[Dataset]:
    def with_items(dataset: Dataset, items: list[Dataset], undefined: bool, undefined_items: bool) -> Dataset:
        dataset.ReferencedSeriesSequence = items
        dataset["ReferencedSeriesSequence"].is_undefined_length = undefined
        for item in items:
            item.is_undefined_length_sequence_item = undefined_items
        return dataset

    return st.recursive(
        plain(),
        lambda inner: st.builds(with_items, plain(), st.lists(inner, max_size=3), st.booleans(), st.booleans()),
        max_leaves=6,
    )


def encoded(dataset: Dataset, *, implicit: bool) -> bytes:
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = implicit, True
    write_dataset(out, dataset)
    return bytes(out.getvalue())


def with_defined_lengths(dataset: Dataset) -> Dataset:
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = False
            for item in element.value:
                item.is_undefined_length_sequence_item = False
                with_defined_lengths(item)
    return dataset


@given(nested())
def test_nothing_is_lost_or_changed(dataset: Dataset) -> None:
    explicit = encoded(dataset, implicit=False)
    expected = encoded(with_defined_lengths(dataset), implicit=True)
    assert to_implicit(explicit, 0, ExplicitVRLittleEndian) == expected


@given(nested())
def test_implicit_stays_the_very_bytes(dataset: Dataset) -> None:
    content = encoded(dataset, implicit=True)
    assert to_implicit(b"meta" + content, 4, ImplicitVRLittleEndian) == content


def test_an_unknown_sequence_of_undefined_length_is_implicit_inside_already() -> None:
    inner = struct.pack("<HHI", 8, 0x60, 2) + b"CT"
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", 0xFFFFFFFF) + inner + b"\xfe\xff\x0d\xe0\0\0\0\0"
    unknown = struct.pack("<HH2sHI", 0x11, 0x1010, b"UN", 0, 0xFFFFFFFF) + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    after = struct.pack("<HH2sH", 0x20, 0x0D, b"UI", 4) + b"1.2\0"
    implicit = to_implicit(unknown + after, 0, ExplicitVRLittleEndian)
    assert (
        implicit == struct.pack("<HHI", 0x11, 0x1010, len(item)) + item + struct.pack("<HHI", 0x20, 0x0D, 4) + b"1.2\0"
    )


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_carried_but_never_crashes(content: bytes) -> None:
    with suppress(CannotTranscode):
        to_implicit(content, 0, ExplicitVRLittleEndian)


def test_a_cut_data_set_is_refused() -> None:
    dataset = Dataset()
    dataset.SeriesDescription = "lungs"
    with pytest.raises(CannotTranscode):
        to_implicit(encoded(dataset, implicit=False)[:-1], 0, ExplicitVRLittleEndian)
