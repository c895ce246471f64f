"""A DICOM node as a destination: its form, and associations with it: to ask (C-FIND, C-ECHO, N-ACTION), or to store."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from router.config import AETitle, Port
from router.destinations import Context, Destination, Interrupted, Rejected, Unreachable, _wire
from router.destinations._wire import NotAcceptedError, Wire
from router.domain.delivery import Verdict
from router.requestor import steady
from router.tls import client_context

PERMANENT = 1
"""Result of an A-ASSOCIATE-RJ that will be the same next time (PS3.8 9.3.4)."""

Status = Annotated[str, Field(pattern=r"^[0-9A-F]{4}$")]


class Settings(Destination):
    """Where the node listens, what it is called, and how its answers are to be taken."""

    kind: Literal["dicom"]
    ae_title: AETitle = Field(description="Its AE title")
    host: str = Field(min_length=1, description="Its name or address")
    port: Port = Field(description="Its TCP port")
    tls: bool = Field(False, description="Encrypted, with the certificates of the node's `tls` settings")
    calling_ae_title: AETitle | None = Field(None, description="What we call ourselves there; default: as everywhere")
    same_study: bool = Field(True, description="Ask by C-FIND, where it takes that, whose study it has, before sending")
    read_back: bool = Field(True, description="Ask by C-FIND, where it takes that, whether what was sent is there")
    commitment: Literal["ask", "require", "never"] = Field(
        "ask",
        description="Storage commitment: ask where it takes that, and read back where it does not, or never reports; "
        "require it; or never ask",
    )
    commitment_deadline_s: float = Field(3600, gt=0, description="Longest wait for its report; then it is asked again")
    answers: dict[Status, Verdict] = Field(
        {}, description="What one exact status means there, as in C001: never; others as the standard says"
    )


@contextmanager
def associated(
    settings: Settings, contexts: list[PresentationContext], context: Context, handlers: Sequence[tuple[Any, ...]] = ()
) -> Iterator[Association]:
    """An association with these contexts. It may have accepted none of them, and is then over already.

    Raises:  Unreachable, Rejected, UnusableCredentials
    """
    ae = AE(ae_title=settings.calling_ae_title or context.calling_ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = context.timeout_s
    connected: list[bool] = []
    encryption = encrypted(settings, context)
    association = ae.associate(
        settings.host,
        settings.port,
        contexts=contexts,
        ae_title=settings.ae_title,
        tls_args=None if encryption is None else (encryption, settings.host),
        evt_handlers=[(evt.EVT_CONN_OPEN, lambda event: connected.append(True)), *handlers],
    )
    association = steady(association)
    if not association.is_established and not association.rejected_contexts:
        rejection = association.acceptor.primitive if association.is_rejected else None
        raise refusal(settings, rejection) if connected else nobody(settings)
    try:
        yield association
    except Unreachable:
        association.abort()
        raise
    finally:
        if association.is_established:
            association.release()


@contextmanager
def storing(settings: Settings, contexts: list[PresentationContext], context: Context) -> Iterator[Wire]:
    """An association with these contexts, for C-STORE. It may have accepted none of them.

    Raises:  Unreachable, Interrupted, Rejected, UnusableCredentials
    """
    encryption = encrypted(settings, context)
    try:
        connection = _wire.connect(settings.host, settings.port, timeout_s=context.timeout_s, tls=encryption)
    except OSError as error:
        raise nobody(settings, error) from error
    calling = settings.calling_ae_title or context.calling_ae_title
    try:
        with _wire.associated(connection, contexts, calling=calling, called=settings.ae_title) as wire:
            yield wire
    except NotAcceptedError as error:
        raise refusal(settings, error.rejection) from error
    except (FileNotFoundError, PermissionError):  # the file's fault, not the far side's
        raise
    except OSError as error:
        raise Interrupted(
            f"destination {settings.name}: {settings.ae_title} ended the association, or did not answer in time",
            remedy="Ask its administrator what its log says; the delivery goes on by itself",
        ) from error


def encrypted(settings: Settings, context: Context) -> ssl.SSLContext | None:
    """How connections are encrypted; None where they are not.

    Raises:  UnusableCredentials
    """
    return client_context(context.tls) if settings.tls else None


def nobody(settings: Settings, error: OSError | None = None) -> Unreachable:
    """Nobody is there to associate with, or nobody that we trust."""
    where = f"destination {settings.name}: {settings.ae_title} at {settings.host}:{settings.port}"
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "verify_message", "") or str(error.reason or "no TLS").replace("_", " ").lower()
        return Unreachable(
            f"{where}: no encrypted connection ({said})",
            remedy="Compare its certificate with tls.ca_file, and its port with the one on which it speaks TLS",
        )
    return Unreachable(
        f"{where}: nobody answers there", remedy="Check host, port and firewall; the delivery goes on by itself"
    )


def refusal(settings: Settings, rejection: Any) -> Unreachable | Rejected:
    """Why there is no association with somebody who is there; without a rejection it said nothing."""
    where = f"destination {settings.name}: {settings.ae_title} at {settings.host}:{settings.port}"
    if rejection is None:
        return Unreachable(
            f"{where} aborted the association or did not answer in time",
            remedy="Ask its administrator what its log says; the delivery goes on by itself",
        )
    said = f"{where} rejected the association ({rejection.result_str}: {rejection.reason_str})"
    if rejection.result == PERMANENT:
        return Rejected(said, remedy="Make our AE title known there, or correct ae_title; then `isocenter jobs retry`")
    return Unreachable(said, remedy="It is busy; the delivery goes on by itself")
