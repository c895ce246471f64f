"""A header that is read by the layout of an earlier one says what a walk over it says."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from router.ingest.headers import Header, beginning, header_of
from router.ingest.layout import PATIENCE, Series
from tests.ingest.conftest import dataset_bytes, slice_of
from tests.ingest.test_headers_agree import enhanced, real_files

AT = 300


def walked(data: bytes) -> Header | None:
    walk = beginning(data)
    return None if walk is None else header_of(walk, at=AT)


def requested() -> Dataset:
    """A slice with a character set and with sequences, of which one gives a fact."""
    item, code = Dataset(), Dataset()
    item.RequestedProcedureDescription, item.ScheduledProcedureStepID = "Chest", "1"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "Thorax"
    made = slice_of(SpecificCharacterSet="ISO_IR 192", PatientName="Größe^A", EchoTime="1.5")
    made.RequestAttributesSequence, made.ProcedureCodeSequence = Sequence([item]), Sequence([code])
    return made


def test_of_a_series_only_the_first_slice_is_walked() -> None:
    series = Series()
    for number in range(10, 99):
        made = slice_of(number=number, EchoTime=f"{number}.5")
        content = dataset_bytes(made)
        header = series.begins(content, at=AT)
        assert header is not None
        assert header == walked(content)
        assert header.facts["InstanceNumber"] == number
        assert header.facts["EchoTime"] == number + 0.5
    assert len(series.layouts) == 1


def test_a_value_that_says_how_others_are_read_is_seen() -> None:
    series = Series()
    names = set()
    for term in (b"ISO_IR 192", b"ISO_IR 100", b"ISO_IR 144", b"ISO_IR 192"):
        content = dataset_bytes(requested()).replace(b"ISO_IR 192", term)
        header = series.begins(content, at=AT)
        assert header is not None
        assert header == walked(content)
        names.add(header.facts["PatientName"])
    assert len(names) == 3


def test_an_element_that_is_there_twice_says_what_the_last_one_says() -> None:
    content = dataset_bytes(slice_of(StudyID="AA"))
    at = content.index(b"\x20\x00\x10\x00SH")
    series = Series()
    for first, last in ((b"AA", b"BB"), (b"CC", b"BB"), (b"AA", b"DD")):
        twice = content[:at] + b"".join(content[at : at + 8] + value for value in (first, last)) + content[at + 10 :]
        assert series.begins(twice, at=AT) == walked(twice)


def test_a_peer_whose_headers_never_agree_is_not_remembered_for_ever() -> None:
    series = Series()
    for number in range(3 * PATIENCE):
        content = dataset_bytes(slice_of(ImageComments="x" * (2 * number + 2)))
        assert series.begins(content, at=AT) == walked(content)
    assert series.missed == PATIENCE


BASES = [dataset_bytes(made) for made in (slice_of(), requested(), enhanced())]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(range(len(BASES))),
            st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=3),
            st.integers(0, 1500),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_whatever_comes_after_whatever_it_is_read_as_if_it_came_alone(
    sent: list[tuple[int, list[tuple[int, bytes]], int]],
) -> None:
    series = Series()
    for base, changes, cut in sent:
        content = bytearray(BASES[base])
        for at, new in changes:
            place = at % len(content)
            content[place : place + len(new)] = new
        data = bytes(content[: max(1, len(content) - (cut if cut > 1000 else 0))])
        assert series.begins(data, at=AT) == walked(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_series_are_read_alike(data: Path) -> None:
    folders: dict[Path, Series] = {}
    known = 0
    for path, content, start, syntax in real_files(data):
        if syntax == ExplicitVRLittleEndian:
            series = folders.setdefault(path.parent, Series())
            piece = memoryview(content)[start:]
            before = series.missed
            walk = beginning(piece)
            assert series.begins(piece, at=start) == (None if walk is None else header_of(walk, at=start)), path
            known += walk is not None and series.missed <= before
    assert known > 100
