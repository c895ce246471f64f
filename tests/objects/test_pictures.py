"""Pictures that leave as DICOM: drawn where the findings lie, whatever the orientation, and honest about themselves."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_sr import check, geometry, kinds, result_set
from dicom_sr.kinds import Built, Order, key_objects, rejection_note
from dicom_sr.problem import Problem
from tests.objects import conftest as make

SHAPE = (6, 40, 56)
EIGHT = {
    "axial": make.AXIAL,
    "axial feet up": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "axial face down": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "axial mirrored": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "coronal": make.CORONAL,
    "sagittal": make.SAGITTAL,
    "oblique": make.OBLIQUE,
    "oblique the other way": make.OBLIQUE_2,
}
EVERYTHING = ("segmentation", "overlay", "summary", "key_objects", "measurement_report")


def read(built: Built) -> Dataset:
    return pydicom.dcmread(BytesIO(built.part10))


def chest_of(folder: Path, orientation: tuple[float, ...] = make.AXIAL, **more: object) -> Order:
    paths = make.ct_series(folder, shape=SHAPE, orientation=orientation, **more)  # type: ignore[arg-type]
    labels = np.zeros(SHAPE, np.uint8)  # chiral: nothing of it looks the same mirrored or turned
    labels[1:4, 12:26, 30:50] = 1
    labels[2:5, 16:36, 8:20] = 2
    return make.order_of(paths, make.findings_of(labels))


@pytest.mark.parametrize("orientation", EIGHT.values(), ids=EIGHT)
def test_outlines_lie_where_the_findings_lie_in_the_patient(tmp_path: Path, orientation: tuple[float, ...]):
    order = chest_of(tmp_path / "ct", orientation)
    shown = result_set.build(("overlay",), order)
    assert len(shown) == 4
    for built in shown:
        picture = read(built)
        colours = picture.pixel_array
        to_patient = geometry.affine(
            [picture.ImagePositionPatient], picture.ImageOrientationPatient, picture.PixelSpacing, 1.0
        )
        to_voxel = np.linalg.inv(order.source.affine)
        for segment in order.findings.segments:
            rows, columns = np.nonzero((colours[60:-60, :] == segment.rgb).all(axis=2))
            points = to_patient @ np.stack([np.zeros_like(rows), rows + 60, columns, np.ones_like(rows)])
            voxels = np.rint(to_voxel @ points)[:3].astype(int)
            inside = order.findings.labels[tuple(voxels)] == segment.number
            assert inside.mean() > 0.98 if rows.size else not order.findings.labels[voxels[0]].any()
            assert built.ordinal == picture.InstanceNumber - 1


def test_the_pictures_of_a_set_are_one_series_and_point_at_their_own_slice(tmp_path: Path):
    order = chest_of(tmp_path / "ct")
    shown = [read(built) for built in result_set.build(("segmentation", "overlay"), order)][1:]
    assert len({one.SeriesInstanceUID for one in shown}) == len({one.SeriesNumber for one in shown}) == 1
    for one in shown:
        (image,) = one.SourceImageSequence
        plane = next(p for p in order.source.planes if p.sop_instance_uid == image.ReferencedSOPInstanceUID)
        assert one.FrameOfReferenceUID == order.source.frame_of_reference_uid
        assert np.allclose(one.ImageOrientationPatient, plane.orientation)


def test_all_slices_with_a_finding_are_drawn_when_asked(tmp_path: Path):
    order = replace(chest_of(tmp_path / "ct"), settings={"overlay": {"slices": "all"}})
    assert len(result_set.build(("overlay",), order)) == 4
    few = replace(order, settings={"overlay": {"slices": "key", "count": 2}})
    assert len(result_set.build(("overlay",), few)) == 2


def test_flags_are_the_sources_and_research_is_said(tmp_path: Path):
    def change(slice_: Dataset, index: int) -> None:
        slice_.RecognizableVisualFeatures, slice_.BurnedInAnnotation = "YES", "YES"
        slice_.LossyImageCompression, slice_.LossyImageCompressionRatio = "01", "8"
        slice_.LossyImageCompressionMethod = "ISO_10918_1"

    plain = [read(one) for one in result_set.build(("overlay", "summary"), chest_of(tmp_path / "plain"))]
    marked = [read(one) for one in result_set.build(("overlay", "summary"), chest_of(tmp_path / "m", change=change))]
    for one in plain:
        assert (one.BurnedInAnnotation, one.LossyImageCompression) == ("NO", "00")
        assert "RecognizableVisualFeatures" not in one
        assert "RESEARCH" in one.DerivationDescription
    for one in marked:
        flags = (one.BurnedInAnnotation, one.RecognizableVisualFeatures, one.LossyImageCompression)
        assert flags == ("YES", "YES", "01")
        assert one.LossyImageCompressionRatio == 8


def test_no_patient_text_is_drawn(tmp_path: Path):
    def other(slice_: Dataset, index: int) -> None:
        slice_.PatientName, slice_.PatientID, slice_.AccessionNumber = "Entirely^Different", "X", "Y"

    one, same = (
        [read(built).PixelData for built in result_set.build(("overlay", "summary"), chest_of(tmp_path / name, **how))]
        for name, how in (("one", {}), ("other", {"change": other}))
    )
    assert one == same


def test_a_shifted_outline_does_not_pass_the_gate(tmp_path: Path):
    order = chest_of(tmp_path / "ct")
    good = result_set.build(("overlay",), order)
    dataset = read(good[0])
    dataset.PixelData = np.roll(dataset.pixel_array, 30, axis=1).tobytes()
    for change, said in (
        (None, "outline of segment"),
        (("ImagePositionPatient", [0, 0, 0]), "does not lie where"),
        (("BurnedInAnnotation", "YES"), "BurnedInAnnotation"),
    ):
        bad = read(good[0]) if change else dataset
        if change:
            setattr(bad, *change)
        out = BytesIO()
        pydicom.dcmwrite(out, bad)
        with pytest.raises(check.GateClosed, match=said):
            check.check([replace(good[0], head=out.getvalue(), pixels=b""), *good[1:]], order)


def test_without_findings_there_is_a_summary_and_no_overlay(tmp_path: Path):
    order = make.order_of(make.ct_series(tmp_path / "ct"), make.findings_of(None))
    assert [one.kind for one in result_set.build(EVERYTHING, order)] == ["summary", "key_objects", "measurement_report"]


def test_key_objects_point_at_key_images_and_all_results(tmp_path: Path):
    order = chest_of(tmp_path / "ct")
    built = result_set.build(EVERYTHING, order)
    selection = read(next(one for one in built if one.kind == "key_objects"))
    assert selection.ConceptNameCodeSequence[0].CodeMeaning == "Of Interest"
    pointed = [
        (item.ValueType, item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in selection.ContentSequence
        if "ReferencedSOPSequence" in item
    ]
    before = [one for one in built if one.kind not in ("key_objects", "measurement_report")]
    assert {("IMAGE", one.sop_instance_uid) for one in before} <= set(pointed)
    assert len(pointed) == len(before) + 2


def test_a_rejection_note_says_which_and_why(chest: Order):
    planes = chest.source.planes
    references = tuple(
        key_objects.Reference(
            study_instance_uid=str(chest.source.header.StudyInstanceUID),
            series_instance_uid=chest.source.acquisition.series_instance_uid,
            sop_class_uid=plane.sop_class_uid,
            sop_instance_uid=plane.sop_instance_uid,
        )
        for plane in planes
    )
    selection = key_objects.Selection(
        title="rejected_for_quality_reasons", reason="motion_blur", references=references, description="Unscharf"
    )
    note = read(key_objects.document(kinds_head(chest), selection))
    assert [item.ConceptCodeSequence[0].CodeValue for item in note.ContentSequence[:2]] == ["en", "111210"]
    (study,) = note.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == len(planes)
    for wrong in (
        {"title": "chest"},
        {"references": ()},
        {"title": "of_interest", "reason": "motion_blur"},
    ):
        with pytest.raises(key_objects.NothingSelected) as told:
            replace(selection, **wrong)  # type: ignore[arg-type]
        assert isinstance(told.value, Problem)


def test_a_note_alone_says_of_itself_what_one_of_the_objects_says_that_it_rejects(chest: Order):
    rejected = make.superseded(chest).rejected
    for one in result_set.build(("segmentation", "measurement_report"), chest):
        theirs = read(one)
        note = rejection_note.alone(
            theirs,
            rejected,
            description="moved",
            uid=lambda name, ordinal: chest.uid(f"alone.{name}", ordinal),
            made_at=chest.made_at,
            series_number=9010,
            weights_digest=chest.findings.algorithm.weights_digest,
        )
        ours = read(note)
        assert check.inspect([ours], places=["note"]) == []
        for keyword in ("PatientID", "StudyInstanceUID", "SeriesDescription", "DeviceUID", "ContentQualification"):
            assert ours[keyword].value == theirs[keyword].value
        (study,) = ours.CurrentRequestedProcedureEvidenceSequence
        assert study.StudyInstanceUID == theirs.StudyInstanceUID
        assert len(study.ReferencedSeriesSequence) == len(rejected)


def kinds_head(order: Order):  # type: ignore[no-untyped-def]
    from dicom_sr.header import letterhead

    return letterhead(order, "key_objects")


def test_an_unknown_setting_of_a_kind_is_refused(chest: Order):
    with pytest.raises(ValueError, match="slices"):
        kinds.built("overlay", replace(chest, settings={"overlay": {"slices": "some"}}))
