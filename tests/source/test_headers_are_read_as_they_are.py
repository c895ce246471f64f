"""The hand-made walk through a header finds what pydicom finds; odd forms of values are taken and kept verbatim."""

import struct
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_sr import part10, pixels, source, walk
from dicom_sr.refusals import NotDicom
from tests.source.series import Recipe, chiral, header, save, slice_of, write

SYNTAXES = [
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEGLSLossless,
]
words = st.text("ABCDEFG 0123456789.^=", max_size=16)


def leaves(draw: st.DrawFn, dataset: Dataset) -> None:
    """Some attributes of many VRs, private ones too."""
    for keyword in draw(st.sets(st.sampled_from(["StudyDescription", "PatientComments", "AccessionNumber"]))):
        setattr(dataset, keyword, draw(words))
    for keyword in draw(st.sets(st.sampled_from(["ImagePositionPatient", "PixelSpacing", "RescaleSlope"]))):
        setattr(dataset, keyword, draw(st.lists(st.integers(-999, 999), min_size=1, max_size=3)))
    if draw(st.booleans()):
        dataset.SpecificCharacterSet = draw(st.sampled_from(["ISO_IR 100", "ISO_IR 192", ["", "ISO 2022 IR 87"]]))
    if draw(st.booleans()):
        block = dataset.private_block(0x0029, "ISOCENTER TEST", create=True)
        block.add_new(0x10, "OB", draw(st.binary(max_size=40).filter(lambda b: len(b) % 2 == 0)))
        block.add_new(0x11, "UN", draw(st.binary(max_size=40).filter(lambda b: len(b) % 2 == 0)))
        block.add_new(0x12, "LO", draw(words))


@st.composite
def headers(draw: st.DrawFn, depth: int = 0) -> Dataset:
    """A data set with sequences in sequences, of defined and undefined length."""
    dataset = header("CT", uid.CTImageStorage, "1.2.3") if depth == 0 else Dataset()
    leaves(draw, dataset)
    if depth < 3 and draw(st.booleans()):
        items = draw(st.lists(headers(depth + 1), max_size=2))
        for item in items:
            item.is_undefined_length_sequence_item = draw(st.booleans())
        keyword = draw(st.sampled_from(["ReferencedImageSequence", "RequestAttributesSequence", "ModalityLUTSequence"]))
        dataset.add(DataElement(keyword, "SQ", Sequence(items), is_undefined_length=draw(st.booleans())))
    return dataset


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: uid.UID(syntax).keyword)
@settings(max_examples=40)
@given(dataset=headers(), has_pixels=st.booleans())
def test_the_walk_finds_what_pydicom_finds(
    syntax: str, tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, has_pixels: bool
) -> None:
    if has_pixels:
        image = slice_of(Recipe(syntax=syntax), 0, 1)
        image.update({element.tag: element for element in dataset})
        dataset = image
    path = save(dataset, tmp_path_factory.mktemp("walk") / "a.dcm", syntax)
    fast, slow = part10.head(path), part10.slow_head(path)
    for field in fields(part10.Head):
        if field.name != "values":
            assert getattr(fast, field.name) == getattr(slow, field.name)
    assert fast.values.keys() == slow.values.keys()
    for keyword in fast.values.keys() - set(part10.PRESENCE):
        assert fast.values[keyword] == slow.values[keyword]
    assert (fast.pixel_keyword == "PixelData") == has_pixels


def element(group: int, number: int, value: bytes) -> bytes:
    """An element in Implicit VR."""
    return struct.pack("<HHI", group, number, len(value)) + value


@pytest.mark.parametrize("length", [None, 0xFFFFFFFF], ids=["defined", "undefined"])
def test_an_unknown_sequence_is_passed_over_in_implicit_vr(length: int | None, tmp_path: Path) -> None:
    """A UN of undefined length holds items in Implicit VR, whatever the file's own is (PS3.5 6.2.2 note 2)."""
    inner = element(0x0008, 0x0018, b"9.9 ") + element(0x0009, 0x1011, b"\xff" * 20)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, length or len(inner)) + inner
    item += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) if length else b""
    unknown = struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, 0xFFFFFFFF) + item
    unknown += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    path = write(tmp_path, Recipe())[0]
    content, patient_name = path.read_bytes(), b"\x10\x00\x10\x00PN"
    assert content.count(patient_name) == 1
    path.write_bytes(content.replace(patient_name, unknown + patient_name))
    fast, slow = walk.walk(path, part10.WANTED), part10.slow_head(path)
    assert fast.values == slow.values
    assert (fast.pixel_offset, fast.pixel_length) == (slow.pixel_offset, slow.pixel_length)
    assert fast.values["SOPInstanceUID"].startswith(b"1.2.826")


