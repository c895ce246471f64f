"""Small true CT series, findings on them, and orders for results, for all tests of this folder."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_sr import codes, source
from dicom_sr.kinds import Order, Replaced, Supersedes, measurement_report, segmentation
from dicom_sr.nouns import Algorithm, Findings, MeasurementGroup, NotFound
from dicom_sr.uids import derived_uid

MADE_AT = datetime(2026, 1, 10, 14, 30, 15, 250000, tzinfo=ZoneInfo("Europe/Zurich"))

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
OBLIQUE = (0.96, 0.28, 0.0, -0.224, 0.768, 0.6)
OBLIQUE_2 = (0.8, 0.0, -0.6, 0.36, 0.8, 0.48)


def ct_series(
    folder: Path,
    *,
    shape: tuple[int, int, int] = (6, 16, 24),
    orientation: tuple[float, ...] = AXIAL,
    step: float = 2.5,
    change: Callable[[Dataset, int], None] = lambda slice_, index: None,
) -> list[Path]:
    """CT Image Storage files of one series; `change` edits each before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    paths = []
    for index in range(shape[0]):
        uid = f"1.2.826.0.1.3680043.10.99999.1.3.{index + 1}"
        slice_ = Dataset()
        slice_.SpecificCharacterSet = "ISO_IR 100"
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, uid
        slice_.StudyInstanceUID = "1.2.826.0.1.3680043.10.99999.1.1"
        slice_.SeriesInstanceUID = "1.2.826.0.1.3680043.10.99999.1.2"
        slice_.FrameOfReferenceUID = "1.2.826.0.1.3680043.10.99999.1.4"
        slice_.PositionReferenceIndicator = ""
        slice_.StudyDate, slice_.StudyTime, slice_.StudyID = "20260110", "101500", "S1"
        slice_.SeriesNumber, slice_.InstanceNumber, slice_.AcquisitionNumber = 2, index + 1, 1
        slice_.AccessionNumber, slice_.ReferringPhysicianName = "ACC1", "Referrer^Real"
        slice_.PatientName, slice_.PatientID = "Phantom^Small", "PH0001"
        slice_.PatientBirthDate, slice_.PatientSex, slice_.PatientAge = "19700101", "O", "056Y"
        slice_.IssuerOfPatientID = "HOSPITAL"
        slice_.Modality, slice_.Manufacturer = "CT", "Synthetic"
        slice_.StudyDescription = "CT thorax"
        slice_.KVP, slice_.SliceThickness, slice_.ConvolutionKernel = "120", str(step), "B"
        slice_.ImagePositionPatient = [str(round(float(x), 6)) for x in (-12.5, -8.25, 40.5) + normal * index * step]
        slice_.ImageOrientationPatient = list(orientation)
        slice_.PixelSpacing = ["0.75", "0.5"]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.Rows, slice_.Columns = shape[1:]
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleIntercept, slice_.RescaleSlope, slice_.RescaleType = "0", "1", "HU"
        values = np.arange(shape[1] * shape[2], dtype="<i2").reshape(shape[1:]) % 200 - 900 + index
        slice_.PixelData = values.tobytes()
        change(slice_, index)
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / f"{index:03}.dcm")
        pydicom.dcmwrite(paths[-1], slice_, enforce_file_format=True)
    return paths


def two_lungs(shape: tuple[int, int, int], seed: int = 1) -> np.ndarray:
    """A label map with a chiral left (1) and right (2) lung, ragged, that leaves some planes empty."""
    planes, rows, columns = shape
    chance = np.random.default_rng(seed).random(shape)
    labels = np.zeros(shape, np.uint8)
    begin, end = (0, planes) if planes < 3 else (1, planes)
    labels[begin:end, rows // 5 : rows * 4 // 5, columns // 2 + 1 : columns - 1] = 1
    labels[begin : max(begin + 1, end - 1), rows // 4 : rows * 3 // 4, 1 : columns // 2 - 1] = 2
    labels[(chance < 0.15)] = 0
    return labels


def findings_of(labels: np.ndarray | None, *, voxel_ml: float = 0.0009375) -> Findings:
    """What a lung pipeline says about these labels: both lungs, one measurement withheld."""
    algorithm = Algorithm(name="ct_lung", version="1.0.0", parameters=(("allow_thick", "false"),))
    lungs = [codes.structure("left_lung"), codes.structure("right_lung")]
    if labels is None:
        missing = [
            NotFound(label=s.label, finding=s.type, laterality=s.laterality, reason="No lung air in this volume")
            for s in lungs
        ]
        return Findings(algorithm=algorithm, not_found=tuple(missing))
    counts = np.bincount(labels.ravel(), minlength=3)
    segments = tuple(s.segment(n) for n, s in enumerate(lungs, start=1))
    groups = tuple(
        MeasurementGroup(
            label=s.label,
            finding=s.type,
            site=s.type,
            segment_number=s.number,
            laterality=s.laterality,
            measurements=(
                codes.quantity("volume").measured(float(counts[s.number]) * voxel_ml),
                codes.quantity("mean_attenuation").measured(-834.5),
                codes.quantity("laa_950").measured(12.25, remark="Computed on 2.5 mm slices"),
                codes.quantity("perc15").withheld("Slices are 5.0 mm thick, at most 3 mm are needed"),
            ),
        )
        for s in segments
    )
    return Findings(
        algorithm=algorithm, labels=labels, segments=segments, groups=groups, remarks=("Arms beside the body",)
    )


def order_of(paths: list[Path], findings: Findings, **changed: object) -> Order:
    """An order as the inference worker writes it."""

    def uid(name: str, ordinal: int) -> str:
        return derived_uid(
            node="node", input_digest="digest", pipeline="ct_lung", version="1.0.0", weights="none",
            settings="{}", kind=name, encoding="", ordinal=ordinal, run=0,
        )  # fmt: skip

    order = Order(
        findings=findings,
        source=source.read(paths),
        uid=uid,
        made_at=MADE_AT,
        series_number=9000,
        pipeline="ct_lung",
        title="Lung volumes and emphysema",
        research=True,
        completeness="All 6 images had arrived: no further image for 30 s after the association ended",
    )
    return replace(order, **changed)  # type: ignore[arg-type]


def superseded(order: Order) -> Supersedes:
    """The result set of this order, as one that another takes the place of."""
    seg = segmentation.build(order)
    report = measurement_report.build(replace(order, companions=(seg,) if seg else ()))
    objects = tuple(
        Replaced(
            study_instance_uid=str(order.source.header.StudyInstanceUID),
            series_instance_uid=built.series_instance_uid,
            sop_class_uid=built.sop_class_uid,
            sop_instance_uid=built.sop_instance_uid,
        )
        for built in (seg, report)
        if built is not None
    )
    return Supersedes(
        change="Supersedes the result of 2026-11-21 12:00: 1 image came later, 7 instead of 6 were read.",
        correction=False,
        objects=objects,
        rejected=objects,
    )


@pytest.fixture
def chest(tmp_path: Path) -> Order:
    """An order for a small axial series with two lungs."""
    paths = ct_series(tmp_path / "ct")
    return order_of(paths, findings_of(two_lungs((6, 16, 24))))
