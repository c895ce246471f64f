"""The role `listen`: associations from known senders, C-ECHO and C-STORE; drained when told to stop."""

import threading
import uuid
from dataclasses import dataclass, field

import structlog
from pynetdicom import AE, _config, evt

from dicom_sr.problem import Problem
from router.db import associations, callers
from router.db.associations import Association, Ending
from router.db.engine import connect, now, writing
from router.ingest.admission import Admission, Caller, Refusal, Source, Sources
from router.ingest.digester import Digester
from router.ingest.offers import contexts
from router.ingest.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.ingest.receive import Answer, Command, Receiver, Refused
from router.ingest.reconcile import reconcile
from router.ingest.status import StoreStatus
from router.node import Node
from router.store import Store, write_all

log = structlog.get_logger()
_config.LOG_HANDLER_LEVEL = "none"  # pynetdicom's own handlers would log patients


class PortTaken(Problem):
    """Another process listens where we should."""


@dataclass(slots=True)
class Visit:
    """One association from its acceptance to its end."""

    id: str
    source: Source
    instances: int = 0
    studies: set[str] = field(default_factory=set)


class Door:
    """Handles what pynetdicom reports about associations and messages."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.name = node.node_id
        store = Store(node.store.root, fsync=node.settings.listener.fsync)
        self.engine = connect(node.engine.url.render_as_string(hide_password=False), durable=False)
        self.receiver = Receiver(node.settings, store, self.engine)
        self.admission = Admission(node.settings, Sources(self.engine), store)
        self.digester = Digester(store, self.engine, node.bell)
        self.visits: dict[object, Visit] = {}

    def requested(self, event: evt.Event) -> None:
        """Let a caller in, or turn it away with the proper reason."""
        request = event.assoc.requestor.primitive
        caller = Caller(
            calling_ae_title=request.calling_ae_title.strip(" "),
            called_ae_title=request.called_ae_title.strip(" "),
            address=event.assoc.requestor.address,
        )
        admitted = self.admission.admit(caller)
        if isinstance(admitted, Refusal):
            self._turn_away(event, caller, admitted)
            return
        visit = Visit(id=uuid.uuid4().hex, source=admitted)
        self.visits[event.assoc] = visit
        opened = Association(
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
        with writing(self.engine) as connection:
            callers.turned_away(connection, caller.calling_ae_title, caller.address, refusal.reason, now())
        log.warning("association.rejected", source=caller.calling_ae_title, address=caller.address, why=refusal.reason)

    def stored(self, event: evt.Event) -> int:
        """C-STORE."""
        visit = self.visits[event.assoc]
        command = Command(
            sop_class_uid=str(event.request.AffectedSOPClassUID).strip("\0 "),
            sop_instance_uid=str(event.request.AffectedSOPInstanceUID).strip("\0 "),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            calling_ae_title=visit.source.ae_title,
            association_id=visit.id,
        )
        answer = self._store(command, event.request.DataSet.getbuffer())
        if answer.study_instance_uid is not None:
            visit.instances += 1
            visit.studies.add(answer.study_instance_uid)
            self.digester.stored()
        return int(answer.status)

    def _store(self, command: Command, content: memoryview) -> Answer:
        try:
            part = self.receiver.begin(command)
        except Refused as error:
            return Answer(status=error.status, comment=error.what)
        try:
            write_all(part.fd, content)
        except OSError as error:
            part.drop()
            return Answer(status=StoreStatus.OUT_OF_RESOURCES, comment=str(error))
        return self.receiver.finish(part, command)

    def ended(self, event: evt.Event) -> None:
        """The connection is gone, in whatever way."""
        visit = self.visits.pop(event.assoc, None)
        if visit is None:
            return
        ending = Ending.RELEASE if event.assoc.is_released else Ending.ABORT if event.assoc.is_aborted else Ending.LOST
        with writing(self.engine) as connection:
            associations.closed(
                connection, visit.id, ending=ending, instances=visit.instances, studies=visit.studies, at=now()
            )
        self.admission.leave(visit.source)
        self.digester.tell()
        log.info("association.closed", association=visit.id, ending=str(ending), instances=visit.instances)


def serve(node: Node, stop: threading.Event) -> None:
    """Receive until `stop` is set.

    Raises:  PortTaken, StoreUnusable
    """
    door = Door(node)
    with writing(door.engine) as connection:
        associations.close_all_of(connection, door.name, now())
    found = reconcile(door.receiver)
    log.info("store.reconciled", files=found.files, litter=found.litter, adopted=found.adopted, lost=found.lost)
    listener = node.settings.listener
    ae = AE(ae_title=node.settings.ae_title)
    ae.supported_contexts = contexts()
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = listener.max_pdu_bytes
    ae.maximum_associations = listener.max_associations + 100
    ae.acse_timeout = listener.association_timeout_s
    ae.network_timeout = listener.idle_timeout_s
    handlers = [
        (evt.EVT_REQUESTED, door.requested),
        (evt.EVT_C_STORE, door.stored),
        (evt.EVT_CONN_CLOSE, door.ended),
    ]
    try:
        server = ae.start_server((listener.host, listener.port), block=False, evt_handlers=handlers)
    except OSError as error:
        raise PortTaken(
            f"port {listener.port} of {listener.host} cannot be listened on: {error.strerror}",
            remedy="Stop the process that listens there (`ss -ltnp`), or choose another listener.port",
        ) from error
    door.digester.start()
    log.info("listener.ready", host=listener.host, port=server.server_address[1])
    stop.wait()
    server.shutdown()
    while door.visits and stop.is_set():
        threading.Event().wait(0.05)
    door.digester.stop()
