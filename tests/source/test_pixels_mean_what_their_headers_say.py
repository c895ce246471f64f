"""Voxels are the stored values, rescaled: the same bits by every way through the loader and in every encoding."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import JPEGLSLosslessEncoder

from dicom_sr import pixels, source
from dicom_sr import stored as stored_values
from dicom_sr.refusals import UnreadablePixels
from dicom_sr.traits import PixelForm
from tests.conftest import component
from tests.source.series import ENCODERS, Recipe, chiral, enhanced, save, write

NATIVE = [
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
]
ENCODINGS = [*NATIVE, *ENCODERS]
SHAPE = (4, 33, 21)
SMALL = np.iinfo(np.int16)

twelve_bits = chiral(SHAPE)
sixteen_bits = (chiral(SHAPE, 65536) * 31).view(np.int16) // 4
eight_bits = (chiral(SHAPE) % 256).astype(np.uint8)


def volume_of(folder: Path, recipe: Recipe) -> Any:
    """The volume of a series written to this recipe."""
    return pixels.load(source.read(write(folder, recipe)))


def by_pydicom(paths: list[Path]) -> NDArray[np.float64]:
    """The volume as pydicom decodes and rescales it, slice by slice."""
    datasets = [pydicom.dcmread(path) for path in paths]
    return np.stack([pydicom.pixels.apply_rescale(dataset.pixel_array, dataset).astype(float) for dataset in datasets])


@pytest.mark.parametrize("syntax", ENCODINGS, ids=lambda syntax: uid.UID(syntax).keyword)
@pytest.mark.parametrize(
    ("stored", "bits", "signed"), [(twelve_bits, 12, False), (sixteen_bits, 16, True), (eight_bits, 8, False)]
)
def test_every_encoding_gives_the_same_bits(
    syntax: str, stored: NDArray[Any], bits: int, signed: bool, tmp_path: Path
) -> None:
    recipe = Recipe(stored=stored, bits_stored=bits, signed=signed, intercept="-7", syntax=syntax)
    volume = volume_of(tmp_path, recipe)
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, stored.astype(np.int16) - 7)


@pytest.mark.parametrize(
    ("option", "tool"),
    [("+e1", "dcmcjpeg"), ("+el", "dcmcjpeg"), ("+el +sv 7", "dcmcjpeg"), ("+el +sv 2", "dcmcjpeg"),
     ("", "dcmcjpls"), ("", "dcmcrle"), ("+ti", "dcmconv"), ("+tb", "dcmconv"), ("+td", "dcmconv"), ("-e", "dcmconv")],
)  # fmt: skip
def test_what_dcmtk_encodes_gives_the_same_bits(option: str, tool: str, data: Path, tmp_path: Path) -> None:
    component("DCMTK")
    original = data / "chest_ct_philips_brilliance16_5mm/dicom/1-30.dcm"
    plain, coded = tmp_path / "plain.dcm", tmp_path / "coded.dcm"
    subprocess.run(["dcmconv", "+te", original, plain], check=True)
    subprocess.run([tool, *option.split(), plain, coded], check=True)
    expected = pixels.load(source.read([original]))
    assert np.array_equal(pixels.load(source.read([coded])).array, expected.array)
    assert pydicom.dcmread(coded).file_meta.TransferSyntaxUID != uid.JPEGExtended12Bit


@pytest.mark.parametrize(
    "syntax", [*NATIVE, uid.RLELossless, uid.JPEGLSLossless], ids=lambda syntax: uid.UID(syntax).keyword
)
def test_the_fast_way_and_the_way_through_pydicom_agree(
    syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path, Recipe(stored=twelve_bits, syntax=syntax))
    fast = pixels.load(source.read(paths)).array
    assert np.array_equal(fast, by_pydicom(paths))
    monkeypatch.setattr(pixels, "is_native", lambda plane: False)
    monkeypatch.setattr(pixels, "stored_words", lambda plane, spans: pixels.words_by_pydicom(plane))
    assert np.array_equal(pixels.load(source.read(paths)).array, fast)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless])
@pytest.mark.parametrize("signed", [False, True])
def test_unused_bits_are_dropped(syntax: str, signed: bool, tmp_path: Path) -> None:
    noisy = twelve_bits | np.uint16(0xA000)  # an overlay in the high bits, as scanners of the eighties stored them
    expected = (twelve_bits << 4).view(np.int16) >> 4 if signed else twelve_bits.astype(np.int16)
    recipe = Recipe(stored=noisy, signed=signed, syntax=syntax, intercept="0")
    assert np.array_equal(volume_of(tmp_path, recipe).array, expected)


@pytest.mark.parametrize("signed", [False, True])
def test_values_below_a_high_bit_elsewhere_are_shifted_down(signed: bool, tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.HighBit = 15

    shifted = twelve_bits << 4 | np.uint16(9)
    expected = (twelve_bits << 4).view(np.int16) >> 4 if signed else twelve_bits.astype(np.int16)
    volume = volume_of(tmp_path, Recipe(stored=shifted, signed=signed, intercept="0", change=change))
    assert np.array_equal(volume.array, expected)


@given(arrays.arrays(np.uint16, (3, 5)), st.integers(1, 16), st.integers(0, 15), st.booleans())
def test_stored_values_are_the_bits_from_high_bit_down(
    words: NDArray[np.uint16], stored: int, spare: int, signed: bool
) -> None:
    spare = min(spare, 16 - stored)
    form = PixelForm(
        keyword="PixelData", transfer_syntax_uid=uid.ExplicitVRLittleEndian, rows=3, columns=5, bits_allocated=16,
        bits_stored=stored, high_bit=stored - 1 + spare, signed=signed, padding=None,
    )  # fmt: skip
    expected = words.astype(int) >> spare & ((1 << stored) - 1)
    if signed:
        expected -= (expected >> (stored - 1)) << stored
    typed = words.view(np.int16) if signed else words
    assert np.array_equal(stored_values.canonical(typed.copy(), form)[0], expected)


@given(
    arrays.arrays(np.int16, (1, 3, 5)),
    st.sampled_from(["1", "2", "-1", "0.5", "1.0", "3.7e-3"]),
    st.sampled_from(["0", "-1024", "32767", "-1024.5", "-70000"]),
    st.booleans(),
)
def test_int16_holds_what_is_exact_and_float32_the_rest(
    tmp_path_factory: pytest.TempPathFactory, stored: NDArray[np.int16], slope: str, intercept: str, signed: bool
) -> None:
    stored = stored if signed else stored.view(np.uint16)
    recipe = Recipe(stored=stored, slope=slope, intercept=intercept, signed=signed, bits_stored=16)
    volume = volume_of(tmp_path_factory.mktemp("rescaled"), recipe)
    exact = stored.astype(float) * float(slope) + float(intercept)
    whole = float(slope).is_integer() and float(intercept).is_integer()
    fits = exact.min() >= SMALL.min and exact.max() <= SMALL.max
    assert volume.array.dtype == (np.int16 if whole and fits else np.float32)
    assert np.array_equal(volume.array, exact.astype(volume.array.dtype))


def test_slices_of_one_series_may_be_encoded_each_in_its_way(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", Recipe(stored=twelve_bits))
    coded = write(tmp_path / "coded", Recipe(stored=twelve_bits, syntax=uid.JPEGLSLossless))
    big = write(tmp_path / "big", Recipe(stored=twelve_bits, syntax=uid.ExplicitVRBigEndian))
    wide = write(tmp_path / "wide", Recipe(stored=twelve_bits, bits_stored=16, signed=True))
    volume = pixels.load(source.read([raw[0], coded[1], big[2], wide[3]]))
    assert np.array_equal(volume.array, twelve_bits.astype(np.int16) - 1024)


def test_slopes_that_vary_from_slice_to_slice_give_float32(tmp_path: Path) -> None:
    slopes = ["1", "1.5", "2.75", "3.125"]

    def change(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope = slopes[index]

    recipe = Recipe(stored=twelve_bits, modality="PT", sop_class=uid.PositronEmissionTomographyImageStorage,
                    intercept="0", change=change)  # fmt: skip
    volume = volume_of(tmp_path, recipe)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, twelve_bits * np.array(slopes, float)[:, None, None])


def test_without_rescaling_values_are_as_stored(tmp_path: Path) -> None:
    recipe = Recipe(stored=twelve_bits, slope=None, intercept=None, modality="MR", sop_class=uid.MRImageStorage)
    assert np.array_equal(volume_of(tmp_path, recipe).array, twelve_bits)


def test_padding_is_marked_and_nothing_else(tmp_path: Path) -> None:
    stored = sixteen_bits.copy()
    stored[:, 0, :3] = -2000

    def change(dataset: Dataset, index: int) -> None:
        dataset.add_new("PixelPaddingValue", "SS", -2000)

    volume = volume_of(tmp_path, Recipe(stored=stored, signed=True, bits_stored=16, intercept="-7", change=change))
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.padding, stored == -2000)
    assert np.array_equal(volume.array, stored - 7)


def test_a_padding_range_is_marked_from_end_to_end(tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.add_new("PixelPaddingValue", "US", 100)
        dataset.add_new("PixelPaddingRangeLimit", "US", 20)

    volume = volume_of(tmp_path, Recipe(stored=twelve_bits, change=change))
    assert np.array_equal(volume.padding, (twelve_bits >= 20) & (twelve_bits <= 100))


def test_padding_at_the_end_of_the_range_does_not_wrap_around(tmp_path: Path) -> None:
    stored = sixteen_bits.copy() // 4
    stored[:, :2] = -32768

    def change(dataset: Dataset, index: int) -> None:
        dataset.add_new("PixelPaddingValue", "SS", -32768)

    volume = volume_of(tmp_path, Recipe(stored=stored, signed=True, bits_stored=16, change=change))
    assert volume.array.dtype == np.int16
    assert (volume.array[:, :2] == -32768).all()
    assert np.array_equal(volume.array[:, 2:], stored[:, 2:] - 1024)
    assert np.array_equal(volume.padding, stored == -32768)


def test_padding_that_bits_stored_cannot_hold_is_found(tmp_path: Path) -> None:
    stored = twelve_bits.copy()
    stored[:, :2] = 63536

    def change(dataset: Dataset, index: int) -> None:
        dataset.add_new("PixelPaddingValue", "US", 63536)

    volume = volume_of(tmp_path, Recipe(stored=stored, change=change))
    assert np.array_equal(volume.padding, stored == 63536)
    assert (volume.array[:, :2] == -1024).all()
    assert np.array_equal(volume.array[:, 2:], twelve_bits[:, 2:].astype(np.int16) - 1024)


def test_a_volume_without_padded_voxels_has_no_mask(tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        dataset.add_new("PixelPaddingValue", "US", 5000)

    assert volume_of(tmp_path, Recipe(stored=twelve_bits, change=change)).padding is None


def test_32_bit_values_are_read(tmp_path: Path) -> None:
    stored = chiral(SHAPE).astype(np.uint32) * 999_999
    volume = volume_of(tmp_path, Recipe(stored=stored, bits_stored=32, slope="0.001", intercept="0"))
    assert np.array_equal(volume.array, (stored * 0.001).astype(np.float32))


def test_float_pixel_data_is_read(tmp_path: Path) -> None:
    values = twelve_bits.astype(np.float32) / 7

    def change(dataset: Dataset, index: int) -> None:
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        dataset.BitsAllocated, dataset.FloatPixelData = 32, values[index].tobytes()

    assert np.array_equal(volume_of(tmp_path, Recipe(intercept="0", change=change, stored=twelve_bits)).array, values)


@pytest.mark.parametrize("syntax", ENCODERS, ids=lambda syntax: uid.UID(syntax).keyword)
@pytest.mark.parametrize("pieces", [1, 3])
def test_compressed_frames_of_one_object_are_told_apart(syntax: str, pieces: int, tmp_path: Path) -> None:
    recipe = Recipe(stored=twelve_bits, syntax=syntax, sop_class=uid.EnhancedCTImageStorage)
    dataset = enhanced(recipe)
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=4))
    dataset.PixelData = encapsulate(frames, fragments_per_frame=pieces, has_bot=pieces > 1)
    dataset["PixelData"].VR = "OB"
    volume = pixels.load(source.read([save(dataset, tmp_path / "e.dcm", syntax)]))
    assert np.array_equal(volume.array, twelve_bits.astype(np.int16) - 1024)


def test_varying_slopes_of_an_enhanced_object_are_each_frames_own(tmp_path: Path) -> None:
    def change(groups: Dataset, index: int) -> None:
        groups.PixelValueTransformationSequence = pydicom.Sequence([Dataset()])
        groups.PixelValueTransformationSequence[0].RescaleSlope = str(index + 0.5)
        groups.PixelValueTransformationSequence[0].RescaleIntercept = "1"

    recipe = Recipe(stored=twelve_bits, sop_class=uid.EnhancedPETImageStorage, modality="PT", slope=None)
    series = source.read([save(enhanced(recipe, change), tmp_path / "e.dcm", recipe.syntax)])
    expected = twelve_bits * (np.arange(4) + 0.5)[:, None, None] + 1
    assert np.array_equal(pixels.load(series).array, expected)


@pytest.mark.parametrize("signed", [False, True])
def test_a_codestream_that_contradicts_pixel_representation_is_read_by_the_header(signed: bool, tmp_path: Path) -> None:
    """J2K seen in the wild: the codestream says unsigned where the data set says signed, and the reverse."""
    stored = ((twelve_bits << 4).view(np.int16) >> 4) if signed else twelve_bits

    def change(dataset: Dataset, index: int) -> None:
        other = stored[index].view(np.uint16) & 0xFFF if signed else (stored[index] << 4).view(np.int16) >> 4
        coded = imagecodecs.jpeg2k_encode(np.ascontiguousarray(other), codecformat="j2k", bitspersample=12)
        dataset.PixelData = encapsulate([coded])

    recipe = Recipe(stored=stored, signed=signed, syntax=uid.JPEG2000Lossless, intercept="0", change=change)
    assert np.array_equal(volume_of(tmp_path, recipe).array, stored)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless], ids=["JPEG2000", "JPEGLS"])
def test_a_codestream_of_fewer_bits_than_the_header_says_keeps_its_sign(syntax: str, tmp_path: Path) -> None:
    """BitsStored 16 and signed, the codestream 12 bits and unsigned: bit 11 is the sign, as pydicom has it too."""
    stored = (twelve_bits << 4).view(np.int16) >> 4
    described = {"rows": SHAPE[1], "columns": SHAPE[2], "samples_per_pixel": 1, "number_of_frames": 1,
                 "photometric_interpretation": "MONOCHROME2", "bits_allocated": 16, "bits_stored": 12,
                 "pixel_representation": 0}  # fmt: skip

    def change(dataset: Dataset, index: int) -> None:
        words = np.ascontiguousarray(twelve_bits[index])
        if syntax == uid.JPEG2000Lossless:
            coded = imagecodecs.jpeg2k_encode(words, codecformat="j2k", bitspersample=12)
        else:
            coded = JPEGLSLosslessEncoder.encode(words, **described)
        dataset.PixelData = encapsulate([coded])

    paths = write(tmp_path, Recipe(stored=stored, bits_stored=16, signed=True, syntax=syntax, change=change))
    assert np.array_equal(pixels.load(source.read(paths)).array, stored - 1024)
    assert np.array_equal(by_pydicom(paths), stored - 1024)


@pytest.mark.parametrize("syntax", [*ENCODERS, uid.JPEG2000MC], ids=lambda syntax: uid.UID(syntax).keyword)
def test_a_broken_codestream_is_refused_and_named(syntax: str, tmp_path: Path) -> None:
    def change(dataset: Dataset, index: int) -> None:
        if index == 2:
            dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51 nothing that could be decoded"])

    known = syntax if syntax in ENCODERS else uid.JPEG2000Lossless
    paths = write(tmp_path, Recipe(syntax=known, change=change))
    if syntax != known:
        for path in paths:
            path.write_bytes(path.read_bytes().replace(known.encode() + b"\0\0", syntax.encode() + b"\0\0"))
    with pytest.raises(UnreadablePixels, match=r"1\.7\.3 at"):
        pixels.load(source.read(paths))


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.RLELossless, uid.JPEG2000MC])
def test_pixel_data_that_contradicts_its_transfer_syntax_is_refused(syntax: str, tmp_path: Path) -> None:
    paths = write(tmp_path, Recipe())
    for path in paths:
        native = b"1.2.840.10008.1.2.1\0"
        group = path.read_bytes()[140:144]
        longer = (int.from_bytes(group, "little") + 2).to_bytes(4, "little")
        content = path.read_bytes().replace(group, longer, 1)
        named = b"\x16\0" + syntax.ljust(22, "\0").encode()
        path.write_bytes(content.replace(b"\x14\0" + native, named, 1))
    with pytest.raises(UnreadablePixels, match=r"1\.7\.1: its transfer syntax is"):
        source.read(paths)


def test_a_file_cut_short_after_it_was_read_is_refused(tmp_path: Path) -> None:
    paths = write(tmp_path, Recipe())
    series = source.read(paths)
    paths[2].write_bytes(paths[2].read_bytes()[:-2])
    with pytest.raises(UnreadablePixels, match=r"1\.7\.3 at"):
        pixels.load(series)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_nothing(threads: int, tmp_path: Path) -> None:
    series = source.read(write(tmp_path, Recipe(stored=twelve_bits)))
    assert np.array_equal(pixels.load(series, threads=threads).array, twelve_bits.astype(np.int16) - 1024)


def test_voxels_go_into_the_room_they_are_given(tmp_path: Path) -> None:
    series = source.read(write(tmp_path, Recipe(stored=twelve_bits)))
    room = np.full(twelve_bits.nbytes + 100, 7, np.uint8)
    volume = pixels.load(series, room=room)
    assert np.shares_memory(volume.array, room)
    assert (room[twelve_bits.nbytes :] == 7).all()
    assert np.array_equal(volume.array, pixels.load(series, room=room[:100].copy()).array)


@pytest.mark.parametrize("syntax", ENCODINGS, ids=lambda syntax: uid.UID(syntax).keyword)
def test_the_digest_is_of_the_pixel_data_as_stored(syntax: str, tmp_path: Path) -> None:
    path = write(tmp_path, Recipe(syntax=syntax))[0]
    assert pixels.pixel_digest(path) == hashlib.sha256(pydicom.dcmread(path).get_item("PixelData").value).hexdigest()


def test_the_digest_does_not_change_with_the_header(tmp_path: Path) -> None:
    one = write(tmp_path / "a", Recipe())[0]
    other = write(tmp_path / "b", Recipe(seed=3, modality="MR"))[0]
    different = write(tmp_path / "c", Recipe(stored=chiral() + np.uint16(1)))[0]
    assert pixels.pixel_digest(one) == pixels.pixel_digest(other) != pixels.pixel_digest(different)


def test_an_object_without_pixels_has_the_digest_of_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, Recipe(change=lambda dataset, index: delattr(dataset, "PixelData")))[0]
    assert pixels.pixel_digest(path) == hashlib.sha256().hexdigest()
