"""Findings are kept whole, as the same bytes each time, and are used again only where they still hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_sr import codes, kept, result_set, source
from dicom_sr.kinds import Order
from dicom_sr.nouns import Box, Evaluation, Findings, MeasurementGroup
from tests.objects import conftest as make


def equal(one: Findings, other: Findings) -> bool:
    words = ("algorithm", "segments", "groups", "not_found", "remarks", "voxels")
    return all(getattr(one, name) == getattr(other, name) for name in words) and all(
        np.array_equal(mine, theirs) and mine.dtype == theirs.dtype
        for mine, theirs in zip(one.layers, other.layers, strict=True)
    )


def rich(chest: Order) -> Findings:
    """Findings with all that findings can say."""
    found = chest.findings
    extra = np.zeros_like(found.labels)
    extra[2:4, 3:9, 4:20] = 3
    finding = MeasurementGroup(
        label="Nodule, Größe 7 mm",
        finding=codes.find("intended_use"),
        site=found.segments[0].type,
        box=Box(minimum=(0.1, -2.0, 3.3333333333333335), maximum=(1.0, 2.0, 4.0)),
        evaluations=(
            Evaluation(name=codes.find("completeness"), answer="yes"),
            Evaluation(name=codes.find("completeness"), answer=codes.find("english")),
        ),
    )
    return Findings(
        algorithm=found.algorithm,
        labels=found.labels,
        segments=(*found.segments, codes.structure("left_lung").segment(3)),
        groups=(*found.groups, finding),
        not_found=make.findings_of(None).not_found,
        remarks=found.remarks,
        overlaps=(extra,),
    )


def test_findings_come_back_equal_in_every_voxel_and_word(chest: Order):
    for findings in (chest.findings, rich(chest), make.findings_of(None)):
        content = kept.pack(findings, chest.source)
        assert equal(kept.unpack(content, chest.source), findings)
        assert content == kept.pack(findings, chest.source)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**32 - 1),
    highest=st.integers(1, 255),
)
def test_any_label_map_comes_back(shape: tuple[int, int, int], seed: int, highest: int):
    layer = np.random.default_rng(seed).integers(0, highest + 1, shape).astype(np.uint8)
    assert np.array_equal(kept.inflated(kept.deflated(layer), shape), layer)


def test_objects_built_from_kept_findings_are_the_same_bytes(chest: Order):
    wanted = ("segmentation", "measurement_report")
    again = replace(chest, findings=kept.unpack(kept.pack(chest.findings, chest.source), chest.source))
    assert result_set.build(wanted, again) == result_set.build(wanted, chest)


def test_kept_findings_name_no_patient(chest: Order):
    content = kept.pack(chest.findings, chest.source)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"):
        assert str(chest.source.header.get(keyword)).encode() not in content


def test_another_identity_may_use_them_another_geometry_or_kernel_may_not(chest: Order, tmp_path: Path):
    content = kept.pack(chest.findings, chest.source)

    def read(name: str, **changed: object) -> source.SourceSeries:
        def change(slice_: pydicom.Dataset, index: int) -> None:
            for keyword, value in changed.items():
                setattr(slice_, keyword, value)

        return source.read(make.ct_series(tmp_path / name, change=change))

    assert equal(kept.unpack(content, read("identity", PatientID="OTHER", PatientName="Some^Body")), chest.findings)
    for keyword, value in (
        ("PixelSpacing", ["0.75", "0.51"]),
        ("RescaleIntercept", "-1024"),
        ("ConvolutionKernel", "LUNG"),
        ("FrameOfReferenceUID", "1.2.3"),
    ):
        with pytest.raises(kept.OtherSeries):
            kept.unpack(content, read(keyword, **{keyword: value}))


def test_damaged_or_foreign_findings_are_refused(chest: Order):
    content = kept.pack(chest.findings, chest.source)
    for bad in (
        content[:-30],
        content.replace(b'"format": 1', b'"format": 2'),
        content[:200] + bytes([content[200] ^ 1]) + content[201:],
        b"",
        b"not a ZIP archive",
    ):
        with pytest.raises(kept.UnreadableFindings):
            kept.unpack(bad, chest.source)
