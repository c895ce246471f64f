"""Small true objects to send."""

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pynetdicom.sop_class import CTImageStorage, SegmentationStorage  # type: ignore[attr-defined]

from router.domain.delivery import Outgoing


def image(
    folder: Path,
    *,
    sop_class_uid: str = CTImageStorage,
    syntax: str = ExplicitVRLittleEndian,
    study: str = "1.2.3",
    series: str = "1.2.3.5",
) -> Outgoing:
    """A file of 16 x 16 pixels, with a sequence, a private element and values of odd form."""
    uid = generate_uid()
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(sop_class_uid), uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientName, dataset.PatientID = "SECRET^PATIENT", "4711"
    dataset.SliceThickness = "0.50000"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = UID(sop_class_uid), generate_uid()
    dataset.ReferencedImageSequence = [item, item]
    block = dataset.private_block(0x0009, "ISOCENTER TEST", create=True)
    block.add_new(0x01, "UN", b"\x01\x02\x03\x04")
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = np.arange(256, dtype="<i2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    path = folder / f"{uid}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return Outgoing(
        sop_class_uid=str(sop_class_uid),
        sop_instance_uid=str(uid),
        path=path,
        study_instance_uid=study,
        series_instance_uid=series,
    )


def big_endian(dataset: Dataset) -> bytes:
    """The file as DCMTK writes it in Explicit VR Big Endian."""
    with TemporaryDirectory() as folder:
        little, big = Path(folder) / "little.dcm", Path(folder) / "big.dcm"
        dataset.save_as(little)
        subprocess.run(["dcmconv", "+tb", little, big], check=True)
        return big.read_bytes()


def result_set(folder: Path, *, study: str = "1.2.3") -> list[Outgoing]:
    """Two objects of different classes, in the order of sending."""
    return [
        image(folder, sop_class_uid=SegmentationStorage, study=study),
        image(folder, series="1.2.3.6", study=study),
    ]
