"""A chest that never was: a procedural CT whose truth is known exactly, so that tests and the demo need no patient.

The anatomy is written down in patient millimetres and sampled on whatever grid is asked for, so the same chest can be
had axial, coronal, sagittal, reversed or oblique. Nothing in it is symmetric: the heart and the aorta lie left, the
liver lies high under the right lung, gas lies in a stomach under the left one, and three rods of unequal length under
the skin of the right shoulder point left, back and up. A flip, a swap or a shift of a result cannot hide.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray

from dicom_sr.nouns import Acquisition, LabelMap, Volume
from pipelines.anatomy import (
    LEFT_LUNG,
    ORIENTATIONS,
    RIGHT_LUNG,
    VARIANTS,
    Anatomy,
    Canvas,
    Floats,
    Mask,
    Orientation,
    Point,
    Variant,
    grid,
    paint,
)

__all__ = [
    "LEFT_LUNG",
    "ORIENTATIONS",
    "RIGHT_LUNG",
    "VARIANTS",
    "LungTruth",
    "Orientation",
    "Phantom",
    "Variant",
    "chest",
    "uid",
    "write",
]

PHANTOMS = UUID("8f0b7a52-64a5-4d3c-8a58-0f7f2f1f6a11")
"""Name space of the phantom's UIDs: the same phantom always has the same ones."""
MADE_AT = datetime(2024, 5, 17, 9, 30, tzinfo=UTC)
BLUR_MM = 0.9
SOFT_KERNEL, SHARP_KERNEL = "B30f", "B70f"


@dataclass(frozen=True, slots=True, kw_only=True)
class LungTruth:
    """What is known of one lung: counted on the truth's own voxels, in the values that a pipeline will read."""

    volume_ml: float
    mean_hu: float
    laa950_percent: float
    perc15_hu: float
    emphysema_ml: float
    """Millilitres of the emphysema patches alone, before blur and noise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phantom:
    """A chest and its truth.

    `truth` labels the lungs (LEFT_LUNG, RIGHT_LUNG) on the volume's grid: vessels and nodules inside a lung belong to
    it; the airway with its wall, an effusion and the mass do not. `mass` is the mass alone. `left` and `right` are
    None where that lung is missing.
    """

    volume: Volume
    truth: LabelMap
    mass: Mask
    left: LungTruth | None
    right: LungTruth | None
    variant: Variant
    orientation: Orientation
    seed: int
    slice_thickness: float
    part: str = "CHEST"

    def __repr__(self) -> str:
        return f"Phantom({self.variant!r}, orientation={self.orientation!r}, seed={self.seed})"


def chest(
    variant: Variant = "normal",
    *,
    seed: int = 0,
    orientation: Orientation = "axial",
    spacing: Point = (2.5, 1.7, 1.7),
    junction_mm: float | None = None,
) -> Phantom:
    """The phantom chest, the same for the same arguments.

    `junction_mm` is the thickness of what lies between the lungs in front; by default 7, for "touching" 2.

    Shapes:  spacing (slice, row, column)
    Units:   mm; HU
    """
    anatomy = Anatomy(variant, seed, junction_mm or (2.0 if variant == "touching" else 7.0))
    canvas = Canvas(grid(orientation, spacing))
    paint(canvas, anatomy)
    array = scanned(canvas.hu, spacing, seed, sharp=variant == "sharp_kernel")
    truth = canvas.labels
    volume = Volume(
        array=array,
        affine=canvas.grid.affine,
        acquisition=_acquisition(
            variant, spacing[0], uid(hashlib.sha256(array.tobytes()).hexdigest(), canvas.grid.affine)
        ),
    )
    patches = {label: float((canvas.emphysema & (truth == label)).sum()) * volume.voxel_ml for label in (1, 2)}
    return Phantom(
        volume=volume,
        truth=truth,
        mass=canvas.mass,
        left=_truth_of(array[truth == LEFT_LUNG], volume.voxel_ml, patches[LEFT_LUNG]),
        right=_truth_of(array[truth == RIGHT_LUNG], volume.voxel_ml, patches[RIGHT_LUNG]),
        variant=variant,
        orientation=orientation,
        seed=seed,
        slice_thickness=spacing[0],
    )


def write(
    phantom: Phantom,
    folder: Path,
    *,
    study_instance_uid: str | None = None,
    series_instance_uid: str | None = None,
    patient_name: str = "PHANTOM^CHEST",
    patient_id: str = "ISOCENTER-PHANTOM",
    accession_number: str = "PHANTOM1",
    series_number: int = 2,
    made_at: datetime = MADE_AT,
) -> list[Path]:
    """CT Image Storage files of the phantom, one a slice, in `folder` (made if absent), in slice order.

    Two calls with the same arguments write the same bytes.

    Source:  PS3.3 A.3 (CT Image IOD), C.7.6.2 (Image Plane), C.8.2.1 (CT Image)
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = phantom.volume.acquisition.series_instance_uid
    header = _header(phantom, made_at)
    header.StudyInstanceUID = study_instance_uid or uid(series, "study")
    header.SeriesInstanceUID = series_instance_uid or series
    header.FrameOfReferenceUID = uid(series, "frame of reference", header.StudyInstanceUID)
    header.PatientName, header.PatientID = patient_name, patient_id
    header.AccessionNumber, header.SeriesNumber = accession_number, series_number
    paths = []
    for index in range(phantom.volume.array.shape[0]):
        instance = uid(header.SeriesInstanceUID, index)
        paths.append(folder / f"{index + 1:04d}.dcm")
        _write_slice(header, phantom.volume, index, instance, paths[-1])
    return paths


