"""C-MOVE and C-GET: what is wanted is found in the index, sent as it lies in the store, and counted truthfully.

C-MOVE sends to configured destinations alone, by the way that deliveries go. A destination that is known but cannot
be reached has failed to take every object (A702); only one that nobody configured is unknown (A801).
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from sqlalchemy import Connection

from dicom_sr.explicit import to_explicit
from dicom_sr.problem import Problem
from dicom_sr.transcode import CannotTranscode, to_implicit
from router.db import audit, holdings
from router.db.engine import reading, writing
from router.db.holdings import Holding
from router.destinations import Context, Rejected, Unreachable, dicom
from router.domain.audit import Outcome
from router.domain.delivery import Outgoing, Receipt, Verdict, judge
from router.domain.matching import Exactly
from router.domain.query import IdentifierDoesNotMatch, Level, Query, Root, check_retrieval
from router.node import Node
from router.query.elements import element
from router.query.exchange import Exchange
from router.query.identifier import Granted, tag_of, understand
from router.query.peers import destination_of
from router.query.status import RetrieveStatus

MOST = 65535
"""Sub-operations that a response can count (VR US)."""
LONGEST_LIST = 65534
"""Bytes of a list of UIDs in an explicit element (VR UI)."""

WAYS = {str(ExplicitVRLittleEndian): to_explicit, str(ImplicitVRLittleEndian): to_implicit}
"""Transfer syntaxes in which every object can leave, the better first: a C-GET's contexts are agreed on before it is
known what is wanted, so the one that was accepted need not be the one that an object has."""

FAILED_LIST = tag_of("FailedSOPInstanceUIDList")


class RetrievalRefused(Problem):
    """A retrieval that is not begun, with the status that says so."""

    def __init__(self, status: RetrieveStatus, what: str, *, remedy: str) -> None:
        super().__init__(what, remedy=remedy)
        self.status = status


@dataclass(slots=True)
class Tally:
    """Sub-operations of one retrieval."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def count(self, receipt: Receipt) -> None:
        """Note what one sub-operation came to."""
        self.remaining -= 1
        if receipt.verdict is not Verdict.ACCEPTED:
            self.failed += 1
            self.failed_uids.append(receipt.sop_instance_uid)
        elif receipt.status:
            self.warning += 1
        else:
            self.completed += 1

    def attributes(self, *, remaining: bool) -> dict[str, int | str]:
        """The counts as attributes of a response; the remaining ones only while some may be (PS3.7 9.1.4.1)."""
        counts: dict[str, int | str] = {
            "NumberOfCompletedSuboperations": self.completed,
            "NumberOfFailedSuboperations": self.failed,
            "NumberOfWarningSuboperations": self.warning,
        }
        return counts | ({"NumberOfRemainingSuboperations": self.remaining} if remaining else {})

    @property
    def status(self) -> RetrieveStatus:
        """The final status, when nobody has cancelled."""
        if self.failed and not (self.completed or self.warning):
            return RetrieveStatus.UNABLE_TO_PERFORM_SUB_OPERATIONS
        if self.failed or self.warning:
            return RetrieveStatus.SUB_OPERATIONS_COMPLETE_WITH_FAILURES
        return RetrieveStatus.SUCCESS


def move(node: Node, exchange: Exchange, root: Root, granted: Granted, destination_ae_title: str) -> None:
    """Answer one C-MOVE.

    Raises:  PeerGone
    Source:  PS3.4 C.4.2 (C-MOVE Operation)
    """
    try:
        query = _wanted(exchange, root, granted)
        settings = _destination(node, destination_ae_title)
        wanted = _found(node, query)
    except RetrievalRefused as problem:
        exchange.refuse(problem.status, problem.what)
        return
    _note(node, exchange, wanted, query, to=settings.name)
    present, missing = _outgoing(node, wanted)
    ours = node.settings
    context = Context(calling_ae_title=ours.ae_title, timeout_s=ours.delivery.timeout_s, tls=ours.tls)
    originator = (exchange.association.requestor.ae_title.strip(), exchange.message_id)
    receipts = dicom.send(settings, present, context, originator=originator) if present else _none()
    _perform(node, exchange, missing, present, receipts)


