"""Result kind `measurement_report`: an SR, TID 1500, of the class that the order names, that says all findings.

Measured segments are TID 1411 groups on the SEG of the same result set, or TID 1501 groups where it has none; for
viewers that draw nothing else they are TID 1501 groups with the segment's outline on its fullest slice at every number,
and groups about the whole image have its edge there. Boxes are TID 1411 groups, or rectangles on the nearest slice (TID
1410) where the class has no SCOORD3D; regions are TID 1410 groups. A withheld number is a coded "not attempted" with
its reason beside it. What was looked for and not found, and what a reader must know of the whole (intended use,
completeness, remarks), stands under Qualitative Evaluations. There is no image library but of the slices that are drawn
on: the evidence names every image. UIDs of an order used here: "measurement_report", "measurement_report.series",
"tracking" with the segment's number, "finding" with a running one.

Source:  PS3.3 A.35.2, A.35.3, A.35.13, C.17; PS3.16 TID 1500, 1410, 1411, 1419, 1501, 300, 320, 1204, 1001, 1600, 4019
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from dicom_sr import codes, outline
from dicom_sr.elements import Elements, coded, element, elements, tag_of, word
from dicom_sr.header import MANUFACTURER, REQUEST, device, written
from dicom_sr.kinds import Built, Order
from dicom_sr.nouns import Box, Code, Evaluation, Measurement, MeasurementGroup, NotFound
from dicom_sr.references import delineated, evidence, frame_of_reference, instance, instances, tracking
from dicom_sr.script import Script

KIND = "measurement_report"

RESEARCH_USE = "For research use only. Not for clinical diagnosis; no person has verified these results."
PRODUCT_USE = "Made by an algorithm; no person has verified these results."

SOP_CLASSES = {
    "comprehensive3d": Comprehensive3DSRStorage,
    "comprehensive": ComprehensiveSRStorage,
    "enhanced": EnhancedSRStorage,
}

CORNERSTONE = "Cornerstone3DTools@^0.1.0:"
"""OHIF makes its own annotation of a group whose tracking identifier begins so and goes on with the tool's name."""

PROCEDURES = {
    "CT": "ct_unspecified_body_region",
    "MR": "mri_unspecified_body_region",
    "PT": "pet_unspecified_body_region",
    "CR": "xr_unspecified_body_region",
    "DX": "xr_unspecified_body_region",
}
"""CID 100 for the imaging procedure that is reported on, by modality; "imaging_procedure" for others."""


VALUE_TYPE, CONCEPT_NAME, CONCEPT_CODE, RELATIONSHIP, CONTENT, UNITS = map(
    tag_of,
    (
        "ValueType",
        "ConceptNameCodeSequence",
        "ConceptCodeSequence",
        "RelationshipType",
        "ContentSequence",
        "MeasurementUnitsCodeSequence",
    ),
)
"""Tags of what every content item has."""


def build(order: Order) -> Built | None:
    """The SR of these findings; there is always something to say, if only what was not found."""

    def content(script: Script) -> tuple[Elements, Iterable[Code]]:
        writer = Writer(order=order, script=script)
        return document(order, script) | writer.root(), own_codes(order)

    return written(order, kind=KIND, sop_class_uid=SOP_CLASSES[order.sr], modality="SR", content=content)


def drawn(order: Order, group: MeasurementGroup) -> outline.Drawn | None:
    """What is drawn of this group on a slice, None where it is said otherwise or lies nowhere.

    Raises:  NotOnASlice
    """
    cornerstone = order.tracking == "cornerstone"
    if group.region is not None:
        return outline.of_region(group.region, order.source)
    if group.box is not None:
        return outline.of_box(group.box, order.source) if order.sr != "comprehensive3d" or cornerstone else None
    if not cornerstone:
        return None
    if group.segment_number is not None:
        return outline.of_segment(order.findings, group.segment_number)
    return outline.of_everything(order.source)


