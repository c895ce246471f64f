"""OHIF on Orthanc shows what we found: the SEG's voxels and colours in their place, the report's lines and numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_sr import pixels, source
from dicom_sr.check import check
from dicom_sr.kinds import Built, Order, measurement_report, segmentation
from dicom_sr.readback import srgb
from pipelines import catalog, phantom
from tests.conftest import REPOSITORY, component, until
from tests.objects import conftest as make
from tests.servers import orthanc
from tests.viewer import ohif

SCREENS = REPOSITORY / "var" / "screens"
PIPELINE = "ct_lung"

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@dataclass(frozen=True, eq=False)
class Case:
    """One study in Orthanc with the result set of the `ohif` profile."""

    name: str
    order: Order
    seg: Dataset
    report: Dataset

    @property
    def study(self) -> str:
        return str(self.seg.StudyInstanceUID)


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ohif.Reader, Any]]:
    """OHIF before an Orthanc."""
    for name in ("Chromium", "Chromedriver", "Orthanc", "Orthanc DICOMweb", "OHIF"):
        component(name)
    with (
        orthanc(tmp_path_factory.mktemp("orthanc"), {}) as archive,
        ohif.served(archive.http_port) as address,
        ohif.reader(address) as reader,
    ):
        yield reader, archive


def images_of(name: str, folder: Path) -> list[Path]:
    """The slices of the phantom, or of the real chest CT."""
    if name == "phantom":
        phantom.write(phantom.chest(), folder)
        return sorted(folder.iterdir())
    return sorted((data_folder() / "chest_ct_philips_brilliance16_5mm" / "dicom").iterdir())


def data_folder() -> Path:
    """Where the real scans lie."""
    from tests.conftest import DATA

    if not DATA.is_dir():
        pytest.skip(f"the real scans are not at {DATA} (set ISOCENTER_DATA)")
    return DATA


@pytest.fixture(scope="module", params=["phantom", "real"])
def case(request: pytest.FixtureRequest, viewer: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The lungs of one CT, found, written for OHIF, let through the gate and stored beside their images."""
    _, archive = viewer
    paths = images_of(request.param, tmp_path_factory.mktemp(request.param))
    case, written = case_of(request.param, paths)
    for content in (*(path.read_bytes() for path in paths), *(one.part10 for one in written)):
        assert archive.http.post("/instances", content=content).status_code == 200
    return case


def case_of(name: str, paths: list[Path]) -> tuple[Case, list[Built]]:
    """The lungs of a CT, found, written for OHIF and let through the gate: its SEG and its report."""
    series = source.read(paths)
    pipeline = catalog.find(PIPELINE)
    findings = pipeline.runner(pixels.load(series), pipeline.spec.settings())
    order = replace(make.order_of(paths, findings), tracking="cornerstone")
    uid = order.uid
    order = replace(order, uid=lambda kind, ordinal: uid(f"{name}.{kind}", ordinal))
    seg = segmentation.build(order)
    assert seg is not None
    report = measurement_report.build(replace(order, companions=(seg,)))
    assert report is not None
    check([seg, report], order)
    read = [pydicom.dcmread(BytesIO(built.part10)) for built in (seg, report)]
    return Case(name, order, *read), [seg, report]


def test_the_segmentation_is_seen_where_it_was_found(viewer: Any, case: Case):
    reader, _ = viewer
    labels, findings = case.order.findings.labels, case.order.findings
    assert labels is not None
    plane = int(np.argmax([(one > 0).sum() for one in labels]))
    shown = case.order.source.planes[plane].sop_instance_uid
    reader.open(case.study)
    assert reader.show(shown) >= 0
    bare = reader.canvas()
    load(reader, case.seg)
    until(lambda: reader.js("window.services.segmentationService.getSegmentations().length"), deadline_s=60,
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
    reader.show(shown)
    over = reader.canvas()
    changed = np.abs(over - bare).max(axis=2) > 6
    assert changed.any()
    assert np.abs(np.subtract(extent(changed), expected(reader, case.order, labels[plane] > 0, plane))).max() < 6
    assert over.max(axis=2).mean() > 5
    panel = reader.panel("panelSegmentation")
    assert all(segment.label in panel for segment in findings.segments)
    reader.picture(SCREENS / f"ohif-{PIPELINE}-{case.name}-seg.png")
    assert reader.complaints() == []


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


def test_the_report_is_drawn_hydrated_and_its_numbers_are_read(viewer: Any, case: Case):
    reader, _ = viewer
    groups = groups_of(case.report)
    series = str(case.report.SeriesInstanceUID)
    reader.open(case.study)
    load(reader, case.report)
    until(lambda: reader.js("!!window.__h.ds(a[0])?.isLoaded", series), deadline_s=60, what="the report in OHIF")
    read = reader.js("window.__h.measurements(a[0])", series)
    assert len(read) == len(groups) > 0
    assert all(one["placed"] for one in read)
    for one, group in zip(read, groups, strict=True):
        for name, value in numbers_of(group):
            assert any(name == said and abs(float(str(v).split()[0]) - value) < 0.006 for said, v in one["labels"])
    drawn_and_numbered(reader, case, groups)
    reader.picture(SCREENS / f"ohif-{PIPELINE}-{case.name}-sr-drawn.png")
    assert reader.accept(15), "OHIF does not offer to take over the measurements"
    until(lambda: len(reader.js("window.services.measurementService.getMeasurements()")) >= len(groups),
          deadline_s=30, what="measurements taken over")  # fmt: skip
    panel = reader.panel("trackedMeasurements")
    reader.picture(SCREENS / f"ohif-{PIPELINE}-{case.name}-sr-hydrated.png")
    assert panel
    drawn_and_numbered(reader, case, groups, numbers=False)
    assert reader.canvas().max(axis=2).mean() > 5
    assert reader.complaints() == []


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
                assert f"{value:.2f}" in said, said
