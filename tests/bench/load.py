"""Objects to send, and a sender that has encoded all before the clock starts, so that the receiver is measured."""

import hashlib
import json
import multiprocessing
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
from pynetdicom.dsutils import encode

from tests.ingest.wire import ABORT, P_DATA, RELEASE_RQ, associate, p_data, pdu, pdv, status_of, store_command

ROUND = "10000000"
"""Stands in every UID where the round's number goes, so that no two rounds send the same instance."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One object as it goes over the wire."""

    sop_class_uid: str
    sop_instance_uid: str
    content: bytes

    def of_round(self, number: int) -> "Instance":
        """The same object under other UIDs of the same length."""
        mark = f"{10_000_000 + number % 80_000_000:08d}"
        return Instance(
            self.sop_class_uid,
            self.sop_instance_uid.replace(ROUND, mark),
            self.content[:4096].replace(ROUND.encode(), mark.encode()) + self.content[4096:],
        )

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def objects(kind: str, count: int) -> list[Instance]:
    """So many objects of a kind: ct (0.5 MB), mr (33 kB), mf (200 MB, 400 frames), gb (1 GB, 2048 frames)."""
    return list(_objects(kind, count))


def _objects(kind: str, count: int) -> Iterator[Instance]:
    random = np.random.default_rng(7)
    for number in range(1, count + 1):
        if kind == "mr":
            yield _instance(MRImageStorage, "MR", number, random.integers(0, 4000, (1, 128, 128), np.uint16))
        elif kind == "ct":
            yield _instance(CTImageStorage, "CT", number, random.integers(0, 4000, (1, 512, 512), np.uint16))
        else:
            frames = np.broadcast_to(
                random.integers(0, 4000, (8, 512, 512), np.uint16), (50 if kind == "mf" else 256, 8, 512, 512)
            )
            sop_class = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
            yield _instance(sop_class, "OT", number, frames.reshape(-1, 512, 512))


