"""Nouns of the index: what arrives, and the versions of an instance that are known."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """What a version of an instance is. Only `current` ones are read, routed and answered for."""

    CURRENT = "current"
    REPLACED = "replaced"
    CONFLICT = "conflict"
    PURGED = "purged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One instance whose file is durable and that is to be indexed. `header` holds facts (`router.ingest.facts`).

    `pixel_offset` counts from the first byte of the file; `received_at` in microseconds since 1970 UTC.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    pixel_offset: int | None
    pixel_length: int | None
    header: dict[str, Any]
    identity_digest: str
    ours: bool
    association_id: str | None
    calling_ae_title: str
    received_at: int
    dataset_digest: str | None = None
    pixel_digest: str | None = None

    def __repr__(self) -> str:
        return f"Arrival({self.sop_instance_uid})"

    def text(self, keyword: str) -> str:
        """A fact as text, "" when absent; several values as in the file."""
        value = self.header.get(keyword, "")
        if isinstance(value, str):
            return value
        return "\\".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One version of an instance as the index knows it; `path` is below the store's root."""

    sop_instance_uid: str
    version: int
    status: Status
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str
    path: str
    size: int
    pixel_offset: int | None
    pixel_length: int | None
    header: dict[str, Any]
    dataset_digest: str | None
    pixel_digest: str | None
    identity_digest: str | None
    ours: bool
    association_id: str | None
    received_at: int

    def __repr__(self) -> str:
        return f"InstanceRow({self.sop_instance_uid}, version {self.version}, {self.status})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """sha256 of one version's data set and of its pixel data's value, in hexadecimal."""

    sop_instance_uid: str
    version: int
    dataset_digest: str
    pixel_digest: str