def get(node: Node, exchange: Exchange, root: Root, granted: Granted) -> None:
    """Answer one C-GET.

    Raises:  PeerGone
    Source:  PS3.4 C.4.3 (C-GET Operation)
    """
    try:
        query = _wanted(exchange, root, granted)
        wanted = _found(node, query)
    except RetrievalRefused as problem:
        exchange.refuse(problem.status, problem.what)
        return
    _note(node, exchange, wanted, query, to=exchange.association.requestor.ae_title.strip())
    present, missing = _outgoing(node, wanted)
    _perform(node, exchange, missing, present, stored(exchange.association, present))


def stored(association: Association, outgoing: Sequence[Outgoing]) -> Generator[Receipt, None, None]:
    """C-STORE each instance in order to the peer of an association that is there, in the role it has agreed to.

    Raises:  Unreachable
    """
    accepted = {
        (str(agreed.abstract_syntax), str(agreed.transfer_syntax[0])): agreed.context_id
        for agreed in association.accepted_contexts
        if agreed.as_scu
    }
    for number, item in enumerate(outgoing):
        uid = item.sop_instance_uid
        parcel = dicom.parcel(item)
        syntaxes = (parcel.transfer_syntax_uid, *WAYS)
        offer = next((offer for one in syntaxes if (offer := (item.sop_class_uid, one)) in accepted), None)
        if offer is None:
            yield Receipt(sop_instance_uid=uid, verdict=Verdict.NEVER, detail="no presentation context for it")
            continue
        body = item.path.read_bytes()
        try:
            if offer[1] in WAYS:
                body = WAYS[offer[1]](body, parcel.offset, parcel.transfer_syntax_uid)
            else:
                body = body[parcel.offset :]
        except CannotTranscode as problem:
            yield Receipt(sop_instance_uid=uid, verdict=Verdict.NEVER, detail=problem.what)
            continue
        status = dicom.store(association, accepted[offer], item, body, number % MOST + 1)
        if status is None:
            raise Unreachable("the peer of a C-GET does not answer", remedy="It may ask again")
        yield Receipt(sop_instance_uid=uid, verdict=judge(status), status=status)


def _wanted(exchange: Exchange, root: Root, granted: Granted) -> Query:
    """What the identifier names.

    Raises:  RetrievalRefused
    """
    try:
        query = understand(exchange.content, explicit=exchange.explicit, root=root, granted=granted).query
        check_retrieval(query, relational=granted.relational)
    except IdentifierDoesNotMatch as problem:
        status = RetrieveStatus.IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS
        raise RetrievalRefused(status, problem.what, remedy=problem.remedy) from None
    return query


def _destination(node: Node, ae_title: str) -> dicom.Settings:
    """The configured destination of this AE title.

    Raises:  RetrievalRefused
    """
    known = destination_of(node, ae_title)
    if known is not None:
        return known
    raise RetrievalRefused(
        RetrieveStatus.MOVE_DESTINATION_UNKNOWN,
        "no destination has this AE title",
        remedy="Add it to the destinations of this node",
    )


def _found(node: Node, query: Query) -> list[Holding]:
    """What is held of it.

    Raises:  RetrievalRefused, also for a PatientID that two issuers gave to two patients
    """
    with reading(node.engine) as connection:
        if query.level is Level.PATIENT and _ambiguous(connection, query):
            raise RetrievalRefused(
                RetrieveStatus.UNABLE_TO_PROCESS,
                "several issuers have this PatientID",
                remedy="Send IssuerOfPatientID, too",
            )
        wanted = holdings.wanted_by(connection, query, MOST + 1)
    if len(wanted) > MOST:
        raise RetrievalRefused(
            RetrieveStatus.UNABLE_TO_CALCULATE_NUMBER_OF_MATCHES,
            f"more than {MOST} objects",
            remedy="Retrieve it in parts",
        )
    return wanted


def _ambiguous(connection: Connection, query: Query) -> bool:
    """Whether this PatientID alone names several patients."""
    asked = query.conditions["PatientID"]
    if "IssuerOfPatientID" in query.conditions or not isinstance(asked, Exactly):
        return False
    return len(holdings.issuers_of(connection, asked.value)) > 1


