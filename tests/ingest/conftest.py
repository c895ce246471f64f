"""A listener on a free port with its own store and database, real senders, and small true objects to send."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from sqlalchemy import select

from router.config import Settings
from router.db import instances, revisions
from router.db.engine import connect, reading, writing
from router.db.instances import InstanceRow
from router.db.tables import instance, metadata
from router.db.tables import node as node_table
from router.ingest import listener
from router.node import Node
from router.store import Store
from router.wake import Bell
from tests.conftest import until
from tests.servers import free_port

SENDER = "SENDER"


@dataclass
class Door:
    """A running listener and what a test asks it."""

    node: Node
    port: int
    stop: threading.Event = field(default_factory=threading.Event)
    failed: list[BaseException] = field(default_factory=list)

    def rows(self) -> list[InstanceRow]:
        """All versions of all instances, in the order of their arrival."""
        with reading(self.node.engine) as connection:
            uids = connection.execute(
                select(instance.c.sop_instance_uid).order_by(instance.c.received_at).distinct()
            ).scalars()
            return [row for uid in dict.fromkeys(uids) for row in reversed(instances.versions(connection, uid))]

    def files(self) -> list[Path]:
        """All that lies in the store, finished or not."""
        return sorted(path for path in self.node.store.root.rglob("*") if path.is_file())

    def content(self, row: InstanceRow) -> bytes:
        """The file of a row."""
        return self.node.store.path(row.path).read_bytes()

    def accept(self, *sources: dict[str, Any]) -> None:
        """Make these the sources in force."""
        with writing(self.node.engine) as connection:
            revisions.add(connection, revisions.Kind.SOURCES, list(sources), author="test")


def make_node(folder: Path, **sections: Any) -> Node:
    """A node in a folder, its database made and one sender known."""
    settings = Settings.model_validate(
        {"storage": {"path": folder / "store"}, "run_path": folder / "run", "ae_title": "ISOCENTER", **sections}
    )
    engine = connect(f"sqlite:///{folder}/isocenter.db")
    metadata.create_all(engine)
    with writing(engine) as connection:
        connection.execute(node_table.insert().prefix_with("OR IGNORE").values(node_id="test", created_at=0))
    return Node(
        node_id="test",
        settings=settings,
        engine=engine,
        store=Store(settings.storage.path),
        bell=Bell(settings.run_path / "wake"),
    )


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def listening(folder: Path, **listener_settings: Any) -> Iterator[Door]:
    """A listener in a thread, on loopback."""
    port = free_port()
    storage = listener_settings.pop("storage", {})
    sections = {"tls": listener_settings.pop("tls")} if "tls" in listener_settings else {}
    node = make_node(
        folder,
        listener={"host": "127.0.0.1", "port": port, **listener_settings},
        storage={"path": folder / "store", "purge_free_gb": 0, "refuse_free_gb": 0, "reject_free_gb": 0, **storage},
        **sections,
    )
    door = Door(node=node, port=port)
    door.accept(
        {"ae_title": SENDER, "addresses": ["127.0.0.1"], "services": ["store", "echo"]},
        {"ae_title": "ISOCENTER_SEND", "addresses": ["any"], "services": ["store", "echo"]},
    )

    def run() -> None:
        try:
            listener.serve(node, door.stop)
        except BaseException as error:
            door.failed.append(error)
            raise

    thread = threading.Thread(target=run, name="listener under test")
    thread.start()
    try:
        until(lambda: door.failed or is_open(port), what="listener listens")
        assert not door.failed
        yield door
    finally:
        door.stop.set()
        thread.join(30)
        node.engine.dispose()
        assert not thread.is_alive(), "the listener did not stop"


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """A listener with default settings."""
    with listening(tmp_path) as door:
        yield door


def slice_of(
    study: str = "1.2.3", series: str = "1.2.3.4", number: int = 1, pixels: bytes | None = None, **values: Any
) -> FileDataset:
    """A small CT slice, explicit VR little endian."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{series}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.Modality, dataset.InstanceNumber, dataset.SeriesNumber = "CT", str(number), "1"
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = "PHANTOM^CHEST", "P1", "A1"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20250102", "101112", "1"
    dataset.Manufacturer, dataset.BodyPartExamined = "SYNTH", "CHEST"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.7], "1.0"
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelData = pixels if pixels is not None else bytes([number % 256]) * 512
    dataset["PixelData"].VR = "OW"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.ImplementationClassUID = generate_uid(entropy_srcs=["test"])
    return FileDataset("", dataset, file_meta=meta, preamble=bytes(128), is_implicit_VR=False, is_little_endian=True)


def dataset_bytes(dataset: Dataset) -> bytes:
    """The data set as it goes over the wire in explicit VR little endian."""
    encoded = encode(dataset, False, True)
    assert encoded is not None
    return encoded


@contextmanager
def association(
    door: Door, *datasets: Dataset, calling: str = SENDER, called: str = "ISOCENTER", syntaxes: Any = None
) -> Iterator[Association]:
    """An association that proposes what these objects need; released at the end if it still stands."""
    ae = AE(ae_title=calling)
    for abstract, transfer in dict.fromkeys((d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets):
        ae.add_requested_context(abstract, syntaxes or [transfer])
    if not datasets:
        ae.add_requested_context(CTImageStorage, syntaxes or [ExplicitVRLittleEndian])
    made = ae.associate("127.0.0.1", door.port, ae_title=called)
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def send(door: Door, *datasets: Dataset, calling: str = SENDER) -> list[int]:
    """The statuses of these objects, sent over one association."""
    with association(door, *datasets, calling=calling) as made:
        assert made.is_established
        return [made.send_c_store(dataset).Status for dataset in datasets]
