"""SECRET^PATIENT goes through the whole node, with every kind of trouble, and is in no log, metric, alert or reason."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from router.config import load
from router.db import revisions
from router.db.engine import connect, writing
from router.db.revisions import Kind
from tests.chaos.scene import SHELF
from tests.conftest import REPOSITORY, until
from tests.delivery.scp import Archive, archive
from tests.ingest.wire import Wire, store_message
from tests.objects.conftest import ct_series
from tests.servers import RunningNode, free_port, isocenter, node

NAME, NUMBER, BORN, ORDER = "SECRET^PATIENT", "ID-7735512", "19231117", "ORDER-990417"
WORDS = ("SECRET", NUMBER, BORN, ORDER, "1923-11-17")
MOODS = ("fine", "declines", "raises", "segfaults")
ROOT = "1.2.826.0.1.3680043.10.99999.9"


class Talkative(Archive):
    """It says no at first, and why, with a name."""

    def store(self, event: evt.Event) -> Any:
        if event.request.AffectedSOPClassUID == CTImageStorage or len(self.asked) > 20:
            return super().store(event)
        self.asked += [event.request.AffectedSOPInstanceUID] * 20
        no = Dataset()
        no.Status, no.ErrorComment = 0xA700, f"no room for {NAME}"
        return no


def scan(folder: Path, number: int, mood: str, **identity: str) -> list[Path]:
    """A study of this patient whose SeriesDescription says what the pipeline is to do."""

    def change(slice_: Dataset, index: int) -> None:
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = f"{ROOT}.{number}", f"{ROOT}.{number}.1"
        slice_.SOPInstanceUID, slice_.SeriesDescription = f"{ROOT}.{number}.2.{index}", mood
        slice_.PatientName, slice_.PatientID = NAME, NUMBER
        slice_.PatientBirthDate, slice_.AccessionNumber = BORN, ORDER
        slice_.OtherPatientIDs = slice_.PatientComments = NUMBER
        for keyword, value in identity.items():
            setattr(slice_, keyword, value)

    return ct_series(folder / f"{number}-{mood}-{len(identity)}", change=change)


def rules() -> list[dict[str, Any]]:
    return [
        {
            "name": mood,
            "scope": "series",
            "when": {"all": [{"SeriesDescription": mood}, {"PatientName": {"contains": "SECRET"}}]},
            "pipelines": [{"name": "moody", "settings": {"mood": mood}}],
            "destinations": ["pacs", "nobody"],
        }
        for mood in MOODS
    ]


@pytest.fixture
def far() -> Iterator[Archive]:
    with archive(finds=True, state=Talkative()) as running:
        yield running


@pytest.fixture
def ours(tmp_path: Path, far: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningNode]:
    monkeypatch.setenv("PYTHONPATH", f"{SHELF}:{REPOSITORY}")
    web = {"port": free_port()}
    with node(tmp_path / "node", f"ARCHIVE@127.0.0.1:{far.port}", web=web, inference={"device": "cpu"}) as running:
        far.reports_to = web["port"]  # only to have it at hand
        put(running, Kind.DESTINATIONS, [
            {"name": "pacs", "kind": "dicom", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": far.port},
            {"name": "nobody", "kind": "stow", "url": "http://127.0.0.1:1/dicom-web"},
        ])  # fmt: skip
        services = ["store", "query", "retrieve", "echo"]
        put(running, Kind.SOURCES, [
            {"ae_title": title, "addresses": ["127.0.0.1"], "services": services}
            for title in ("ISOCENTER_SEND", "ASKER", "SENDER")
        ])  # fmt: skip
        put(running, Kind.RULES, rules())
        yield running


def put(running: RunningNode, kind: Kind, body: list[dict[str, Any]]) -> None:
    engine = connect(load(running.config).database.url)
    with writing(engine) as connection:
        revisions.add(connection, kind, body, author="test")
    engine.dispose()


def ask(running: RunningNode) -> None:
    """Queries and retrievals with the patient in them, right and wrong ones, and by somebody who may not."""
    find, move = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove
    for title in ("ASKER", "NOBODY"):
        ae = AE(ae_title=title)
        ae.add_requested_context(find)
        ae.add_requested_context(move)
        association = ae.associate("127.0.0.1", running.port, ae_title=running.title)
        if not association.is_established:
            continue
        for level, keyword, value in (
            ("STUDY", "PatientName", "SECRET*"),
            ("STUDY", "AccessionNumber", ORDER),
            ("NOWHERE", "PatientID", NUMBER),
            ("STUDY", "StudyDate", NAME),
        ):
            identifier = Dataset()
            identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = level, ""
            identifier.add_new(keyword, "LO", value)
            list(association.send_c_find(identifier, find))
            list(association.send_c_move(identifier, "SECRET", move))
        association.release()


def look(running: RunningNode, port: int) -> str:
    """Pages and API with the patient in the address; the metrics."""
    made = isocenter("tokens", "add", "test", "--scope", "read", "--scope", "metrics", "--config", running.config)
    secret = made.stdout.split()[-1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {secret}"}) as http:
        assert http.get("/api/v1/studies", params={"search": NUMBER}).json()["total"] >= len(MOODS)
        http.get("/api/v1/studies", params={"search": NAME})
        for path in (f"/api/v1/studies/{NUMBER}", f"/api/v1/studies/{NAME}", f"/{NAME}", f"/api/v1/jobs/{ORDER}"):
            assert http.get(path).status_code >= 400
        http.post("/login", data={"name": NAME, "password": NUMBER})
        metrics = http.get("/metrics")
    assert metrics.status_code == 200
    return metrics.text


def came_to(running: RunningNode, table: str = "job") -> set[str]:
    """States and outcomes of all jobs, or of all studies."""
    columns = "state, outcome" if table == "job" else "state, attention"
    with closing(sqlite3.connect(running.folder / "isocenter.db", timeout=30)) as connection:
        return {word for row in connection.execute(f"SELECT {columns} FROM {table}") for word in row if word}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_patient_is_in_no_log_metric_alert_or_reason(ours: RunningNode, far: Archive, tmp_path: Path) -> None:
    scans = [scan(tmp_path, number, mood) for number, mood in enumerate(MOODS)]
    others = scan(tmp_path, 7, "fine")
    address = f"ARCHIVE@127.0.0.1:{far.port}"
    differing = scan(tmp_path, 7, "fine", PatientID=f"{NUMBER}-OTHER")
    isocenter("send", *(path for paths in (*scans, differing) for path in paths), "--to", address)
    ours.send(*(path for paths in (*scans, others) for path in paths))
    with Wire(ours.port) as wire:  # an instance that breaks off in the middle, and one that is none
        wire.associate()
        whole = others[0].read_bytes()
        wire.send(store_message(f"{ROOT}.8", whole[whole.index(b"CT\0\0") if b"CT\0\0" in whole else 400 : -301]))
        wire.status()
    until(lambda: came_to(ours) >= {"failed", "held", "refused", "delivered"}, deadline_s=300, what="all endings")
    ours.send(*scan(tmp_path, 0, "fine", PatientName=f"{NAME}^CORRECTED"))
    ours.send(scan(tmp_path, 0, "fine", PatientID=f"{NUMBER}-2", SOPInstanceUID=f"{ROOT}.99")[0])
    ask(ours)
    metrics = look(ours, far.reports_to or 0)
    until(lambda: "held" in came_to(ours, "study"), deadline_s=120, what="a study with two patients")
    told = {
        "metrics": metrics,
        "alerts": json.dumps(ours.ask("alerts", "list", "--ended")),
        "reasons": json.dumps([job["reason"] for job in ours.ask("jobs", "list")]),
        "audit": json.dumps(ours.ask("audit", "list", "--limit", "1000")),
    }
    assert ours.stop() == 0
    told["log"] = ours.log
    assert len(told["log"].splitlines()) > 100
    for where, text in told.items():
        found = [line for line in text.splitlines() if any(word in line for word in WORDS)]
        assert not found, f"{where}: {found[:3]}"
    kept = dcmread(next(iter((tmp_path / "node" / "store").rglob("*.dcm"))), force=True)
    assert NAME in str(kept.PatientName), "it did go through"
    assert kept.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
