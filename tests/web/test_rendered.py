"""WADO-RS rendered: frames as pictures, in the window that is asked for, else in the object's own."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from router.domain.access import Scope
from router.web.dicomweb.rendered import windowed
from tests.query.node import Answering, ct
from tests.web.conftest import Window, opened
from tests.web.test_dicomweb import STUDY

HU = np.linspace(-1000, 1000, 48).round().reshape(6, 8)


def image(number: int, **values: Any) -> FileDataset:
    """A CT slice whose voxels are HU."""
    made = ct(series_uid="1.2.1.1", number=number)
    made.Rows, made.Columns, made.PixelRepresentation = *HU.shape, 0
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.1.1.{number}"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.RescaleSlope, made.RescaleIntercept = 1, -1024
    made.PixelData = (HU + 1024).astype(np.uint16).tobytes()
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    multi = image(
        4, NumberOfFrames=3, PixelData=b"".join((HU + 1024 + n).astype(np.uint16).tobytes() for n in range(3))
    )
    del multi.RescaleSlope, multi.RescaleIntercept
    groups = []
    for number in range(3):
        item, transform, shades = Dataset(), Dataset(), Dataset()
        transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 1, -1024 - number, "HU"
        shades.WindowCenter, shades.WindowWidth = 0, 1000
        item.PixelValueTransformationSequence, item.FrameVOILUTSequence = Sequence([transform]), Sequence([shades])
        groups.append(item)
    multi.PerFrameFunctionalGroupsSequence = Sequence(groups)
    rgb = image(5, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, BitsAllocated=8,
                BitsStored=8, HighBit=7, PixelData=bytes(range(48 * 3)))  # fmt: skip
    with opened(tmp_path_factory.mktemp("window")) as made:
        Answering(node=made.node, ae=None).hold(
            image(1, WindowCenter=[40, 0], WindowWidth=[400, 1]),
            image(2, PhotometricInterpretation="MONOCHROME1", WindowCenter=40, WindowWidth=400),
            image(3),
            multi,
            rgb,
        )
        yield made


@pytest.fixture
def reader(window: Window) -> httpx.Client:
    return window.program(Scope.READ)


def given(reader: httpx.Client, number: int, *, way: str = "rendered", **asked: str) -> np.ndarray:
    """The picture, without loss."""
    path = f"{STUDY}/series/1.2.1.1/instances/1.2.1.1.{number}/{way}"
    answer = reader.get(path, params=asked, headers={"accept": "image/png"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    return np.asarray(Image.open(BytesIO(answer.content))).astype(int)


@pytest.mark.parametrize("function", ["linear", "linear-exact", "sigmoid"])
def test_a_frame_is_shown_in_the_window_that_is_asked_for(reader: httpx.Client, function: str) -> None:
    seen = given(reader, 3, window=f"40,400,{function}")
    lower, upper = (-159.5, 239.5) if function == "linear" else (-160, 240)
    truth = (HU - lower) / (upper - lower) * 255 if function != "sigmoid" else 255 / (1 + np.exp(-4 * (HU - 40) / 400))
    assert np.abs(seen - np.clip(truth, 0, 255)).max() < 1.01


def test_without_one_it_is_shown_in_its_own_window_and_without_that_in_all_its_values(reader: httpx.Client) -> None:
    own = given(reader, 1)
    assert (own == given(reader, 3, window="40,400")).all()
    assert (given(reader, 2) == 255 - own).all(), "white is low in MONOCHROME1"
    plain = given(reader, 3)
    assert plain.min() == 0
    assert plain.max() == 255
    assert (np.diff(plain.ravel()) >= 0).all()


def test_frames_have_their_own_rescale_and_window(reader: httpx.Client) -> None:
    wanted = given(reader, 3, window="0,1000")
    for number in (1, 2, 3):
        assert (given(reader, 4, way=f"frames/{number}/rendered") == wanted).all(), number
    assert (given(reader, 4) == wanted).all()


def test_colours_stay(reader: httpx.Client) -> None:
    assert given(reader, 5).ravel().tolist() == list(range(48 * 3))


def test_it_fits_where_it_is_asked_to_and_is_jpeg_where_nothing_is_said(reader: httpx.Client) -> None:
    assert given(reader, 3, viewport="4,4").shape == (3, 4)
    path = f"{STUDY}/series/1.2.1.1/instances/1.2.1.1.3"
    answer = reader.get(f"{path}/rendered")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(BytesIO(answer.content)).format == "JPEG"


@pytest.mark.parametrize(
    ("way", "asked", "status"),
    [
        ("rendered", {"window": "40"}, 400),
        ("rendered", {"window": "40,0"}, 400),
        ("rendered", {"window": "nan,4"}, 400),
        ("rendered", {"window": "1,4,cubic"}, 400),
        ("rendered", {"viewport": "0,5"}, 400),
        ("rendered", {"viewport": "99999,5"}, 400),
        ("rendered", {"quality": "101"}, 400),
        ("frames/0/rendered", {}, 404),
        ("frames/2/rendered", {}, 404),
        ("frames/x/rendered", {}, 404),
        ("rendered", {"accept": "video/mpeg"}, 406),
    ],
)
def test_what_makes_no_sense_is_refused(reader: httpx.Client, way: str, asked: dict[str, str], status: int) -> None:
    assert reader.get(f"{STUDY}/series/1.2.1.1/instances/1.2.1.1.3/{way}", params=asked).status_code == status


def test_a_narrow_window_is_a_threshold() -> None:
    assert windowed(np.array([0.0, 39.5, 39.6, 99.0]), 40, 1, "linear").tolist() == [0, 0, 255, 255]
