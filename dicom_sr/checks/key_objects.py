"""A key object selection: a title that may stand there, and pointers that resolve and are all in the evidence.

Source:  PS3.3 A.35.4, C.17.6.2; PS3.16 TID 2010, CID 7010
"""

from collections.abc import Iterator

from pydicom.uid import KeyObjectSelectionDocumentStorage

from dicom_sr import codes
from dicom_sr.checks.fault import Fault, expect, items, same, text
from dicom_sr.checks.pointing import evidence, resolved
from dicom_sr.checks.seen import Around, Seen
from dicom_sr.kinds.key_objects import REJECTIONS, TITLES, value_type

SOP_CLASSES = frozenset({str(KeyObjectSelectionDocumentStorage)})
TYPE_1 = ("ValueType", "ConceptNameCodeSequence", "ContinuityOfContent", "ContentSequence", "Manufacturer",
          "CurrentRequestedProcedureEvidenceSequence")  # fmt: skip
TYPE_2 = ("ReferencedPerformedProcedureStepSequence",)

POINTERS = frozenset({"IMAGE", "COMPOSITE", "WAVEFORM"})


def alone(seen: Seen) -> Iterator[Fault]:
    """What must hold of a selection alone."""
    dataset, place = seen.dataset, seen.place
    yield from expect(place, "Modality", text(dataset, "Modality"), "KO")
    yield from expect(place, "ValueType", seen.root.value_type, "CONTAINER")
    templates = [text(item, "TemplateIdentifier") for item in items(dataset, "ContentTemplateSequence")]
    yield from expect(place, "ContentTemplateSequence.TemplateIdentifier", templates, ["2010"])
    if seen.ours and not any(same(seen.root.name, codes.find(title)) for title in TITLES):
        yield Fault(f"{place}.ConceptNameCodeSequence", "is no title of CID 7010 that we use")
    listed = {text(item, "ReferencedSOPInstanceUID") for _, _, item in evidence(dataset, place)}
    pointed = [child for child in seen.root.children if child.value_type in POINTERS]
    if not pointed:
        yield Fault(f"{place}.ContentSequence", "points at nothing")
    for child in pointed:
        for item in items(child.dataset, "ReferencedSOPSequence"):
            if text(item, "ReferencedSOPInstanceUID") not in listed:
                yield Fault(child.place, "points at an instance that is not in the evidence")
            wanted = value_type(text(item, "ReferencedSOPClassUID"))
            yield from expect(child.place, "ValueType", child.value_type, wanted)


def beside(seen: Seen, around: Around) -> Iterator[Fault]:
    """All that is pointed at is there; what a note rejects is nothing of the new set, but what it supersedes."""
    pointers = [(where, item) for where, _, item in evidence(seen.dataset, seen.place)]
    if not any(same(seen.root.name, codes.find(title)) for title in REJECTIONS):
        yield from resolved(pointers, around.known)
    elif around.order is not None:
        if not around.rejected:
            yield Fault(seen.place, "rejects objects, and the set supersedes none")
        yield from resolved(pointers, around.rejected)
        named = {text(item, "ReferencedSOPInstanceUID") for _, item in pointers}
        for uid in sorted(around.rejected.keys() - named):
            yield Fault(f"{seen.place}.CurrentRequestedProcedureEvidenceSequence", f"does not reject {uid}")
