"""Two readers of headers, one answer; whatever the bytes are, they end in facts or in one typed refusal."""

import json
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import encode

from router.ingest import part10
from router.ingest.facts import KEYWORDS
from router.ingest.headers import NotParseable, by_pydicom, read, walk
from router.ingest.layout import Series
from tests.ingest.conftest import slice_of

WALKED_NOT = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


GB_ESCAPE = "\x1b$)A"
"""pydicom leaves this escape sequence in the text."""


def real_files(data: Path) -> Iterator[tuple[Path, bytes, int, str]]:
    for path in sorted(data.rglob("*")):
        if path.is_file() and path.stat().st_size > 132:
            content = path.read_bytes()
            if content[128:132] == b"DICM":
                meta = read_file_meta_info(path)
                yield path, content, part10.dataset_offset(content), str(meta.TransferSyntaxUID)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_walker_and_pydicom_agree_on_every_real_file(data: Path) -> None:
    walked = 0
    for path, content, start, syntax in real_files(data):
        header = read(content, syntax, start=start)
        if syntax not in WALKED_NOT:
            assert walk(content, start=start) == by_pydicom(content, syntax, start=start), path
            walked += 1
        json.dumps(header.facts, allow_nan=False)
        assert header.facts, path
    assert walked > 200


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_facts_are_what_pydicom_s_data_set_says(data: Path) -> None:
    for path, content, start, syntax in real_files(data):
        header = read(content, syntax, start=start)
        dataset = dcmread(path, stop_before_pixels=True)
        for keyword in ("Modality", "SOPClassUID", "StudyInstanceUID", "Manufacturer", "PatientID", "Rows"):
            if dataset.get(keyword) is not None:
                assert header.text(keyword) == str(dataset.get(keyword)).strip(), (path, keyword)


def test_pixels_lie_where_the_header_says(data: Path) -> None:
    for path, content, start, syntax in list(real_files(data))[::7]:
        header = read(content, syntax, start=start)
        if header.pixel_offset is None or header.pixel_length is None or syntax == ExplicitVRBigEndian:
            continue
        pixels = dcmread(path).get("PixelData")
        if pixels is not None:
            assert content[header.pixel_offset : header.pixel_offset + header.pixel_length] == pixels, path


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_names_in_every_character_set_are_read(data: Path) -> None:
    read_names = {}
    for path, content, start, syntax in real_files(data / "charsets"):
        name = read(content, syntax, start=start).text("PatientName")
        read_names[path.name] = name
        said = str(dcmread(path).get("PatientName", "")).replace(GB_ESCAPE, "").rstrip("=")
        assert [part.rstrip() for part in name.rstrip("=").split("=")] == [part.rstrip() for part in said.split("=")], (
            path
        )
    assert len(read_names) >= 10


def encoded(dataset: Dataset, syntax: str) -> bytes:
    content = encode(dataset, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    assert content is not None
    if syntax == DeflatedExplicitVRLittleEndian:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflate.compress(content) + deflate.flush()
    return content


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_every_encoding_gives_the_same_facts(syntax: str) -> None:
    made = slice_of(EchoTime="3.5", ImageType=["ORIGINAL", "PRIMARY"], ImageComments="a\\b")
    facts = read(encoded(made, syntax), syntax).facts
    assert facts == read(encoded(made, ExplicitVRLittleEndian), ExplicitVRLittleEndian).facts
    assert facts["Rows"] == 16
    assert facts["EchoTime"] == 3.5
    assert facts["ImageType"] == ["ORIGINAL", "PRIMARY"]
    assert facts["InstanceNumber"] == 1


def test_a_nul_within_a_value_is_a_blank() -> None:
    content = encoded(slice_of(PatientName="A^B^C"), ExplicitVRLittleEndian).replace(b"A^B^C", b"A\0B\0C")
    assert read(content, ExplicitVRLittleEndian).facts["PatientName"] == "A B C"


def enhanced() -> Dataset:
    """An enhanced CT whose geometry lies in its functional groups."""
    made = slice_of(SOPClassUID=EnhancedCTImageStorage, NumberOfFrames="2")
    for keyword in ("PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(made, keyword)
    measures, orientation, reconstruction = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.5], "2.0"
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    reconstruction.ConvolutionKernel = "B30f"
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.CTReconstructionSequence = Sequence([reconstruction])
    frames = []
    for number in range(2):
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 10 * number + 5]
        frame.PlanePositionSequence = Sequence([position])
        frames.append(frame)
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    made.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return made


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_enhanced_object_gives_the_geometry_of_its_first_frame(syntax: str) -> None:
    facts = read(encoded(enhanced(), syntax), syntax).facts
    assert facts["PixelSpacing"] == [0.5, 0.5]
    assert facts["SliceThickness"] == 2.0
    assert facts["ConvolutionKernel"] == "B30f"
    assert facts["ImagePositionPatient"] == [0, 0, 5]


