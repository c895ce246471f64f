"""What we may call committed to a sender: its file, read again now, is what was received, and an archive keeps it.

Nobody is promised anything unless its source says so (`commits: archived`). Then a study must have been forwarded to a
destination that has itself committed to keep it, after the version that lies here had come.
"""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import structlog

from router import rulebook
from router.db import commitments, revisions
from router.db.engine import reading
from router.db.holdings import Holding
from router.destinations.dicom import parcel
from router.domain.delivery import Outgoing
from router.node import Node

log = structlog.get_logger()


def promised(node: Node, calling_ae_title: str) -> bool:
    """Whether a sender of this AE title may be told that something is committed at all."""
    with reading(node.engine) as connection:
        try:
            body = revisions.current(connection, revisions.Kind.SOURCES).body
        except revisions.UnknownRevision:
            return False
    named = [one for one in rulebook.sources(body) if one.ae_title == calling_ae_title.strip()]
    return bool(named) and all(one.commits == "archived" for one in named)


def archived(node: Node, calling_ae_title: str, holdings: Sequence[Holding]) -> Collection[str]:
    """SOPInstanceUIDs of those objects that are kept: here, unchanged to the byte, and by an archive."""
    if not promised(node, calling_ae_title):
        return ()
    with reading(node.engine) as connection:
        kept = commitments.archived(connection, [one.sop_instance_uid for one in holdings])
    return [one.sop_instance_uid for one in kept if intact(one, node.store.path(one.path))]


def intact(one: commitments.Archived, path: Path) -> bool:
    """Whether the data set in the file has the digest that it had when it was received."""
    item = Outgoing(sop_class_uid="", sop_instance_uid=one.sop_instance_uid, path=path)
    try:
        with path.open("rb") as file:
            file.seek(parcel(item).offset)
            is_same = hashlib.file_digest(file, "sha256").hexdigest() == one.dataset_digest
    except OSError:
        is_same = False
    if not is_same:
        log.error("commitment.file_damaged", instance=one.sop_instance_uid)
    return is_same
