"""Studies with the result set of the `ohif` profile, and what a reader must see of them, whoever holds them."""

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_sr import pixels, result_set, source
from dicom_sr.kinds import Built, Order
from dicom_sr.readback import srgb
from pipelines import catalog
from router.destinations import Profile
from router.destinations._profile import READY
from tests.conftest import DATA, REPOSITORY, until
from tests.objects import conftest as make
from tests.pipelines import examples
from tests.viewer import ohif

SCREENS = REPOSITORY / "var" / "screens"
REAL = "chest_ct_philips_brilliance16_5mm"

UNSEEN = {"ct_lung_nodule_demo"}
"""What has not been seen right in OHIF yet: Orthanc answers 400 to the frames of the images drawn for it."""

EXEMPLARS = (*((name, "phantom") for name in catalog.own() if name not in UNSEEN), ("ct_lung", "real"))
"""Each other pipeline of the catalogue on the phantom that it takes, and the lungs of a real patient."""


@dataclass(frozen=True, eq=False)
class Case:
    """One study with the result set of the `ohif` profile."""

    name: str
    order: Order
    seg: Dataset | None
    """None where nothing is delineated."""
    report: Dataset

    @property
    def study(self) -> str:
        return str(self.report.StudyInstanceUID)


def images_of(pipeline: str, name: str, folder: Path) -> list[Path]:
    """The slices of the phantom that this pipeline takes, or of the real chest CT."""
    if name == "phantom":
        return examples.written(pipeline, folder)
    if not DATA.is_dir():
        pytest.skip(f"the real scans are not at {DATA} (set ISOCENTER_DATA)")
    return sorted((DATA / REAL / "dicom").iterdir())


def case_of(pipeline: str, name: str, paths: list[Path], profile: Profile = READY["ohif"]) -> tuple[Case, list[Built]]:
    """What a pipeline finds, written for OHIF and let through the gate: its SEG and its report."""
    series, entry = source.read(paths), catalog.find(pipeline)
    findings = entry.runner(pixels.load(series), entry.spec.settings())
    order = replace(
        make.order_of(paths, findings), pipeline=pipeline, title=entry.spec.title, tracking=profile.tracking,
        settings=profile.settings,
    )  # fmt: skip
    uid = order.uid
    order = replace(order, uid=lambda kind, ordinal: uid(f"{pipeline}.{name}.{kind}", ordinal))
    made = list(result_set.build(profile.kinds, order))
    read = {built.kind: pydicom.dcmread(BytesIO(built.part10)) for built in made}
    return Case(f"{pipeline}-{name}", order, read.get("segmentation"), read["measurement_report"]), made


def segmentation_is_seen(reader: ohif.Reader, case: Case, picture: str) -> None:
    """The SEG lies where it was found, voxel for voxel, under its own names and colours, and nobody complains."""
    assert case.seg is not None
    findings = case.order.findings
    shown = np.array([np.any([layer[index] > 0 for layer in findings.layers], axis=0)
                      for index in range(case.order.source.shape[0])])  # fmt: skip
    plane = int(np.argmax(shown.sum(axis=(1, 2))))
    image = case.order.source.planes[plane].sop_instance_uid
    reader.open(case.study)
    assert reader.show(image) >= 0
    bare = reader.canvas()
    load(reader, case.seg)
    until(lambda: reader.js("window.services.segmentationService.getSegmentations().length"), deadline_s=90,
          what="a segmentation in OHIF")  # fmt: skip
    reader.accept()
    (found,) = reader.js("window.__h.segmentations()")
    assert found["labels"] == [segment.label for segment in findings.segments]
    assert {int(number): count for number, count in found["voxels"].items()} == findings.voxels
    for segment, item in zip(findings.segments, case.seg.SegmentSequence, strict=True):
        colour = reader.js(
            "Array.from(window.cornerstoneTools.segmentation.config.color.getSegmentIndexColor("
            "window.__h.vp().id, a[0], a[1])).slice(0, 3)", found["id"], segment.number,
        )  # fmt: skip
        wanted = srgb(tuple(map(float, item.RecommendedDisplayCIELabValue)))
        assert np.abs(np.subtract(colour, wanted)).max() < 40
    reader.show(image)
    over = reader.canvas()
    changed = np.abs(over - bare).max(axis=2) > 6
    assert changed.any()
    assert np.abs(np.subtract(extent(changed), expected(reader, case.order, shown[plane], plane))).max() < 6
    assert over.max(axis=2).mean() > 5
    panel = reader.panel("panelSegmentation")
    assert all(segment.label in panel for segment in findings.segments)
    reader.picture(SCREENS / f"{picture}.png")
    assert reader.complaints() == []