def scanned(hu: Floats, spacing: Point, seed: int, *, sharp: bool = False) -> NDArray[np.int16]:
    """What a scanner makes of it: blur, then noise of its kernel, in whole HU from -1024."""
    from scipy import ndimage

    random = np.random.default_rng([seed, 7])
    image: Floats = ndimage.gaussian_filter(hu, [BLUR_MM / step for step in spacing], truncate=3.0)
    if sharp:
        image += 0.9 * (image - ndimage.gaussian_filter(image, [1.4 / step for step in spacing], truncate=3.0))
    noise = random.standard_normal(hu.shape, dtype=np.float32) * np.float32(68.0 if sharp else 14.0)
    return np.clip(np.round(image + noise), -1024, 3071).astype(np.int16)


def _truth_of(values: NDArray[np.int16], voxel_ml: float, emphysema_ml: float) -> LungTruth | None:
    if not values.size:
        return None
    return LungTruth(
        volume_ml=values.size * voxel_ml,
        mean_hu=float(values.mean(dtype=np.float64)),
        laa950_percent=100.0 * float((values < -950).mean()),
        perc15_hu=float(np.percentile(values, 15, method="inverted_cdf")),
        emphysema_ml=emphysema_ml,
    )


def uid(*parts: object) -> str:
    return f"2.25.{uuid5(PHANTOMS, '/'.join(map(str, parts))).int}"


def _acquisition(variant: Variant, thickness: float, series_instance_uid: str) -> Acquisition:
    return Acquisition(
        modality="CT",
        series_instance_uid=series_instance_uid,
        convolution_kernel=SHARP_KERNEL if variant == "sharp_kernel" else SOFT_KERNEL,
        manufacturer="SIEMENS",
        slice_thickness=thickness,
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    )


def _header(phantom: Phantom, made_at: datetime) -> Any:
    """What all slices share.  Source: PS3.3 A.3.3 (CT Image IOD Modules)."""
    from pydicom import Dataset
    from pydicom.uid import CTImageStorage

    volume = phantom.volume
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.ImageType = list(volume.acquisition.image_type)
    header.SOPClassUID = CTImageStorage
    for name, moment in (("Study", made_at), ("Series", made_at + timedelta(minutes=4))):
        setattr(header, f"{name}Date", f"{moment:%Y%m%d}")
        setattr(header, f"{name}Time", f"{moment:%H%M%S}")
    header.AcquisitionDate = header.ContentDate = header.SeriesDate
    header.AcquisitionTime = header.ContentTime = header.SeriesTime
    header.Modality = "CT"
    header.Manufacturer = volume.acquisition.manufacturer
    header.ManufacturerModelName = "Procedural chest phantom"
    header.InstitutionName = "Isocenter phantom"
    header.StationName = "PHANTOM"
    header.DeviceSerialNumber = "0"
    header.SoftwareVersions = "1"
    header.ReferringPhysicianName = ""
    header.StudyDescription = f"CT {phantom.part.lower()} (phantom)"
    header.SeriesDescription = (
        f"{phantom.part.capitalize()} {phantom.slice_thickness:g} mm {phantom.variant} {phantom.orientation}"[:64]
    )
    header.PatientBirthDate, header.PatientSex, header.PatientAge = "19650401", "O", "059Y"
    header.StudyID = "1"
    header.BodyPartExamined = phantom.part
    header.SliceThickness = round(phantom.slice_thickness, 4)
    header.KVP = 120
    header.DataCollectionDiameter = 500
    header.ReconstructionDiameter = round(
        max(n * s for n, s in zip(volume.array.shape, volume.spacing, strict=True)), 2
    )
    header.GantryDetectorTilt = 0
    header.ExposureTime, header.XRayTubeCurrent, header.Exposure = 500, 200, 100
    header.FilterType = "0"
    header.ConvolutionKernel = volume.acquisition.convolution_kernel
    header.PatientPosition = "HFS"
    header.AcquisitionNumber = 1
    header.PositionReferenceIndicator = ""
    return header


def _write_slice(header: Any, volume: Volume, index: int, uid: str, path: Path) -> None:
    """One slice, stored unsigned in 12 bits with the usual rescale of a scanner."""
    from pydicom import FileDataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    pixels = volume.array[index]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = header.SOPClassUID, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    item.update(header)
    item.SOPInstanceUID, item.InstanceNumber = uid, index + 1
    steps = volume.affine[:3, :3]
    item.ImagePositionPatient = [
        _decimal(value) for value in volume.affine[:3, :3] @ (index, 0, 0) + volume.affine[:3, 3]
    ]
    item.ImageOrientationPatient = [
        _decimal(value) for axis in (2, 1) for value in steps[:, axis] / np.linalg.norm(steps[:, axis])
    ]
    item.SliceLocation = _decimal(float(steps[:, 0] @ item.ImagePositionPatient / np.linalg.norm(steps[:, 0])))
    item.PixelSpacing = [_decimal(volume.spacing[1]), _decimal(volume.spacing[2])]
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.Rows, item.Columns = pixels.shape
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = 1, -1024, "HU"
    item.WindowCenter, item.WindowWidth = [-600, 40], [1500, 400]
    item.PixelData = (pixels.astype(np.int32) + 1024).astype("<u2").tobytes()
    item.save_as(path, enforce_file_format=True)


def _decimal(value: float) -> float:
    """A number that fits a DS of 16 characters (PS3.5 6.2)."""
    return float(f"{value:.9f}"[:16]) + 0.0
