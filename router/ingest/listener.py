"""The role `listen`: associations from known senders, C-ECHO and C-STORE; drained when told to stop."""

import threading
from dataclasses import asdict
from functools import partial

import structlog
from pynetdicom import AE, _config
from pynetdicom.presentation import PresentationContext

from dicom_sr.problem import Problem
from router import tls
from router.db import associations
from router.db.engine import now, writing
from router.ingest.association import DoorServer
from router.ingest.door import Door
from router.ingest.offers import contexts
from router.ingest.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from router.ingest.quiet import unvalidated
from router.ingest.reconcile import reconcile
from router.node import Node
from router.tls import Credentials

log = structlog.get_logger()
_config.LOG_HANDLER_LEVEL = "none"  # pynetdicom's own handlers would log patients


LOOK_S = 0.1
"""How often the accepting thread looks whether it should stop."""
RECORD_AGAIN_S = 2.0
"""After so long the end of an association that could not be recorded is tried again: it holds its studies."""


class PortTaken(Problem):
    """Another process listens where we should."""


def serve(node: Node, stop: threading.Event) -> None:
    """Receive until `stop` is set.

    Raises:  PortTaken, StoreUnusable, UnusableCredentials
    """
    with unvalidated():
        _serve(Door(node), stop)


def _serve(door: Door, stop: threading.Event) -> None:
    with writing(door.engine) as connection:
        associations.close_all_of(connection, door.name, now())
    found = reconcile(door.receiver)
    log.info("store.reconciled", **asdict(found))
    servers = _listen(door)
    listening = [
        threading.Thread(target=server.serve_forever, args=(LOOK_S,), name="listener", daemon=True)
        for server in servers
    ]
    for thread in listening:
        thread.start()
    door.notice.start()
    door.follower.start()
    for server in servers:
        host, port = server.server_address[:2]
        log.info("listener.ready", host=host, port=port, tls=server.credentials is not None)
    while not stop.wait(RECORD_AGAIN_S):
        door.record_ends()
    for server in servers:
        server.stop_listening()
    for thread in listening:
        thread.join()
    door.follower.stop()
    door.drain()
    door.notice.stop()
    door.receiver.new.close()
    door.engine.dispose()


def _listen(door: Door) -> list[DoorServer]:
    """The plain and the TLS server, as far as they are wanted; they share associations' slots and everything else."""
    settings = door.node.settings
    limits = settings.listener
    credentials = None
    if limits.tls_port is not None:
        make = partial(tls.server_context, settings.tls, limits.client_certificate)
        credentials = Credentials(settings.tls, make)
    ae = AE(ae_title=settings.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = limits.max_pdu_bytes
    ae.maximum_associations = door.most_connections  # our own limits are checked before, and answered more precisely
    ae.acse_timeout = limits.association_timeout_s
    ae.network_timeout = limits.idle_timeout_s
    offered = contexts(limits.private_sop_classes)
    made: list[DoorServer] = []
    if limits.plain:
        made.append(_server(door, ae, limits.port, offered, None))
    if limits.tls_port is not None:
        made.append(_server(door, ae, limits.tls_port, offered, credentials))
    return made


def _server(
    door: Door, ae: AE, port: int, offered: list[PresentationContext], credentials: Credentials | None
) -> DoorServer:
    host = door.node.settings.listener.host
    try:
        return DoorServer(door, ae, (host, port), offered, credentials)
    except OSError as error:
        raise PortTaken(
            f"port {port} of {host} cannot be listened on: {error.strerror}",
            remedy="Stop the process that listens there (`ss -ltnp`), or choose another listener.port",
        ) from error
