"""Whom the node knows: the destinations and sources in force, read anew for each request."""

from pynetdicom.association import Association

from router import rulebook
from router.db import revisions
from router.db.engine import reading
from router.destinations import dicom
from router.node import Node
from router.query import rights
from router.query.rights import Allowed, Caller, Denied, Service
from router.rulebook import User
from router.tls import names_of

NAMED_TYPES = (1, 2)
"""Username, and username with passcode (PS3.7 D.3.3.7.1)."""


def destination_of(node: Node, ae_title: str) -> dicom.Settings | None:
    """The configured DICOM destination of this AE title."""
    with reading(node.engine) as connection:
        try:
            body = revisions.current(connection, revisions.Kind.DESTINATIONS).body
        except revisions.UnknownRevision:
            return None
    known = rulebook.destinations(body)
    return next((one for one in known if isinstance(one, dicom.Settings) and one.ae_title == ae_title.strip()), None)


def caller_of(association: Association) -> Caller:
    """Who has asked for this association."""
    requestor = association.requestor
    return Caller(
        calling_ae_title=requestor.ae_title.strip(" "),
        address=requestor.address,
        certificate_names=names_of(association.dul.socket.socket),
        user=user_of(association),
    )


def user_of(association: Association) -> User | None:
    """The user that the requestor names; tickets and tokens (types 3 to 5) name nobody whom we know."""
    asked = association.requestor.user_identity
    if asked is None or asked.user_identity_type not in NAMED_TYPES:
        return None
    name, passcode = asked.primary_field or b"", asked.secondary_field or b""
    return User(name=name.decode("utf-8", "replace"), passcode=passcode.decode("utf-8", "replace"))


def permission(node: Node, caller: Caller, service: Service) -> Allowed | Denied:
    """Whether the sources in force let this caller use this service."""
    with reading(node.engine) as connection:
        try:
            body = revisions.current(connection, revisions.Kind.SOURCES).body
        except revisions.UnknownRevision:
            body = ()
    return rights.decide(rulebook.sources(body), caller, service)