def _instance(sop_class_uid: str, modality: str, number: int, frames: Any) -> Instance:
    made = Dataset()
    made.SpecificCharacterSet, made.ImageType = "ISO_IR 192", ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.SOPClassUID, made.SOPInstanceUID = sop_class_uid, f"1.2.826.{ROUND}.1.{number}"
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = made.ContentDate = "20250102"
    made.StudyTime = made.SeriesTime = made.AcquisitionTime = made.ContentTime = "101112"
    made.AccessionNumber, made.Modality, made.Manufacturer = "ACC0001", modality, "SYNTH"
    made.InstitutionName, made.ReferringPhysicianName = "Loopback Hospital", "Ref^Doc"
    made.StudyDescription, made.SeriesDescription = f"{modality} bench", "1 mm"
    made.ManufacturerModelName, made.PatientName, made.PatientID = "Model X", "BENCH^PHANTOM", "BENCH-1"
    made.PatientBirthDate, made.PatientSex, made.BodyPartExamined = "19600101", "F", "CHEST"
    made.SliceThickness, made.KVP, made.ProtocolName, made.SoftwareVersions = "1.0", "120", "P", "1"
    made.StudyInstanceUID, made.SeriesInstanceUID = f"1.2.826.{ROUND}", f"1.2.826.{ROUND}.1"
    made.StudyID, made.SeriesNumber, made.InstanceNumber = "1", "1", str(number)
    made.ImagePositionPatient, made.ImageOrientationPatient = [-100, -100, number], [1, 0, 0, 0, 1, 0]
    made.FrameOfReferenceUID, made.PixelSpacing = f"1.2.826.{ROUND}.9", [0.7, 0.7]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    if len(frames) > 1:
        made.NumberOfFrames = len(frames)
    made.Rows, made.Columns = frames.shape[1:]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.RescaleIntercept, made.RescaleSlope = "-1024", "1"
    header = encode(made, False, True)
    assert header is not None
    pixels = np.ascontiguousarray(frames).tobytes()
    element = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, len(pixels))  # as in PS3.5 A.2, without a second copy
    return Instance(sop_class_uid, made.SOPInstanceUID, header + element + pixels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one round of sending took."""

    seconds: float
    megabytes: float
    instances: int
    round_trips_ms: list[float]
    failed: int

    @property
    def megabytes_a_second(self) -> float:
        return self.megabytes / self.seconds

    @property
    def p50_ms(self) -> float:
        return sorted(self.round_trips_ms)[len(self.round_trips_ms) // 2]


def send(
    port: int, items: Sequence[Instance], *, associations: int = 1, called: str = "ISOCENTER", calling: str = "SENDER"
) -> Sent:
    """Send all items over so many associations, each from a process of its own."""
    context = multiprocessing.get_context("fork")
    shards = [items[number::associations] for number in range(associations)]
    gate = context.Barrier(len(shards))
    results: Any = context.Queue()
    senders = [context.Process(target=_sender, args=(port, shard, called, calling, gate, results)) for shard in shards]
    for sender in senders:
        sender.start()
    found = [json.loads(results.get(timeout=300)) for _ in senders]
    for sender in senders:
        sender.join()
    errors = [one["error"] for one in found if one["error"]]
    if errors:
        raise ConnectionError("; ".join(errors))
    return Sent(
        seconds=max(one["end"] for one in found) - min(one["begin"] for one in found),
        megabytes=sum(len(item.content) for item in items) / 1e6,
        instances=len(items),
        round_trips_ms=[trip for one in found for trip in one["trips"]],
        failed=sum(one["failed"] for one in found),
    )


def _sender(port: int, items: Sequence[Instance], called: str, calling: str, gate: Any, results: Any) -> None:
    said: dict[str, Any] = {"error": "", "trips": [], "failed": 0, "begin": 0.0, "end": 0.0}
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            length = _associate(connection, items[0].sop_class_uid, called, calling)
            encoded = [_message(item, number % 65535 + 1, length) for number, item in enumerate(items)]
            gate.wait(120)
            said["begin"] = time.monotonic()
            for message in encoded:
                begun = time.perf_counter()
                connection.sendall(message)
                said["failed"] += _status(connection) != 0
                said["trips"].append((time.perf_counter() - begun) * 1e3)
            said["end"] = time.monotonic()
            connection.sendall(pdu(RELEASE_RQ, bytes(4)))
            connection.recv(10)
    except (OSError, AssertionError, struct.error) as error:
        gate.abort()
        said["error"] = repr(error)
    results.put(json.dumps(said))


def _associate(connection: socket.socket, sop_class_uid: str, called: str, calling: str) -> int:
    """Associate for one SOP class; the longest PDU that may be sent."""
    connection.sendall(associate(calling, called, {1: (sop_class_uid, [ExplicitVRLittleEndian])}))
    kind, content = _read_pdu(connection)
    assert kind == 2, f"association refused, PDU {kind}"
    at = content.index(b"\x51\x00\x00\x04")
    (offered,) = struct.unpack_from(">I", content, at + 4)
    return min(offered or 1 << 17, 1 << 17)


def _message(item: Instance, message_id: int, length: int) -> bytes:
    room = length - 6
    parts = [p_data(pdv(1, 3, store_command(item.sop_instance_uid, message_id, item.sop_class_uid)))]
    view = memoryview(item.content)
    for at in range(0, len(view), room):
        piece = view[at : at + room]
        last = at + room >= len(view)
        parts.append(struct.pack(">BBIIBB", P_DATA, 0, len(piece) + 6, len(piece) + 2, 1, 2 if last else 0))
        parts.append(piece)  # type: ignore[arg-type]
    return b"".join(parts)


def _read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    header = _read(connection, 6)
    kind, _, length = struct.unpack(">BBI", header)
    return kind, _read(connection, length)


def _read(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        more = connection.recv(count - len(received))
        if not more:
            raise ConnectionResetError("the receiver closed the connection")
        received += more
    return received


def _status(connection: socket.socket) -> int:
    command = b""
    while True:
        kind, content = _read_pdu(connection)
        assert kind == P_DATA, "aborted" if kind == ABORT else f"PDU {kind}"
        at = 0
        while at < len(content):
            length, _, control = struct.unpack_from(">IBB", content, at)
            command += content[at + 6 : at + 4 + length]
            at += 4 + length
            if control & 2:
                return status_of(command)
