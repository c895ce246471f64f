"""The same services asked of others: what they hold (`isocenter query`), and having it sent (`isocenter fetch`)."""

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import (
    AllStoragePresentationContexts,
    PresentationContext,
    StoragePresentationContexts,
    build_context,
    build_role,
)
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_sr.problem import Problem
from router.domain.query import KEYS, UNIQUE, Kind, Level, Root
from router.query.identifier import tag_of
from router.query.status import FindStatus, RetrieveStatus
from router.requestor import steady

Keep = Callable[[Dataset, bytes], int]
"""Takes the File Meta Information and the data set's bytes of an object that a C-GET brings; gives a C-STORE status."""

FIND = {
    Root.PATIENT: PatientRootQueryRetrieveInformationModelFind,
    Root.STUDY: StudyRootQueryRetrieveInformationModelFind,
}
MOVE = {
    Root.PATIENT: PatientRootQueryRetrieveInformationModelMove,
    Root.STUDY: StudyRootQueryRetrieveInformationModelMove,
}
GET = {Root.PATIENT: PatientRootQueryRetrieveInformationModelGet, Root.STUDY: StudyRootQueryRetrieveInformationModelGet}
MOST_CONTEXTS = 128


class PeerUnreachable(Problem):
    """The other node does not answer, or went away in the middle."""

    retryable = True


class PeerRefuses(Problem):
    """The other node answers, and will not do what we ask."""


class WrongQuery(Problem):
    """A query that cannot be asked: an unknown attribute, or none of the unique keys that its level needs."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another node, and what we call ourselves to it."""

    ae_title: str
    host: str
    port: int
    calling_ae_title: str
    timeout_s: float = 30.0
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """How a retrieval ended."""

    status: int
    completed: int
    failed: int
    warning: int
    failed_sop_instance_uids: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything that was wanted came."""
        return self.status == RetrieveStatus.SUCCESS and not self.failed


def find(
    peer: Peer,
    keys: Mapping[str, str | Sequence[str]],
    level: Level,
    *,
    root: Root = Root.STUDY,
    most: int | None = None,
) -> Iterator[Dataset]:
    """What the peer holds: its matches as they come, after `most` of them cancelled. Keys are keyword -> text.

    An empty text asks for the attribute. Counts, dates and descriptions of the level are always asked for.

    Raises:  PeerUnreachable, PeerRefuses, WrongQuery
    """
    wanted = {name: "" for name, key in KEYS.items() if _usual(key.level, key.kind, level, root)} | dict(keys)
    with _associated(peer, [_context(FIND[root])]) as association:
        count = 0
        for status, identifier in association.send_c_find(_identifier(wanted, level), FIND[root], msg_id=1):
            code = _code(peer, status)
            if code in (FindStatus.PENDING, FindStatus.PENDING_WITHOUT_OPTIONAL_KEYS):
                count += 1
                if most is None or count <= most:
                    yield identifier
                if count == most:
                    association.send_c_cancel(1, query_model=FIND[root])
            elif code not in (FindStatus.SUCCESS, FindStatus.CANCEL):
                raise _refused(peer, status)


def move(
    peer: Peer, keys: Mapping[str, str | Sequence[str]], level: Level, destination: str, *, root: Root = Root.STUDY
) -> Retrieved:
    """Have the peer send what the keys name to the AE `destination`, which it must know.

    Raises:  PeerUnreachable, PeerRefuses, WrongQuery
    """
    _check_named(keys, level)
    with _associated(peer, [_context(MOVE[root])]) as association:
        return _ended(peer, association.send_c_move(_identifier(keys, level), destination, MOVE[root]))


def get(
    peer: Peer,
    keys: Mapping[str, str | Sequence[str]],
    level: Level,
    keep: Keep,
    *,
    root: Root = Root.STUDY,
    sop_classes: Sequence[str] = (),
) -> Retrieved:
    """Have the peer send what the keys name on this association; `sop_classes` narrows what is asked for.

    Raises:  PeerUnreachable, PeerRefuses, WrongQuery
    """
    _check_named(keys, level)
    classes = list(sop_classes) or [str(one.abstract_syntax) for one in StoragePresentationContexts]
    classes = classes[: MOST_CONTEXTS - 1]
    contexts = [_context(GET[root]), *(_storage(one) for one in classes)]
    roles = [build_role(one, scp_role=True) for one in classes]

    def store(event: evt.Event) -> int:
        return keep(event.file_meta, event.request.DataSet.getvalue())

    with _associated(peer, contexts, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, store)]) as association:
        return _ended(peer, association.send_c_get(_identifier(keys, level), GET[root]))


def _usual(of: Level, kind: Kind, level: Level, root: Root) -> bool:
    """Whether a key is asked for although nobody named it: those of the level, in Study Root the patient's with it."""
    if kind is Kind.FACT or (kind is Kind.COUNT and of is not level):
        return False
    return of is level or (root is Root.STUDY and level is Level.STUDY and of is Level.PATIENT)


