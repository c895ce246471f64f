"""An odd series that a site lets pass, or that is merely worth a remark, is read so, and its report says so."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_sr import result_set, source
from router.config import Inference
from router.work.inside import Inside
from router.work.messages import Failure, Found, Recall, Reply, Run
from tests.objects.conftest import ct_series, order_of


def two_frames_of_reference(folder: Path) -> list[Path]:
    def change(slice_: Dataset, index: int) -> None:
        if index == 2:
            slice_.FrameOfReferenceUID = "1.2.3"

    return ct_series(folder, change=change)


def two_volumes(folder: Path) -> list[Path]:
    def change(slice_: Dataset, index: int) -> None:
        slice_.AcquisitionNumber = 2
        slice_.SOPInstanceUID = f"1.2.3.{index + 1}"

    return [*ct_series(folder / "first"), *ct_series(folder / "second", change=change)]


ODD = {
    "two frames of reference": (two_frames_of_reference, "MixedFrameOfReference", "2 frames of reference"),
    "two volumes": (two_volumes, "SeveralAcquisitions", "only AcquisitionNumber 1 was read"),
}


@pytest.fixture
def inside(shelf: None) -> Inside:
    def say(reply: Reply) -> None:
        """Nobody listens."""

    return Inside("cpu", 1, say)


@pytest.mark.parametrize("odd", ODD)
def test_what_a_site_lets_pass_is_refused_by_default_and_else_said_in_the_report(
    odd: str, inside: Inside, tmp_path: Path
) -> None:
    make, name, words = ODD[odd]
    paths = make(tmp_path)
    run = Run(paths=tuple(paths), pipeline="moody", settings={}, policy=Inference().policy)
    refused = inside.answer(run)
    assert isinstance(refused, Failure)
    assert (refused.name, refused.refused) == (name, True)

    policy = Inference(frames_of_reference="warn", several_acquisitions="first").policy
    found = inside.answer(replace(run, policy=policy))
    assert isinstance(found, Found)
    assert inside.last is not None
    series, findings = inside.last
    order = replace(order_of(ct_series(tmp_path / "plain"), findings), source=series)
    delineated, report = result_set.build(("segmentation", "measurement_report"), order)
    assert delineated.kind == "segmentation"
    assert words.encode() in report.part10

    (tmp_path / "kept").write_bytes(found.findings)
    recall = Recall(paths=tuple(paths), findings=tmp_path / "kept", policy=policy)
    assert isinstance(inside.answer(recall), Found)


def test_a_remark_on_an_accepted_series_stands_among_the_findings(inside: Inside, tmp_path: Path) -> None:
    paths = ct_series(tmp_path)
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(paths[2].read_bytes())
    assert isinstance(inside.answer(Run(paths=(*paths, copy), pipeline="moody", settings={})), Found)
    assert inside.last is not None
    assert inside.last[1].remarks == ("Of the images: 1 files are second copies and were left out",)
    assert source.read([*paths, copy]).warnings == ("1 files are second copies and were left out",)