def _note(node: Node, exchange: Exchange, wanted: Sequence[Holding], query: Query, *, to: str) -> None:
    """One audit row a study, committed before its first byte leaves."""
    counts: dict[str, int] = {}
    for one in wanted:
        counts[one.study_instance_uid] = counts.get(one.study_instance_uid, 0) + 1
    with writing(node.engine) as connection:
        for study_instance_uid, count in counts.items():
            audit.write(
                connection,
                exchange.caller,
                "study.retrieved",
                study_instance_uid,
                to=to,
                level=query.level.name,
                instances=count,
            )
        if not counts:
            audit.write(connection, exchange.caller, "study.retrieved", to=to, level=query.level.name, instances=0)


def _outgoing(node: Node, wanted: Sequence[Holding]) -> tuple[list[Outgoing], list[str]]:
    """What can be sent, and the UIDs of what the index has and the store has not."""
    present, missing = [], []
    for one in wanted:
        path = node.store.path(one.path)
        if path.exists():
            present.append(Outgoing(sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid, path=path))
        else:
            missing.append(one.sop_instance_uid)
    return present, missing


def _none() -> Generator[Receipt, None, None]:
    yield from ()


def _perform(
    node: Node,
    exchange: Exchange,
    missing: Sequence[str],
    present: Sequence[Outgoing],
    receipts: Generator[Receipt, None, None],
) -> None:
    """Send, tell the peer after each object, and say at last how it went."""
    tally = Tally(remaining=len(missing) + len(present))
    for uid in missing:
        tally.count(Receipt(sop_instance_uid=uid, verdict=Verdict.LATER))
    comment = "files are missing in the store" if missing else ""
    cancelled = False
    try:
        for receipt in _while_wanted(exchange, receipts):
            tally.count(receipt)
            exchange.respond(RetrieveStatus.PENDING, **tally.attributes(remaining=True))
        cancelled = exchange.cancelled and tally.remaining > 0
    except (Unreachable, Rejected) as problem:
        comment = problem.what
        for item in present[len(present) - tally.remaining :]:
            tally.count(Receipt(sop_instance_uid=item.sop_instance_uid, verdict=Verdict.LATER))
    finally:
        receipts.close()
        _note_end(node, exchange, tally, cancelled=cancelled)
    _finish(exchange, tally, comment, cancelled=cancelled)


def _while_wanted(exchange: Exchange, receipts: Iterator[Receipt]) -> Iterator[Receipt]:
    """Receipts as long as the peer is there and has not cancelled; asked before each object is sent.

    Raises:  PeerGone
    """
    while not exchange.cancelled:
        exchange.check()
        receipt = next(receipts, None)
        if receipt is None:
            return
        yield receipt


def _note_end(node: Node, exchange: Exchange, tally: Tally, *, cancelled: bool) -> None:
    """What became of a retrieval that did not go through whole."""
    if not (tally.failed or tally.warning or tally.remaining):
        return
    with writing(node.engine) as connection:
        audit.write(
            connection,
            exchange.caller,
            "retrieval.ended",
            outcome=Outcome.FAILED,
            completed=tally.completed,
            failed=tally.failed,
            warning=tally.warning,
            remaining=tally.remaining,
            cancelled=cancelled,
        )


def _finish(exchange: Exchange, tally: Tally, comment: str, *, cancelled: bool) -> None:
    status = RetrieveStatus.CANCEL if cancelled else tally.status
    identifier = b""
    if tally.failed_uids and status is not RetrieveStatus.SUCCESS:
        uids = "\\".join(tally.failed_uids)
        if len(uids) > LONGEST_LIST:
            uids = uids[: uids.rindex("\\", 0, LONGEST_LIST)]
        identifier = element(FAILED_LIST, "UI", uids.encode("ascii", "replace"), explicit=exchange.explicit)
    said = tally.attributes(remaining=cancelled)
    if comment and tally.failed:
        said["ErrorComment"] = comment[:64].encode("ascii", "replace").decode()
    exchange.respond(status, identifier, **said)
