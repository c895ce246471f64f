"""A node that answers queries on a free port, with a few small true studies in its store."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from sqlalchemy import insert, select, update

from router import query
from router.config import Settings
from router.db import migrate, revisions
from router.db.engine import connect, reading, writing
from router.db.revisions import Kind
from router.db.tables import audit, instance, result, series, study
from router.ingest import offers
from router.node import Node
from router.query.commitment import Proof
from router.query.proof import archived
from router.store import Store
from router.wake import Bell
from tests.query.holding import EMPTY_INSTANCE, EMPTY_SERIES, EMPTY_STUDY, make

LOCALHOST = ["127.0.0.0/8"]
RIGHTS = ["store", "echo", "query", "retrieve", "commit"]


@dataclass
class Answering:
    """A node whose queries are served by a plain pynetdicom AE."""

    node: Node
    ae: AE
    port: int = 0

    def sources(self, *entries: dict[str, Any]) -> None:
        """Make these the sources in force."""
        with writing(self.node.engine) as connection:
            revisions.add(connection, Kind.SOURCES, list(entries), author="test")

    def destinations(self, **ports: int) -> None:
        """Make these the destinations in force: AE title -> port of loopback."""
        body = [
            {"name": title.lower(), "kind": "dicom", "ae_title": title, "host": "127.0.0.1", "port": port}
            for title, port in ports.items()
        ]
        with writing(self.node.engine) as connection:
            revisions.add(connection, Kind.DESTINATIONS, body, author="test")

    def audited(self, act: str) -> list[dict[str, Any]]:
        """Details of the audit rows of this act."""
        with reading(self.node.engine) as connection:
            rows = connection.execute(select(audit).where(audit.c.act == act).order_by(audit.c.id)).mappings()
            return [row["detail"] | {"who": row["who"], "study": row["study_instance_uid"]} for row in rows]

    def hold(self, *objects: FileDataset) -> None:
        """Keep these as if they had been received."""
        with writing(self.node.engine) as connection:
            for one in objects:
                path = self.node.store.keep(part10(one))
                put(connection, one, path)

    def hold_files(self, *paths: Path) -> None:
        """Keep these files, byte by byte, as if they had been received."""
        with writing(self.node.engine) as connection:
            for path in paths:
                put(connection, dcmread(path), self.node.store.keep(path.read_bytes()))

    def make(self, study_uid: str, kind: str, content: FileDataset, *, state: str | None = "done") -> str:
        """A result of the study, with its file."""
        with writing(self.node.engine) as connection:
            (uid,) = make(connection, study_uid, [kind], state=state)
            content.SOPInstanceUID = content.file_meta.MediaStorageSOPInstanceUID = uid
            path = self.node.store.keep(part10(content))
            connection.execute(update(result).where(result.c.sop_instance_uid == uid).values(path=path))
        return uid


def part10(dataset: FileDataset) -> bytes:
    """The file's bytes."""
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def put(connection: Any, one: FileDataset, path: str) -> None:
    """The index rows of an object."""
    exists = select(study.c.study_instance_uid).where(study.c.study_instance_uid == one.StudyInstanceUID)
    if connection.execute(exists).first() is None:
        texts = {
            "patient_id": one.get("PatientID", ""),
            "issuer_of_patient_id": one.get("IssuerOfPatientID", ""),
            "patient_name": str(one.get("PatientName", "")),
            "study_date": one.get("StudyDate", ""),
            "study_time": one.get("StudyTime", ""),
            "accession_number": one.get("AccessionNumber", ""),
            "study_description": one.get("StudyDescription", ""),
        }
        connection.execute(insert(study).values(EMPTY_STUDY | {"study_instance_uid": one.StudyInstanceUID} | texts))
    keys = {"study_instance_uid": one.StudyInstanceUID, "series_instance_uid": one.SeriesInstanceUID}
    exists = select(series.c.modality).where(*(series.c[name] == value for name, value in keys.items()))
    if connection.execute(exists).first() is None:
        own = {"modality": one.Modality, "series_number": str(one.get("SeriesNumber") or "")}
        connection.execute(insert(series).values(EMPTY_SERIES | keys | own))
    row = {
        "sop_instance_uid": one.SOPInstanceUID,
        "sop_class_uid": one.SOPClassUID,
        "transfer_syntax_uid": str(one.file_meta.TransferSyntaxUID),
        "instance_number": str(one.get("InstanceNumber") or ""),
        "path": path,
        "header": {"Rows": one.get("Rows", ""), "ImageType": list(one.get("ImageType", [])), "SliceThickness": 5.0},
    }
    connection.execute(insert(instance).values(EMPTY_INSTANCE | keys | row))


