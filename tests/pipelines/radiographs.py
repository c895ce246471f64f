"""Radiographs: the chest phantom projected from behind, and any image as the DICOM file of a CR."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from scipy import ndimage

from dicom_sr.nouns import Acquisition, Volume
from tests.pipelines.lungs import chest

Shown = NDArray[np.int16]
"""Brightness as a reader expects it, (row, column): air 0, bone towards 4095."""


@cache
def shadow(axis: int = 1) -> Shown:
    """The shadow of the chest phantom from the apices down, with square pixels; axis 2: seen from the side."""
    volume = chest().volume
    dense = np.clip(volume.array + 1000.0, 0, None).sum(axis=axis)[::-1]
    square = ndimage.zoom(dense, (volume.spacing[0] / volume.spacing[3 - axis], 1), order=1)
    apices = square[len(square) // 5 :]
    return np.asarray(np.rint(apices / apices.max() * 4095), np.int16)


def volume_of(shown: Shown, *, photometric: str = "MONOCHROME2", inverted: bool = False, **made: Any) -> Volume:
    """A radiograph as it is loaded, whose header and content contradict each other when `inverted`."""
    stored = 4095 - shown if (photometric == "MONOCHROME1") != inverted else shown
    acquisition = Acquisition(
        modality="CR",
        series_instance_uid="1.2.826.0.1.3680043.8.498.3",
        projection=True,
        photometric_interpretation=photometric,
        view_position="PA",
    )
    return Volume(array=stored[None].copy(), affine=np.eye(4), acquisition=replace(acquisition, **made))


def write(volume: Volume, folder: Path, *, sop_class: str = uid.ComputedRadiographyImageStorage, **more: Any) -> Path:
    """A radiograph as a Part 10 file; `more` are attributes by keyword, None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    made, pixels = volume.acquisition, volume.array[0]
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, "1.2.826.0.1.3680043.8.498.5"
    dataset.PatientName, dataset.PatientID = "PHANTOM^CHEST", "ISOCENTER-PHANTOM"
    dataset.PatientBirthDate, dataset.PatientSex = "19650401", "O"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    dataset.SeriesInstanceUID = made.series_instance_uid
    dataset.StudyDate = dataset.ContentDate = "20260304"
    dataset.StudyTime = dataset.ContentTime = "101112"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1
    dataset.AccessionNumber, dataset.ReferringPhysicianName, dataset.Manufacturer = "P1", "", "Isocenter phantom"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = made.modality, "CHEST", made.view_position
    dataset.ImageType, dataset.PatientOrientation = ["ORIGINAL", "PRIMARY"], ["L", "F"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, made.photometric_interpretation
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    for keyword, value in more.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path
