"""A peer that speaks the upper layer by hand, so that it can say what no library would: bytes in, bytes out."""

import socket
import struct
from types import TracebackType

from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.sop_class import Verification

APPLICATION_CONTEXT = UID("1.2.840.10008.3.1.1.1")
ACCEPTED, REJECTED, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 2, 3, 4, 5, 6, 7
CT, ECHO = 1, 3


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def pdu(kind: int, content: bytes, *, length: int | None = None) -> bytes:
    return struct.pack(">BBI", kind, 0, len(content) if length is None else length) + content


def associate(
    calling: str = "SENDER",
    called: str = "ISOCENTER",
    contexts: dict[int, tuple[str, list[str]]] | None = None,
    *,
    window: tuple[int, int] | None = None,
    max_length: int = 16384,
    user: bytes = b"",
) -> bytes:
    """An A-ASSOCIATE-RQ."""
    if contexts is None:
        contexts = {CT: (CTImageStorage, [ExplicitVRLittleEndian]), ECHO: (Verification, [ExplicitVRLittleEndian])}
    body = struct.pack(">HH", 1, 0) + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += item(0x10, APPLICATION_CONTEXT.encode())
    for number, (abstract, syntaxes) in contexts.items():
        offered = b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
        body += item(0x20, bytes([number, 0, 0, 0]) + item(0x30, abstract.encode()) + offered)
    information = item(0x51, struct.pack(">I", max_length)) + item(0x52, b"1.2.3.99") + item(0x55, b"WIRE")
    if window:
        information += item(0x53, struct.pack(">HH", *window))
    return pdu(1, body + item(0x50, information + user))


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def uid(value: str) -> bytes:
    return value.encode() + b"\0" * (len(value) % 2)


def command(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return element(0, struct.pack("<I", len(body))) + body


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def store_command(instance: str, message_id: int = 1, sop_class: str = CTImageStorage, data_set: int = 1) -> bytes:
    return command(
        element(2, uid(sop_class)),
        element(0x100, us(1)),
        element(0x110, us(message_id)),
        element(0x700, us(0)),
        element(0x800, us(data_set)),
        element(0x1000, uid(instance)),
    )


ECHO_COMMAND = command(
    element(2, uid(Verification)), element(0x100, us(0x30)), element(0x110, us(7)), element(0x800, us(0x101))
)


def pdv(context: int, control: int, fragment: bytes, *, length: int | None = None) -> bytes:
    return struct.pack(">IBB", len(fragment) + 2 if length is None else length, context, control) + fragment


def p_data(*values: bytes, length: int | None = None) -> bytes:
    return pdu(P_DATA, b"".join(values), length=length)


def store_message(instance: str, dataset: bytes, *, context: int = CT, message_id: int = 1, room: int = 16378) -> bytes:
    """A whole C-STORE request in PDUs of the usual size."""
    parts = [p_data(pdv(context, 3, store_command(instance, message_id)))]
    for at in range(0, max(1, len(dataset)), room):
        last = at + room >= len(dataset)
        parts.append(p_data(pdv(context, 2 if last else 0, dataset[at : at + room])))
    return b"".join(parts)


class Wire:
    """One TCP connection to the door."""

    def __init__(self, port: int, *, timeout_s: float = 20.0, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout_s)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def read(self, count: int) -> bytes:
        """So many bytes, or fewer when the peer closes first."""
        received = b""
        while len(received) < count:
            try:
                more = self.socket.recv(count - len(received))
            except ConnectionResetError:
                break
            if not more:
                break
            received += more
        return received

    def pdu(self) -> tuple[int, bytes]:
        """Type and content of the next PDU; type 0 when the peer has closed."""
        header = self.read(6)
        if len(header) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBI", header)
        return kind, self.read(length)

    def associate(self, **values: object) -> int:
        """Ask for an association; the type of the answer."""
        self.send(associate(**values))  # type: ignore[arg-type]
        return self.pdu()[0]

    def status(self) -> int:
        """The status of the next response."""
        kind, content = self.pdu()
        assert kind == P_DATA, f"PDU of type {kind}, content {content!r}"
        (length,) = struct.unpack_from(">I", content)
        return status_of(content[6 : 4 + length])

    def release(self) -> int:
        """Ask for release; the type of the answer."""
        self.send(pdu(RELEASE_RQ, bytes(4)))
        return self.pdu()[0]

    def is_closed(self) -> bool:
        """Whether the peer has ended the connection, an abort before it or not."""
        while True:
            kind, _ = self.pdu()
            if kind == 0:
                return True


def status_of(elements: bytes) -> int:
    at = 0
    while at < len(elements):
        _, number, length = struct.unpack_from("<HHI", elements, at)
        if number == 0x900:
            return int(struct.unpack_from("<H", elements, at + 8)[0])
        at += 8 + length
    raise AssertionError("a response without a status")
