"""How fast stored slices become a volume, beside SimpleITK, MONAI and the bare reading of the bytes.

    python -m tests.bench.volume [--slices 300] [--rounds 7] [--keep DIR]

One series of 512 x 512 slices is written raw and JPEG-LS, under shuffled names. Every reader starts from the paths and
ends with the volume and its affine; readers take turns within each round, so that they share whatever else the
machine is doing, and what counts is the median over the rounds of the ratio within a round. Files are in the page
cache. The floor reads every file into fresh memory and does nothing else. Volumes are compared before anything is
timed. The answer is JSON on stdout, the table goes to stderr; the exit status says whether the goals were met.
"""

import argparse
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import SimpleITK as sitk  # noqa: N813
from monai.transforms import LoadImage
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from rich.console import Console
from rich.table import Table

from dicom_sr import pixels, source
from tests.source.series import Recipe, save, slice_of

GOALS = {
    "simpleitk": ("at least", 10.0),
    "monai": ("at least", 40.0),
    "bytes": ("at most", 1.5),
    "jpeg_ls_simpleitk": ("at least", 2.5),
}
"""By name of the ratio: peer's time over ours, but ours over the floor's for `bytes`."""

Reader = Callable[[], Any]


def body(slices: int) -> NDArray[np.uint16]:
    """Stored values that compress as a chest does: an ellipse of soft tissue, two of lung, quantum noise."""
    rows, columns = np.mgrid[-1:1:512j, -1:1:512j]
    noise = np.random.default_rng(1).normal(0, 14, (16, 512, 512))
    tissue = np.where((rows / 0.7) ** 2 + (columns / 0.9) ** 2 < 1, 1064.0, 24.0)
    made = np.empty((slices, 512, 512), np.uint16)
    for index in range(slices):
        grow = 0.3 * np.sin(np.pi * (index + 1) / (slices + 1))
        lungs = ((np.abs(columns + 0.03) - 0.42) / grow) ** 2 + (rows / (1.5 * grow)) ** 2 < 1
        values = np.where(lungs, 150.0 + 40 * np.sin(20 * rows + index / 9), tissue)
        made[index] = (values + np.roll(noise[index % 16], index, 1)).clip(0, 4095)
    return made


def dress(dataset: Dataset, index: int) -> None:
    """What a CT header also holds: about ninety elements with those of the recipe."""
    dataset.AccessionNumber, dataset.StudyID, dataset.SeriesNumber, dataset.AcquisitionNumber = "1", "1", 3, 1
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20240506"
    dataset.StudyTime, dataset.SeriesTime = "101112", "101500.25"
    dataset.AcquisitionTime = dataset.ContentTime = f"1015{index % 60:02d}.5"
    dataset.StudyDescription, dataset.SeriesDescription, dataset.ProtocolName = "Thorax", "Lung 1.0", "Thorax routine"
    dataset.InstitutionName, dataset.StationName, dataset.ManufacturerModelName = "Site", "CT1", "Model 64"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19600101", "O", "064Y"
    dataset.ReferringPhysicianName, dataset.PatientPosition, dataset.BodyPartExamined = "", "HFS", "CHEST"
    dataset.SoftwareVersions, dataset.DeviceSerialNumber, dataset.ScanOptions = "1.2", "12345", "HELICAL MODE"
    dataset.KVP, dataset.DataCollectionDiameter, dataset.ReconstructionDiameter = 120, 500, 350
    dataset.DistanceSourceToDetector, dataset.DistanceSourceToPatient = 949.07, 541
    dataset.GantryDetectorTilt, dataset.TableHeight, dataset.RotationDirection = 0, 150.5, "CW"
    dataset.ExposureTime, dataset.XRayTubeCurrent, dataset.Exposure, dataset.FilterType = 500, 250, 125, "BODY"
    dataset.GeneratorPower, dataset.FocalSpots, dataset.SingleCollimationWidth = 30, 0.7, 0.625
    dataset.SliceLocation, dataset.PositionReferenceIndicator = index * 1.25, "SN"
    dataset.WindowCenter, dataset.WindowWidth, dataset.RescaleType = 40, 400, "HU"
    dataset.TotalCollimationWidth, dataset.TableSpeed, dataset.SpiralPitchFactor = 40.0, 110.0, 1.375
    dataset.ReferencedImageSequence = [Dataset()]
    dataset.ReferencedImageSequence[0].ReferencedSOPClassUID = uid.CTImageStorage
    dataset.ReferencedImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"
    block = dataset.private_block(0x0029, "KINDRED HEADER", create=True)
    for element in range(20):
        block.add_new(element, "LO", f"private {element} {'x' * element}")


def write(folder: Path, stored: NDArray[np.uint16]) -> tuple[list[Path], list[Path]]:
    """The series raw and as JPEG-LS, under shuffled names."""
    names = list(range(len(stored)))
    random.Random(5).shuffle(names)
    recipe = Recipe(stored=stored, step=1.25, spacing=(0.7, 0.7))
    raw, coded = [], []
    for kind in ("raw", "jpegls"):
        (folder / kind).mkdir()
    for index, name in enumerate(names):
        dataset = slice_of(recipe, index, index + 1)  # MONAI sorts by InstanceNumber
        dress(dataset, index)
        raw.append(save(dataset, folder / "raw" / f"{name:04d}.dcm", uid.ExplicitVRLittleEndian))
        dataset.PixelData = encapsulate([imagecodecs.jpegls_encode(stored[index])])
        dataset["PixelData"].VR = "OB"
        coded.append(save(dataset, folder / "jpegls" / f"{name:04d}.dcm", uid.JPEGLSLossless))
    return raw, coded


