"""A DICOM node as a destination: its form, and associations with it in which we ask (C-FIND, C-ECHO, N-ACTION)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from router.config import AETitle, Port
from router.destinations import Context, Destination, Rejected, Unreachable
from router.domain.delivery import Verdict

PERMANENT = 1
"""Result of an A-ASSOCIATE-RJ that will be the same next time (PS3.8 9.3.4)."""

Status = Annotated[str, Field(pattern=r"^[0-9A-F]{4}$")]


class Settings(Destination):
    """Where the node listens, what it is called, and how its answers are to be taken."""

    kind: Literal["dicom"]
    ae_title: AETitle = Field(description="Its AE title")
    host: str = Field(min_length=1, description="Its name or address")
    port: Port = Field(description="Its TCP port")
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

    Raises:  Unreachable, Rejected
    """
    ae = AE(ae_title=settings.calling_ae_title or context.calling_ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = context.timeout_s
    connected: list[bool] = []
    association = ae.associate(
        settings.host,
        settings.port,
        contexts=contexts,
        ae_title=settings.ae_title,
        evt_handlers=[(evt.EVT_CONN_OPEN, lambda event: connected.append(True)), *handlers],
    )
    if not association.is_established and not association.rejected_contexts:
        raise refusal(settings, association, connected=bool(connected))
    try:
        yield association
    except Unreachable:
        association.abort()
        raise
    finally:
        if association.is_established:
            association.release()


def refusal(settings: Settings, association: Association, *, connected: bool) -> Unreachable | Rejected:
    """Why there is no association."""
    where = f"destination {settings.name}: {settings.ae_title} at {settings.host}:{settings.port}"
    if not connected:
        return Unreachable(
            f"{where}: nobody answers there",
            remedy="Check host, port and firewall; the delivery goes on by itself",
        )
    if not association.is_rejected:
        return Unreachable(
            f"{where} aborted the association or did not answer in time",
            remedy="Ask its administrator what its log says; the delivery goes on by itself",
        )
    rejection = association.acceptor.primitive
    said = f"{where} rejected the association ({rejection.result_str}: {rejection.reason_str})"
    if rejection.result == PERMANENT:
        return Rejected(said, remedy="Make our AE title known there, or correct ae_title; then `isocenter jobs retry`")
    return Unreachable(said, remedy="It is busy; the delivery goes on by itself")
