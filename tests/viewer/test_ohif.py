"""OHIF on Orthanc shows what every pipeline finds: the SEG in its place and colours, the report's lines and numbers."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import component, until
from tests.servers import orthanc
from tests.viewer import ohif
from tests.viewer.cases import (
    EXEMPLARS,
    SCREENS,
    Case,
    case_of,
    drawn_and_numbered,
    images_of,
    report_is_read,
    segmentation_is_seen,
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


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


@pytest.fixture(scope="module", params=EXEMPLARS, ids="-".join)
def case(request: pytest.FixtureRequest, viewer: Any, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """What one pipeline found on one CT, stored beside its images."""
    _, archive = viewer
    paths = images_of(*request.param, tmp_path_factory.mktemp("images"))
    case, written = case_of(*request.param, paths)
    for content in (*(path.read_bytes() for path in paths), *(one.part10 for one in written)):
        assert archive.http.post("/instances", content=content).status_code == 200
    return case


def test_the_segmentation_is_seen_where_it_was_found(viewer: Any, case: Case):
    reader, _ = viewer
    if case.seg is None:
        assert not case.order.findings.segments
        return
    segmentation_is_seen(reader, case, f"ohif-{case.name}-seg")


def test_the_report_is_drawn_hydrated_and_its_numbers_are_read(viewer: Any, case: Case):
    reader, _ = viewer
    groups = report_is_read(reader, case)
    drawn_and_numbered(reader, case, groups)
    reader.picture(SCREENS / f"ohif-{case.name}-sr-drawn.png")
    assert reader.accept(15), "OHIF does not offer to take over the measurements"
    until(lambda: len(reader.js("window.services.measurementService.getMeasurements()")) >= len(groups),
          deadline_s=60, what="measurements taken over")  # fmt: skip
    panel = reader.panel("trackedMeasurements")
    reader.picture(SCREENS / f"ohif-{case.name}-sr-hydrated.png")
    assert panel
    drawn_and_numbered(reader, case, groups[:1], numbers=False)
    assert reader.canvas().max(axis=2).mean() > 5
    assert reader.complaints() == []
