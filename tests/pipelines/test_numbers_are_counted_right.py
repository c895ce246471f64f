"""Measurements of labels equal what a plain count over the voxels gives."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dicom_sr.nouns import Acquisition, Volume
from pipelines import measure

SHAPE = (3, 4, 5)


def volume_of(array: np.ndarray) -> Volume:
    return Volume(
        array=array,
        affine=np.diag([2.0, 0.5, 0.5, 1.0]),
        acquisition=Acquisition(modality="CT", series_instance_uid="1"),
    )


LABELS = arrays.arrays(np.uint8, SHAPE, elements=st.integers(0, 3))


@settings(deadline=None)
@given(
    arrays.arrays(np.int16, SHAPE, elements=st.integers(-1100, 3071)),
    LABELS,
    st.integers(-1000, 200),
    st.floats(0.5, 100),
)
def test_whole_numbers_are_exact(array: np.ndarray, labels: np.ndarray, below: int, percent: float) -> None:
    for number, found in enumerate(measure.distributions(volume_of(array), labels, 3), start=1):
        values = array[labels == number]
        assert found.voxels == values.size
        if values.size:
            assert found.volume_ml == pytest.approx(values.size * 0.0005)
            assert found.mean == pytest.approx(values.mean(dtype=float))
            assert found.percent_below(below) == pytest.approx(100 * (values < below).mean())
            assert found.percentile(percent) == np.percentile(values, percent, method="inverted_cdf")


@settings(deadline=None)
@given(arrays.arrays(np.float32, SHAPE, elements=st.floats(-1100, 3000, width=32)), LABELS)
def test_fractions_are_counted_on_the_right_side_of_a_whole_number(array: np.ndarray, labels: np.ndarray) -> None:
    for number, found in enumerate(measure.distributions(volume_of(array), labels, 3), start=1):
        values = array[labels == number]
        if values.size:
            assert found.mean == pytest.approx(values.mean(dtype=float), abs=1e-3)
            assert found.percent_below(-950) == pytest.approx(100 * (values < -950).mean())
            assert found.percentile(15) == np.floor(np.percentile(values, 15, method="inverted_cdf"))


def test_no_label_is_no_voxel() -> None:
    (found,) = measure.distributions(volume_of(np.zeros(SHAPE, np.int16)), np.zeros(SHAPE, np.uint8), 1)
    assert found.voxels == 0


@pytest.mark.parametrize("edge", [lambda a: a, lambda a: a[::-1], lambda a: np.asfortranarray(a)])
def test_the_order_in_memory_does_not_matter(edge: Callable[[np.ndarray], np.ndarray]) -> None:
    array = np.arange(60, dtype=np.int16).reshape(SHAPE)
    labels = (array % 3).astype(np.uint8)
    found = measure.distributions(volume_of(edge(array)), edge(labels), 2)
    assert [round(one.mean, 6) for one in found] == [round(float(array[labels == n].mean()), 6) for n in (1, 2)]
