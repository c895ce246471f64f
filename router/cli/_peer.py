"""What `query` and `fetch` share: the other node, and what we call ourselves to it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_sr.problem import Problem
from router.cli._common import peer

if TYPE_CHECKING:
    from router.query.scu import Peer

At = Annotated[str, typer.Option("--at", help="The other node: AE_TITLE@HOST:PORT")]
Calling = Annotated[str | None, typer.Option(help="Our AE title; default: as in the node's settings, else ISOCENTER")]
Secure = Annotated[bool, typer.Option("--tls", help="Speak TLS, with the certificates of the node's settings")]
Timeout = Annotated[float, typer.Option(help="For connecting and for each answer", min=0.1)]
TIMEOUT_S = 30.0


class NoNode(Problem):
    """The command needs a node's settings, and there are none."""

    exit_code = 2


def other(at: str, config: Path, *, calling: str | None, tls: bool, timeout_s: float) -> "Peer":
    """The node at this address, called as the settings say where there are any.

    Raises:  BadAddress, WrongSettings, NoNode, UnusableCredentials
    """
    from router.config import load
    from router.query.scu import Peer
    from router.tls import client_context

    title, host, port = peer(at)
    settings = load(config) if config.exists() else None
    if tls and settings is None:
        raise NoNode(f"--tls needs certificates, and {config} is not there", remedy="Name the node's file by --config")
    ours = "ISOCENTER" if settings is None else settings.delivery.calling_ae_title or settings.ae_title
    return Peer(
        ae_title=title,
        host=host,
        port=port,
        calling_ae_title=calling or ours,
        timeout_s=timeout_s,
        tls=client_context(settings.tls) if tls and settings is not None else None,
    )
