"""Other people's validators find no error in our objects, and each finds one in an object that is bad."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_sr import codes, result_set
from dicom_sr.kinds import NOTE, Order, SRClass, Tracking, names
from dicom_sr.nouns import Box, Findings, MeasurementGroup, Region
from tests.conftest import component
from tests.objects import conftest as make
from tests.objects.test_gate import content, group
from tests.objects.test_maps import mapped

LIMITS = (
    "xpathExprGrpLimit",
    "xpathExprOpLimit",
    "xpathTotalOpLimit",
    "entityExpansionLimit",
    "totalEntitySizeLimit",
    "maxGeneralEntitySizeLimit",
)
JAVA = ["java", "-Djava.awt.headless=true", "-Xss64m", *(f"-Djdk.xml.{limit}=0" for limit in LIMITS)]
JAVA += ["-cp", "/usr/share/java/pixelmed.jar"]
"""PixelMed's style sheets need more XPath operators than Java 17 allows; its own wrapper fails and exits 0."""

KINDS = sorted(names(), key=lambda kind: (kind == "measurement_report", kind == "key_objects", kind != "segmentation"))
"""Every kind, the segmentation first, the selection and the report last."""

OTHERS = sorted(set(KINDS) - {"segmentation", "label_map", "measurement_report"})

FALSE_ALARMS = {
    r"GeneralSeriesModule/Laterality/: : Missing conditional attribute": "2C, only beside a paired BodyPartExamined, "
    "which we do not send; PixelMed 2022 raises it whenever it cannot see one",
}

BEFORE_LABEL_MAPS = {
    r"Information Object Not found": "Debian's dicom3tools is older than Supplement 243 and cannot judge one",
    r"SegmentNumber not monotonically increasing .* with SegmentNumber of 0": "the rule of BINARY and FRACTIONAL; a "
    "LABELMAP describes its background as 0 (PS3.3 C.8.20.2.3)",
    r"Shall not be present for Referenced SOP Class that is not segmentation.*ReferencedSegmentNumber": "it takes the "
    "one SOP Class for a segmentation, and none of Supplement 243",
}
"""What tools say that do not know the SOP Class of label maps."""


def output(*command: str) -> str:
    """What a tool prints; that it ran at all is checked."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=240)
    said = done.stdout + done.stderr
    assert done.returncode in (0, 1), said
    return said


def errors(said: str) -> list[str]:
    """The lines that are errors and no known false alarm."""
    found = [line.strip() for line in said.splitlines() if re.match(r"\s*(Error|E:|F:|FATAL|ERROR)", line)]
    return [line for line in found if not any(re.search(known, line) for known in FALSE_ALARMS)]


def known(said: str) -> list[str]:
    """The errors that are not due to a tool's age."""
    return [line for line in errors(said) if not any(re.search(alarm, line) for alarm in BEFORE_LABEL_MAPS)]


@pytest.fixture(scope="module")
def exemplars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of every kind of object: both lungs, one lung and a negative result, nothing found."""
    folder = tmp_path_factory.mktemp("exemplars")
    order = make.order_of(make.ct_series(folder / "ct"), make.findings_of(make.two_lungs((6, 16, 24))))
    found = order.findings
    one = Findings(
        algorithm=found.algorithm,
        labels=np.where(found.labels == 1, 1, 0).astype(np.uint8),
        segments=found.segments[:1],
        groups=found.groups[:1],
        not_found=make.findings_of(None).not_found[1:],
        remarks=("The right lung fills 40 % of its side",),
    )
    orders = {
        "both": replace(order, findings=mapped(found, 1, 2)),
        "one": numbered(replace(order, findings=one), "one"),
        "none": numbered(replace(order, findings=make.findings_of(None)), "none"),
        "again": numbered(replace(order, supersedes=make.superseded(order)), "again"),
    }
    paths = {}
    for name, each in orders.items():
        for built in result_set.build(KINDS, each):
            short = {"segmentation": "seg", "measurement_report": "sr"}.get(built.kind, built.kind)
            path = folder / f"{short}_{name}{built.ordinal or ''}.dcm"
            path.write_bytes(built.part10)
            paths[path.stem] = path
    return paths


def numbered(order: Order, name: str) -> Order:
    """The order under UIDs of its own, so that all exemplars can lie in one study."""
    first = order.uid
    return replace(
        order, uid=lambda kind, ordinal: first(f"{name}.{kind}", ordinal), series_number=9000 + len(name) * 10
    )


def bad(path: Path, change: Callable[[Dataset], None], folder: Path) -> Path:
    """A copy of an exemplar with one defect."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    pydicom.dcmwrite(folder / path.name, dataset)
    return folder / path.name


SEG_DEFECT = lambda dataset: delattr(dataset.SegmentSequence[0], "SegmentLabel")  # noqa: E731
SR_DEFECT = lambda dataset: delattr(dataset, "CompletionFlag")  # noqa: E731


