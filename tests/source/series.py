"""Small true series: chiral, wherever they lie, named and numbered at random, written as Part 10 files."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.sequence import Sequence as Items

from dicom_sr.walk import DEFLATED_FRAMES

ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "axial reversed": (-1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "coronal reversed": (-1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "sagittal reversed": (0, -1, 0, 0, 0, -1),
    "oblique": (0.8, 0.6, 0, -0.36, 0.48, -0.8),
    "double oblique": (0.36, 0.48, 0.8, 0.8, -0.6, 0),
    "feet first, turned": (0, -1, 0, -1, 0, 0),
}

Change = Callable[[Dataset, int], None]


def nothing(dataset: Dataset, index: int) -> None:
    """Leaves a slice as it is."""


def chiral(shape: tuple[int, int, int] = (5, 6, 7), top: int = 4096) -> NDArray[np.uint16]:
    """Stored values of which no two in a slice or a line are alike, so that no flip, swap or shift can hide."""
    slices, rows, columns = np.indices(shape)
    values: NDArray[np.uint16] = ((slices * 577 + rows * 53 + columns * 7 + 11) % top).astype(np.uint16)
    return values


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One series to be written; `change` is given every slice before it is."""

    stored: NDArray[Any] = field(default_factory=chiral)
    orientation: Sequence[float] = ORIENTATIONS["axial"]
    spacing: tuple[float, float] = (0.7, 0.9)
    step: float = 2.5
    origin: tuple[float, float, float] = (-31.5, 12.25, -101.0)
    shift: tuple[float, float, float] = (0, 0, 0)
    """Added to the step from slice to slice: a tilted gantry."""
    slope: str | None = "1"
    intercept: str | None = "-1024"
    bits_stored: int = 12
    signed: bool = False
    modality: str = "CT"
    sop_class: str = uid.CTImageStorage
    syntax: str = uid.ExplicitVRLittleEndian
    change: Change = nothing
    seed: int = 7

    def position(self, index: int) -> NDArray[np.float64]:
        """Where the first voxel of a slice lies."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return np.asarray(self.origin) + index * (self.step * normal + np.asarray(self.shift))


def write(folder: Path, recipe: Recipe) -> list[Path]:
    """Writes the series under shuffled names and InstanceNumbers; gives the paths in slice order."""
    order = list(range(len(recipe.stored)))
    random.Random(recipe.seed).shuffle(order)
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for index, number in enumerate(order):
        dataset = slice_of(recipe, index, number)
        recipe.change(dataset, index)
        paths.append(save(dataset, folder / f"{number:03d}.dcm", recipe.syntax))
    return paths


def slice_of(recipe: Recipe, index: int, number: int) -> Dataset:
    """One slice as a data set."""
    stored = recipe.stored[index]
    dataset = header(recipe.modality, recipe.sop_class, f"1.2.826.0.1.3680043.8.498.1.{recipe.seed}.{index + 1}")
    dataset.InstanceNumber = number
    dataset.ImagePositionPatient = [round(float(x), 6) for x in recipe.position(index)]
    dataset.ImageOrientationPatient = [float(x) for x in recipe.orientation]
    dataset.PixelSpacing = list(recipe.spacing)
    dataset.SliceThickness = recipe.step
    if recipe.slope is not None:
        dataset.RescaleSlope = recipe.slope
    if recipe.intercept is not None:
        dataset.RescaleIntercept = recipe.intercept
    pixels(dataset, stored, recipe.bits_stored, recipe.signed, recipe.syntax)
    return dataset


def header(modality: str, sop_class: str, instance: str) -> Dataset:
    """What all objects of a series say of patient, study, series and themselves."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    dataset.PatientName, dataset.PatientID = "SECRET^PATIENT", "SECRET-ID"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.3"
    dataset.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.4"
    dataset.Modality, dataset.Manufacturer, dataset.ConvolutionKernel = modality, "Kindred Scanners", "B30f"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    return dataset


