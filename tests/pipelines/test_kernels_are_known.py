"""Which convolution kernels may be believed for the density of single voxels."""

import pytest

from pipelines.kernels import Sharpness, sharpness


@pytest.mark.parametrize(
    ("maker", "kernel"),
    [
        ("SIEMENS", "B30f"),
        ("SIEMENS", "B31s"),
        ("Siemens Healthineers", "Br40d\\3"),
        ("SIEMENS", "I30f\\2"),
        ("SIEMENS", "Qr36d"),
        ("GE MEDICAL SYSTEMS", "STANDARD"),
        ("GE MEDICAL SYSTEMS", "Soft"),
        ("Philips", "B"),
        ("Philips", "A"),
        ("TOSHIBA", "FC01"),
        ("Canon Medical Systems", "FC18-H"),
    ],
)
def test_soft_kernels(maker: str, kernel: str) -> None:
    assert sharpness(maker, kernel) is Sharpness.SOFT


@pytest.mark.parametrize(
    ("maker", "kernel"),
    [
        ("SIEMENS", "B50f"),
        ("SIEMENS", "B70f"),
        ("SIEMENS", "Bl57d"),
        ("SIEMENS", "I70f\\2"),
        ("GE MEDICAL SYSTEMS", "LUNG"),
        ("GE MEDICAL SYSTEMS", "BONEPLUS"),
        ("GE MEDICAL SYSTEMS", "EDGE"),
        ("Philips", "L"),
        ("Philips", "D"),
        ("Philips Medical Systems", "YA"),
        ("TOSHIBA", "FC51"),
        ("TOSHIBA", "FC86"),
        ("Canon Medical Systems", "LUNG"),
    ],
)
def test_sharp_kernels(maker: str, kernel: str) -> None:
    assert sharpness(maker, kernel) is Sharpness.SHARP


@pytest.mark.parametrize(
    ("maker", "kernel"),
    [
        ("SIEMENS", "B45f"),
        ("SIEMENS", None),
        ("SIEMENS", ""),
        ("SIEMENS", "STANDARD"),
        (None, "B30f"),
        ("Philips", "XYZ"),
        ("GE MEDICAL SYSTEMS", "CHEST"),
        ("TOSHIBA", "FC23"),
        ("Newcomer", "B"),
    ],
)
def test_what_no_list_names_is_not_taken_for_soft(maker: str | None, kernel: str | None) -> None:
    assert sharpness(maker, kernel) is Sharpness.UNKNOWN
