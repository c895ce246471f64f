"""A radiograph is read as one image in a plane of its own, and nothing that would need a place is written of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid

from dicom_sr import codes, kept, kinds, pixels, refusals, result_set, source
from dicom_sr.nouns import Algorithm, Box, Findings, MeasurementGroup, ParametricMap, Region
from pipelines import reported
from pipelines.reported import Labelled, Scored
from pipelines.spec import Refused
from tests.objects.conftest import order_of
from tests.pipelines.radiographs import volume_of, write

SHOWN = (np.arange(160 * 200, dtype=np.int16) % 4096).reshape(160, 200)
ALGORITHM = Algorithm(name="cr_quality", version="1.0.0")
CR, DX = uid.ComputedRadiographyImageStorage, uid.DigitalXRayImageStorageForPresentation


@pytest.mark.parametrize(("sop_class", "modality"), [(CR, "CR"), (DX, "DX"), (uid.SecondaryCaptureImageStorage, "CR")])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_it_is_read_with_its_values_as_stored(sop_class: str, modality: str, photometric: str, tmp_path: Path) -> None:
    written = volume_of(SHOWN, photometric=photometric, modality=modality)
    series = source.read([write(written, tmp_path, sop_class=sop_class)])
    volume = pixels.load(series)
    assert np.array_equal(volume.array, written.array)
    assert not series.placed
    assert series.warnings == ("a projection image: it lies nowhere in the patient",)
    assert volume.acquisition.projection
    assert (volume.acquisition.photometric_interpretation, volume.acquisition.view_position) == (photometric, "PA")


@pytest.mark.parametrize(
    ("more", "spacing"),
    [
        ({}, (0.2, 0.2)),
        ({"PixelSpacing": [0.143, 0.144]}, (0.143, 0.144)),
        ({"PixelSpacing": [0, 0]}, (0.2, 0.2)),
        ({"ImagerPixelSpacing": None}, (1.0, 1.0)),
    ],
)
def test_its_pixels_are_spaced_as_calibrated_or_at_the_detector(
    more: dict[str, Any], spacing: tuple[float, float], tmp_path: Path
) -> None:
    volume = pixels.load(source.read([write(volume_of(SHOWN), tmp_path, **more)]))
    assert volume.spacing[1:] == pytest.approx(spacing)


def test_several_in_a_series_are_no_volume(tmp_path: Path) -> None:
    paths = [write(volume_of(SHOWN), tmp_path, SOPInstanceUID=f"1.2.3.{number}") for number in (1, 2)]
    with pytest.raises(refusals.SeveralAcquisitions, match="2 images"):
        source.read(paths)


@pytest.mark.parametrize(
    "more",
    [
        {"ImagePositionPatient": [0, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        {"Modality": "CT"},
        {"NumberOfFrames": 2},
    ],
)
def test_half_a_geometry_or_another_modality_is_still_refused(more: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(refusals.NoGeometry):
        source.read([write(volume_of(SHOWN), tmp_path, **more)])


def delineated() -> Findings:
    labels = np.zeros((1, *SHOWN.shape), np.uint8)
    labels[0, 20:40, 20:40] = 1
    return Findings(algorithm=ALGORITHM, labels=labels, segments=(codes.structure("bone").segment(1),))


def placed(**place: Any) -> Findings:
    group = MeasurementGroup(label="here", finding=codes.find("finding"), site=codes.find("chest"), **place)
    return Findings(algorithm=ALGORITHM, groups=(group,))


def mapped() -> Findings:
    values = np.zeros((1, *SHOWN.shape), np.float32)
    shown = ParametricMap(label="Map", quantity=codes.find("quantity"), unit=codes.find("no_units"), values=values)
    return Findings(algorithm=ALGORITHM, maps=(shown,))


@pytest.mark.parametrize(
    "findings",
    [
        delineated(),
        placed(box=Box(minimum=(0, 0, 0), maximum=(1, 1, 1))),
        placed(region=Region(points=((1.0, 1.0, 0.0),))),
        mapped(),
    ],
    ids=["segment", "box", "region", "map"],
)
def test_nothing_that_lies_somewhere_is_written(findings: Findings, tmp_path: Path) -> None:
    order = order_of([write(volume_of(SHOWN), tmp_path)], findings)
    with pytest.raises(refusals.NoGeometry, match="lies nowhere in the patient"):
        result_set.build(("segmentation", "measurement_report"), order)


def test_of_all_kinds_only_those_are_written_that_say_something_of_the_whole(tmp_path: Path) -> None:
    order = order_of([write(volume_of(SHOWN), tmp_path)], placed())
    last = ("key_objects", "measurement_report")  # they name what was built before them
    wanted = [*(name for name in kinds.names() if name not in {*last, kinds.NOTE}), *last]
    built = {one.kind for one in result_set.build(wanted, order)}
    assert "measurement_report" in built
    assert not built & {"segmentation", "label_map", "rtstruct", "overlay", "presentation_state"}


def test_its_findings_are_kept_and_taken_up_again(tmp_path: Path) -> None:
    series = source.read([write(volume_of(SHOWN), tmp_path)])
    assert kept.unpack(kept.pack(placed(), series), series).groups == placed().groups


def test_of_a_bundle_only_scores_are_reported() -> None:
    volume = volume_of(SHOWN)
    scores = Scored(scores=np.array([0.2, 0.8]), chosen=np.array([False, True]))
    said = reported.findings(scores, volume, algorithm=ALGORITHM, names={0: "clear", 1: "opaque"})
    assert [group.label for group in said.groups] == ["clear", "opaque"]
    with pytest.raises(Refused, match="lies nowhere in the patient"):
        reported.findings(
            Labelled(labels=np.zeros((1, *SHOWN.shape), np.uint8)), volume, algorithm=ALGORITHM, names={1: "lung"}
        )