def test_sequences_that_are_facts_are_lists_of_items() -> None:
    region, request, equipment = Dataset(), Dataset(), Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "51185008", "SCT", "Chest"
    request.RequestedProcedureDescription = "CT thorax"
    equipment.Manufacturer = "Isocenter"
    made = slice_of(
        AnatomicRegionSequence=Sequence([region]),
        RequestAttributesSequence=Sequence([request]),
        ContributingEquipmentSequence=Sequence([equipment, Dataset()]),
    )
    facts = read(encoded(made, ExplicitVRLittleEndian), ExplicitVRLittleEndian).facts
    assert facts["AnatomicRegionSequence"] == [
        {"CodeValue": "51185008", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Chest"}
    ]
    assert facts["RequestedProcedureDescription"] == "CT thorax"
    assert facts["ContributingEquipmentSequence"] == [{"Manufacturer": "Isocenter"}, {}]


def nested(depth: int, *, defined: bool) -> bytes:
    """An instance with sequences within sequences."""
    inner = b""
    for _ in range(depth):
        if defined:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            inner = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, len(item)) + item
        else:
            inner = (
                struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF)
                + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
                + inner
                + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
                + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
            )
    return encoded(slice_of(), ExplicitVRLittleEndian)[:200] * 0 + inner


@pytest.mark.parametrize("defined", [True, False])
def test_nesting_has_an_end(defined: bool) -> None:
    start = encoded(slice_of(), ExplicitVRLittleEndian)
    at = start.index(b"\x10\x00\x10\x00PN")
    with pytest.raises(NotParseable, match="deep"):
        read(start[:at] + nested(10_000, defined=defined) + start[at:], ExplicitVRLittleEndian)
    assert read(start[:at] + nested(12, defined=defined) + start[at:], ExplicitVRLittleEndian).facts["Rows"] == 16


def test_nesting_has_an_end_in_implicit_vr() -> None:
    made = slice_of()
    inner = made
    for _ in range(200):
        outer = Dataset()
        outer.ReferencedImageSequence = Sequence([inner])
        inner = outer
    with pytest.raises(NotParseable):
        read(encoded(inner, ImplicitVRLittleEndian) * 2, ImplicitVRLittleEndian)


def test_a_deflate_bomb_does_not_go_off() -> None:
    header = encoded(slice_of(), ExplicitVRLittleEndian)
    at = header.index(b"\xe0\x7f\x10\x00")
    bomb = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = bomb.compress(header[:at] + b"\x21\x00\x10\x10OB\0\0\xff\xff\xff\x7f")
    content += b"".join(bomb.compress(bytes(1 << 24)) for _ in range(20)) + bomb.flush()
    with pytest.raises(NotParseable):
        read(content, DeflatedExplicitVRLittleEndian)


def test_begins_needs_no_pixels_but_the_whole_header() -> None:
    content = encoded(slice_of(), ExplicitVRLittleEndian)
    at = content.index(b"\xe0\x7f\x10\x00")
    early = Series().begins(content[: at + 12], at=300)
    assert early is not None
    assert early.facts == read(content, ExplicitVRLittleEndian).facts
    assert early.pixel_offset == 300 + at + 12
    assert Series().begins(content[: at + 4], at=300) is None


def test_a_mapped_file_is_read_like_bytes(tmp_path: Path) -> None:
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        content = encoded(slice_of(), syntax)
        (tmp_path / "file").write_bytes(bytes(77) + content)
        with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert read(mapped, syntax, start=77).facts == read(content, syntax).facts


SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


@settings(max_examples=400, deadline=None)
@given(
    syntax=st.sampled_from(SYNTAXES),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=6)), max_size=6),
    cut=st.integers(0, 2000),
)
def test_whatever_the_bytes_are_it_is_a_header_or_a_refusal(
    syntax: str, changes: list[tuple[int, bytes]], cut: int
) -> None:
    content = bytearray(encoded(enhanced(), syntax))
    for at, new in changes:
        place = at % len(content)
        content[place : place + len(new)] = new
    try:
        header = read(bytes(content[: max(1, len(content) - cut)]), syntax)
    except NotParseable:
        return
    json.dumps(header.facts, allow_nan=False)
    assert set(header.facts) <= {*KEYWORDS, *headers_of_items(), "FrameAcquisitionDateTime", "FrameLaterality"}


def headers_of_items() -> set[str]:
    from router.ingest.facts import ITEM_KEYWORDS

    return set(ITEM_KEYWORDS)
