"""The door itself: who is in, what they may do, what they stored; pynetdicom's events and the loop's calls end here."""

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from sqlalchemy.exc import SQLAlchemyError

from router.db import associations, audit, callers
from router.db.associations import Ending
from router.db.engine import connect, fault, now, writing
from router.domain.audit import Outcome
from router.domain.rejections import Rejections
from router.ingest.admission import Admission, Caller, Refusal, Sources
from router.ingest.follow import Follower
from router.ingest.layout import Series
from router.ingest.notice import Notice
from router.ingest.pdu import StoreRequest
from router.ingest.receive import Answer, Command, Receiver
from router.ingest.status import Rejection, StoreStatus
from router.ingest.storing import Storing
from router.ingest.stream import BrokenProtocolError
from router.node import Node
from router.query.peers import user_of
from router.rulebook import Source, UnreadablePasscode
from router.store import Store
from router.tls import names_of

log = structlog.get_logger()

SPARE_CONNECTIONS = 64
"""Connections beyond the associations: those that are still asking, or are being turned away."""
DRAIN_S = 5.0
"""How long associations may go on when the listener is told to stop."""


@dataclass(slots=True)
class Visit:
    """One association from its acceptance to its end."""

    id: str
    source: Source
    instances: int = 0
    studies: Counter[str] = field(default_factory=Counter)
    """How many instances of each study came, by StudyInstanceUID."""
    series: Series = field(default_factory=Series)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How and when a visit ended, in microseconds since 1970 UTC."""

    visit: Visit
    ending: Ending
    at: int


class Door:
    """Handles what pynetdicom reports about associations and messages."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.name = node.node_id
        store = Store(node.store.root, fsync=node.settings.listener.fsync)
        self.engine = connect(node.engine.url.render_as_string(hide_password=False), durable=False)
        self.receiver = Receiver(node.settings, store, self.engine)
        self.admission = Admission(node.settings, Sources(self.engine), store)
        self.notice = Notice(node)
        self.follower = Follower(node, self.receiver, self.admission, self.notice.tell)
        self.visits: dict[Association, Visit] = {}
        self.ends: deque[End] = deque()
        """Of associations that are over, and not yet recorded."""
        self.rejections = Rejections()
        self.noting = threading.Lock()
        self.most_connections = node.settings.listener.max_associations + SPARE_CONNECTIONS

    def requested(self, event: evt.Event) -> None:
        """Let a caller in, or turn it away with the proper reason."""
        request = event.assoc.requestor.primitive
        caller = Caller(
            calling_ae_title=request.calling_ae_title.strip(" "),
            called_ae_title=request.called_ae_title.strip(" "),
            address=event.assoc.requestor.address,
            certificate_names=names_of(event.assoc.dul.socket.socket),
            user=user_of(event.assoc),
        )
        try:
            admitted = self.admission.admit(caller)
            if not isinstance(admitted, Refusal):
                self.visits[event.assoc] = visit = Visit(id=uuid.uuid4().hex, source=admitted)
                self._enter(visit, caller)
        except (SQLAlchemyError, ValidationError, UnreadablePasscode) as error:
            log.error("association.not_decided", why=fault(error))
            self.ended(event.assoc)
            admitted = Refusal(rejection=Rejection.TEMPORARY_CONGESTION, reason="it could not be decided: see the log")
        if isinstance(admitted, Refusal):
            self._turn_away(event, caller, admitted)

    def _enter(self, visit: Visit, caller: Caller) -> None:
        opened = associations.Association(
            id=visit.id,
            calling_ae_title=caller.calling_ae_title,
            called_ae_title=caller.called_ae_title,
            address=caller.address,
            listener=self.name,
            opened_at=now(),
        )
        with writing(self.engine) as connection:
            associations.opened(connection, opened)
        log.info("association.opened", association=visit.id, source=caller.calling_ae_title, address=caller.address)

    def _turn_away(self, event: evt.Event, caller: Caller, refusal: Refusal) -> None:
        why = refusal.rejection.value
        event.assoc.acse.send_reject(why.result, why.source, why.reason)
        event.assoc.kill()
        name = "".join(one if one.isprintable() else "?" for one in caller.calling_ae_title)
        log.warning("association.rejected", source=name, address=caller.address, why=refusal.reason)
        who = f"{name}@{caller.address}"
        with self.noting:
            unwritten = self.rejections.note(who, refusal.reason, time.monotonic())
        engine = self.engine if unwritten is None else self.node.engine  # the audit is durable, a count need not be
        try:
            with writing(engine) as connection:
                callers.turned_away(connection, name, caller.address, refusal.reason, now())
                if unwritten is not None:
                    audit.write(
                        connection,
                        who,
                        "association.rejected",
                        outcome=Outcome.REFUSED,
                        reason=refusal.reason,
                        unwritten=unwritten,
                    )
        except SQLAlchemyError as error:
            log.error("association.not_recorded", why=fault(error))
            with self.noting:
                self.rejections.not_written(who, refusal.reason, unwritten)

    def storing(
        self, of: Association, context: PresentationContext, request: StoreRequest, answer: Callable[[Answer], None]
    ) -> Storing:
        """The sink of a C-STORE's data set, which counts what is stored."""
        visit = self.visits.get(of)
        if visit is None:
            raise BrokenProtocolError("the association has ended")
        sop_class_uid = request.sop_class.decode("latin_1").strip("\0 ")
        command = Command(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=request.sop_instance.decode("latin_1").strip("\0 "),
            transfer_syntax_uid=str(context.transfer_syntax[0]),
            calling_ae_title=visit.source.ae_title,
            association_id=visit.id,
        )

        def count(result: Answer) -> None:
            try:
                answer(result)
            finally:
                if result.study_instance_uid is not None:
                    visit.instances += 1
                    visit.studies[result.study_instance_uid] += 1
                    self.notice.tell()

        refused = self._may_not(visit, context, sop_class_uid)
        return Storing(self.receiver, command, count, series=visit.series, refused=refused)

    def _may_not(self, visit: Visit, context: PresentationContext, sop_class_uid: str) -> Answer | None:
        """Why this source may not store under this context; None when it may."""
        if sop_class_uid != context.abstract_syntax:
            return Answer(status=StoreStatus.SOP_CLASS_NOT_SUPPORTED, comment="not the SOP class of this context")
        if "store" not in visit.source.services:
            return Answer(status=StoreStatus.NOT_AUTHORIZED, comment="this AE may not store here")
        return None

    def ended(self, of: Association) -> None:
        """An association is over, in whatever way; it may be told more than once."""
        visit = self.visits.pop(of, None)
        if visit is None:
            return
        self.admission.leave(visit.source)
        ending = Ending.RELEASE if of.is_released else Ending.ABORT if of.is_aborted else Ending.LOST
        self.ends.append(End(visit=visit, ending=ending, at=now()))
        self.record_ends()
        log.info("association.closed", association=visit.id, ending=str(ending), instances=visit.instances)

    def record_ends(self) -> None:
        """Close the rows of associations that are over, also of those for which the disk had no room before.

        What is left when we are killed is closed at the next start.
        """
        while True:
            try:
                end = self.ends.popleft()
            except IndexError:  # nothing is left, or another thread has it
                return
            visit = end.visit
            try:
                with writing(self.engine) as connection:
                    associations.closed(
                        connection,
                        visit.id,
                        ending=end.ending,
                        instances=visit.instances,
                        studies=visit.studies,
                        at=end.at,
                    )
            except SQLAlchemyError as error:
                self.ends.appendleft(end)
                log.error("association.not_recorded", association=visit.id, why=fault(error))
                return
            self.notice.ended()

    def drain(self) -> None:
        """Let associations come to an end by themselves for a while, then end them."""
        deadline = time.monotonic() + DRAIN_S
        while self.visits and time.monotonic() < deadline:
            time.sleep(0.02)
        for association in list(self.visits):
            association.abort()
