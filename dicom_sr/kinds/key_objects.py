"""Result kind `key_objects`: a Key Object Selection Document that points at objects and says why.

In a result set it is an entry for systems that show no SR: it points at the images on which the findings are largest
and at all other objects of the set. `document` writes any other selection, as a note that rejects what was sent. UIDs
of an order used here: "key_objects", "key_objects.series".

Source:  PS3.3 A.35.4, C.17.6.2; PS3.16 TID 2010, CID 7010, CID 7011
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from pydicom.uid import UID, KeyObjectSelectionDocumentStorage

from dicom_sr import codes
from dicom_sr.elements import Elements, code, elements
from dicom_sr.header import MANUFACTURER, Letterhead, device, letterhead, on_letterhead
from dicom_sr.kinds import Built, Order
from dicom_sr.nouns import Code
from dicom_sr.problem import Problem
from dicom_sr.script import Script
from dicom_sr.uids import LABEL_MAP_SEGMENTATION_STORAGE

KIND = "key_objects"

TITLES = (
    "of_interest",
    "best_in_set",
    "for_report_attachment",
    "for_research",
    "quality_issue",
    "manifest",
    "rejected_for_quality_reasons",
    "rejected_for_patient_safety_reasons",
    "incorrect_modality_worklist_entry",
    "data_retention_policy_expired",
)
"""Terms of CID 7010 that a selection may be titled with, by their names in `codes.csv`."""

REJECTIONS = TITLES[6:]
"""Those under which what is pointed at is no longer to be shown."""

QUALITY = (
    "image_artifacts",
    "no_image",
    "motion_blur",
    "positioning",
    "other_failure",
    "unknown_failure",
    "software_failure",
    "mechanical_failure",
)
"""Terms of CID 7011 that may say why something was rejected for quality reasons."""

IMAGES = ("Image Storage", "Volume Storage", "Segmentation Storage", "Parametric Map Storage", "RT Dose Storage")
"""Parts of the names of SOP classes whose instances are pointed at as IMAGE; others are COMPOSITE, or WAVEFORM."""

KEY_IMAGES = 5
"""Images of one result set that are pointed at, at most."""


class NothingSelected(Problem):
    """A key object selection that points at nothing, or under a title that it cannot have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An instance that is pointed at, and where it lies."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is selected and why. `title` and `reason` are names in `codes.csv`, of TITLES and QUALITY."""

    title: str
    references: tuple[Reference, ...]
    reason: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if self.title not in TITLES:
            raise NothingSelected(f"{self.title} is no title of a selection", remedy=f"Choose: {', '.join(TITLES)}")
        if self.reason is not None and (self.reason not in QUALITY or self.title != "rejected_for_quality_reasons"):
            raise NothingSelected(
                f"{self.reason} says nothing about {self.title}",
                remedy=f"Only rejected_for_quality_reasons has a reason: {', '.join(QUALITY)}",
            )
        if not self.references:
            raise NothingSelected("nothing is selected", remedy="Name at least one instance")


def build(order: Order) -> Built | None:
    """The key images and the other objects of the result set; None where there is neither."""
    study = str(order.source.header.StudyInstanceUID)
    series = order.source.acquisition.series_instance_uid
    images = [
        Reference(
            study_instance_uid=study,
            series_instance_uid=series,
            sop_class_uid=plane.sop_class_uid,
            sop_instance_uid=plane.sop_instance_uid,
        )
        for plane in (order.source.planes[index] for index in key_planes(order))
    ]
    made = [
        Reference(
            study_instance_uid=study,
            series_instance_uid=built.series_instance_uid,
            sop_class_uid=built.sop_class_uid,
            sop_instance_uid=built.sop_instance_uid,
        )
        for built in order.results
    ]
    if not images and not made:
        return None
    selection = Selection(
        title="of_interest",
        references=(*images, *made),
        description=f"{order.title}: the images with the largest findings, and the results",
    )
    return document(letterhead(order, KIND), selection)


def key_planes(order: Order) -> list[int]:
    """For each segment the plane on which it is largest, the largest segments first; at most KEY_IMAGES."""
    areas = [
        np.array([np.count_nonzero(plane == segment.number) for plane in order.findings.layer(segment.number)])
        for segment in order.findings.segments
    ]
    largest = sorted(areas, key=lambda area: -int(area.max()))
    found = {order.source.planes[int(area.argmax())].sop_instance_uid: int(area.argmax()) for area in largest}
    return sorted(list(found.values())[:KEY_IMAGES])


