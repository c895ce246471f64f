"""DCMTK's tools find and fetch what the node holds."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.conftest import component
from tests.query.node import Answering, answering, ct, run, storing


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Answering]:
    component("DCMTK")
    with answering(tmp_path) as made:
        made.hold(
            *(ct(number=number) for number in (1, 2, 3)),
            ct(series_uid="1.2.1.2", Modality="PT", SeriesNumber=3),
            ct(name="Müller^Jörg", patient="P2", study_uid="1.2.2", StudyDate="20230101", AccessionNumber="B7"),
        )
        yield made


def findscu(node: Answering, model: str, *keys: str, options: tuple[str, ...] = ()) -> str:
    arguments = [part for key in keys for part in ("-k", key)]
    peer = ("-aet", "FRIEND", "-aec", "ISOCENTER", "127.0.0.1", str(node.port))
    return run("findscu", "-v", model, *options, *arguments, *peer)


def answers(said: str) -> list[dict[str, str]]:
    """What findscu printed of each response: keyword -> text."""
    found = []
    for part in said.split("Find Response:")[1:]:
        lines = re.findall(r"^I: \(\w{4},\w{4}\) \w\w (?:\[(.*?)[ \0]*\]|=(\w+))\s.*? (\w+)$", part, re.MULTILINE)
        found.append({keyword: value or name for value, name, keyword in lines})
    return found


@pytest.mark.parametrize("options", [(), ("-xi",), ("-xe",), ("-pdu", "4096")])
def test_a_study_is_found_with_its_counts(node: Answering, options: tuple[str, ...]) -> None:
    said = findscu(
        node, "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName=doe*", "ModalitiesInStudy",
        "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "SOPClassesInStudy", options=options,
    )  # fmt: skip
    assert answers(said) == [
        {
            "QueryRetrieveLevel": "STUDY",
            "RetrieveAETitle": "ISOCENTER",
            "ModalitiesInStudy": r"CT\PT",
            "SOPClassesInStudy": "CTImageStorage",
            "PatientName": "Doe^Jane",
            "StudyInstanceUID": "1.2.1",
            "NumberOfStudyRelatedSeries": "2",
            "NumberOfStudyRelatedInstances": "4",
        }
    ]


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        (("StudyDate=20240101-",), 1),
        (("StudyDate=-20231231",), 1),
        (("StudyDate=20230101-20240105",), 2),
        (("AccessionNumber=B?",), 1),
        (("AccessionNumber=b7",), 0),
        (("PatientName=MULLER^JORG",), 1),
        (("ModalitiesInStudy=PT",), 1),
        (("StudyInstanceUID=1.2.1\\1.2.2\\1.2.3",), 2),
        (("StudyTime=1015",), 2),
        ((), 2),
    ],
)
def test_every_kind_of_key_matches(node: Answering, keys: tuple[str, ...], count: int) -> None:
    said = findscu(node, "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID", *keys)
    assert said.count("Find Response:") == count


def test_levels_are_walked_down_in_patient_root(node: Answering) -> None:
    patients = findscu(
        node, "-P", "QueryRetrieveLevel=PATIENT", "PatientID", "PatientName=*", "NumberOfPatientRelatedInstances"
    )
    assert patients.count("Find Response:") == 2
    studies = findscu(node, "-P", "QueryRetrieveLevel=STUDY", "PatientID=P1", "StudyInstanceUID")
    assert studies.count("Find Response:") == 1
    series = findscu(
        node, "-P", "QueryRetrieveLevel=SERIES", "PatientID=P1", "StudyInstanceUID=1.2.1", "SeriesInstanceUID",
        "Modality", "NumberOfSeriesRelatedInstances",
    )  # fmt: skip
    assert series.count("Find Response:") == 2
    images = findscu(
        node, "-P", "QueryRetrieveLevel=IMAGE", "PatientID=P1", "StudyInstanceUID=1.2.1", "SeriesInstanceUID=1.2.1.1",
        "SOPInstanceUID", "InstanceNumber=2", "Rows", "ImageType",
    )  # fmt: skip
    assert images.count("Find Response:") == 1
    assert r"[ORIGINAL\PRIMARY\AXIAL]" in images


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("-S", ("QueryRetrieveLevel=SERIES", "SeriesInstanceUID")),
        ("-S", ("QueryRetrieveLevel=SERIES", "StudyInstanceUID=*", "SeriesInstanceUID")),
        ("-S", ("QueryRetrieveLevel=IMAGE", "StudyInstanceUID=1.2.1", "SOPInstanceUID")),
        ("-P", ("QueryRetrieveLevel=STUDY", "StudyInstanceUID")),
        ("-P", ("QueryRetrieveLevel=STUDY", "PatientID=P*", "StudyInstanceUID")),
        ("-S", ("QueryRetrieveLevel=PATIENT", "PatientID")),
        ("-S", ("QueryRetrieveLevel=FRAME", "StudyInstanceUID")),
        ("-S", ("StudyInstanceUID",)),
        ("-S", ("QueryRetrieveLevel=STUDY", "StudyDate=yesterday")),
    ],
)
def test_an_identifier_that_breaks_the_hierarchy_or_the_form_is_refused(
    node: Answering, model: str, keys: tuple[str, ...]
) -> None:
    said = findscu(node, model, *keys)
    assert said.count("Find Response:") == 0
    assert "DoesNotMatchSOPClass" in said


def test_a_cancelled_query_ends_with_cancel(tmp_path: Path) -> None:
    component("DCMTK")
    with answering(tmp_path) as made:
        made.hold(*(ct(study_uid=f"1.3.{number}") for number in range(200)))
        said = findscu(made, "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID", options=("--cancel", "3"))
    assert 3 <= said.count("Find Response:") <= 201
    assert "Cancel" in said


def test_a_study_is_moved_to_a_configured_destination(node: Answering) -> None:
    with storing() as (port, got):
        node.destinations(ARCHIVE=port)
        said = run(
            "movescu", "-v", "-S", "-aet", "FRIEND", "-aec", "ISOCENTER", "-aem", "ARCHIVE", "-k",
            "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.1", "127.0.0.1", str(node.port),
        )  # fmt: skip
    assert "Success" in said
    assert len(got) == 4
    assert {request.MoveOriginatorApplicationEntityTitle for request, _ in got} == {"FRIEND"}
    assert {str(dataset.PatientName) for _, dataset in got} == {"Doe^Jane"}
    assert [(row["who"], row["study"], row["instances"], row["to"]) for row in node.audited("study.retrieved")] == [
        ("FRIEND@127.0.0.1", "1.2.1", 4, "archive")
    ]


def test_a_series_is_got_bit_by_bit_as_it_lies_in_the_store(node: Answering, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    run(
        "getscu", "-v", "-S", "-aet", "FRIEND", "-aec", "ISOCENTER", "-od", out, "+B", "-k",
        "QueryRetrieveLevel=SERIES", "-k", "StudyInstanceUID=1.2.1", "-k", "SeriesInstanceUID=1.2.1.1",
        "127.0.0.1", str(node.port),
    )  # fmt: skip
    files = [dcmread(path) for path in out.iterdir()]
    assert sorted(file.InstanceNumber for file in files) == [1, 2, 3]
    assert {file.PixelData for file in files} == {bytes(128)}


def test_real_objects_are_got_in_the_syntax_that_was_agreed_whatever_they_lie_in(tmp_path: Path, data: Path) -> None:
    component("DCMTK")
    out = tmp_path / "out"
    out.mkdir()
    wanted = {
        path.name: dcmread(path) for path in sorted(data.rglob("*.dcm")) if "odd" in str(path) or "5mm" in str(path)
    }
    by_syntax = {one.file_meta.TransferSyntaxUID: one for one in wanted.values() if "PixelData" in one}
    sources = [Path(str(one.filename)) for one in by_syntax.values()]
    assert {uid.is_compressed for uid in by_syntax} == {True, False}
    with answering(tmp_path) as node:
        node.hold_files(*sources)
        for source in by_syntax.values():
            run(
                "getscu", "-v", "-S", "-aet", "FRIEND", "-aec", "ISOCENTER", "-od", out, "+B", "-k",
                "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={source.StudyInstanceUID}", "127.0.0.1",
                str(node.port),
            )  # fmt: skip
    got = {one.SOPInstanceUID: one for one in map(dcmread, out.iterdir())}
    for source in by_syntax.values():
        arrived = got[source.SOPInstanceUID]
        assert not arrived.file_meta.TransferSyntaxUID.is_compressed
        assert (arrived.pixel_array == source.pixel_array).all()
        assert arrived.PatientName == source.PatientName


def test_a_retrieval_that_names_nothing_moves_nothing(node: Answering) -> None:
    with storing() as (port, got):
        node.destinations(ARCHIVE=port)
        said = run(
            "movescu", "-v", "-S", "-aet", "FRIEND", "-aec", "ISOCENTER", "-aem", "ARCHIVE", "-k",
            "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", "127.0.0.1", str(node.port), check=False,
        )  # fmt: skip
    assert not got
    assert "DoesNotMatchSOPClass" in said