def _check_named(keys: Mapping[str, str | Sequence[str]], level: Level) -> None:
    if not keys.get(UNIQUE[level]):
        raise WrongQuery(
            f"{UNIQUE[level]} must name what is wanted at {level.name} level", remedy=f"Add {UNIQUE[level]}=..."
        )


def _identifier(keys: Mapping[str, str | Sequence[str]], level: Level) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level.name
    words = [value if isinstance(value, str) else "\\".join(value) for value in keys.values()]
    identifier.SpecificCharacterSet = "ISO_IR 192"  # also of the answers, in many nodes
    for keyword, word in zip(keys, words, strict=True):
        if keyword not in KEYS:
            raise WrongQuery(f"{keyword} is no attribute that can be asked for", remedy="Write its keyword of PS3.6")
        vr = KEYS[keyword].vr
        value: Any = [] if vr == "SQ" else word.split("\\") if "\\" in word else word
        identifier.add(DataElement(tag_of(keyword), vr, value, validation_mode=IGNORE))  # keys may hold * ? and -
    return identifier


def _context(sop_class: str) -> PresentationContext:
    return build_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def _storage(sop_class: str) -> PresentationContext:
    known = {str(one.abstract_syntax): one for one in AllStoragePresentationContexts}
    syntaxes = known[sop_class].transfer_syntax if sop_class in known else [ImplicitVRLittleEndian]
    return build_context(sop_class, list(syntaxes))


@contextmanager
def _associated(peer: Peer, contexts: list[PresentationContext], **options: Any) -> Iterator[Association]:
    ae = AE(ae_title=peer.calling_ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = peer.timeout_s
    if peer.tls is not None:
        options["tls_args"] = (peer.tls, peer.host)
    association = ae.associate(peer.host, peer.port, contexts=contexts, ae_title=peer.ae_title, **options)
    association = steady(association)
    if not association.is_established:
        if association.is_rejected:
            raise PeerRefuses(
                f"{peer} rejects {peer.calling_ae_title}", remedy="Make our AE title known there, or correct theirs"
            )
        if association.rejected_contexts:
            raise PeerRefuses(f"{peer} does not offer this service", remedy="Ask its administrator for the right to it")
        raise PeerUnreachable(
            f"{peer} does not answer", remedy="Check host, port and firewall, and whether it speaks TLS as we do"
        )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _code(peer: Peer, status: Dataset) -> int:
    """The status of a response.

    Raises:  PeerUnreachable, when none came
    """
    if "Status" not in status:
        raise PeerUnreachable(f"{peer} ended the association, or did not answer in time", remedy="Try again")
    return int(status.Status)


def _refused(peer: Peer, status: Dataset) -> PeerRefuses:
    comment = f": {status.ErrorComment}" if "ErrorComment" in status else ""
    return PeerRefuses(f"{peer} answers {status.Status:04X}{comment}", remedy="Ask its administrator what its log says")


def _ended(peer: Peer, responses: Iterator[tuple[Dataset, Dataset | None]]) -> Retrieved:
    """The last of these responses.

    Raises:  PeerUnreachable, PeerRefuses
    """
    said: list[tuple[Dataset, Dataset | None]] = [(Dataset(), None)]
    for response in responses:
        said = [response]
    status, identifier = said[0]
    code = _code(peer, status)
    told = (RetrieveStatus.UNABLE_TO_PERFORM_SUB_OPERATIONS, RetrieveStatus.SUB_OPERATIONS_COMPLETE_WITH_FAILURES)
    if code not in (RetrieveStatus.SUCCESS, RetrieveStatus.CANCEL, *told):
        raise _refused(peer, status)
    listed = identifier.get("FailedSOPInstanceUIDList") if identifier else None
    failed = [listed] if isinstance(listed, str) else list(listed or ())
    return Retrieved(
        status=code,
        completed=int(status.get("NumberOfCompletedSuboperations") or 0),
        failed=int(status.get("NumberOfFailedSuboperations") or 0),
        warning=int(status.get("NumberOfWarningSuboperations") or 0),
        failed_sop_instance_uids=tuple(map(str, failed)),
    )
