"""A real SCP in a thread that answers as it is told, and keeps what it took."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Comprehensive3DSRStorage,
    CTImageStorage,
    SegmentationStorage,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

CLASSES = (str(CTImageStorage), str(SegmentationStorage), str(Comprehensive3DSRStorage))
Answer = Callable[[Any], int]


@dataclass
class Archive:
    """What the SCP has; `answers` are given one after the other, then Success for ever."""

    port: int = 0
    answers: list[int | Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """SOPInstanceUID of every C-STORE request, refused ones included."""
    kept: dict[str, bytes] = field(default_factory=dict)
    """Encoded data sets by SOPInstanceUID."""
    syntaxes: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    """SOPInstanceUIDs that came again with other bytes."""
    forgets: bool = False
    """Says Success and keeps nothing."""
    blind: int = 0
    """So many C-FIND requests are answered as if nothing were there."""
    found: int = 0
    """C-FIND requests so far."""

    def store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.asked.append(uid)
        answer = self.answers.pop(0) if self.answers else 0x0000
        status = answer(event) if callable(answer) else answer
        if not self.forgets and (status == 0x0000 or status & 0xF000 == 0xB000):
            content = event.request.DataSet.getvalue()
            if self.kept.setdefault(uid, content) != content:
                self.changed.append(uid)
            self.syntaxes[uid] = str(event.context.transfer_syntax)
        return status

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.found += 1
        query = event.identifier
        keys = {element.keyword for element in query} - {"QueryRetrieveLevel"}
        for uid in list(self.kept) if self.found > self.blind else ():
            one = self.dataset(uid)
            if all(query[key].value in ("", None, one.get(key)) for key in keys):
                answer = Dataset()
                answer.QueryRetrieveLevel = query.QueryRetrieveLevel
                for key in keys:
                    setattr(answer, key, one.get(key))
                yield 0xFF00, answer

    def dataset(self, uid: str) -> Dataset:
        implicit = self.syntaxes[uid] == ImplicitVRLittleEndian
        return read_dataset(BytesIO(self.kept[uid]), is_implicit_VR=implicit, is_little_endian=True)


def aborts(event: evt.Event) -> int:
    """An answer that is none: the association is aborted."""
    event.assoc.abort()
    return 0xC000


@contextmanager
def archive(
    *,
    classes: Sequence[str] = CLASSES,
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    title: str = "ARCHIVE",
    port: int = 0,
    require_calling: Sequence[str] = (),
    state: Archive | None = None,
    finds: bool = False,
) -> Iterator[Archive]:
    """An archive on a free port of loopback."""
    held = state or Archive()
    ae = AE(ae_title=title)
    for abstract in classes:
        ae.add_supported_context(abstract, list(syntaxes))
    ae.add_supported_context(Verification)
    if finds:
        ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.require_calling_aet = list(require_calling)
    ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = 10
    handlers = [(evt.EVT_C_STORE, held.store), (evt.EVT_C_FIND, held.find)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    held.port = server.server_address[1]
    try:
        yield held
    finally:
        server.shutdown()
