"""`isocenter query` and `isocenter fetch`: other nodes asked from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.query.node import Answering, answering, ct, storing
from tests.servers import free_port, isocenter


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Answering]:
    with answering(tmp_path / "other") as made:
        made.hold(
            ct(number=1), ct(number=2),
            ct(name="Roe^Björn", patient="P2", study_uid="1.2.2", StudyDescription="CT Abdomen"),
        )  # fmt: skip
        yield made


def at(node: Answering) -> tuple[str, ...]:
    return ("--at", f"ISOCENTER@127.0.0.1:{node.port}", "--calling", "FRIEND")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(exist_ok=True)


@pytest.mark.long
def test_what_another_node_holds_is_listed(node: Answering) -> None:
    found = json.loads(isocenter("query", "PatientName=*", *at(node), "--json").stdout)
    by_patient = {row["PatientID"]: row for row in found}
    assert by_patient["P1"]["NumberOfStudyRelatedInstances"] == "2"
    assert by_patient["P2"]["PatientName"] == "Roe^Björn"
    table = isocenter("query", "PatientID=P2", *at(node)).stdout
    assert "CT Abdomen" in table
    assert "P1" not in table
    series = json.loads(isocenter("query", "StudyInstanceUID=1.2.1", "--level", "series", *at(node), "--json").stdout)
    assert [row["SeriesInstanceUID"] for row in series] == ["1.2.1.1"]
    assert len(json.loads(isocenter("query", "PatientID=", "--most", "1", *at(node), "--json").stdout)) == 1
    nothing = isocenter("query", "PatientID=NOBODY", *at(node))
    assert nothing.stdout == ""
    assert "holds nothing" in nothing.stderr


def test_a_study_comes_into_a_folder(node: Answering, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = json.loads(isocenter("fetch", "1.2.1", "--out", out, *at(node), "--json").stdout)
    assert said["completed"] == 2
    files = sorted(out.iterdir())
    assert [dcmread(file).StudyInstanceUID for file in files] == ["1.2.1", "1.2.1"]
    assert all(file.name == f"{dcmread(file).SOPInstanceUID}.dcm" for file in files)


def test_a_study_is_sent_to_a_third(node: Answering) -> None:
    with storing("ARCHIVE") as (port, got):
        node.destinations(ARCHIVE=port)
        isocenter("fetch", "1.2.1", "--move-to", "ARCHIVE", *at(node))
    assert len(got) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("query", "PatientID"), 2, "is no key"),
        (("query", "Colour=red"), 2, "Colour"),
        (("query", "PatientID=1", "--level", "slice"), 2, "is no level"),
        (("fetch", "1.2.3"), 2, "is not there"),
        (("fetch", "1.2.3", "--out", "x", "--tls"), 2, "certificates"),
        (("fetch", "9.9.9", "--move-to", "NOBODY"), 1, "A801"),
        (("fetch", "9.9.9", "--out", "x"), 1, "holds nothing"),
    ],
)
def test_what_cannot_be_asked_is_said(
    node: Answering, tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    words = tuple(str(tmp_path / "out") if word == "x" else word for word in words)
    done = isocenter(*words, *at(node), check=False)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_nobody_there_and_nobody_wanted(node: Answering) -> None:
    silent = isocenter("query", "PatientID=", "--at", f"X@127.0.0.1:{free_port()}", "--timeout-s", "2", check=False)
    assert (silent.returncode, "does not answer" in silent.stderr) == (1, True)
    stranger = isocenter("query", "PatientID=", "--at", f"ISOCENTER@127.0.0.1:{node.port}", check=False)
    assert (stranger.returncode, "Traceback" in stranger.stderr) == (1, False)