def pixels(dataset: Dataset, stored: NDArray[Any], bits_stored: int, signed: bool, syntax: str) -> None:
    """Gives a data set its pixel description and the pixel data in this transfer syntax; stored is (row, column) or
    (frame, row, column)."""
    frames = stored[np.newaxis] if stored.ndim == 2 else stored
    dataset.Rows, dataset.Columns = frames.shape[1:]
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    dataset.PixelRepresentation = int(signed)
    if syntax not in ENCODERS:
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        dataset.PixelData = frames.astype(frames.dtype.newbyteorder(order)).tobytes()
        dataset["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
        return
    coded = [ENCODERS[syntax](np.ascontiguousarray(frame), bits_stored) for frame in frames]
    dataset.PixelData = encapsulate(coded, has_bot=True)
    dataset["PixelData"].VR = "OB"


def unsigned(frame: NDArray[Any]) -> NDArray[Any]:
    """The same bits without a sign: JPEG-LS and lossless JPEG know none."""
    return frame.view(f"u{frame.dtype.itemsize}")


def _run_length(frame: NDArray[Any], bits: int) -> bytes:
    rows, columns = frame.shape
    described = {"rows": rows, "columns": columns, "samples_per_pixel": 1, "photometric_interpretation": "MONOCHROME2"}
    width = 8 * frame.dtype.itemsize
    described |= {"number_of_frames": 1, "bits_allocated": width, "bits_stored": width, "pixel_representation": 0}
    return RLELosslessEncoder.encode(unsigned(frame), **described)


ENCODERS: dict[str, Callable[[NDArray[Any], int], bytes]] = {
    uid.JPEGLSLossless: lambda frame, bits: imagecodecs.jpegls_encode(unsigned(frame)),
    uid.JPEG2000Lossless: lambda frame, bits: imagecodecs.jpeg2k_encode(frame, codecformat="j2k", bitspersample=bits),
    uid.HTJ2KLossless: lambda frame, bits: imagecodecs.htj2k_encode(frame, reversible=True),
    uid.JPEGLosslessSV1: lambda frame, bits: imagecodecs.ljpeg_encode(unsigned(frame), bitspersample=bits),
    uid.RLELossless: _run_length,
    DEFLATED_FRAMES: lambda frame, bits: imagecodecs.deflate_encode(frame, raw=True),
}


def save(dataset: Dataset, path: Path, syntax: str) -> Path:
    """Writes a data set as a Part 10 file, odd values and all."""
    if syntax == DEFLATED_FRAMES:  # pydicom writes it under a syntax that it knows, whose UID is as long
        save(dataset, path, uid.JPEGLSLossless)
        path.write_bytes(path.read_bytes().replace(uid.JPEGLSLossless.encode(), DEFLATED_FRAMES.encode() + b"\0", 1))
        return path
    dataset.file_meta = FileMetaDataset()
    if not dataset.SOPInstanceUID:
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    with disable_value_validation():
        dataset.save_as(path, enforce_file_format=True)
    return path


def enhanced(recipe: Recipe, change: Callable[[Dataset, int], None] = nothing) -> Dataset:
    """The series as one enhanced multi-frame object, its frames in no order; `change` is given every frame's groups."""
    order = list(range(len(recipe.stored)))
    random.Random(recipe.seed).shuffle(order)
    dataset = header(recipe.modality, recipe.sop_class, f"1.2.826.0.1.3680043.8.498.9.{recipe.seed}")
    dataset.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = Items([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [float(x) for x in recipe.orientation]
    shared.PixelMeasuresSequence = Items([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = list(recipe.spacing)
    shared.PixelMeasuresSequence[0].SliceThickness = recipe.step
    if recipe.slope is not None:
        shared.PixelValueTransformationSequence = Items([Dataset()])
        shared.PixelValueTransformationSequence[0].RescaleSlope = recipe.slope
        shared.PixelValueTransformationSequence[0].RescaleIntercept = recipe.intercept
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items([])
    for index in order:
        groups = Dataset()
        groups.PlanePositionSequence = Items([Dataset()])
        groups.PlanePositionSequence[0].ImagePositionPatient = [round(float(x), 6) for x in recipe.position(index)]
        groups.FrameContentSequence = Items([Dataset()])
        change(groups, index)
        dataset.PerFrameFunctionalGroupsSequence.append(groups)
    pixels(dataset, recipe.stored[order], recipe.bits_stored, recipe.signed, recipe.syntax)
    return dataset
