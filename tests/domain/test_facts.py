"""Facts of a series are those of all its instances, and say what a series is before any rule sees it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import examine, trial
from router.domain.classify import SeriesKind, describe, plane_of, sharpness
from router.domain.facts import MOST_VALUES, Spread, aggregate, restore, union

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def stack(count: int = 8, step: float = 5.0, **header: Any) -> list[dict[str, Any]]:
    return [
        {"Modality": "CT", "ImageOrientationPatient": AXIAL, "ImagePositionPatient": [0.0, 0.0, step * n]} | header
        for n in range(count)
    ]


def test_a_fact_is_constant_a_set_a_range_or_absent() -> None:
    headers = [{"A": 1, "B": ["x", "y"], "C": n, "D": "z" if n else ""} for n in range(5)]
    facts = aggregate(headers)
    assert (facts["A"].spread, facts["A"].text) == (Spread.CONSTANT, "1")
    assert (facts["B"].spread, facts["B"].text) == (Spread.SET, "x, y")
    assert (facts["C"].spread, facts["C"].text) == (Spread.RANGE, "0 to 4")
    assert (facts["D"].missing, facts["D"].origin) == (1, "header, 4 of 5 instances")
    assert "E" not in facts


def test_one_deviating_slice_is_seen() -> None:
    facts = aggregate([{"ConvolutionKernel": "B30f"}] * 63 + [{"ConvolutionKernel": "B70f"}])
    assert facts["ConvolutionKernel"].values == ("B30f", "B70f")


def test_functional_groups_give_what_the_top_level_does_not() -> None:
    header = {
        "EchoTime": 90,
        "SharedFunctionalGroupsSequence": [{"PixelMeasuresSequence": [{"SliceThickness": 1.2, "EchoTime": 1}]}],
        "PerFrameFunctionalGroupsSequence": [{"FrameContentSequence": [{"StackID": name}]} for name in "ab"],
    }
    facts = aggregate([header])
    assert (facts["SliceThickness"].text, facts["SliceThickness"].origin) == ("1.2", "shared functional groups")
    assert (facts["StackID"].text, facts["StackID"].origin) == ("a, b", "per-frame functional groups")
    assert (facts["EchoTime"].text, facts["EchoTime"].origin) == ("90", "header")


def test_codes_are_compared_by_value_and_scheme() -> None:
    code = {"CodeValue": "24627-2", "CodingSchemeDesignator": "LN", "CodeMeaning": "CT Chest"}
    facts = aggregate([{"ProcedureCodeSequence": [code]}])
    assert facts["ProcedureCodeSequence"].values == ("24627-2:LN",)
    assert facts["ProcedureCodeSequence.CodeMeaning"].values == ("CT Chest",)


def test_many_values_keep_their_range() -> None:
    fact = aggregate([{"SliceLocation": number} for number in range(500)])["SliceLocation"]
    assert len(fact.values) == MOST_VALUES
    assert (fact.lowest, fact.highest) == (0, 499)
    assert union([{"SliceLocation": fact}])["SliceLocation"].highest == 499


values = st.none() | st.integers(-9, 9) | st.text("ab ", max_size=3) | st.lists(st.sampled_from(["x", "y", ""]))


@given(st.lists(st.dictionaries(st.sampled_from("ABC"), values), max_size=6))
def test_facts_survive_the_database_and_do_not_depend_on_the_order_of_arrival(headers: list[dict[str, Any]]) -> None:
    facts = aggregate(headers)
    assert restore({keyword: fact.as_json() for keyword, fact in facts.items()}) == facts
    backwards = aggregate(headers[::-1])
    assert {name: set(fact.values) for name, fact in facts.items()} == {
        name: set(fact.values) for name, fact in backwards.items()
    }


KINDS: list[tuple[dict[str, Any], SeriesKind]] = [
    ({}, SeriesKind.AXIAL_VOLUME),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, SeriesKind.LOCALIZER),
    ({"SeriesDescription": "Topogram 0.6"}, SeriesKind.LOCALIZER),
    ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, SeriesKind.DERIVED_REFORMAT),
    ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, SeriesKind.DERIVED_REFORMAT),
    ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, SeriesKind.AXIAL_VOLUME),
    ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, SeriesKind.SCREEN_CAPTURE),
    (
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"], "SeriesDescription": "Dose Report"},
        SeriesKind.DOSE_REPORT,
    ),
    ({"Modality": "MR", "ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, SeriesKind.DERIVED_MAP),
    ({"ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]}, SeriesKind.FEW_IMAGES),
    ({"Modality": "DX"}, SeriesKind.PROJECTION),
    ({"Modality": "SEG"}, SeriesKind.DOCUMENT),
    ({"Modality": "US"}, SeriesKind.OTHER),
]


@pytest.mark.parametrize(("header", "kind"), KINDS, ids=str)
def test_a_series_is_of_the_kind_that_its_images_are(header: dict[str, Any], kind: SeriesKind) -> None:
    assert describe(stack(**header))["kind"].values == (kind,)


def test_a_sagittal_stack_is_a_volume_and_two_slices_are_few() -> None:
    sagittal = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
    headers = stack(8)
    for number, header in enumerate(headers):
        header |= {"ImageOrientationPatient": sagittal, "ImagePositionPatient": [number * 2.0, 0.0, 0.0]}
    facts = describe(headers)
    assert (facts["kind"].text, facts["plane"].text, facts["slice_spacing"].text) == ("volume", "sagittal", "2")
    assert describe(stack(2))["kind"].values == (SeriesKind.FEW_IMAGES,)


def test_a_missing_slice_is_a_gap_and_a_tilt_is_told() -> None:
    headers = stack(8, GantryDetectorTilt=-12.0)
    del headers[3]
    facts = describe(headers)
    assert (facts["slice_gaps"].values, facts["slice_spacing"].values) == ((1,), (5.0,))
    assert facts["gantry_tilt"].values == (12.0,)


def test_two_orientations_in_one_series_are_mixed() -> None:
    headers = stack(4) + [{**one, "ImageOrientationPatient": [1.0, 0, 0, 0, 0, -1.0]} for one in stack(4)]
    facts = describe(headers)
    assert facts["plane"].text == "mixed"
    assert "slice_spacing" not in facts


@pytest.mark.parametrize(
    ("normal", "plane"),
    [((0, 0, 1), "axial"), ((0, -1, 0), "coronal"), ((1, 0, 0), "sagittal"), ((0.71, 0.71, 0), "oblique")],
)
def test_planes_have_names(normal: tuple[float, float, float], plane: str) -> None:
    assert plane_of(normal) == plane


@pytest.mark.parametrize(
    ("kernel", "sharp"),
    [("STANDARD", "soft"), ("LUNG", "sharp"), ("B30f", "soft"), ("Br40d", "soft"), ("Bl57d", "sharp"), ("B", "soft"),
     ("FC17", "soft"), ("FC51", "sharp"), ("YC", "sharp"), ("WHATEVER", None), ("", None)],
)  # fmt: skip
def test_kernels_are_soft_or_sharp_where_their_names_are_known(kernel: str, sharp: str | None) -> None:
    assert sharpness(kernel) == sharp


def described(path: Path) -> dict[str, str]:
    header = trial.header_of(path)
    assert header is not None
    facts = examine.series([examine.Seen(header=header, path=path)], given={})
    return {keyword: fact.text for keyword, fact in facts.items()}


def test_the_real_headers_are_of_the_plane_that_their_folder_says(data: Path) -> None:
    paths = sorted((data / "routing_headers_covid19_ny_sbu" / "headers_only").glob("*.dcm"))
    assert len(paths) == 62
    planes = {"axial", "coronal", "sagittal"}
    counted = dict.fromkeys(planes, 0)
    for path in paths:
        facts = described(path)
        said = next((word for word in path.name.split("__") if word in planes), None)
        if said is not None:
            assert facts["plane"] == said, path.name
            counted[said] += 1
        reformatted = "DERIVED" in facts["ImageType"]
        assert (facts["kind"] == "derived reformat") == reformatted, path.name
        assert facts["contrast"] in ("True", "False")
        assert facts["kernel"] == "soft"
    assert counted == {"axial": 20, "coronal": 20, "sagittal": 20}


def test_the_real_localizer_and_the_enhanced_objects_are_what_they_are(data: Path) -> None:
    (localizer,) = (data / "ct_localizer_philips_phantom").glob("*.dcm")
    assert described(localizer)["kind"] == "localizer"
    found = [
        described(path)
        for path in sorted((data / "odd_series_dicom2nifti").rglob("*"))
        if path.is_file() and trial.header_of(path) is not None
    ]
    enhanced = [facts for facts in found if facts["sop_class"] == "EnhancedMRImageStorage"]
    assert sorted((one["plane"], one["positions"], one["slice_spacing"]) for one in enhanced) == [
        ("axial", "8", "5"),
        ("sagittal", "8", "1.2"),
    ]
