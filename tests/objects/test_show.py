"""Results for people: true numbers, true colours in the true place, and no patient."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from dicom_sr import pixels, readback, show, told
from dicom_sr.kinds import Order
from tests.objects import conftest as make
from tests.objects.test_gate import built
from tests.servers import isocenter


def test_the_table_has_every_measurement_with_its_reason_or_remark(chest: Order):
    rows = show.table(chest.findings)
    assert [row.measurement for row in rows[:4]] == ["Volume", "Mean Attenuation Coefficient", "LAA-950", "Perc15"]
    assert (rows[1].value, rows[1].unit) == ("-834.5", "HU")
    assert (rows[3].value, rows[3].note) == ("withheld", "Slices are 5.0 mm thick, at most 3 mm are needed")
    assert rows[2].note == "Computed on 2.5 mm slices"


def test_the_table_says_what_was_not_found():
    rows = show.table(make.findings_of(None))
    assert [(row.finding, row.value) for row in rows] == [("Left lung", "not found"), ("Right lung", "not found")]


def test_numbers_are_readable():
    assert [show.number(x) for x in (5432.6, 12.3456, 0.5, -834.51)] == ["5433", "12.35", "0.5", "-834.5"]


def test_the_sheet_shows_the_segments_in_their_colours_and_says_research(chest: Order):
    volume = pixels.load(chest.source)
    sheet = np.asarray(Image.open(BytesIO(show.contact_sheet(volume, chest.findings, title="Lungs"))))
    for segment in chest.findings.segments:
        assert (np.abs(sheet[28:].astype(int) - segment.rgb).max(axis=2) < 12).any()
    amber = np.abs(sheet[:28].astype(int) - (255, 210, 90)).max(axis=2) < 60
    assert amber.sum() > 100


def test_tints_lie_where_the_labels_do(chest: Order):
    labels, segments = chest.findings.labels[2], chest.findings.segments
    picture = show.overlaid(np.full(labels.shape, 100, np.uint8), labels, segments)
    assert (picture[labels == 0] == 100).all()
    assert (picture[labels > 0] != 100).any(axis=1).all()


def test_a_sheet_of_nothing_found_is_a_sheet_too(chest: Order):
    volume = pixels.load(chest.source)
    image = Image.open(BytesIO(show.contact_sheet(volume, make.findings_of(None))))
    assert image.width > 0


def test_a_source_with_text_in_its_pixels_is_not_shown_on_a_sheet(chest: Order):
    volume = pixels.load(chest.source)
    written = replace(volume, acquisition=replace(volume.acquisition, burned_in=True))
    other = replace(written, array=volume.array + np.int16(300))
    sheets = [show.contact_sheet(one, chest.findings) for one in (volume, written, other)]
    assert sheets[0] != sheets[1] == sheets[2]
    shown = np.asarray(Image.open(BytesIO(sheets[1])))
    for segment in chest.findings.segments:
        assert (np.abs(shown[28:].astype(int) - segment.rgb).max(axis=2) < 12).any()


def test_one_slice_is_shown_once(chest: Order):
    assert show.slices(make.findings_of(None), 1, 12) == [0]
    assert show.slices(chest.findings, 6, 12) == [1, 2, 3, 4, 5]


@pytest.mark.long
def test_a_segmentation_is_told_as_a_table_and_a_report_as_a_tree(tmp_path: Path, chest: Order):
    for one in built(chest):
        (tmp_path / f"{one.kind}.dcm").write_bytes(one.part10)
    rows = json.loads(isocenter("show", tmp_path / "segmentation.dcm", "--json").stdout)
    labels = chest.findings.labels
    assert [(row["label"], row["side"], row["pixels"]) for row in rows] == [
        ("Left lung", "Left", int((labels == 1).sum())), ("Right lung", "Right", int((labels == 2).sum())),
    ]  # fmt: skip
    said = isocenter("show", tmp_path / "measurement_report.dcm").stdout
    assert "Attenuation Coefficient: -834.5 [hnsf'U]" in said
    assert "Laterality: Left" in said
    picture = tmp_path / "sheet.png"
    isocenter("show", tmp_path / "segmentation.dcm", "--source", tmp_path / "ct", "--png", picture)
    assert Image.open(BytesIO(picture.read_bytes())).width > 0
    refused = isocenter("show", tmp_path / "ct" / "000.dcm", check=False)
    assert refused.returncode == 1
    assert "neither a SEG nor an SR" in refused.stderr


@pytest.mark.long
def test_every_object_by_others_is_told_and_drawn(data: Path):
    seen = 0
    for path in sorted(data.glob("seg_sr_*/**/*.dcm")):
        with pydicom.config.disable_value_validation():
            dataset = pydicom.dcmread(path)
            if dataset.get("Modality") == "SEG" and dataset.get("NumberOfFrames", 0) < 100:
                seen += 1
                assert len(told.segments(dataset)) == len(dataset.SegmentSequence)
                assert Image.open(BytesIO(show.contact_sheet(*readback.alone(dataset), ours=False))).width > 0, path
            elif dataset.get("Modality") == "SR":
                seen += 1
                assert len(list(told.content(dataset))) > 10
    assert seen >= 15