def report_is_read(reader: ohif.Reader, case: Case) -> list[Dataset]:
    """OHIF reads each measurement group of the report, on its slice, with its numbers; the groups."""
    groups, series = groups_of(case.report), str(case.report.SeriesInstanceUID)
    reader.open(case.study)
    load(reader, case.report)
    until(lambda: reader.js("!!window.__h.ds(a[0])?.isLoaded", series), deadline_s=90, what="the report in OHIF")
    read = reader.js("window.__h.measurements(a[0])", series)
    assert len(read) == len(groups) > 0
    assert all(one["placed"] for one in read)
    for one, group in zip(read, groups, strict=True):
        for name, value in numbers_of(group):
            assert any(name == said and abs(number_of(shown) - value) < 0.006 for said, shown in one["labels"])
    return groups


def number_of(shown: str) -> float:
    """The number before a unit; OHIF shows none for 0."""
    first = shown.split()[0]
    return float(first) if first[-1].isdigit() else 0.0


def load(reader: ohif.Reader, dataset: Dataset) -> None:
    """Double-click this object's series."""
    reader.load(str(dataset.SeriesDescription), modality=str(dataset.Modality))


def extent(mask: np.ndarray) -> list[float]:
    """Left, top, right and bottom of what is set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])]


def expected(reader: ohif.Reader, order: Order, mask: np.ndarray, plane: int) -> list[float]:
    """The same as the viewport must show it, from the patient's millimetres."""
    left, top, right, bottom = extent(mask)
    corners = [order.source.affine @ (plane, row, column, 1) for row, column in ((top, left), (bottom, right))]
    on_canvas = "(() => { const v = window.__h.vp(), r = v.getCanvas().width / v.getCanvas().clientWidth;"
    on_canvas += " return a[0].map(c => Array.from(v.worldToCanvas(c)).map(z => z * r)); })()"
    (x0, y0), (x1, y1) = reader.js(on_canvas, [[float(x) for x in corner[:3]] for corner in corners])
    return [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]


def groups_of(report: Dataset) -> list[Dataset]:
    """The measurement groups of a report."""
    (container,) = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"]
    return [i for i in container.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "125007"]


def numbers_of(group: Dataset) -> list[tuple[str, float]]:
    """Name and value of each number."""
    return [
        (str(item.ConceptNameCodeSequence[0].CodeMeaning), float(item.MeasuredValueSequence[0].NumericValue))
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    ]


def outlines_of(group: Dataset, order: Order) -> tuple[str, list[list[float]]]:
    """The image of a group's outline and its points in patient millimetres."""
    line = next(
        child
        for item in group.ContentSequence
        if item.ValueType == "NUM"
        for child in item.ContentSequence
        if child.ValueType == "SCOORD"
    )
    uid = str(line.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    plane = next(i for i, one in enumerate(order.source.planes) if one.sop_instance_uid == uid)
    points = np.array(line.GraphicData).reshape(-1, 2) - 0.5
    return uid, [[float(x) for x in (order.source.affine @ (plane, row, column, 1))[:3]] for column, row in points]


def drawn_and_numbered(reader: ohif.Reader, case: Case, groups: list[Dataset], *, numbers: bool = True) -> None:
    """Each group's outline is drawn on its slice, nine points in ten of it, with its numbers beside it."""
    for group in groups:
        image, points = outlines_of(group, case.order)
        assert reader.show(image) >= 0
        drawn = reader.drawn()
        at = reader.js("window.__h.inGrid(a[0])", points)
        hit = [drawn[max(round(y) - 6, 0) : round(y) + 7, max(round(x) - 6, 0) : round(x) + 7].any() for x, y in at]
        assert np.mean(hit) >= 0.9
        said = reader.js("[...document.querySelectorAll('svg.svg-layer text')].map(t => t.textContent).join(' | ')")
        if numbers:
            for _, value in numbers_of(group):
                assert value == 0 or f"{value:.2f}" in said, said
