"""What each entry of the catalogue says of a phantom passes the gate as SEG and SR, without an error for dciodvfy."""

from pathlib import Path

import pytest

from dicom_sr import result_set, source
from pipelines import catalog
from tests.conftest import component
from tests.objects.conftest import order_of
from tests.objects.test_conformance import errors, output
from tests.pipelines.examples import said_of, written

KINDS = ("segmentation", "measurement_report")


@pytest.mark.parametrize("name", catalog.own())
def test_the_objects_of_an_entry_are_sound(name: str, tmp_path: Path) -> None:
    component("dicom3tools")
    paths = written(name, tmp_path / "source")
    findings = said_of(name)
    built = result_set.build(KINDS, order_of(paths, findings, source=source.read(paths), pipeline=name))
    wanted = KINDS if findings.segments else KINDS[1:]
    assert tuple(one.kind for one in built) == wanted
    for one in built:
        path = tmp_path / f"{one.kind}.dcm"
        path.write_bytes(one.part10)
        assert errors(output("dciodvfy", str(path))) == []
