"""The start-up scan: files and rows agree again, in both directions, whatever happened to the machine.

A `.part` without a writer is removed. A durable file without a row is one whose row was lost in a power cut, or whose
sender was never answered: it is indexed. A row without its file is marked, so that the instance is stored when it
comes again. A file that is shorter than it was is moved to quarantine.
"""

from dataclasses import dataclass
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path

import structlog
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from sqlalchemy.exc import DataError

from router.db import instances
from router.db.engine import fault, reading, writing
from router.ingest import headers, part10
from router.ingest.quiet import MALFORMED, quietly
from router.ingest.receive import Command, Receiver, Refused, arrived, check
from router.ingest.walker import NotParseable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What the scan found."""

    files: int
    litter: int
    adopted: int
    lost: int
    quarantined: int


def reconcile(receiver: Receiver) -> Reconciled:
    """Scan the whole store; call it before anything is received. Whoever else receives waits, or refuses, meanwhile.

    Raises:  OSError, SQLAlchemyError
    """
    with receiver.store.alone():
        return _reconcile(receiver)


def _reconcile(receiver: Receiver) -> Reconciled:
    store, engine = receiver.store, receiver.engine
    litter = store.sweep()
    files = adopted = lost = quarantined = 0
    for folder, found in store.received():
        with reading(engine) as connection:
            rows = instances.in_folder(connection, folder)
        files += len(found)
        broken = [path for path, size in rows.items() if path in found and found[path] != size]
        for path in broken:
            store.quarantine(path)
            log.error("instance.file_broken", path=path, bytes=found[path], expected=rows[path])
        gone = broken + [path for path in rows if path not in found]
        if gone:
            with writing(engine) as connection:
                instances.mark_lost(connection, gone)
            log.error("instances.files_missing", folder=folder, count=len(gone))
        for path in found.keys() - rows.keys():
            taken = _adopt(receiver, path)
            adopted, quarantined = adopted + taken, quarantined + (not taken)
        lost, quarantined = lost + len(gone), quarantined + len(broken)
    return Reconciled(files=files, litter=litter, adopted=adopted, lost=lost, quarantined=quarantined)


def _adopt(receiver: Receiver, relative: str) -> bool:
    """Index a file that has no row; False when it is nothing that can be indexed, and was moved away."""
    try:
        command, header, size = _read(receiver.store.path(relative))
        check(header, command, size)
    except (InvalidDicomError, NotParseable, Refused, *MALFORMED) as error:
        return _set_aside(receiver, relative, fault(error))
    try:
        receiver.index(arrived(header, command, path=relative, size=size))
    except DataError:  # any other error is the database's or the disk's: then nothing is known of this file
        return _set_aside(receiver, relative, "the index cannot hold a value of it")
    log.info("file.adopted", path=relative, instance=command.sop_instance_uid)
    return True


def _set_aside(receiver: Receiver, relative: str, why: str) -> bool:
    receiver.store.quarantine(relative)
    log.error("file.quarantined", path=relative, why=why)
    return False


def _read(path: Path) -> tuple[Command, headers.Header, int]:
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        start = part10.dataset_offset(data)
        with quietly():
            meta = dcmread(BytesIO(data[:start])).file_meta
        command = Command(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            calling_ae_title=str(meta.get("SourceApplicationEntityTitle", "")),
        )
        return command, headers.read(data, command.transfer_syntax_uid, start=start), len(data)