def document(head: Letterhead, selection: Selection, *, kind: str = KIND) -> Built:
    """The selection as a document of its own on this letterhead.

    The letterhead of a note that no pipeline made names the node as its algorithm.
    """

    def content(script: Script) -> tuple[Elements, Iterable[Code]]:
        evidence = elements(CurrentRequestedProcedureEvidenceSequence=list(studies(selection.references)))
        empty = elements(ReferencedPerformedProcedureStepSequence=None)
        return empty | evidence | root(head, selection, script), ()

    return on_letterhead(
        head, kind=kind, sop_class_uid=KeyObjectSelectionDocumentStorage, modality="KO", content=content
    )


def studies(references: Sequence[Reference]) -> Iterator[Elements]:
    """All references by study and series: the evidence (PS3.3 C.17.2.1)."""
    ordered = sorted(references, key=lambda one: (one.study_instance_uid, one.series_instance_uid))
    for study, of_study in groupby(ordered, key=lambda one: one.study_instance_uid):
        series = [
            elements(SeriesInstanceUID=uid, ReferencedSOPSequence=[pointer(one) for one in of_series])
            for uid, of_series in groupby(of_study, key=lambda one: one.series_instance_uid)
        ]
        yield elements(StudyInstanceUID=study, ReferencedSeriesSequence=series)


def pointer(reference: Reference) -> Elements:
    """Class and instance of what is pointed at."""
    return elements(ReferencedSOPClassUID=reference.sop_class_uid, ReferencedSOPInstanceUID=reference.sop_instance_uid)


def root(head: Letterhead, selection: Selection, script: Script) -> Elements:
    """The content tree: TID 2010."""
    title = codes.find(selection.title)
    parts = [coded("HAS CONCEPT MOD", "language", codes.find("english"), script)]
    if selection.reason:
        parts.append(coded("HAS CONCEPT MOD", "document_title_modifier", codes.find(selection.reason), script))
    parts += observer(head, script)
    if selection.description:
        parts.append(
            item("CONTAINS", "TEXT", "key_object_description", script)
            | elements(script, TextValue=selection.description)
        )
    parts += [
        elements(
            RelationshipType="CONTAINS", ValueType=value_type(one.sop_class_uid), ReferencedSOPSequence=[pointer(one)]
        )
        for one in selection.references
    ]
    return elements(
        ValueType="CONTAINER",
        ConceptNameCodeSequence=[code(title, script)],
        ContinuityOfContent="SEPARATE",
        ContentTemplateSequence=[elements(MappingResource="DCMR", TemplateIdentifier="2010")],
        ContentSequence=parts,
    )


def observer(head: Letterhead, script: Script) -> list[Elements]:
    """Who selected: the device that wrote this (TID 1002, TID 1004)."""
    uid = item("HAS OBS CONTEXT", "UIDREF", "device_observer_uid", script) | elements(UID=device(head.algorithm))
    said = {
        "device_observer_name": f"{MANUFACTURER} {head.algorithm.name}",
        "device_observer_manufacturer": MANUFACTURER,
        "device_observer_model_name": head.algorithm.name,
    }
    return [
        coded("HAS OBS CONTEXT", "observer_type", codes.find("device"), script),
        uid,
        *(item("HAS OBS CONTEXT", "TEXT", n, script) | elements(script, TextValue=value) for n, value in said.items()),
    ]


def item(relationship: str, value_type: str, name: str, script: Script) -> Elements:
    """A content item less its value (PS3.3 C.17.3)."""
    return elements(
        RelationshipType=relationship,
        ValueType=value_type,
        ConceptNameCodeSequence=[code(codes.find(name), script)],
    )


def coded(relationship: str, name: str, value: Code, script: Script) -> Elements:
    """A CODE item."""
    return item(relationship, "CODE", name, script) | elements(ConceptCodeSequence=[code(value, script)])


def value_type(sop_class_uid: str) -> str:
    """How an instance of this class is pointed at (PS3.16 TID 2010)."""
    name = UID(sop_class_uid).name
    if sop_class_uid == LABEL_MAP_SEGMENTATION_STORAGE or any(part in name for part in IMAGES):
        return "IMAGE"
    return "WAVEFORM" if name.endswith("Waveform Storage") else "COMPOSITE"
