"""How the slices were made, as far as all headers agree: what a pipeline may ask before it believes a number."""

from collections.abc import Sequence

from pydicom import uid
from pydicom.charset import decode_bytes, default_encoding, python_encoding

from dicom_sr.nouns import Acquisition
from dicom_sr.part10 import Head, text
from dicom_sr.planes import Plane

LOSSY = frozenset(
    str(syntax)
    for syntax in (
        uid.JPEGBaseline8Bit,
        uid.JPEGExtended12Bit,
        uid.JPEGLSNearLossless,
    )
)
"""Transfer syntaxes that lose: JPEG 2000 and HTJ2K without "Lossless Only" may, and say so by LossyImageCompression."""

ESCAPE = b"\x1b"
"""Begins another character set within a value (PS3.5 6.1.2.5)."""

NO_CONTRAST = {"NO", "NONE", "N", "WITHOUT", "NATIVE", "NO CONTRAST", "NON CONTRAST", "NON-CONTRAST"}


def acquisition_of(heads: Sequence[Head], planes: Sequence[Plane], warnings: tuple[str, ...]) -> Acquisition:
    """What the headers of all slices say together; an attribute on which they disagree is None."""

    def agreed(keyword: str) -> bytes | None:
        raw = {head.values.get(keyword, b"").rstrip(b"\0 ") for head in heads}
        return raw.pop() or None if len(raw) == 1 else None

    every = {id(plane.traits): plane.traits for plane in planes}.values()
    kernels = {traits.convolution_kernel for traits in every}
    thicknesses = {traits.slice_thickness for traits in every}
    image_types = {traits.image_type for traits in every}
    return Acquisition(
        modality=text(heads[0].values.get("Modality", b"")),
        series_instance_uid=text(heads[0].values.get("SeriesInstanceUID", b"")),
        convolution_kernel=kernels.pop() or None if len(kernels) == 1 else None,
        manufacturer=decoded(agreed("Manufacturer"), agreed("SpecificCharacterSet")),
        slice_thickness=thicknesses.pop() if len(thicknesses) == 1 else None,
        image_type=image_types.pop() if len(image_types) == 1 else (),
        contrast=contrast(agreed("ContrastBolusAgent")),
        lossy=any(is_lossy(head) for head in heads),
        burned_in=any(text(head.values.get("BurnedInAnnotation", b"")) == "YES" for head in heads),
        projection=not planes[0].placed,
        photometric_interpretation=text(agreed("PhotometricInterpretation") or b"") or None,
        view_position=text(agreed("ViewPosition") or b"") or None,
        warnings=warnings,
    )


def decoded(raw: bytes | None, character_set: bytes | None) -> str | None:
    """A text value in its own character set; what that cannot hold is replaced (PS3.3 C.12.1.1.2)."""
    if raw is None:
        return None
    encodings = [python_encoding.get(term, default_encoding) for term in texts(character_set or b"")]
    value = decode_bytes(raw, encodings, set()) if ESCAPE in raw else raw.decode(encodings[0], "replace")
    return value.strip(" \0") or None


def texts(raw: bytes) -> tuple[str, ...]:
    """The parts of a text value without their padding."""
    return tuple(text(part) for part in raw.split(b"\\"))


def contrast(agent: bytes | None) -> bool | None:
    """Whether a contrast agent was given; an empty or missing attribute says nothing (it is Type 2)."""
    if agent is None:
        return None
    return text(agent).upper() not in NO_CONTRAST


def is_lossy(head: Head) -> bool:
    """Whether pixels were ever lossy compressed (PS3.3 C.7.6.1.1.5)."""
    return text(head.values.get("LossyImageCompression", b"")) == "01" or head.transfer_syntax_uid in LOSSY
