"""A connection under TLS that the door's loop can treat as a plain one: it reads what is there and never waits for
more, and a peer that takes nothing ends it after a while."""

import select
import socket
import ssl
import time
from contextlib import suppress
from typing import Any


class SecureSocket(ssl.SSLSocket):
    """The handshake is part of the first reads, so it too stands under the association's deadline."""

    send_timeout_s: float

    @classmethod
    def of(cls, connection: socket.socket, context: ssl.SSLContext, *, send_timeout_s: float) -> "SecureSocket":
        """The accepted connection under TLS.

        Raises:  OSError
        """
        connection.setblocking(False)
        context.sslsocket_class = cls
        made: SecureSocket = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)  # type: ignore[assignment]
        made.send_timeout_s = send_timeout_s
        return made

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Bytes that are there now.

        Raises:  BlockingIOError (none for now), OSError
        """
        try:
            return super().recv_into(buffer, nbytes)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def send(self, data: Any, flags: int = 0) -> int:
        """Bytes taken of `data`, at least one.

        Raises:  OSError
        """
        deadline = time.monotonic() + self.send_timeout_s
        while True:
            try:
                return super().send(data)
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            poll = select.poll()
            poll.register(self.fileno(), wanted)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError("the peer takes no data")

    def shutdown(self, how: int) -> None:
        """Say goodbye as TLS wants it, without waiting for an answer."""
        with suppress(OSError, ValueError):
            self.unwrap()
        super().shutdown(how)
