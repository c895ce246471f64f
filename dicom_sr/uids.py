"""Derived UIDs: the same work has the same UID, other work another, however often it is tried."""

import hashlib
from collections.abc import Iterable
from uuid import UUID, uuid5

ISOCENTER = UUID("5a2c3f0e-7d7b-4d0e-9a53-6f1b5e0c1a77")
"""Name space of our derived UIDs (RFC 4122 4.3); never changed, or every result would get a second identity."""

SEPARATOR = "\x1f"

LABEL_MAP_SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""SOP Class of Sup 243, which pydicom's dictionary lacks."""

IMPLEMENTATION_CLASS_UID = "2.25.129286285644131457463281339787907949086"
"""Who wrote a file, in its File Meta Information (PS3.7 D.3.3.2): uuid5 of ISOCENTER and "implementation"."""

IMPLEMENTATION_VERSION_NAME = "ISOCENTER"


def derived_uid(
    *,
    node: str,
    input_digest: str,
    pipeline: str,
    version: str,
    weights: str,
    settings: str,
    kind: str,
    encoding: str,
    ordinal: int,
    run: int,
) -> str:
    """One UID for one piece of work.

    Every part that could change a byte's meaning is in it; `run` counts the re-runs that a person asked for.

    Source:  PS3.5 B.2 (UUID derived UID)
    """
    parts = (node, input_digest, pipeline, version, weights, settings, kind, encoding, str(ordinal), str(run))
    return f"2.25.{uuid5(ISOCENTER, SEPARATOR.join(f'{len(part)}:{part}' for part in parts)).int}"


def pixels_digest(instances: Iterable[tuple[str, str]]) -> str:
    """Digest of what a run reads: (SOPInstanceUID, pixel digest) of each instance, in whatever order they come."""
    lines = sorted(f"{uid}{SEPARATOR}{digest}" for uid, digest in instances)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def input_digest(pixels: str, identity: str) -> str:
    """Digest of what a result says: the pixels that were read and the identity that is copied into it."""
    return hashlib.sha256(f"{pixels}{SEPARATOR}{identity}".encode()).hexdigest()


def device_uid(*, pipeline: str, version: str, weights: str) -> str:
    """One UID a model version, the same in every result on every node (IHE AI Results, Device UID)."""
    return f"2.25.{uuid5(ISOCENTER, SEPARATOR.join(('device', pipeline, version, weights))).int}"