def ct(
    *,
    name: str = "Doe^Jane",
    patient: str = "P1",
    study_uid: str = "1.2.1",
    series_uid: str = "",
    number: int = 1,
    **more: Any,
) -> FileDataset:
    """A CT slice of 8 x 8 pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    one.SpecificCharacterSet = "ISO_IR 192"
    one.SOPClassUID = CTImageStorage
    one.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.PatientName, one.PatientID = name, patient
    one.StudyInstanceUID, one.SeriesInstanceUID = study_uid, series_uid or f"{study_uid}.1"
    one.StudyDate, one.StudyTime, one.AccessionNumber, one.StudyDescription = "20240105", "101530", "A1", "CT Thorax"
    one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", 2, number
    one.Rows = one.Columns = 8
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 15, 1, 1
    one.PhotometricInterpretation = "MONOCHROME2"
    one.PixelData = bytes(128)
    for keyword, value in more.items():
        setattr(one, keyword, value)
    return one


@contextmanager
def answering(folder: Path, prove: Proof = archived, *, timeout_s: float = 10) -> Iterator[Answering]:
    """A node that everybody on loopback called FRIEND may ask everything."""
    settings = Settings(run_path=folder / "run", ae_title="ISOCENTER")
    engine = connect(f"sqlite:///{folder}/isocenter.db")
    migrate.upgrade(engine)
    (folder / "run").mkdir(exist_ok=True)
    node = Node(
        node_id="test",
        settings=settings,
        engine=engine,
        store=Store(folder / "store"),
        bell=Bell(folder / "run" / "wake"),
    )
    ae = AE(ae_title="ISOCENTER")
    ae.dimse_timeout = ae.network_timeout = ae.acse_timeout = timeout_s
    made = Answering(node=node, ae=ae)
    made.sources({"ae_title": "FRIEND", "addresses": LOCALHOST, "services": RIGHTS})
    for context in query.contexts():
        ae.add_supported_context(
            context.abstract_syntax, context.transfer_syntax, scu_role=context.scu_role, scp_role=context.scp_role
        )
    for context in offers.contexts():
        ae.add_supported_context(context.abstract_syntax, context.transfer_syntax, scu_role=True, scp_role=True)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=query.handlers(node, prove))
    made.port = server.server_address[1]
    try:
        yield made
    finally:
        server.shutdown()
        engine.dispose()


def run(*command: str | Path, cwd: Path | None = None, check: bool = True) -> str:
    """What a tool of DCMTK says."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        errors="replace",
    )
    said = done.stdout + done.stderr
    assert not check or done.returncode == 0, said
    return said


@contextmanager
def storing(title: str = "ARCHIVE", *, classes: Sequence[str] = (CTImageStorage,)) -> Iterator[tuple[int, list[Any]]]:
    """A Storage SCP; its port and what it got: (C-STORE request, data set)."""
    got: list[Any] = []

    def store(event: evt.Event) -> int:
        got.append((event.request, event.dataset))
        return 0x0000

    ae = AE(ae_title=title)
    for sop_class in classes:
        ae.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1], got
    finally:
        server.shutdown()
