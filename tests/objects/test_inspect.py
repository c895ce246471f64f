"""`isocenter inspect` finds every fault with its place, and none where there is none, whoever made the object."""

import json
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_sr import source
from dicom_sr.check import inspect
from dicom_sr.kinds import Order
from tests.objects import conftest as make
from tests.objects.test_gate import COMMON_MUTANTS, SEG_MUTANTS, SR_MUTANTS, built
from tests.servers import isocenter

TRUE_FAULTS = {"seg_image_sm_dots.dcm": ["SEG.PixelData: is not padded with zeros"]}
"""highdicom 0.28 pads odd pixel data with 0x30; PS3.5 8.1.1 wants zeros."""


def test_objects_by_others_have_only_their_true_faults(data: Path):
    seen = 0
    for path in sorted(data.glob("seg_sr_*/**/*.dcm")):
        with pydicom.config.disable_value_validation():
            dataset = pydicom.dcmread(path)
            if dataset.get("Modality") in ("SEG", "SR"):
                seen += 1
                assert [str(fault) for fault in inspect([dataset])] == TRUE_FAULTS.get(path.name, []), path.name
    assert seen >= 19


@pytest.mark.parametrize("name", ["liver.dcm", "partial_overlaps.dcm"])
def test_dcmqis_segmentations_lie_on_their_source(data: Path, name: str):
    folder = data / "seg_sr_dcmqi" / "segmentations"
    series = source.read(sorted((folder / "ct-3slice").glob("*.dcm")))
    dataset = pydicom.dcmread(folder / name)
    assert inspect([dataset], source=series) == []
    dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[0] += 1.0
    assert [fault.what for fault in inspect([dataset], source=series)] == ["lies on no plane of the source"]


def test_a_report_by_dcmqi_has_the_numbers_of_its_segmentation(data: Path):
    folder = data / "seg_sr_dcmqi" / "sr-example"
    with pydicom.config.disable_value_validation():
        report, seg = (pydicom.dcmread(folder / name) for name in ("sr.dcm", "seg.dcm"))
        assert inspect([report], related=[seg]) == []
        for item in numbers(report):
            if item.ConceptNameCodeSequence[0].CodeMeaning == "Volume":
                item.MeasuredValueSequence[0].NumericValue = "1.5"
        assert any("segment's pixels have" in fault.what for fault in inspect([report], related=[seg]))


def numbers(item: Dataset) -> list[Dataset]:
    """All NUM items of a report."""
    below = [found for child in item.get("ContentSequence", ()) for found in numbers(child)]
    return [item, *below] if item.get("ValueType") == "NUM" else below


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_good_segmentation_by_highdicom_has_no_fault(tmp_path: Path, kind: str):
    paths = make.ct_series(tmp_path / "ct")
    images = [pydicom.dcmread(path) for path in paths]
    code = hd.sr.CodedConcept("39607008", "SCT", "Lung")
    named = hd.seg.SegmentDescription(
        1, "Lung", hd.sr.CodedConcept("91723000", "SCT", "Anatomical Structure"), code,
        hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )  # fmt: skip
    labels = (make.two_lungs((6, 16, 24)) == 1).astype(np.uint8)
    seg = hd.seg.Segmentation(
        images, labels, kind, [named], "1.2.3.4", 5, "1.2.3.5", 1, "Other", "Model", "1", "7",
    )  # fmt: skip
    out = BytesIO()
    seg.save_as(out)
    out.seek(0)
    dataset = pydicom.dcmread(out)
    assert inspect([dataset], source=source.read(paths)) == []
    pixels = bytearray(dataset.PixelData)
    del pixels[-2:]
    dataset.PixelData = bytes(pixels)
    assert [fault.place for fault in inspect([dataset])] == ["SEG.PixelData"]


@pytest.mark.long
def test_most_defects_are_found_without_knowing_the_order(chest: Order):
    seg, report = (pydicom.dcmread(BytesIO(one.part10)) for one in built(chest))
    clean = {str(fault) for fault in inspect([seg, report], source=chest.source)}
    missed = []
    for name, change in {**SEG_MUTANTS, **COMMON_MUTANTS, **SR_MUTANTS}.items():
        objects = [pydicom.dcmread(BytesIO(one.part10)) for one in built(chest)]
        change(objects[1 if name in SR_MUTANTS else 0])
        if not {str(fault) for fault in inspect(objects, source=chest.source)} - clean:
            missed.append(name)
    assert len(SEG_MUTANTS) + len(COMMON_MUTANTS) + len(SR_MUTANTS) - len(missed) >= 80, missed


@pytest.mark.long
def test_the_command_prints_each_fault_and_exits_1(tmp_path: Path, chest: Order):
    for one in built(chest):
        (tmp_path / f"{one.kind}.dcm").write_bytes(one.part10)
    seg = pydicom.dcmread(tmp_path / "segmentation.dcm")
    good = isocenter("inspect", tmp_path / "segmentation.dcm", "--source", tmp_path / "ct")
    assert (good.stdout, good.returncode) == ("", 0)
    seg.SegmentSequence[0].SegmentLabel = "Right lung"
    seg.FrameOfReferenceUID = "1.2.3"
    seg.save_as(tmp_path / "bad.dcm")
    command = ("inspect", tmp_path / "bad.dcm", "--source", tmp_path / "ct")
    bad = isocenter(*command, "--json", check=False)
    assert bad.returncode == 1
    places = {fault["place"] for fault in json.loads(bad.stdout)}
    assert places == {"bad.dcm.FrameOfReferenceUID", "bad.dcm.SegmentSequence[1].SegmentLabel"}
    assert "says another side" in isocenter(*command, check=False).stdout
    report = isocenter("inspect", tmp_path / "measurement_report.dcm", "--source", tmp_path / "ct", check=False)
    assert "segmentation.dcm" not in report.stdout
    assert "not known" in report.stdout
    unreadable = isocenter("inspect", tmp_path / "ct", check=False)
    assert unreadable.returncode == 1
    assert "cannot be read as DICOM" in unreadable.stderr
