"""Parametric maps and FRACTIONAL segmentations: read by others, kept, gated, and refused where they are wrong."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from dicom_sr import codes, kept, result_set
from dicom_sr.check import GateClosed, check, inspect
from dicom_sr.kinds import Built, Order, fractional, parametric_map
from dicom_sr.nouns import Findings, ImpossibleFindings, ParametricMap
from tests.objects import conftest as make
from tests.objects.test_gate import OTHER_UID, changed
from tests.servers import isocenter

Change = Callable[[Dataset], None]


def sloping(labels: np.ndarray, number: int) -> np.ndarray:
    """Probabilities that fall off to one side and end where the segment ends."""
    slope = np.linspace(0.3, 1.0, labels.shape[2], dtype=np.float32)
    return np.where(labels == number, slope, np.float32(0)).astype(np.float32)


def mapped(findings: Findings, *numbers: int) -> Findings:
    """The findings with a saliency, and probabilities of these segments."""
    assert findings.labels is not None
    saliency = np.zeros(findings.labels.shape, np.float32)
    saliency[2:4] = np.linspace(-1.5, 4, saliency[2:4].size, dtype=np.float32).reshape(saliency[2:4].shape)
    maps = [
        ParametricMap(
            label="Saliency", quantity=codes.find("saliency"), unit=codes.find("no_units"), values=saliency
        ),
        *(
            ParametricMap(
                label=f"Probability of segment {number}", quantity=codes.find("probability"),
                unit=codes.find("no_units"), values=sloping(findings.labels, number), segment_number=number,
            )
            for number in numbers
        ),
    ]  # fmt: skip
    return replace(findings, maps=tuple(maps))


@pytest.fixture
def order(chest: Order) -> Order:
    """Two lungs with their probabilities, and a saliency."""
    return replace(chest, findings=mapped(chest.findings, 1, 2))


KINDS = ("fractional", "parametric_map", "measurement_report")


def test_a_set_of_fractions_and_maps_passes_and_its_report_is_the_entry_to_all_of_it(order: Order):
    made = result_set.build(KINDS, order)
    assert [one.kind for one in made] == ["fractional", *["parametric_map"] * 3, "measurement_report"]
    report = pydicom.dcmread(BytesIO(made[-1].part10))
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    listed = {one.ReferencedSOPInstanceUID for part in series for one in part.ReferencedSOPSequence}
    assert {one.sop_instance_uid for one in made[:-1]} <= listed


def test_highdicom_reads_the_fractions_as_they_were_found(order: Order):
    (built,) = fractional.build(order)
    seg = hd.seg.segread(BytesIO(built.part10))
    assert (seg.segmentation_type.value, seg.segmentation_fractional_type.value) == ("FRACTIONAL", "PROBABILITY")
    uids = [plane.sop_instance_uid for plane in order.source.planes]
    for number in (1, 2):
        read = seg.get_pixels_by_source_instance(uids, segment_numbers=[number], rescale_fractional=True)[..., 0]
        wanted = order.findings.maps[number].values
        assert np.abs(read - wanted).max() <= 0.5 / 255 + 1e-6
        assert read.max() > 0.5


def test_highdicom_writes_the_same_fractions(order: Order):
    (built,) = fractional.build(order)
    ours = pydicom.dcmread(BytesIO(built.part10))
    images = [pydicom.dcmread(plane.path) for plane in order.source.planes]
    fractions = np.stack([one.values for one in order.findings.maps[1:]], axis=-1)
    concept = hd.sr.CodedConcept
    algorithm = hd.AlgorithmIdentificationSequence(
        "ct_lung", concept("123110", "DCM", "Artificial Intelligence"), "1.0.0"
    )
    described = [
        hd.seg.SegmentDescription(
            one.number, one.label, concept(one.category.value, one.category.scheme, one.category.meaning),
            concept(one.type.value, one.type.scheme, one.type.meaning),
            hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm,
        )
        for one in order.findings.segments
    ]  # fmt: skip
    theirs = hd.seg.Segmentation(
        images, fractions, "FRACTIONAL", described, "1.2.3.4", 1, "1.2.3.5", 1, "Other", "Model", "1", "7",
        fractional_type="PROBABILITY", max_fractional_value=255,
    )  # fmt: skip
    assert ours.PixelData == theirs.PixelData
    keyword = "PerFrameFunctionalGroupsSequence"
    for one, other in zip(ours[keyword], theirs[keyword], strict=True):
        assert one.FrameContentSequence[0].DimensionIndexValues == other.FrameContentSequence[0].DimensionIndexValues
        positions = [group.PlanePositionSequence[0].ImagePositionPatient for group in (one, other)]
        assert positions[0] == positions[1]


def test_a_segment_without_a_map_is_delineated_beside_the_fractions(chest: Order):
    order = replace(chest, findings=mapped(chest.findings, 2))
    made = result_set.build(("fractional", "measurement_report"), order)
    assert [(one.kind, dict(one.segments)) for one in made[:2]] == [("fractional", {2: 1}), ("segmentation", {1: 1})]
    plain = result_set.build(("fractional", "measurement_report"), chest)
    assert [one.kind for one in plain] == ["segmentation", "measurement_report"]


def test_occupancies_are_told_from_probabilities(order: Order):
    maps = (*order.findings.maps[:2], replace(order.findings.maps[2], quantity=codes.find("occupancy")))
    order = replace(order, findings=replace(order.findings, maps=maps))
    made = result_set.build(("fractional",), order)
    types = [pydicom.dcmread(BytesIO(one.part10)).SegmentationFractionalType for one in made]
    assert types == ["PROBABILITY", "OCCUPANCY"]


def test_highdicom_reads_the_map_as_it_was_found(order: Order):
    saliency = hd.pm.ParametricMap.from_dataset(pydicom.dcmread(BytesIO(parametric_map.build(order)[0].part10)))
    wanted = order.findings.maps[0].values
    assert int(saliency.NumberOfFrames) == 2
    assert np.array_equal(saliency.pixel_array[::-1], wanted[2:4])
    positions = [
        [float(x) for x in group.PlanePositionSequence[0].ImagePositionPatient]
        for group in saliency.PerFrameFunctionalGroupsSequence
    ]
    assert positions == [list(order.source.planes[index].position) for index in (3, 2)]
    (mapping,) = saliency.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == "Saliency"
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert saliency.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99ISOCENTER"


def test_a_map_of_zeros_says_nothing(order: Order):
    nothing = replace(order.findings.maps[0], values=np.zeros_like(order.findings.maps[0].values))
    order = replace(order, findings=replace(order.findings, maps=(nothing, *order.findings.maps[1:])))
    assert len(result_set.build(("parametric_map",), order)) == 2


def test_maps_are_kept_with_the_findings(order: Order):
    again = kept.unpack(kept.pack(order.findings, order.source), order.source)
    for one, other in zip(again.maps, order.findings.maps, strict=True):
        assert np.array_equal(one.values, other.values)
        assert (one.label, one.quantity, one.segment_number) == (other.label, other.quantity, other.segment_number)
    alone = Findings(algorithm=order.findings.algorithm, maps=order.findings.maps[:1])
    assert np.array_equal(
        kept.unpack(kept.pack(alone, order.source), order.source).maps[0].values, alone.maps[0].values
    )


def test_a_map_and_fractions_are_shown(order: Order, tmp_path: Path):
    for built in result_set.build(KINDS, order):
        (tmp_path / f"{built.kind}{built.ordinal}.dcm").write_bytes(built.part10)
    (row,) = json.loads(isocenter("show", tmp_path / "parametric_map0.dcm", "--json").stdout)
    assert (row["label"], row["quantity"], row["unit"], row["frames"]) == ("Saliency", "Saliency", "1", 2)
    assert (row["minimum"], row["maximum"]) == (-1.5, 4.0)
    for name in ("parametric_map0", "fractional0"):
        picture = tmp_path / f"{name}.png"
        said = isocenter("show", tmp_path / f"{name}.dcm", "--png", picture).stdout
        assert "RESEARCH" in said
        assert np.asarray(Image.open(picture)).std() > 1
    broken = pydicom.dcmread(tmp_path / "parametric_map0.dcm")
    broken.FloatPixelData = broken.FloatPixelData[:-4]
    broken.save_as(tmp_path / "broken.dcm")
    refused = isocenter("show", tmp_path / "broken.dcm", check=False)
    assert refused.returncode == 1
    assert "damaged" in refused.stderr


def test_impossible_maps_are_refused(order: Order):
    one = order.findings.maps[1]
    for values in (one.values * np.float32(1.5), one.values * np.float32(np.nan), one.values.astype(np.float64)):
        with pytest.raises(ImpossibleFindings):
            replace(one, values=values)
    for maps in ((one, one), (replace(one, segment_number=7),), (replace(one, values=one.values[1:]),)):
        with pytest.raises(ImpossibleFindings):
            replace(order.findings, maps=maps)


def mapping(ds: Dataset) -> Dataset:
    """The real world value mapping."""
    found: Dataset = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    return found


def other_value(ds: Dataset) -> None:
    values = np.frombuffer(ds.FloatPixelData, "<f4").copy()
    values[100] += 0.25
    ds.FloatPixelData = values.tobytes()


def not_a_number(ds: Dataset) -> None:
    values = np.frombuffer(ds.FloatPixelData, "<f4").copy()
    values[100] = np.nan
    ds.FloatPixelData = values.tobytes()


def swap_positions(ds: Dataset) -> None:
    first, second = ds.PerFrameFunctionalGroupsSequence
    first.PlanePositionSequence, second.PlanePositionSequence = (
        second.PlanePositionSequence, first.PlanePositionSequence,
    )  # fmt: skip


OF_MAPS: dict[str, Change] = {
    "other value": other_value,
    "not a number": not_a_number,
    "values short": lambda ds: setattr(ds, "FloatPixelData", ds.FloatPixelData[:-4]),
    "no values": lambda ds: delattr(ds, "FloatPixelData"),
    "swapped planes": swap_positions,
    "other bits": lambda ds: setattr(ds, "BitsAllocated", 64),
    "other quantity": lambda ds: setattr(
        mapping(ds).QuantityDefinitionSequence[0].ConceptCodeSequence[0], "CodeValue", "OCCUPANCY"
    ),
    "quantity without name": lambda ds: delattr(mapping(ds).QuantityDefinitionSequence[0], "ConceptNameCodeSequence"),
    "no quantity": lambda ds: delattr(mapping(ds), "QuantityDefinitionSequence"),
    "other unit": lambda ds: setattr(mapping(ds).MeasurementUnitsCodeSequence[0], "CodeValue", "mm"),
    "no unit": lambda ds: delattr(mapping(ds), "MeasurementUnitsCodeSequence"),
    "other slope": lambda ds: setattr(mapping(ds), "RealWorldValueSlope", 2.0),
    "narrow range": lambda ds: setattr(mapping(ds), "DoubleFloatRealWorldValueLastValueMapped", 1.0),
    "other words": lambda ds: setattr(mapping(ds), "LUTExplanation", "Probability"),
    "no mapping": lambda ds: delattr(ds.SharedFunctionalGroupsSequence[0], "RealWorldValueMappingSequence"),
    "dangling derivation": lambda ds: setattr(
        ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0],
        "ReferencedSOPInstanceUID", OTHER_UID,
    ),
    "image left out": lambda ds: ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence.pop(),
    "other frame of reference": lambda ds: setattr(ds, "FrameOfReferenceUID", OTHER_UID),
    "other spacing": lambda ds: setattr(
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0], "PixelSpacing", [1, 1]
    ),
    "other columns": lambda ds: setattr(ds, "Columns", 23),
    "number of frames": lambda ds: setattr(ds, "NumberOfFrames", 3),
    "another map's number": lambda ds: setattr(ds, "InstanceNumber", 2),
    "own codes not declared": lambda ds: delattr(ds, "CodingSchemeIdentificationSequence"),
    "no content label": lambda ds: delattr(ds, "ContentLabel"),
    "other patient": lambda ds: setattr(ds, "PatientID", "PH0002"),
    "no burned in annotation": lambda ds: delattr(ds, "BurnedInAnnotation"),
}  # fmt: skip


def other_fraction(ds: Dataset) -> None:
    pixels = bytearray(ds.PixelData)
    pixels[next(index for index, value in enumerate(pixels) if value)] -= 1
    ds.PixelData = bytes(pixels)


OF_FRACTIONS: dict[str, Change] = {
    "other fraction": other_fraction,
    "fraction outside": lambda ds: setattr(ds, "PixelData", b"\x01" + ds.PixelData[1:]),
    "other kind": lambda ds: setattr(ds, "SegmentationFractionalType", "OCCUPANCY"),
    "no kind": lambda ds: delattr(ds, "SegmentationFractionalType"),
    "other maximum": lambda ds: setattr(ds, "MaximumFractionalValue", 100),
    "no maximum": lambda ds: delattr(ds, "MaximumFractionalValue"),
    "said to be binary": lambda ds: setattr(ds, "SegmentationType", "BINARY"),
    "pixels short": lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2]),
    "segment 77 of 2": lambda ds: setattr(
        ds.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0], "ReferencedSegmentNumber", 77
    ),
    "frame of the other segment": lambda ds: setattr(
        ds.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0], "ReferencedSegmentNumber", 2
    ),
    "other tracking": lambda ds: setattr(ds.SegmentSequence[0], "TrackingUID", OTHER_UID),
    "segment gone": lambda ds: ds.SegmentSequence.pop(),
}


def with_defect(order: Order, kind: str, change: Change) -> list[Built]:
    made = result_set.build(KINDS, order)
    first = next(one for one in made if one.kind == kind)
    return [changed(one, change) if one is first else one for one in made]


@pytest.mark.parametrize("name", OF_MAPS)
def test_a_map_with_one_defect_is_stopped(order: Order, name: str):
    with pytest.raises(GateClosed, match="parametric_map"):
        check(with_defect(order, "parametric_map", OF_MAPS[name]), order)


@pytest.mark.parametrize("name", OF_FRACTIONS)
def test_fractions_with_one_defect_are_stopped(order: Order, name: str):
    with pytest.raises(GateClosed, match=r"fractional|FRACTIONAL|BINARY"):
        check(with_defect(order, "fractional", OF_FRACTIONS[name]), order)


@pytest.mark.parametrize("kind", ["parametric_map", "fractional"])
def test_without_their_defect_they_pass_and_are_inspected_without_an_order(order: Order, kind: str):
    check(with_defect(order, kind, lambda ds: None), order)
    made = [pydicom.dcmread(BytesIO(one.part10)) for one in result_set.build(KINDS, order)]
    assert inspect(made, source=order.source) == []


def test_a_map_by_highdicom_is_inspected_without_a_fault(order: Order, tmp_path: Path):
    images = [pydicom.dcmread(plane.path) for plane in order.source.planes]
    theirs = hd.pm.ParametricMap(
        images, order.findings.maps[0].values, "1.2.3.4", 1, "1.2.3.5", 1, "Other", "Model", "1", "7",
        contains_recognizable_visual_features=False, voi_lut_transformations=[hd.VOILUTTransformation(0, 1)],
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                "1", "x", hd.sr.CodedConcept("1", "UCUM", "no units"), (-9.0, 9.0), intercept=0, slope=1
            )
        ],
    )  # fmt: skip
    theirs.save_as(tmp_path / "pm.dcm")
    faults = inspect([pydicom.dcmread(tmp_path / "pm.dcm")], source=order.source)
    assert faults == []


def test_a_plane_of_one_radiograph_is_enough(tmp_path: Path):
    paths = make.ct_series(tmp_path / "cxr", shape=(1, 16, 24))
    saliency = ParametricMap(
        label="Saliency of pneumonia", quantity=codes.find("saliency"), unit=codes.find("no_units"),
        values=np.full((1, 16, 24), 0.5, np.float32),
    )  # fmt: skip
    findings = replace(make.findings_of(None), maps=(saliency,))
    made = result_set.build(("segmentation", "parametric_map", "measurement_report"), make.order_of(paths, findings))
    assert [one.kind for one in made] == ["parametric_map", "measurement_report"]