def template(order: Order, group: MeasurementGroup) -> str:
    """The template of this group: 1411 on a segment of the set's SEG or in a box, 1410 on a slice, else 1501.

    Cornerstone takes over a number that has its own line (TID 1501 with TID 320), and a region without one.
    """
    numbered = any(measurement.value is not None for measurement in group.measurements)
    if drawn(order, group) is not None:
        return "1501" if order.tracking == "cornerstone" and numbered else "1410"
    seg = group.segment_number is not None and delineated(order, group.segment_number) is not None
    return "1411" if seg or group.box is not None else "1501"


def document(order: Order, script: Script) -> Elements:
    """SR Document General module: complete, unverified, with every referenced instance as evidence."""
    requests = [_request(order, item, script) for item in order.source.header.get(REQUEST) or ()]
    answered = elements(ReferencedRequestSequence=requests) if requests else {}
    return (
        elements(
            CompletionFlag="COMPLETE",
            VerificationFlag="UNVERIFIED",
            PerformedProcedureCodeSequence=None,
            ReferencedPerformedProcedureStepSequence=None,
        )
        | answered
        | predecessors(order)
        | evidence(order, order.results)
    )


def predecessors(order: Order) -> Elements:
    """The reports whose place this one takes, if any (PS3.3 C.17.2, Predecessor Documents Sequence)."""
    objects = order.supersedes.objects if order.supersedes else ()
    reports = [one for one in objects if one.sop_class_uid in SOP_CLASSES.values()]
    return elements(PredecessorDocumentsSequence=instances(reports)) if reports else {}


def own_codes(order: Order) -> list[Code]:
    """The codes of the report that may be ours and then must be declared."""
    findings = order.findings
    used = [codes.find(name) for name in ("intended_use", "completeness")]
    for group in findings.groups:
        used += [group.finding, group.site]
        used += [part for m in group.measurements for part in (m.name, m.unit, m.derivation) if part is not None]
        used += [part for e in group.evaluations for part in (e.name, e.answer) if isinstance(part, Code)]
        used += [codes.find("withheld_reason")] if any(m.withheld for m in group.measurements) else []
    for missing in findings.not_found:
        used += [missing.finding, *(codes.find(name) for name in ("outcome", "not_found", "outcome_reason"))]
    return used


