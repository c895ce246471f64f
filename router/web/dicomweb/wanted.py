"""What a retrieval names, found in the index; and the note of it in the audit.

Whole objects that leave are noted each time. A viewer asks for headers and frames one by one, hundreds of times a
study: that is one act of reading, noted once an hour for a person and a study.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_sr.explicit import to_explicit
from dicom_sr.transcode import to_implicit
from router.db import audit, holdings
from router.db.engine import now, reading, writing
from router.db.holdings import Holding
from router.domain.access import SECOND, Person
from router.domain.matching import Exactly
from router.domain.query import Level, Query, Root
from router.ingest import part10
from router.ingest.receive import LONGEST_UID
from router.node import Node
from router.web.dicomweb.asked import NotHeldHere

STUDY, SERIES = "/studies/{study}", "/studies/{study}/series/{series}"
INSTANCE = f"{SERIES}/instances/{{instance}}"
LEVELS = (STUDY, SERIES, INSTANCE)
"""Paths of what can be retrieved."""
WAYS = {str(ExplicitVRLittleEndian): to_explicit, str(ImplicitVRLittleEndian): to_implicit}
"""Transfer syntaxes in which every object can leave."""
MOST = 65535
"""Objects of one retrieval, as for C-MOVE."""
ONE_ACT_S = 3600
"""For so long requests for headers and frames of a study are one act."""
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The study, series or instance that a path names."""

    study: str
    series: str = ""
    instance: str = ""

    @property
    def level(self) -> Level:
        """The level at which it stands."""
        return Level.IMAGE if self.instance else Level.SERIES if self.series else Level.STUDY

    @property
    def uids(self) -> Mapping[str, str]:
        """The unique keys that it gives."""
        named = {"StudyInstanceUID": self.study, "SeriesInstanceUID": self.series, "SOPInstanceUID": self.instance}
        return {keyword: uid for keyword, uid in named.items() if uid}


def at(root: str, one: Holding) -> str:
    """The address of an instance."""
    series = f"{root}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}"
    return f"{series}/instances/{one.sop_instance_uid}"


def target_of(request: Request) -> Target:
    """What the path of this request names.

    Raises:  NotHeldHere
    """
    named = {name: str(request.path_params.get(name, "")) for name in ("study", "series", "instance")}
    if any(len(uid) > LONGEST_UID or not uid.isascii() or not uid.isprintable() for uid in named.values()):
        raise NotHeldHere("this is no UID", remedy="Search for it by QIDO-RS")
    return Target(**named)


@dataclass(slots=True)
class Archive:
    """What the node holds, for those who retrieve it by DICOMweb."""

    node: Node
    lock: threading.Lock = field(default_factory=threading.Lock)
    noted: dict[tuple[str, str], int] = field(default_factory=dict)

    def find(self, target: Target) -> list[Holding]:
        """What is held of it, in the order of UIDs.

        Raises:  NotHeldHere
        """
        query = Query(
            root=Root.STUDY,
            level=target.level,
            conditions={keyword: Exactly(uid) for keyword, uid in target.uids.items()},
            wanted={},
        )
        with reading(self.node.engine) as connection:
            found = holdings.wanted_by(connection, query, MOST + 1)
        if not found:
            raise NotHeldHere(f"no {target.level.name.lower()} of this UID is here", remedy="Search for it by QIDO-RS")
        if len(found) > MOST:
            raise NotHeldHere(f"more than {MOST} objects", remedy="Retrieve the series one by one")
        return [one if one.transfer_syntax_uid else self._of_ours(one) for one in found]

    def _of_ours(self, one: Holding) -> Holding:
        """A result of ours with the transfer syntax that its file names; the index does not: label maps are in RLE."""
        try:
            syntax = read_file_meta_info(self.path(one)).TransferSyntaxUID
        except FileNotFoundError:  # told when it is opened
            syntax = ExplicitVRLittleEndian
        return replace(one, transfer_syntax_uid=str(syntax))

    def one(self, target: Target) -> Holding:
        """The one instance.

        Raises:  NotHeldHere
        """
        return self.find(target)[0]

    def open(self, one: Holding) -> BinaryIO:
        """Its file.

        Raises:  NotHeldHere
        """
        try:
            return self.node.store.open(one.path)
        except FileNotFoundError:
            raise NotHeldHere("the file is missing in the store", remedy="Run `isocenter verify`") from None

    def readable(self, one: Holding) -> BinaryIO:
        """Its file as pydicom reads it without taking all of it into memory; one that was deflated is inflated.

        Raises:  NotHeldHere, CannotTranscode
        """
        file = self.open(one)
        if one.transfer_syntax_uid != DeflatedExplicitVRLittleEndian:
            return file
        with file:
            return BytesIO(self.rewritten(one, str(ExplicitVRLittleEndian)))

    def rewritten(self, one: Holding, syntax: str) -> bytes:
        """Its Part 10 file in another transfer syntax.

        Raises:  CannotTranscode, NotHeldHere, OSError
        """
        with self.open(one) as file:
            content = file.read()
        beginning = part10.beginning(
            sop_class_uid=one.sop_class_uid,
            sop_instance_uid=one.sop_instance_uid,
            transfer_syntax_uid=syntax,
            calling_ae_title=self.node.settings.ae_title,
        )
        return beginning + WAYS[syntax](content, part10.dataset_offset(content), one.transfer_syntax_uid)

    def path(self, one: Holding) -> Path:
        """Where its file lies."""
        return self.node.store.path(one.path)

    def present(self, found: Sequence[Holding]) -> list[Holding]:
        """Those whose files are there, at least one.

        Raises:  NotHeldHere
        """
        there = [one for one in found if self.path(one).is_file()]
        if not there:
            raise NotHeldHere("the files are missing in the store", remedy="Run `isocenter verify`")
        return there

    def retrieved(self, person: Person, target: Target, instances: int) -> None:
        """Note that whole objects leave, before the first byte does."""
        with writing(self.node.engine) as connection:
            audit.write(
                connection,
                person.who,
                "study.retrieved",
                target.study,
                by="WADO-RS",
                level=target.level.name,
                instances=instances,
            )

    def looked(self, person: Person, study_instance_uid: str) -> None:
        """Note that headers or frames are read, once an hour for this person and study."""
        key, at = (person.who, study_instance_uid), now()
        with self.lock:
            if at < self.noted.get(key, 0) + ONE_ACT_S * SECOND:
                return
            with writing(self.node.engine) as connection:
                audit.write(connection, person.who, "study.viewed", study_instance_uid, by="WADO-RS")
            if len(self.noted) >= MOST_REMEMBERED:
                self.noted.clear()
            self.noted[key] = at
