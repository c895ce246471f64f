"""A DICOM node: C-STORE SCU. Bytes go out as they lie in the store, or in Implicit VR LE where only that is taken."""

import struct
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom._globals import STATUS_PENDING, STATUS_SUCCESS
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind, Verification
from pynetdicom.status import code_to_category

from dicom_sr.transcode import CannotTranscode, to_implicit
from router.destinations import Context, Interrupted, Rejected, Unreachable
from router.destinations._commitment import commit as commit
from router.destinations._node import Settings as Settings
from router.destinations._node import associated, storing
from router.destinations._wire import Wire, store_request
from router.domain.delivery import NOT_SUPPORTED, Outgoing, Receipt, Subject, Verdict, judge, name_of

MOST_CONTEXTS = 128
"""Presentation contexts that one association can have: odd numbers of one byte (PS3.8 9.3.2.2)."""

MOST_MESSAGE_IDS = 1 << 16
META_BYTES = 1024
TRANSFER_SYNTAX = (tag_for_keyword("TransferSyntaxUID") or 0) & 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One instance with what its file says about its encoding; `offset` is where the data set begins."""

    item: Outgoing
    transfer_syntax_uid: str
    offset: int

    @property
    def offers(self) -> tuple[tuple[str, str], ...]:
        """(abstract, transfer) syntaxes in which it can leave, the best first."""
        return _offers(self.item.sop_class_uid, self.transfer_syntax_uid)


@lru_cache(maxsize=1024)
def _offers(abstract: str, transfer: str) -> tuple[tuple[str, str], ...]:
    return tuple((abstract, syntax) for syntax in dict.fromkeys((transfer, str(ImplicitVRLittleEndian))))


def send(
    settings: Settings,
    outgoing: Sequence[Outgoing],
    context: Context,
    *,
    originator: tuple[str, int] | None = None,
) -> Generator[Receipt, None, None]:
    """C-STORE each instance in order; `originator` is the AE title and message id of the C-MOVE that asked for it.

    Raises:  Unreachable, Rejected
    Source:  PS3.4 B.2 (Storage Service Class), PS3.7 9.1.1 (C-STORE)
    """
    for batch in batches([parcel(item) for item in outgoing]):
        offers = dict.fromkeys(offer for one in batch for offer in one.offers)
        contexts = [build_context(abstract, transfer) for abstract, transfer in offers]
        with storing(settings, contexts, context) as wire:
            lacking = [] if originator else not_taken(wire, batch)
            for number, one in enumerate(batch, start=1):
                if number == 1 and lacking:
                    yield refused(settings, wire, one, lacking)
                    continue
                then = next(iter(batch[number : number + 1]), None)
                yield answer(settings, wire, one, number % MOST_MESSAGE_IDS, originator=originator, then=then)


def not_taken(wire: Wire, batch: Sequence[Parcel]) -> list[str]:
    """SOP classes of a batch that the far side has not accepted in any syntax in which they could leave."""
    return list(
        dict.fromkeys(one.item.sop_class_uid for one in batch if not any(o in wire.accepted for o in one.offers))
    )


def refused(settings: Settings, wire: Wire, one: Parcel, lacking: Sequence[str]) -> Receipt:
    """The receipt for an instance that is not sent, since the far side does not take SOP classes of its set.

    Those that it would take in another transfer syntax are named, but are no reason to send something else instead.
    """
    classes = tuple(uid for uid in lacking if uid not in wire.otherwise)
    others = [uid for uid in lacking if uid in wire.otherwise]
    said = [f"does not take {_names(classes)}"] if classes else []
    said += [f"takes {_names(others)} in no transfer syntax in which we have it, nor in Implicit VR"] if others else []
    return Receipt(
        sop_instance_uid=one.item.sop_instance_uid,
        verdict=Verdict.NEVER,
        detail=f"{settings.ae_title} {' and '.join(said)}",
        refused=classes,
    )


def _names(classes: Sequence[str]) -> str:
    return " and ".join(UID(uid).name for uid in classes)


def look(settings: Settings, subject: Subject, context: Context) -> Subject | None:
    """What C-FIND shows of the study and of the source instance; None where it takes no C-FIND of us.

    Raises:  Unreachable
    """
    if not settings.same_study:
        return None
    with asking(settings, context) as association:
        study = ask(settings, association, "STUDY", subject, PatientID="", AccessionNumber="")
        image = ask(settings, association, "IMAGE", subject, SOPInstanceUID=subject.sop_instance_uid or "")
    if study is None or image is None:
        return None
    there = study[0] if study else Dataset()
    shown = {str(one.get("SOPInstanceUID", "")) for one in image}
    return replace(
        subject,
        sop_instance_uid=subject.sop_instance_uid if subject.sop_instance_uid in shown else None,
        patient_id=str(there.get("PatientID") or ""),
        accession_number=str(there.get("AccessionNumber") or ""),
    )


def confirm(settings: Settings, outgoing: Sequence[Outgoing], context: Context) -> frozenset[str] | None:
    """Those that C-FIND shows in their study and series; None where it takes no C-FIND of us, or is not to be asked.

    Raises:  Unreachable
    """
    if not settings.read_back or not outgoing:
        return None
    shown: set[str] = set()
    with asking(settings, context) as association:
        for study, series in dict.fromkeys((item.study_instance_uid, item.series_instance_uid) for item in outgoing):
            subject = Subject(
                study_instance_uid=study,
                series_instance_uid=series,
                sop_instance_uid=None,
                patient_id="",
                accession_number="",
            )
            found = ask(settings, association, "IMAGE", subject, SOPInstanceUID="")
            if found is None:
                return None
            shown.update(str(one.get("SOPInstanceUID", "")) for one in found)
    return frozenset(shown & {item.sop_instance_uid for item in outgoing})


@contextmanager
def asking(settings: Settings, context: Context) -> Iterator[Association | None]:
    """An association for C-FIND, or None where none is to be had.

    Raises:  Unreachable
    Source:  PS3.4 C.6.2 (Study Root Query/Retrieve Information Model)
    """
    try:
        with associated(settings, [build_context(StudyRootQueryRetrieveInformationModelFind)], context) as association:
            yield association if association.is_established else None
    except Rejected:
        yield None


def ask(
    settings: Settings, association: Association | None, level: str, subject: Subject, **keys: str
) -> list[Dataset] | None:
    """What C-FIND shows at this level; None where it cannot be asked, or answers that it cannot say.

    Raises:  Interrupted
    """
    if association is None:
        return None
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = level, subject.study_instance_uid
    if level == "IMAGE":
        query.SeriesInstanceUID = subject.series_instance_uid
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    found: list[Dataset] = []
    for status, identifier in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
        if "Status" not in status:
            raise Interrupted(
                f"destination {settings.name}: {settings.ae_title} ended the association during C-FIND",
                remedy="Ask its administrator what its log says; the delivery goes on by itself",
            )
        if code_to_category(status.Status) not in (STATUS_PENDING, STATUS_SUCCESS):
            return None
        if identifier is not None:
            found.append(identifier)
    return found


def echo(settings: Settings, context: Context) -> None:
    """Return when it answers C-ECHO.

    Raises:  Unreachable, Rejected
    """
    with associated(settings, [build_context(Verification)], context) as association:
        if not association.is_established:
            raise Rejected(
                f"destination {settings.name}: {settings.ae_title} does not take C-ECHO",
                remedy="Every DICOM node should (PS3.4 A.1); ask its administrator to allow it for us",
            )
        if "Status" not in association.send_c_echo():
            raise Unreachable(
                f"destination {settings.name}: {settings.ae_title} does not answer C-ECHO",
                remedy="Ask its administrator whether it is in order",
            )


def parcel(item: Outgoing) -> Parcel:
    """The instance with its encoding."""
    with item.path.open("rb", buffering=0) as file:
        found = encoding(file.read(META_BYTES))
    if found is None:
        meta, offset = split_dataset(item.path)
        found = str(meta.TransferSyntaxUID), offset
    return Parcel(item=item, transfer_syntax_uid=found[0], offset=found[1])


def encoding(start: bytes) -> tuple[str, int] | None:
    """TransferSyntaxUID and where the data set begins, from a file's first bytes; None where they look unusual.

    Source:  PS3.10 7.1 (DICOM File Meta Information)
    """
    if start[128:136] != b"DICM\x02\0\0\0" or len(start) < 144:
        return None
    (length,) = struct.unpack_from("<I", start, 140)
    at, end, syntax = 144, 144 + length, b""
    while at + 8 <= min(end, len(start)):
        _, element, vr, size = struct.unpack_from("<HH2sH", start, at)
        if vr == b"OB":
            size = 4 + struct.unpack_from("<I", start, at + 8)[0]
        if element == TRANSFER_SYNTAX:
            syntax = start[at + 8 : at + 8 + size]
        at += 8 + size
    return (syntax.decode("ascii", "replace").strip("\0 "), end) if at == end and syntax else None


def batches(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """The parcels in order, cut so that no association needs more presentation contexts than there are."""
    batch: list[Parcel] = []
    offers: set[tuple[str, str]] = set()
    for one in parcels:
        if len(offers | set(one.offers)) > MOST_CONTEXTS:
            yield batch
            batch, offers = [], set()
        batch.append(one)
        offers.update(one.offers)
    if batch:
        yield batch


def answer(
    settings: Settings,
    wire: Wire,
    one: Parcel,
    message_id: int,
    *,
    originator: tuple[str, int] | None = None,
    then: Parcel | None = None,
) -> Receipt:
    """Send one instance and give what the far side says to it; `then` is the one that comes next.

    Raises:  OSError
    """
    offer = next((offer for offer in one.offers if offer in wire.accepted), None)
    uid = one.item.sop_instance_uid
    if offer is None:
        return refused(settings, wire, one, [one.item.sop_class_uid])
    command = store_request(one.item.sop_class_uid, uid, message_id, originator)
    try:
        if offer == one.offers[0]:
            following = None if then is None else (then.item.path, then.offset)
            status = wire.store(wire.accepted[offer], command, one.item.path, one.offset, then=following)
        else:
            body = to_implicit(one.item.path.read_bytes(), one.offset, one.transfer_syntax_uid)
            status = wire.store(wire.accepted[offer], command, body)
    except CannotTranscode as problem:
        return Receipt(sop_instance_uid=uid, verdict=Verdict.NEVER, detail=problem.what)
    overrides = {int(code, 16): verdict for code, verdict in settings.answers.items()}
    return Receipt(
        sop_instance_uid=uid,
        verdict=judge(status, overrides),
        status=status,
        detail=name_of(status),
        refused=(one.item.sop_class_uid,) if status == NOT_SUPPORTED else (),
    )


def store(
    association: Association,
    context_id: int,
    item: Outgoing,
    body: bytes,
    message_id: int,
    *,
    originator: tuple[str, int] | None = None,
) -> int | None:
    """One C-STORE on an association that another has begun (C-GET): the status, or None where no answer came.

    pynetdicom's own `send_c_store` decodes the file or sends it in single chunks; this is the rest of it, on seams
    that a test pins.
    """
    if not association.is_established:
        return None
    request = C_STORE()
    request.MessageID = message_id
    request.Priority = 0
    request.AffectedSOPClassUID = item.sop_class_uid
    request.AffectedSOPInstanceUID = item.sop_instance_uid
    if originator is not None:
        request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID = originator
    request.DataSet = BytesIO(body)
    association._reactor_checkpoint.clear()
    while association.is_alive() and not association._is_paused:
        time.sleep(0.0001)
    try:
        association.dimse.send_msg(request, context_id)
        _, response = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    return None if response is None else int(response.Status)