@pytest.mark.parametrize("name", ["seg_both", "seg_one", "sr_both", "sr_one", "sr_none", "sr_again"])
def test_dciodvfy_finds_no_error(exemplars: dict[str, Path], tmp_path: Path, name: str):
    component("dicom3tools")
    assert errors(output("dciodvfy", str(exemplars[name]))) == []
    defect = SEG_DEFECT if name.startswith("seg") else SR_DEFECT
    assert errors(output("dciodvfy", str(bad(exemplars[name], defect, tmp_path))))


@pytest.mark.parametrize("kind", OTHERS)
def test_dciodvfy_finds_no_error_in_further_kinds(exemplars: dict[str, Path], tmp_path: Path, kind: str):
    component("dicom3tools")
    of_this_kind = [path for name, path in exemplars.items() if name.startswith(f"{kind}_")]
    for path in of_this_kind:
        assert errors(output("dciodvfy", str(path))) == []
    path = of_this_kind[0]
    assert errors(output("dciodvfy", str(bad(path, lambda dataset: delattr(dataset, "StudyInstanceUID"), tmp_path))))


@pytest.mark.long
@pytest.mark.parametrize("kind", OTHERS)
def test_pixelmed_finds_no_error_in_further_kinds(exemplars: dict[str, Path], tmp_path: Path, kind: str):
    component("PixelMed")
    validator = [*JAVA, "com.pixelmed.validate.DicomInstanceValidator"]
    assert errors(output(*validator, str(exemplars[f"{kind}_{'again' if kind == NOTE else 'both'}"]))) == []


@pytest.mark.long
def test_label_maps_and_reports_on_them_are_read_by_tools_of_every_age(exemplars: dict[str, Path], tmp_path: Path):
    for name in ("dicom3tools", "PixelMed", "DCMTK"):
        component(name)
    order = make.order_of(sorted((exemplars["seg_both"].parent / "ct").iterdir()), make.findings_of(two_lungs()))
    built = result_set.build(("label_map", "measurement_report"), order)
    paths = [tmp_path / f"{one.kind}.dcm" for one in built]
    for path, one in zip(paths, built, strict=True):
        path.write_bytes(one.part10)
        assert known(output("dciodvfy", str(path))) == []
    assert known(output("dciodvfy", str(bad(paths[1], SR_DEFECT, tmp_path))))
    assert errors(output(*JAVA, "com.pixelmed.validate.DicomInstanceValidator", str(paths[0]))) == []
    native = tmp_path / "native.dcm"
    assert errors(output("dcmdrle", str(paths[0]), str(native))) == []
    assert np.array_equal(pydicom.dcmread(native).pixel_array[::-1], two_lungs()[1:])
    spoiled = paths[0].read_bytes()[:-60]
    (tmp_path / "spoiled.dcm").write_bytes(spoiled)
    assert errors(output("dcmdrle", str(tmp_path / "spoiled.dcm"), str(native)))


def two_lungs() -> np.ndarray:
    """What is found in the exemplars."""
    return make.two_lungs((6, 16, 24))


@pytest.mark.parametrize("sr", ["comprehensive3d", "comprehensive", "enhanced"])
@pytest.mark.parametrize("tracking", ["plain", "cornerstone"])
def test_every_variant_of_a_report_is_free_of_errors(
    exemplars: dict[str, Path], tmp_path: Path, sr: SRClass, tracking: Tracking
):
    component("dicom3tools")
    component("DCMTK")
    order = make.order_of(sorted((exemplars["seg_both"].parent / "ct").iterdir()), make.findings_of(two_lungs()))
    order = replace(order, findings=with_places(order.findings), sr=sr, tracking=tracking)
    path = tmp_path / "sr.dcm"
    path.write_bytes(result_set.build(("segmentation", "measurement_report"), order)[-1].part10)
    assert errors(output("dciodvfy", str(path))) == []
    assert errors(output("dsrdump", str(path))) == []
    assert errors(output("dciodvfy", str(bad(path, SR_DEFECT, tmp_path))))


def with_places(findings: Findings) -> Findings:
    """The findings, and one in a box and one on a slice beside them."""
    box = Box(minimum=(-11.0, -7.0, 41.0), maximum=(-6.0, 1.0, 47.0))
    region = Region(points=((-10.0, -5.0, 45.5), (-6.0, -5.0, 45.5), (-6.0, 0.0, 45.5), (-10.0, -5.0, 45.5)))
    lung, finding = codes.find("lung"), codes.find("finding")
    places = (
        MeasurementGroup(label="Box 1", finding=finding, site=lung, box=box),
        MeasurementGroup(label="Region 1", finding=finding, site=lung, region=region),
    )
    return replace(findings, groups=(*findings.groups, *places))


def test_dcentvfy_finds_one_patient_and_study(exemplars: dict[str, Path], tmp_path: Path):
    component("dicom3tools")
    images = sorted(map(str, (exemplars["seg_both"].parent / "ct").iterdir()))
    assert errors(output("dcentvfy", *images, *map(str, exemplars.values()))) == []
    stranger = bad(exemplars["sr_none"], lambda dataset: setattr(dataset, "PatientName", "Somebody^Else"), tmp_path)
    assert errors(output("dcentvfy", *images, str(exemplars["seg_both"]), str(stranger)))