def ours(paths: list[Path]) -> Any:
    """From the paths in no order to volume and affine."""
    return pixels.load(source.read(paths))


def simpleitk(paths: list[Path]) -> Any:
    """SimpleITK's series reader, told the order, which it does not find out as it reads."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    return reader.Execute()


def floor(paths: list[Path]) -> Any:
    """The bytes of every file in fresh memory."""
    sizes = [os.stat(path).st_size for path in paths]
    room, at = memoryview(np.empty(sum(sizes), np.uint8)), 0
    for path, size in zip(paths, sizes, strict=True):
        descriptor = os.open(path, os.O_RDONLY)
        os.preadv(descriptor, [room[at : at + size]], 0)
        os.close(descriptor)
        at += size
    return room


def assert_equal(stored: NDArray[np.uint16], raw: list[Path], coded: list[Path]) -> None:
    """All readers give the values that were written, in the same place."""
    expected = stored.astype(np.int16) - 1024
    volume = ours(raw[::-1])
    for name, array in {
        "ours": volume.array,
        "ours, JPEG-LS": ours(coded[::-1]).array,
        "SimpleITK": sitk.GetArrayFromImage(simpleitk(raw)),
        "SimpleITK, JPEG-LS": sitk.GetArrayFromImage(simpleitk(coded)),
        "MONAI": np.asarray(LoadImage(image_only=True)(raw[0].parent)).transpose(2, 1, 0),
    }.items():
        if not np.array_equal(array, expected):
            raise AssertionError(f"{name}: {int((array != expected).sum())} voxels differ from what was written")
    last = np.array(stored.shape) - 1
    there = simpleitk(raw).TransformIndexToPhysicalPoint([int(i) for i in last[::-1]])
    assert np.allclose(there, (volume.affine @ [*last, 1])[:3], atol=1e-3)


def timed(readers: dict[str, Reader], rounds: int) -> dict[str, list[float]]:
    """Seconds of each reader in each round, in another order every round."""
    taken: dict[str, list[float]] = {name: [] for name in readers}
    names = list(readers)
    for number in range(rounds + 1):
        random.Random(number).shuffle(names)
        for name in names:
            gc.collect()
            begin = time.perf_counter()
            result = readers[name]()
            seconds = time.perf_counter() - begin
            del result
            if number:  # the first round warms up
                taken[name].append(seconds)
        if number:
            row = ", ".join(f"{name} {1e3 * seconds[-1]:.0f}" for name, seconds in taken.items())
            print(f"round {number}, ms: {row}", file=sys.stderr, flush=True)
    return taken


def ratios(taken: dict[str, list[float]]) -> dict[str, float]:
    """Median over the rounds of the ratio within a round."""

    def median(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=True))

    return {
        "simpleitk": median("simpleitk", "ours"),
        "monai": median("monai", "ours"),
        "bytes": median("ours", "bytes"),
        "jpeg_ls_simpleitk": median("jpeg_ls_simpleitk", "jpeg_ls_ours"),
    }


def met(name: str, ratio: float) -> bool:
    """Whether a ratio reaches its goal."""
    word, goal = GOALS[name]
    return ratio >= goal if word == "at least" else ratio <= goal


def show(taken: dict[str, list[float]], found: dict[str, float]) -> None:
    """The figures as a table on stderr."""
    table = Table("reader", "median ms", "best ms", "ratio", "goal")
    of = {"jpeg_ls_simpleitk": "jpeg_ls_simpleitk", "simpleitk": "simpleitk", "monai": "monai", "bytes": "bytes"}
    for name, seconds in taken.items():
        ratio = f"{found[of[name]]:.2f}" if name in of else ""
        goal = f"{GOALS[name][0]} {GOALS[name][1]:g}" if name in of else ""
        table.add_row(name, f"{1e3 * statistics.median(seconds):.1f}", f"{1e3 * min(seconds):.1f}", ratio, goal)
    Console(stderr=True).print(table)


def main() -> int:
    """Writes, compares, times, tells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--keep", type=Path, help="write the series here and leave it")
    options = parser.parse_args()
    stored = body(options.slices)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        raw, coded = write(folder, stored)
        assert_equal(stored, raw, coded)
        load_image = LoadImage(image_only=True)
        taken = timed(
            {
                "ours": lambda: ours(raw[::-1]),
                "bytes": lambda: floor(raw),
                "simpleitk": lambda: simpleitk(raw),
                "monai": lambda: load_image(raw[0].parent),
                "jpeg_ls_ours": lambda: ours(coded[::-1]),
                "jpeg_ls_simpleitk": lambda: simpleitk(coded),
            },
            options.rounds,
        )
        found = ratios(taken)
    show(taken, found)
    answer = {
        "slices": options.slices,
        "rounds": options.rounds,
        "processors": os.cpu_count(),
        "median_ms": {name: round(1e3 * statistics.median(seconds), 1) for name, seconds in taken.items()},
        "ratios": {name: round(ratio, 2) for name, ratio in found.items()},
        "met": {name: met(name, ratio) for name, ratio in found.items()},
    }
    print(json.dumps(answer, indent=2))
    return 0 if all(answer["met"].values()) else 1  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main())
