"""The same data set in Explicit VR Little Endian, for a peer that has agreed to that and not to what the object has.

The counterpart of `dicom_sr.transcode`; value representations that were implicit are looked up, compressed pixels are
decompressed, and no UID changes.

Source:  PS3.5 7.1.2 (Data Element Structure with Explicit VR), A.2 (Explicit VR Little Endian Transfer Syntax)
"""

import struct
import zlib
from io import BytesIO

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from dicom_sr.transcode import WORD, CannotTranscode


def to_explicit(part10: bytes, offset: int, transfer_syntax_uid: str) -> bytes:
    """The data set that begins at `offset` of this file, without File Meta Information, Explicit VR Little Endian.

    Raises:  CannotTranscode
    """
    if transfer_syntax_uid == ExplicitVRLittleEndian:
        return part10[offset:]
    try:
        if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            return zlib.decompress(part10[offset:], -zlib.MAX_WBITS)
        dataset = dcmread(BytesIO(part10))
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            dataset.decompress(generate_instance_uid=False)
        if transfer_syntax_uid == ExplicitVRBigEndian:
            dataset.walk(_turn)
        out = DicomBytesIO()
        out.is_implicit_VR, out.is_little_endian = False, True
        write_dataset(out, dataset)
        return bytes(out.getvalue())
    except (struct.error, ValueError, zlib.error, NotImplementedError, RuntimeError, AttributeError) as error:
        raise CannotTranscode(
            f"the data set cannot be written in Explicit VR Little Endian ({type(error).__name__})",
            remedy="Let the far side accept the transfer syntax that the object has",
        ) from error


def _turn(_: Dataset, element: DataElement) -> None:
    """Words of several bytes little endian; pydicom turns numbers, but not what it keeps as bytes."""
    if isinstance(element.value, bytes) and element.VR.encode() in WORD:
        size = WORD[element.VR.encode()]
        element.value = np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()