@pytest.mark.long
@pytest.mark.parametrize("name", ["seg_both", "seg_one"])
def test_pixelmed_finds_no_error_in_segmentations(exemplars: dict[str, Path], tmp_path: Path, name: str):
    component("PixelMed")
    validator = [*JAVA, "com.pixelmed.validate.DicomInstanceValidator"]
    said = output(*validator, str(exemplars[name]))
    assert "Found Segmentation IOD" in said
    assert errors(said) == []
    assert errors(output(*validator, str(bad(exemplars[name], SEG_DEFECT, tmp_path))))


@pytest.mark.long
@pytest.mark.parametrize("name", ["sr_one", "sr_again", "sr_none"])
def test_pixelmed_finds_no_error_in_reports(exemplars: dict[str, Path], tmp_path: Path, name: str):
    component("PixelMed")
    validator = [*JAVA, "com.pixelmed.validate.DicomSRValidator"]
    said = output(*validator, str(exemplars[name]))
    assert "validation complete" in said
    assert errors(said) == []
    if name == "sr_one":
        defect = bad(exemplars[name], lambda ds: setattr(group(ds, "Volume"), "MeasuredValueSequence", []), tmp_path)
        assert errors(output(*validator, str(defect)))


@pytest.mark.parametrize("name", ["sr_both", "sr_one", "sr_none", "sr_again"])
def test_dcmtk_reads_the_reports(exemplars: dict[str, Path], tmp_path: Path, name: str):
    component("DCMTK")
    said = output("dsrdump", str(exemplars[name]))
    assert "Imaging Measurement Report" in said
    assert errors(said) == []
    defect = bad(exemplars[name], lambda dataset: setattr(dataset, "ValueType", "TEXT"), tmp_path)
    assert errors(output("dsrdump", str(defect)))


@pytest.mark.parametrize("name", ["seg_both", "seg_one"])
def test_dcmqi_reads_the_segmentations(exemplars: dict[str, Path], tmp_path: Path, name: str):
    reader = Path(pytest.importorskip("dcmqi").__file__).parent / "bin" / "segimage2itkimage"
    command = [str(reader), "--inputDICOM", str(exemplars[name]), "--outputDirectory", str(tmp_path), "-t", "nrrd"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    wanted = pydicom.dcmread(exemplars[name])
    assert len(list(tmp_path.glob("*.nrrd"))) == len(wanted.SegmentSequence)


@pytest.mark.parametrize("name", ["sr_both", "sr_one", "sr_none", "sr_again"])
def test_dcmqi_reads_the_reports(exemplars: dict[str, Path], tmp_path: Path, name: str):
    reader = Path(pytest.importorskip("dcmqi").__file__).parent / "bin" / "tid1500reader"
    out = tmp_path / "out.json"
    done = subprocess.run([reader, "--inputDICOM", exemplars[name], "--outputMetadata", out], capture_output=True)
    assert done.returncode == 0, done.stdout[-500:]


def test_highdicom_reads_the_report_as_it_was_said(exemplars: dict[str, Path]):
    report = hd.sr.srread(exemplars["sr_both"])
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.finding_sites[0].laterality.meaning for group in groups] == ["Left", "Right"]
    (volume,) = groups[0].get_measurements(name=pydicom.sr.codedict.codes.SCT.Volume)
    assert volume.unit.value == "ml"
    assert groups[0].tracking_identifier == "Left lung (ct_lung)"
    spoiled = changed_file(
        exemplars["sr_both"], lambda ds: delattr(content(ds, "Imaging Measurements"), "ContentSequence")
    )
    with pytest.raises(Exception):  # noqa: B017  (whatever highdicom raises)
        hd.sr.srread(spoiled).content.get_volumetric_roi_measurement_groups()[0]


def changed_file(path: Path, change: Callable[[Dataset], None]) -> BytesIO:
    """The file with one defect, in memory."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    out = BytesIO()
    pydicom.dcmwrite(out, dataset)
    out.seek(0)
    return out


@pytest.mark.long
def test_the_shared_validators_find_no_error(exemplars: dict[str, Path]):
    script = Path(os.environ.get("ISOCENTER_SHARED", Path(__file__).parents[3] / "shared")) / "conformance"
    if not (script / "check_objects.sh").exists():
        pytest.skip(f"the shared validators are not at {script}")
    for name in ("dicom3tools", "PixelMed", "DCMTK"):
        component(name)
    folder = exemplars["seg_both"].parent / "results"
    folder.mkdir()
    for path in exemplars.values():
        if "parametric_map" not in path.name:  # A.75 wants one kind of pixels; std_iod_check all three
            (folder / path.name).write_bytes(path.read_bytes())
    command = ["bash", str(script / "check_objects.sh"), str(folder)]
    done = subprocess.run(command, env=os.environ | {"PY": sys.executable}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