def _request(order: Order, item: Dataset, script: Script) -> Elements:
    """One requested procedure as ReferencedRequestSequence says it (PS3.3 C.17.2), from the source's own words."""
    header = order.source.header
    empty = elements(
        ReferencedStudySequence=None,
        AccessionNumber=None,
        PlacerOrderNumberImagingServiceRequest=None,
        FillerOrderNumberImagingServiceRequest=None,
        RequestedProcedureID=None,
        RequestedProcedureDescription=None,
        RequestedProcedureCodeSequence=None,
    )
    of_study = script.copied(header, ("StudyInstanceUID", "AccessionNumber", "IssuerOfAccessionNumberSequence"))
    asked = ("RequestedProcedureID", "RequestedProcedureDescription", "RequestedProcedureCodeSequence")
    return empty | of_study | script.copied(item, (*asked, "AccessionNumber", "IssuerOfAccessionNumberSequence"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Content items of one report (PS3.3 C.17.3), in its script."""

    order: Order
    script: Script

    def root(self) -> Elements:
        """The whole content tree: TID 1500."""
        title = codes.find("imaging_measurement_report")
        content = [*self._context(), *self._library(), self._measurements(), self._statements()]
        return self._container(title, "1500", content, "SEPARATE")

    def _library(self) -> Iterator[Elements]:
        """Image Library: the slices that are drawn on, and only they (TID 1600)."""
        order = self.order
        on = {line.plane for group in order.findings.groups if (line := drawn(order, group)) is not None}
        images = [self._image("CONTAINS", None, plane) for plane in sorted(on)]
        if images:
            listed = self._container(codes.find("image_library_group"), None, images, "CONTINUOUS", "CONTAINS")
            yield self._container(codes.find("image_library"), "1600", [listed], "CONTINUOUS", "CONTAINS")

    def _context(self) -> Iterator[Elements]:
        """What changed since an earlier report; language, who observed, and what procedure is reported on."""
        algorithm, modality = self.order.findings.algorithm, self.order.source.acquisition.modality
        procedure = codes.find(PROCEDURES.get(modality, "imaging_procedure"))
        if self.order.supersedes:
            yield self._text("CONTAINS", "comment", self.order.supersedes.change)
        yield self._code("HAS CONCEPT MOD", "language", codes.find("english"))
        yield self._code("HAS OBS CONTEXT", "observer_type", codes.find("device"))
        yield self._uid("HAS OBS CONTEXT", "device_observer_uid", device(algorithm))
        yield self._text("HAS OBS CONTEXT", "device_observer_name", f"{MANUFACTURER} {algorithm.name}")
        yield self._text("HAS OBS CONTEXT", "device_observer_manufacturer", MANUFACTURER)
        yield self._text("HAS OBS CONTEXT", "device_observer_model_name", algorithm.name)
        yield self._code("HAS CONCEPT MOD", "procedure_reported", procedure)

    def _measurements(self) -> Elements:
        """Imaging Measurements: by which algorithm, and a group for each finding, if any."""
        groups = [self._group(number, group) for number, group in enumerate(self.order.findings.groups, start=1)]
        title = codes.find("imaging_measurements")
        return self._container(title, None, [*self._algorithm(), *groups], "CONTINUOUS", "CONTAINS")

    def _statements(self) -> Elements:
        """Qualitative Evaluations: what holds for the whole report, and what was not found."""
        order = self.order
        said = [
            *(part for missing in order.findings.not_found for part in self._missing(missing)),
            self._text("CONTAINS", "intended_use", RESEARCH_USE if order.research else PRODUCT_USE),
            self._text("CONTAINS", "completeness", order.completeness),
            *(self._text("CONTAINS", "comment", remark) for remark in order.findings.remarks),
        ]
        return self._container(codes.find("qualitative_evaluations"), None, said, "CONTINUOUS", "CONTAINS")

    def _algorithm(self) -> list[Elements]:
        """TID 4019: name, version, and as parameters the weights and the settings."""
        algorithm = self.order.findings.algorithm
        parameters = [("weights", algorithm.weights_digest or "none"), *algorithm.parameters]
        return [
            self._text("HAS CONCEPT MOD", "algorithm_name", algorithm.name),
            self._text("HAS CONCEPT MOD", "algorithm_version", algorithm.version),
            *(self._text("HAS CONCEPT MOD", "algorithm_parameters", f"{n}: {value}") for n, value in parameters),
        ]

    def _group(self, number: int, group: MeasurementGroup) -> Elements:
        """One measurement group, by the template that fits what it lies on."""
        order, segment = self.order, group.segment_number
        kind, line = template(order, group), drawn(order, group)
        at = delineated(order, segment) if segment else None
        name, uid = tracking(order, segment) if segment else (group.label, order.uid("finding", number))
        tool = {"POINT": "Probe", "POLYLINE": "PlanarFreehandROI"}[line.graphic_type] if line else ""
        category = [s.category for s in order.findings.segments if s.number == segment]
        volumetric = kind == "1411"
        at_numbers = line if kind == "1501" else None
        content = [
            *self._tracked(CORNERSTONE + tool if order.tracking == "cornerstone" and line else name, uid),
            *(self._code("CONTAINS", "finding_category", found) for found in category if volumetric),
            self._code("CONTAINS", "finding", group.finding),
            self._site(group.site, group.laterality),
            *(self._segment(*at) if at and volumetric else ()),
            *(self._surface(group.box) if group.box and volumetric else ()),
            *([self._line("CONTAINS", "image_region", line)] if line and kind == "1410" else ()),
            *(self._made_from() if volumetric else ()),
            *(self._number(measurement, at_numbers) for measurement in group.measurements),
            *(self._evaluation(evaluation) for evaluation in group.evaluations),
            *self._words(group.measurements, name if order.tracking == "cornerstone" and line else None),
        ]
        return self._container(codes.find("measurement_group"), kind, content, "CONTINUOUS", "CONTAINS")

    def _line(self, relationship: str, name: str, line: outline.Drawn) -> Elements:
        """SCOORD: what is drawn, on which slice (TID 320)."""
        image = self._image("SELECTED FROM", "source_image_of_region", line.plane)
        return self._item(relationship, "SCOORD", codes.find(name), [image]) | elements(
            GraphicType=line.graphic_type, GraphicData=[float(value) for value in line.points.ravel()]
        )

    def _image(self, relationship: str, name: str | None, plane: int) -> Elements:
        reference = elements(ReferencedSOPSequence=[instance(self.order.source.planes[plane], frame=True)])
        return self._item(relationship, "IMAGE", codes.find(name) if name else None) | reference

    def _missing(self, missing: NotFound) -> tuple[Elements, Elements]:
        """A negative result: the outcome, of which structure, and why.

        It stands here and not as a TID 1501 group: PixelMed holds every group beside a TID 1411 one to that template.
        """
        side = [self._code("HAS CONCEPT MOD", "laterality", missing.laterality)] if missing.laterality else []
        of = [self._code("HAS CONCEPT MOD", "finding_site", missing.finding), *side]
        return (
            self._code("CONTAINS", "outcome", codes.find("not_found"), of),
            self._text("CONTAINS", "outcome_reason", f"{missing.label}: {missing.reason}"),
        )

    def _tracked(self, name: str, uid: str) -> tuple[Elements, Elements]:
        return (
            self._text("HAS OBS CONTEXT", "tracking_identifier", name),
            self._uid("HAS OBS CONTEXT", "tracking_unique_identifier", uid),
        )

    def _site(self, site: Code, laterality: Code | None) -> Elements:
        side = [self._code("HAS CONCEPT MOD", "laterality", laterality)] if laterality else []
        return self._code("HAS CONCEPT MOD", "finding_site", site, side)

    def _segment(self, seg: Built, number: int) -> Iterator[Elements]:
        reference = elements(
            ReferencedSOPClassUID=seg.sop_class_uid,
            ReferencedSOPInstanceUID=seg.sop_instance_uid,
            ReferencedSegmentNumber=number,
        )
        image = self._item("CONTAINS", "IMAGE", codes.find("referenced_segment"))
        yield image | elements(ReferencedSOPSequence=[reference])

    def _surface(self, box: Box) -> Iterator[Elements]:
        """The six faces of a box as closed polygons: a volume surface, exact and without a slice of its own."""
        for axis in range(3):
            for at in (box.minimum[axis], box.maximum[axis]):
                item = self._item("CONTAINS", "SCOORD3D", codes.find("volume_surface"))
                yield item | elements(
                    GraphicType="POLYGON",
                    GraphicData=[value for corner in face(box, axis, at) for value in corner],
                    ReferencedFrameOfReferenceUID=frame_of_reference(self.order),
                )

    def _made_from(self) -> Iterator[Elements]:
        series = self.order.source.acquisition.series_instance_uid
        yield self._uid("CONTAINS", "source_series_for_segmentation", series)

    def _number(self, measurement: Measurement, line: outline.Drawn | None = None) -> Elements:
        """A NUM; a withheld one is a CODE instead (CID 42), since readers fail on a NUM without value."""
        if measurement.value is None:
            return self._answer("CONTAINS", measurement.name, codes.find("measurement_not_attempted"))
        measured = elements(
            NumericValue=measurement.value,
            FloatingPointValue=measurement.value,
        )
        measured[UNITS] = coded("MeasurementUnitsCodeSequence", measurement.unit, self.script)
        meaning = [
            self._text("HAS CONCEPT MOD", "equivalent_meaning", t.definition) for t in codes.own([measurement.name])
        ]
        derived = (
            [self._code("HAS CONCEPT MOD", "derivation", measurement.derivation)] if measurement.derivation else []
        )
        measured_on = [self._line("INFERRED FROM", "source_of_measurement", line)] if line else []
        return self._item("CONTAINS", "NUM", measurement.name, [*meaning, *derived, *measured_on]) | elements(
            MeasuredValueSequence=[measured]
        )

    def _evaluation(self, evaluation: Evaluation) -> Elements:
        if isinstance(evaluation.answer, Code):
            return self._answer("CONTAINS", evaluation.name, evaluation.answer)
        return self._item("CONTAINS", "TEXT", evaluation.name) | elements(self.script, TextValue=evaluation.answer)

    def _words(self, measurements: Sequence[Measurement], name: str | None) -> Iterator[Elements]:
        """Why numbers of this group are withheld, and what is to be said of those that are given.

        With the group's name all of it is one comment: OHIF shows five lines, texts before numbers.
        """
        said = [("withheld_reason", one, one.withheld) for one in measurements if one.withheld is not None]
        said += [("comment", one, one.remark) for one in measurements if one.remark is not None]
        if name is None:
            yield from (self._text("CONTAINS", kind, f"{title(one)}: {words}") for kind, one, words in said)
        else:
            yield self._text(
                "CONTAINS", "comment", "; ".join([name, *(f"{title(m)}: {words}" for _, m, words in said)])
            )

    def _container(
        self,
        name: Code,
        template: str | None,
        content: list[Elements],
        continuity: str,
        relationship: str | None = None,
    ) -> Elements:
        identified = [elements(MappingResource="DCMR", TemplateIdentifier=template)] if template else None
        return (
            self._item(relationship, "CONTAINER", name, content)
            | elements(ContinuityOfContent=continuity)
            | (elements(ContentTemplateSequence=identified) if identified else {})
        )

    def _code(self, relationship: str, name: str, value: Code, content: Iterable[Elements] = ()) -> Elements:
        return self._answer(relationship, codes.find(name), value, content)

    def _answer(self, relationship: str, name: Code, value: Code, content: Iterable[Elements] = ()) -> Elements:
        answer = self._item(relationship, "CODE", name, content)
        answer[CONCEPT_CODE] = coded("ConceptCodeSequence", value, self.script)
        return answer

    def _text(self, relationship: str, name: str, value: str) -> Elements:
        return self._item(relationship, "TEXT", codes.find(name)) | elements(self.script, TextValue=value)

    def _uid(self, relationship: str, name: str, value: str) -> Elements:
        return self._item(relationship, "UIDREF", codes.find(name)) | elements(UID=value)

    def _item(
        self, relationship: str | None, value_type: str, name: Code | None, content: Iterable[Elements] = ()
    ) -> Elements:
        parts = list(content)
        made = {VALUE_TYPE: word("ValueType", value_type)}
        if name:
            made[CONCEPT_NAME] = coded("ConceptNameCodeSequence", name, self.script)
        if relationship:
            made[RELATIONSHIP] = word("RelationshipType", relationship)
        if parts:
            made[CONTENT] = element("ContentSequence", parts)
        return made


def title(measurement: Measurement) -> str:
    """What a person calls this measurement: "Attenuation Coefficient (Mean)"."""
    derivation = f" ({measurement.derivation.meaning})" if measurement.derivation else ""
    return measurement.name.meaning + derivation


def face(box: Box, axis: int, at: float) -> list[tuple[float, ...]]:
    """The corners of the box's face across this axis, closed: the first again as the last."""
    first, second = (other for other in range(3) if other != axis)
    corners = []
    for low_first, low_second in ((True, True), (False, True), (False, False), (True, False), (True, True)):
        corner = [at, at, at]
        corner[first] = (box.minimum if low_first else box.maximum)[first]
        corner[second] = (box.minimum if low_second else box.maximum)[second]
        corners.append(tuple(corner))
    return corners
