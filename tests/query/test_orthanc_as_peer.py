"""Orthanc queries, retrieves and asks for commitment here; and is queried and retrieved from by us."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from router.domain.query import Level, Root
from router.query.commitment import Holding, Node
from router.query.scu import Peer, find, get, move
from tests.conftest import component, until
from tests.query.node import Answering, answering, ct, part10, storing
from tests.servers import Orthanc, orthanc


def proven(node: Node, calling_ae_title: str, holdings: Any) -> list[str]:
    return [one.sop_instance_uid for one in holdings if isinstance(one, Holding)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orthanc, Answering]]:
    """Orthanc, and a node that answers on a port which Orthanc knows."""
    component("Orthanc")
    folder = tmp_path_factory.mktemp("peers")
    with answering(folder, proven) as node, orthanc(folder / "orthanc", {"ours": ("ISOCENTER", node.port)}) as pacs:
        node.sources(
            {"ae_title": "ORTHANC", "addresses": ["127.0.0.1"], "services": ["query", "retrieve", "commit"]},
            {"ae_title": "FRIEND", "addresses": ["127.0.0.1"], "services": ["query", "retrieve"]},
        )
        node.destinations(ORTHANC=pacs.dicom_port)
        node.hold(
            *(ct(number=number, name="Müller^Jörg") for number in (1, 2, 3)),
            ct(series_uid="1.2.1.2", SeriesNumber=3, number=1, name="Müller^Jörg"),
            ct(study_uid="1.2.2", name="Doe^Jane", StudyDate="20230101"),
        )
        yield pacs, node


def ours(pacs: Orthanc, path: str, body: Any = None) -> Any:
    """What Orthanc answers when it is told to speak with our node."""
    answer = pacs.http.post(f"/modalities/ours/{path}", json=body or {})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_orthanc_finds_and_fetches_a_study_from_us(both: tuple[Orthanc, Answering]) -> None:
    pacs, node = both
    query = {"PatientName": "MULLER*", "StudyDate": "20240101-", "ModalitiesInStudy": "CT", "StudyInstanceUID": ""}
    asked = ours(pacs, "query", {"Level": "Study", "Query": query})
    answers = pacs.http.get(f"/queries/{asked['ID']}/answers").json()
    assert len(answers) == 1
    content = pacs.http.get(f"/queries/{asked['ID']}/answers/0/content?simplify").json()
    assert content["PatientName"] == "Müller^Jörg"
    assert content["StudyInstanceUID"] == "1.2.1"
    answer = pacs.http.post(f"/queries/{asked['ID']}/retrieve", json={"TargetAet": "ORTHANC", "Synchronous": True})
    assert answer.status_code == 200, answer.text
    assert len(until(lambda: [i for i in pacs.instances() if len(pacs.instances()) == 4])) == 4
    held = {one["SOPInstanceUID"] for one in pacs.instances()}
    assert len(held) == 4
    (row,) = [row for row in node.audited("study.retrieved") if row["who"].startswith("ORTHANC")]
    assert (row["study"], row["instances"], row["to"]) == ("1.2.1", 4, "orthanc")


@pytest.mark.parametrize(
    ("level", "query", "count"),
    [
        ("Patient", {"PatientID": "P1"}, 1),
        ("Study", {"PatientID": "P1"}, 2),
        ("Series", {"StudyInstanceUID": "1.2.1", "Modality": "CT"}, 2),
        ("Instance", {"StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.1", "InstanceNumber": "2"}, 1),
    ],
)
def test_orthanc_asks_at_every_level(
    both: tuple[Orthanc, Answering], level: str, query: dict[str, str], count: int
) -> None:
    pacs, _ = both
    asked = ours(pacs, "query", {"Level": level, "Query": query})
    assert len(pacs.http.get(f"/queries/{asked['ID']}/answers").json()) == count


def test_orthanc_asks_for_commitment_and_is_called_back(both: tuple[Orthanc, Answering]) -> None:
    pacs, node = both
    known = ct(study_uid="1.9.1")
    node.hold(known)
    instances = [[known.SOPClassUID, known.SOPInstanceUID], [known.SOPClassUID, "1.9.9.9"]]
    asked = ours(pacs, "storage-commitment", {"DicomInstances": instances, "Timeout": 20})
    report = until(
        lambda: answer if (answer := pacs.http.get(asked["Path"]).json())["Status"] != "Pending" else None,
        what="the commitment report",
    )
    assert report["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in report["Success"]] == [known.SOPInstanceUID]
    (failed,) = report["Failures"]
    assert failed["SOPInstanceUID"] == "1.9.9.9"
    assert failed["FailureReason"] == 0x0112, failed


def test_we_count_and_fetch_what_orthanc_holds(both: tuple[Orthanc, Answering], tmp_path: Path) -> None:
    pacs, _ = both
    theirs = [ct(study_uid="1.7.1", patient="PRIOR", name="Müller^Jörg", number=n) for n in (1, 2, 3)]
    for one in theirs:
        assert pacs.http.post("/instances", content=part10(one)).status_code == 200
    peer = Peer(ae_title="ORTHANC", host="127.0.0.1", port=pacs.dicom_port, calling_ae_title="ISOCENTER")
    (study,) = find(peer, {"PatientID": "PRIOR"}, Level.STUDY)
    assert (study.StudyInstanceUID, study.NumberOfStudyRelatedInstances) == ("1.7.1", 3)
    assert study.PatientName == "Müller^Jörg"
    (series,) = find(peer, {"PatientID": "PRIOR", "StudyInstanceUID": "1.7.1"}, Level.SERIES, root=Root.PATIENT)
    assert series.NumberOfSeriesRelatedInstances == 3
    kept: list[Dataset] = []

    def keep(meta: Dataset, content: bytes) -> int:
        kept.append(dcmread(BytesIO(content), force=True))
        return 0x0000

    got = get(peer, {"StudyInstanceUID": "1.7.1"}, Level.STUDY, keep)
    assert (got.whole, got.completed, len(kept)) == (True, 3, 3)
    with storing("ISOCENTER") as (port, arrived):
        pacs.http.put("/modalities/back", json={"AET": "ISOCENTER", "Host": "127.0.0.1", "Port": port})
        moved = move(peer, {"StudyInstanceUID": "1.7.1"}, Level.STUDY, "ISOCENTER")
    assert (moved.whole, moved.completed) == (True, 3)
    assert {dataset.SOPInstanceUID for _, dataset in arrived} == {one.SOPInstanceUID for one in theirs}
