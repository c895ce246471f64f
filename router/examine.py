"""The headers that facts are made of: what the door has read of each instance, and what only its file can tell.

The door reads a fixed choice of attributes. A rule may ask for any other, and a multi-frame object keeps its geometry
in functional groups: then the file's own header is read, once a series and only as deep as asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import UID

from dicom_sr.header import is_ours
from dicom_sr.problem import Problem
from pipelines import detect_body
from router.conditions import PRIVATE
from router.domain import algorithm
from router.domain.body_part import BodyPart, Detected
from router.domain.classify import DERIVED_FACTS, SLICES, SeriesKind, describe
from router.domain.facts import Fact, Facts, Header, number
from router.domain.rules import Rule
from router.ingest.facts import ITEM_KEYWORDS, KEYWORDS

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
DEEPEST = 8
"""Sequences within sequences that are looked into."""

AT_THE_DOOR = frozenset(
    [*KEYWORDS, *ITEM_KEYWORDS, *(f"{sequence}.{one}" for sequence, kept in ITEM_KEYWORDS.items() for one in kept)]
)
NOT_A_FACT = frozenset({"SOPInstanceUID"})
"""Different in every instance, and asked for by nobody."""


class Unreadable(Problem):
    """A stored file cannot be read again."""

    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One instance as it is examined: what the door read, and the file that it lies in."""

    header: Header
    path: Path


def series(instances: Sequence[Seen], *, wanted: Iterable[str] = (), given: Mapping[str, Any]) -> dict[str, Fact]:
    """All facts of a series, with what rules want beyond the usual.

    Raises:  Unreadable
    """
    extra = frozenset(wanted) - AT_THE_DOOR - DERIVED_FACTS.keys()
    headers = [_complete(one, extra) for one in instances]
    names = {UID(str(header["SOPClassUID"])).keyword for header in headers if header.get("SOPClassUID")}
    sop_class = ", ".join(sorted(filter(None, names)))
    return describe(
        headers,
        given={**given, "sop_class": sop_class or None},
        maker=_maker(instances[0], sop_class) if instances else None,
        look=partial(body_part_shown, instances),
    )


def _maker(first: Seen, sop_class: str) -> Fact | None:
    """The algorithm that made the series, as its first instance says; most series need no look into a file for that.

    A file that cannot be read does not say so.
    """
    if not algorithm.may_be_a_result(first.header, sop_class):
        return None
    try:
        dataset = pydicom.dcmread(first.path, stop_before_pixels=True, specific_tags=list(algorithm.KEYWORDS))
    except (OSError, InvalidDicomError):
        return None
    header = {keyword: as_json(_value(dataset, keyword)) for keyword in algorithm.KEYWORDS if keyword in dataset}
    return algorithm.maker(header, sop_class, ours=is_ours(dataset))


def body_part_shown(instances: Sequence[Seen], facts: Facts) -> tuple[Detected, ...]:
    """What part of the body the pixels of a CT volume show, from a score of its slices; nothing where they say nothing.

    A file that cannot be read says nothing either: whoever computes on it will refuse it with the reason.
    """
    modality, kind = facts.get("Modality"), facts["kind"]
    if modality is None or modality.values != ("CT",) or kind.values != (SeriesKind.AXIAL_VOLUME,):
        return ()
    placed = sorted(instances, key=_height)
    try:
        found = detect_body.look(placed[index].path for index in detect_body.spread(len(placed)))
    except (Problem, OSError):
        return ()
    return tuple(
        Detected(part=BodyPart(one.name), confidence=one.confidence, origin=f"pixels ({one.shown_by})") for one in found
    )


def _height(one: Seen) -> float:
    """Where an instance lies between feet and head, in mm; 0 where it does not say, as of many frames."""
    position = one.header.get("ImagePositionPatient")
    last = position[2] if isinstance(position, list) and len(position) == 3 else None
    return (number(last) if last is not None else None) or 0.0


def keywords_of(rules: Iterable[Rule]) -> frozenset[str]:
    """Every keyword that these rules ask for."""
    return frozenset(keyword for rule in rules for keyword in rule.asked | rule.taken_by())


def _complete(one: Seen, extra: frozenset[str]) -> dict[str, Any]:
    header = {keyword: value for keyword, value in one.header.items() if keyword not in NOT_A_FACT}
    many_frames = header.get("Modality") in SLICES and str(header.get("NumberOfFrames") or 1) not in ("0", "1")
    if not extra and not many_frames:
        return header
    dataset = _read(one.path)
    if many_frames and GROUPS[1] in dataset:
        header.pop("ImagePositionPatient", None)  # the first frame's, but each has its own
        header |= {group: as_json(_value(dataset, group)) for group in GROUPS if group in dataset}
    for keyword in extra:
        header |= look_up(dataset, keyword)
    return header


def look_up(dataset: Dataset, keyword: str) -> dict[str, Any]:
    """The attribute that a rule asks for, as a header has it; a path or a private one under its own full name."""
    private = PRIVATE.fullmatch(keyword)
    if private:
        try:
            block = dataset.private_block(int(private["group"], 16), private["creator"])
            return {keyword: as_json(block[int(private["element"], 16)].value)}
        except KeyError:
            return {}
    first = keyword.partition(".")[0]
    return {first: as_json(_value(dataset, first))} if first in dataset else {}


def _value(dataset: Dataset, keyword: str) -> Any:
    """The value as pydicom reads it; where it is not of its VR's form, its bytes: form is never a reason to refuse."""
    try:
        return dataset[keyword].value
    except (ValueError, TypeError, OverflowError):
        return getattr(dataset.get_item(keyword), "value", None)


def as_json(value: Any, depth: int = 0) -> Any:
    """A value of pydicom's as plain JSON: text, number, list, or a list of items."""
    if isinstance(value, Dataset):
        if depth > DEEPEST:
            return {}
        return {keyword: as_json(_value(value, keyword), depth + 1) for keyword in value.dir() if keyword in value}
    if isinstance(value, pydicom.Sequence):
        return [as_json(item, depth) for item in value]
    if isinstance(value, MultiValue | list | tuple):
        return [as_json(one, depth) for one in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, bytes):
        text = value.rstrip(b"\0 ")
        return text.decode("ascii") if text.isascii() and len(text) <= 256 else None
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    return str(value)


def _read(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True)
    except (OSError, InvalidDicomError) as error:
        raise Unreadable(
            f"the stored file {path.name} cannot be read ({type(error).__name__})",
            remedy="Check the store's disk; the decision is tried again by itself",
        ) from error
