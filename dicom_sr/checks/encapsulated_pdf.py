"""An encapsulated PDF: a PDF, of its whole length, whose sources are there.

Source:  PS3.3 A.45.1, C.24.2
"""

from collections.abc import Iterator

from pydicom.uid import EncapsulatedPDFStorage

from dicom_sr.checks.fault import Fault, every, expect, one_of, text
from dicom_sr.checks.pointing import resolved
from dicom_sr.checks.seen import Around, Seen

SOP_CLASSES = frozenset({str(EncapsulatedPDFStorage)})
TYPE_1 = ("ConversionType", "BurnedInAnnotation", "MIMETypeOfEncapsulatedDocument", "EncapsulatedDocument")
TYPE_2 = ("AcquisitionDateTime", "DocumentTitle", "ConceptNameCodeSequence")


def alone(seen: Seen) -> Iterator[Fault]:
    """What must hold of it alone."""
    dataset, place = seen.dataset, seen.place
    kind = text(dataset, "MIMETypeOfEncapsulatedDocument")
    yield from expect(place, "MIMETypeOfEncapsulatedDocument", kind, "application/pdf")
    yield from one_of(place, "BurnedInAnnotation", text(dataset, "BurnedInAnnotation"), ("YES", "NO"))
    document = bytes(dataset.get("EncapsulatedDocument") or b"")
    if not document.startswith(b"%PDF-") or b"%%EOF" not in document[-16:]:
        yield Fault(f"{place}.EncapsulatedDocument", "is no whole PDF")
    length = dataset.get("EncapsulatedDocumentLength")
    if length is not None and len(document) not in (int(length), int(length) + 1):
        yield Fault(f"{place}.EncapsulatedDocumentLength", f"is {length}, the document has {len(document)} bytes")


def beside(seen: Seen, around: Around) -> Iterator[Fault]:
    """What it was made from is there."""
    yield from resolved(every(seen.dataset, "SourceInstanceSequence", seen.place), around.known)
