"""Result kinds: one file each, found by listing this folder; nothing is registered by hand.

A kind is a module that exports `build(order: Order)`; None, or nothing in a tuple, means that this order has nothing of
this kind to say (a SEG without a voxel). A kind with choices exports `Settings`, a pydantic model, too.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any, Literal, Protocol

from dicom_sr.nouns import Findings
from dicom_sr.problem import Problem
from dicom_sr.source import SourceSeries

SRClass = Literal["comprehensive3d", "comprehensive", "enhanced"]
Tracking = Literal["plain", "cornerstone"]

NOTE = "rejection_note"
"""The kind that says of earlier objects that they no longer hold."""


class UnknownKind(Problem):
    """No result kind has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One result object as it will be kept, sent and, after a failure, sent again: never rebuilt under its UID."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    head: bytes
    """The DICOM file from its preamble to where native pixels begin; all of it, where none are apart (PS3.10 7.1)."""
    pixels: bytes | memoryview = b""
    """The value of native Pixel Data, the last of the file: a large one is written to a file without being copied."""
    ordinal: int = 0
    """Which of the objects of its kind; they share a series."""
    segments: Mapping[int, int] = field(default_factory=dict)
    """Of a segmentation: the SegmentNumber in it of each segment of the findings that it delineates."""

    def __getstate__(self) -> list[Any]:
        """The fields in their order; a view as bytes, since it cannot be pickled."""
        return [bytes(self.pixels) if one.name == "pixels" else getattr(self, one.name) for one in fields(self)]

    @property
    def part10(self) -> bytes:
        """The whole file."""
        return b"".join((self.head, self.pixels)) if self.pixels else self.head


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """An object of an earlier result set that somebody has, and where it lies."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Supersedes:
    """An earlier result set whose place this one takes; `change` is the sentence that says what is different.

    `correction`: the images are the same, and whose they are was corrected.
    """

    change: str
    correction: bool
    objects: tuple[Replaced, ...]
    rejected: tuple[Replaced, ...] = ()
    """Those that destinations have which want a note that rejects them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """What a writer gets: the findings, the series they are about, and what the result set has in common."""

    findings: Findings
    source: SourceSeries
    uid: Callable[[str, int], str]
    """UID of (name, ordinal): derived from everything that could change a byte's meaning; `name` is a kind or
    "<kind>.series", "<kind>.dimension", "tracking" ..., each with its own ordinals."""
    made_at: datetime
    """When the findings were made, aware, in the configured zone; kept with the job, so a retry writes the same."""
    series_number: int
    pipeline: str
    title: str
    research: bool
    completeness: str
    """How it was known that the series was complete, in a sentence for the report."""
    sr: SRClass = "comprehensive3d"
    """Class of SR that the destination takes; in the two-dimensional ones a box is drawn on its nearest slice."""
    tracking: Tracking = "plain"
    """`cornerstone`: measured segments are outlines that OHIF draws and takes over as its own annotations."""
    supersedes: Supersedes | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the destination profile chooses, by kind."""
    companions: tuple[Built, ...] = ()
    """Objects of this result set that were built before this one."""

    @property
    def results(self) -> tuple[Built, ...]:
        """Those of them that an SR or a key object selection points at: all but a note about earlier objects."""
        return tuple(one for one in self.companions if one.kind != NOTE)


class Build(Protocol):
    """Makes the objects of a kind, or None when there is nothing to say in it."""

    def __call__(self, order: Order) -> Built | tuple[Built, ...] | None: ...


@cache
def names() -> tuple[str, ...]:
    """Names of all result kinds, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def built(name: str, order: Order) -> tuple[Built, ...]:
    """The objects of this kind for an order, none where there is nothing to say.

    Raises:  UnknownKind
    """
    made = find(name)(order)
    return made if isinstance(made, tuple) else () if made is None else (made,)


def find(name: str) -> Build:
    """The builder of this kind.

    Raises:  UnknownKind
    """
    if name not in names():
        raise UnknownKind(f"there is no result kind {name!r}", remedy=f"Choose one of: {', '.join(names())}")
    build: Build = importlib.import_module(f"{__name__}.{name}").build
    return build