@given(cut=st.floats(0, 1), noise=st.binary(max_size=8))
def test_a_mangled_file_is_refused_or_read_and_never_hangs(
    tmp_path_factory: pytest.TempPathFactory, cut: float, noise: bytes
) -> None:
    path = write(tmp_path_factory.mktemp("mangled"), Recipe(stored=chiral((1, 4, 4))))[0]
    whole = path.read_bytes()
    at = int(len(whole) * cut)
    path.write_bytes(whole[:at] + noise + whole[at + len(noise) + 3 :])
    try:
        found = walk.walk(path, part10.WANTED)
    except walk.UnusualError:
        return
    assert found.pixel_offset <= path.stat().st_size


def test_a_long_header_is_walked_to_its_end(tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        block = dataset.private_block(0x0021, "ISOCENTER TEST", create=True)
        block.add_new(0x10, "OB", bytes(300_000))
        block.add_new(0x11, "OB", bytes(60_001 + index * 2))

    paths = write(tmp_path, Recipe(change=change))
    assert walk.walk(paths[0], part10.WANTED).pixel_offset > 360_000
    assert pixels.load(source.read(paths)).array.shape == (5, 6, 7)


def test_a_header_without_pixels_that_ends_beyond_the_first_read_keeps_its_last_value(tmp_path: Path) -> None:
    dataset = header("CT", uid.CTImageStorage, "1.2.3")
    with disable_value_validation():
        dataset.RescaleSlope = "1." + "0" * 9000
    path = save(dataset, tmp_path / "a.dcm", uid.ImplicitVRLittleEndian)
    assert part10.head(path).values["RescaleSlope"] == part10.slow_head(path).values["RescaleSlope"]


def test_what_the_walk_learns_stays_bounded() -> None:
    wanted = walk.Wanted(("Rows",))
    for number in range(wanted.KEPT + 10):
        wanted.remember(struct.pack("<Q", number), None, 0)
    assert len(wanted.hops) <= wanted.KEPT


@pytest.mark.parametrize("content", [b"", b"DICM", bytes(128) + b"DICM", b"x" * 1000, bytes(128) + b"DICX" + bytes(50)])
def test_what_is_not_dicom_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(NotDicom, match=r"notes\.txt"):
        part10.head(path)


def odd_forms(dataset: Dataset, index: int) -> None:
    """Values as they come in clinical daily life, against the letter of PS3.5."""
    odd = {
        "SOPInstanceUID": ("UI", f"1.2.03.4.0{index}"),
        "FrameOfReferenceUID": ("UI", "1.2.840.000.1"),
        "SliceThickness": ("DS", "2,50000000000000000000"),
        "RescaleIntercept": ("DS", "-1024.000000000000000000"),
        "AcquisitionNumber": ("IS", "1.0"),
        "NumberOfFrames": ("IS", "1.0"),
        "Manufacturer": ("LO", "A very long name of a manufacturer " * 4),
    }
    for keyword, (vr, value) in odd.items():
        dataset.pop(keyword, None)
        with disable_value_validation():
            dataset.add(DataElement(keyword, "LO", value))
            dataset[keyword].VR = "LO" if vr in ("DS", "IS") else vr


def test_odd_forms_of_values_are_taken_and_kept_verbatim(tmp_path: Path) -> None:
    recipe = Recipe(change=odd_forms, syntax=uid.ImplicitVRLittleEndian)
    series = source.read(write(tmp_path, recipe))
    assert [plane.sop_instance_uid for plane in series.planes] == [f"1.2.03.4.0{index}" for index in range(5)]
    assert series.frame_of_reference_uid == "1.2.840.000.1"
    assert series.acquisition.slice_thickness == 2.5
    assert np.array_equal(pixels.load(series).array, chiral().astype(np.int16) - 1024)
    assert series.header.get_item("SOPInstanceUID").value.rstrip(b"\0") == b"1.2.03.4.00"


def test_missing_type_2_attributes_are_no_reason_to_refuse(tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        for keyword in ("PatientID", "PatientName", "Manufacturer", "FrameOfReferenceUID", "InstanceNumber"):
            delattr(dataset, keyword)

    series = source.read(write(tmp_path, Recipe(change=change)))
    assert series.frame_of_reference_uid == ""
    assert series.acquisition.manufacturer is None


def test_the_header_has_identity_and_no_pixels(tmp_path: Path) -> None:
    series = source.read(write(tmp_path, Recipe()))
    assert series.header.PatientID == "SECRET-ID"
    assert "PixelData" not in series.header
    assert "SECRET" not in repr(series.planes)


def test_names_in_every_script_are_kept_as_bytes(data: Path, tmp_path: Path) -> None:
    seen = 0
    for path in sorted((data / "charsets").glob("*.dcm")):
        foreign = pydicom.dcmread(path)
        image = slice_of(Recipe(), 0, 1)
        if "PatientName" in foreign:
            image["PatientName"] = DataElement("PatientName", "UN", foreign.get_item("PatientName").value)
        if "SpecificCharacterSet" in foreign:
            image.SpecificCharacterSet = foreign.SpecificCharacterSet
        series = source.read([save(image, tmp_path / path.name, uid.ImplicitVRLittleEndian)])
        assert series.header.get("SpecificCharacterSet") == foreign.get("SpecificCharacterSet")
        if "PatientName" in foreign:
            sent = pydicom.dcmread(path).get_item("PatientName").value
            assert series.header.get_item("PatientName").value == sent
        seen += 1
    assert seen == 17


SAID_BY_ALL = [
    ("ConvolutionKernel", ["B30f", "3"], "convolution_kernel", "B30f\\3"),
    ("SliceThickness", "1.25", "slice_thickness", 1.25),
    ("Manufacturer", "Kindred", "manufacturer", "Kindred"),
    (
        "Manufacturer",
        "A name much longer than LO may be " * 4,
        "manufacturer",
        "A name much longer than LO may be " * 3 + "A name much longer than LO may be",
    ),
    ("ImageType", ["DERIVED", "SECONDARY"], "image_type", ("DERIVED", "SECONDARY")),
    ("ContrastBolusAgent", "Ultravist 370", "contrast", True),
    ("ContrastBolusAgent", "NONE", "contrast", False),
    ("ContrastBolusAgent", "", "contrast", None),
    ("LossyImageCompression", "01", "lossy", True),
    ("LossyImageCompression", "00", "lossy", False),
    ("BurnedInAnnotation", "YES", "burned_in", True),
    ("BurnedInAnnotation", "NO", "burned_in", False),
]


@pytest.mark.parametrize(("keyword", "value", "field", "expected"), SAID_BY_ALL)
def test_what_all_slices_say_is_a_fact_of_the_acquisition(
    keyword: str, value: object, field: str, expected: object, tmp_path: Path
) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.pop(keyword, None)
        with disable_value_validation():
            setattr(dataset, keyword, value)

    series = source.read(write(tmp_path, Recipe(change=change)))
    assert getattr(series.acquisition, field) == expected
    assert pixels.load(series).acquisition is series.acquisition


@pytest.mark.parametrize(
    ("keyword", "value", "field"),
    [("ConvolutionKernel", "L", "convolution_kernel"), ("SliceThickness", "5", "slice_thickness"),
     ("Manufacturer", "Other", "manufacturer"), ("ContrastBolusAgent", "Ultravist", "contrast")],
)  # fmt: skip
def test_what_one_slice_says_otherwise_is_no_fact(keyword: str, value: str, field: str, tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        if index == 3:
            setattr(dataset, keyword, value)

    assert getattr(source.read(write(tmp_path, Recipe(change=change))).acquisition, field) is None


@pytest.mark.parametrize(
    ("character_set", "manufacturer"),
    [(None, "Kindred"), ("ISO_IR 192", "Société 機器"), ("ISO_IR 100", "Société"), ("ISO_IR 144", "Прибор"),
     (["", "ISO 2022 IR 87"], "Hitachi 日立")],
)  # fmt: skip
def test_the_manufacturer_is_read_in_its_own_character_set(
    character_set: str | list[str] | None, manufacturer: str, tmp_path: Path
) -> None:
    def change(dataset: Dataset, index: int) -> None:
        if character_set is not None:
            dataset.SpecificCharacterSet = character_set
        dataset.Manufacturer = manufacturer

    assert source.read(write(tmp_path, Recipe(change=change))).acquisition.manufacturer == manufacturer


def test_a_manufacturer_in_no_known_character_set_is_no_reason_to_refuse(tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        with disable_value_validation():
            dataset["SpecificCharacterSet"] = DataElement("SpecificCharacterSet", "LO", "ISO_IR 999")
        dataset["Manufacturer"] = DataElement("Manufacturer", "UN", "Société".encode("latin-1") + b" ")

    recipe = Recipe(change=change, syntax=uid.ImplicitVRLittleEndian)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of the same thing
        assert source.read(write(tmp_path, recipe)).acquisition.manufacturer == "Société"


def test_one_lossy_slice_makes_the_series_lossy(tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.LossyImageCompression = "01" if index == 3 else "00"

    assert source.read(write(tmp_path, Recipe(change=change))).acquisition.lossy
