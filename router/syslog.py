"""Messages to a syslog receiver: UDP, TCP or TLS, framed as the standards say."""

import os
import socket
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

PRIORITY = 85
"""Facility 10 (security), severity 5 (notice).  Source: PS3.15 A.6 (audit trail message transport), RFC 5424 6.2.1"""
WARNING = 28
"""Facility 3 (system daemons), severity 4 (warning).  Source: RFC 5424 6.2.1"""

TIMEOUT_S = 10.0
PORTS = {"udp": 514, "tcp": 601, "tls": 6514}


def send(
    address: str, texts: Iterable[str], *, kind: str, ca_file: Path | None = None, priority: int = PRIORITY
) -> int:
    """Send each text as one message to udp://, tcp:// or tls://HOST:PORT; how many.

    `kind` is the message id. TLS checks the receiver's certificate, by `ca_file` where one is given.

    Raises:  OSError (ssl.SSLError is one)
    Source:  RFC 5424, RFC 5425 (octet counting over TLS), RFC 6587 3.4.1 (over TCP), RFC 5426 (UDP)
    """
    where = urlsplit(address)
    host, port = where.hostname or "", where.port or PORTS[where.scheme]
    count = 0
    if where.scheme == "udp":
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as line:
            for count, text in enumerate(texts, 1):  # noqa: B007
                line.sendto(message(text, kind, priority), found[4])
        return count
    with socket.create_connection((host, port), TIMEOUT_S) as plain:
        if where.scheme == "tcp":
            return _stream(plain, texts, kind, priority)
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        with context.wrap_socket(plain, server_hostname=host) as secure:
            count = _stream(secure, texts, kind, priority)
            secure.unwrap()  # the receiver has taken everything before it agrees to end
            return count


def message(text: str, kind: str, priority: int = PRIORITY) -> bytes:
    """One message with its header; the text begins with a byte order mark, since it is UTF-8."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = socket.gethostname() or "-"
    return f"<{priority}>1 {at} {host} isocenter {os.getpid()} {kind} - \ufeff{text}".encode()


def _stream(line: socket.socket, texts: Iterable[str], kind: str, priority: int) -> int:
    count = 0
    for count, text in enumerate(texts, 1):  # noqa: B007
        content = message(text, kind, priority)
        line.sendall(f"{len(content)} ".encode() + content)
    return count
