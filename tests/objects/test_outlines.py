"""Outlines enclose exactly what was found, in pixels and in patient millimetres, whatever the orientation."""

import re
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_sr import check, outlines, result_set
from dicom_sr.kinds import Built, Order, encapsulated_pdf, rtstruct
from tests.objects import conftest as make
from tests.objects.test_pictures import EIGHT, SHAPE, chest_of, read


@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 14), st.integers(1, 14)), st.floats(0.05, 0.95))
def test_any_mask_comes_back_from_its_outlines_with_and_without_keyholes(
    seed: int, shape: tuple[int, int], full: float
):
    mask = np.random.default_rng(seed).random(shape) < full
    regions = outlines.regions(mask)
    assert np.array_equal(outlines.filled([loop for region in regions for loop in region], shape), mask)
    assert np.array_equal(outlines.filled([outlines.keyholed(region) for region in regions], shape), mask)


def ring(order: Order) -> Order:
    """The order with a hole in its left lung on each slice, and a ragged edge."""
    labels = order.findings.labels.copy()  # type: ignore[union-attr]
    labels[:, 16:20, 36:41][labels[:, 16:20, 36:41] == 1] = 0
    labels[:, 13, 31:49:2][labels[:, 13, 31:49:2] == 1] = 0
    return replace(order, findings=make.findings_of(labels))


@pytest.mark.parametrize("orientation", EIGHT.values(), ids=EIGHT)
@pytest.mark.parametrize("kind", ["presentation_state", "rtstruct"])
def test_every_orientation_passes_the_gate_that_fills_the_outlines_again(
    tmp_path: Path, orientation: tuple[float, ...], kind: str
):
    order = ring(chest_of(tmp_path / "ct", orientation))
    (built,) = result_set.build((kind,), order)
    assert built.kind == kind


def changed(built: Built, change) -> Built:  # type: ignore[no-untyped-def]
    dataset = read(built)
    change(dataset)
    out = BytesIO()
    pydicom.dcmwrite(out, dataset)
    return replace(built, head=out.getvalue(), pixels=b"")


def shift_graphic(dataset: pydicom.Dataset) -> None:
    annotation = next(one for one in dataset.GraphicAnnotationSequence if "GraphicObjectSequence" in one)
    graphic = annotation.GraphicObjectSequence[0]
    graphic.GraphicData = [value + 2 for value in graphic.GraphicData]


def mirror_contour(dataset: pydicom.Dataset) -> None:
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [-value if index % 3 == 0 else value for index, value in enumerate(contour.ContourData)]


def swap_regions(dataset: pydicom.Dataset) -> None:
    one, other = dataset.ROIContourSequence
    one.ReferencedROINumber, other.ReferencedROINumber = 2, 1


@pytest.mark.parametrize(
    ("kind", "change"),
    [("presentation_state", shift_graphic), ("rtstruct", mirror_contour), ("rtstruct", swap_regions)],
)
def test_outlines_elsewhere_do_not_pass_the_gate(tmp_path: Path, kind: str, change) -> None:  # type: ignore[no-untyped-def]
    order = chest_of(tmp_path / "ct")
    (good,) = result_set.build((kind,), order)
    with pytest.raises(check.GateClosed, match="does not enclose segment"):
        check.check([changed(good, change)], order)


def test_a_contour_too_long_for_one_value_is_cut_and_still_encloses_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    order = ring(chest_of(tmp_path / "ct"))
    (whole,) = result_set.build(("rtstruct",), order)
    monkeypatch.setattr(rtstruct, "LONGEST", 200)
    (cut,) = result_set.build(("rtstruct",), order)
    contours = [len(read(one).ROIContourSequence[0].ContourSequence) for one in (whole, cut)]
    assert contours[1] > contours[0]
    lengths = [
        len(raw) for raw in (c.get_item("ContourData").value for c in read(cut).ROIContourSequence[0].ContourSequence)
    ]
    assert max(lengths) <= 200


def words_of(document: bytes) -> str:
    """All text that a PDF of the standard fonts shows."""
    streams = re.findall(rb"stream\n(.*?)\nendstream", document, re.DOTALL)
    shown = b"".join(zlib.decompress(one) for one in streams if one[:1] == b"x" and b" Tj" in zlib.decompress(one))
    return b"\n".join(re.findall(rb"\((.*?)\) Tj", shown)).decode("latin-1")


def test_the_pdf_prints_no_question_mark_for_a_letter_that_its_fonts_lack():
    plain = encapsulated_pdf.plain
    assert plain("Größe 5 µm² – “Čech” ≥ 3") == 'Größe 5 µm² - "Cech" >= 3'
    assert plain("肺 ѝ") == "[U+80BA] [U+045D]"


def test_the_pdf_is_the_same_each_time_and_says_what_it_is(tmp_path: Path):
    order = chest_of(tmp_path / "ct")
    (one,), (other,) = (result_set.build(("encapsulated_pdf",), order) for _ in range(2))
    assert one == other
    dataset = read(one)
    said = words_of(dataset.EncapsulatedDocument)
    for words in ("AI ct_lung 1.0.0  RESEARCH USE ONLY", "Left lung", "-834.5 HU", "withheld"):
        assert words in said
    assert "Phantom" not in said
    assert (dataset.BurnedInAnnotation, dataset.MIMETypeOfEncapsulatedDocument) == ("NO", "application/pdf")


def test_without_findings_there_are_no_outlines(tmp_path: Path):
    order = make.order_of(make.ct_series(tmp_path / "ct", shape=SHAPE), make.findings_of(None))
    assert result_set.build(("presentation_state", "rtstruct"), order) == ()
    assert [one.kind for one in result_set.build(("encapsulated_pdf",), order)] == ["encapsulated_pdf"]
