"""Destination profiles: what kinds of results a destination gets, and how. Equal profiles share the same objects."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_sr.kinds import NOTE, SRClass, Tracking
from dicom_sr.uids import LABEL_MAP_SEGMENTATION_STORAGE
from router.config import Section


class Profile(Section):
    """What a destination gets. The report is sent last, and references everything else in the set."""

    seg: Literal["binary", "labelmap", "fractional", "none"] = Field(
        "binary",
        description="Segmentation: a mask a segment, one map of labels, run-length encoded, or fractions of segments "
        "for which a pipeline gives probabilities, and masks of the others",
    )
    split_frames_above: int | None = Field(
        None,
        ge=100,
        description="Frames of a binary SEG from which on its segments are spread over several; a segment "
        "stays whole, however many frames it has, since the report points at it in one object",
    )
    sr: SRClass | Literal["none"] = Field("comprehensive3d", description="Structured report, and its class")
    tracking: Tracking = Field("plain", description="cornerstone: measured segments as outlines that OHIF takes over")
    overlay: Literal["none", "key", "all"] = Field("none", description="Slices with the segments drawn in")
    summary: bool = Field(False, description="One page of measurements and key slices, as a picture")
    gsps: bool = Field(False, description="Presentation state with the outlines")
    parametric_map: bool = Field(False, description="Saliencies, probabilities and other maps of numbers, as floats")
    rtstruct: bool = Field(False, description="Structure set with the outlines, for planning systems")
    pdf: bool = Field(False, description="Measurements and key slices as an encapsulated PDF")
    key_objects: bool = Field(False, description="Key object selection of the key images and all results")
    reject_superseded: bool = Field(
        False,
        description="Before a set that takes an earlier one's place: a key object selection that rejects the old "
        "objects, for archives that hide them then (IHE IOCM); in the old study when the images were moved",
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not set(self.kinds) - {NOTE}:
            raise ValueError("a profile without any kind of result")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """Result kinds in the order in which they are built and sent."""
        wanted = {
            NOTE: self.reject_superseded,
            "segmentation": self.seg == "binary",
            "label_map": self.seg == "labelmap",
            "fractional": self.seg == "fractional",
            "parametric_map": self.parametric_map,
            "overlay": self.overlay != "none",
            "summary": self.summary,
            "presentation_state": self.gsps,
            "rtstruct": self.rtstruct,
            "encapsulated_pdf": self.pdf,
            "key_objects": self.key_objects,
            "measurement_report": self.sr != "none",
        }
        return tuple(kind for kind, wants in wanted.items() if wants)

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """What the kinds that have choices are told."""
        wanted: dict[str, dict[str, Any]] = {}
        if self.split_frames_above is not None:
            wanted["segmentation"] = {"split_frames_above": self.split_frames_above}
        if self.overlay != "none":
            wanted["overlay"] = {"slices": self.overlay}
        return wanted

    def canonical(self) -> str:
        """One text for equal profiles: what a result set is known by, and a part of the UIDs in it."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))

    def without(self, sop_class_uids: frozenset[str]) -> "Profile | None":
        """What a destination that refuses these SOP classes gets instead; None where nothing is left.

        A refused label map becomes a binary SEG, a refused segmentation key slices with the segments drawn in, a
        refused report one of a simpler class, and where no class is taken the page of measurements, unless those are
        refused, too.
        """
        refused = {field for uid, field in FIELDS.items() if uid in sop_class_uids}
        pictures = "pictures" not in refused
        changed: dict[str, Any] = {}
        if {"binary": "seg", "fractional": "seg", "labelmap": "label map"}.get(self.seg) in refused:
            changed["seg"] = "binary" if self.seg == "labelmap" and "seg" not in refused else "none"
        classes = [name for name in REPORTS if f"sr {name}" not in refused]
        later = [name for name in classes if self.sr != "none" and REPORTS.index(name) >= REPORTS.index(self.sr)]
        if self.sr != "none" and self.sr not in later:
            changed["sr"] = later[0] if later else "none"
        changed |= {name: False for name in ALONE if name in refused}
        changed |= {"reject_superseded": False} if "key_objects" in refused else {}
        if not pictures:
            changed |= {"overlay": "none", "summary": False}
        elif self.overlay == "none" and changed.get("seg") == "none":
            changed["overlay"] = "key"
        if pictures and changed.get("sr") == "none":
            changed["summary"] = True
        values = self.model_dump() | changed
        return None if not set(self.model_construct(**values).kinds) - {NOTE} else Profile(**values)


ALONE = ("gsps", "parametric_map", "rtstruct", "pdf", "key_objects")
"""Kinds in whose place nothing comes when they are refused."""

REPORTS: tuple[SRClass, ...] = ("comprehensive3d", "comprehensive", "enhanced")
"""Classes of report, each simpler than the one before."""

FIELDS: dict[str, str] = {
    str(SegmentationStorage): "seg",
    LABEL_MAP_SEGMENTATION_STORAGE: "label map",
    str(Comprehensive3DSRStorage): "sr comprehensive3d",
    str(ComprehensiveSRStorage): "sr comprehensive",
    str(EnhancedSRStorage): "sr enhanced",
    str(SecondaryCaptureImageStorage): "pictures",
    str(GrayscaleSoftcopyPresentationStateStorage): "gsps",
    str(ParametricMapStorage): "parametric_map",
    str(RTStructureSetStorage): "rtstruct",
    str(EncapsulatedPDFStorage): "pdf",
    str(KeyObjectSelectionDocumentStorage): "key_objects",
}
"""Which choice of a profile a refused SOP class concerns."""

READY: dict[str, Profile] = {
    "generic": Profile(),
    "ohif": Profile(tracking="cornerstone"),
    "slicer": Profile(),
    "orthanc": Profile(),
    "legacy-pacs": Profile(seg="none", sr="comprehensive", overlay="key", summary=True),
}
"""Profiles by the kind of system behind a destination."""


def ready(value: Any) -> Any:
    """The ready profile where a name stands."""
    if not isinstance(value, str):
        return value
    if value not in READY:
        raise ValueError(
            f"there is no profile {value!r}; choose one of: {', '.join(READY)}, or give fields of your own"
        )
    return READY[value]


Chosen = Annotated[Profile, BeforeValidator(ready)]
