"""A bare Python sink: takes associations as they come and writes data sets to files; no checks, no index, no sync.

`python -m tests.bench.sink PORT FOLDER`. What a Python receiver can reach on this machine at best.
"""

import os
import socket
import struct
import sys
import threading

from pydicom.uid import ExplicitVRLittleEndian

from tests.ingest.wire import APPLICATION_CONTEXT, element, item, p_data, pdu, pdv, us

BUFFER = 1 << 20


def accept(request: bytes) -> bytes:
    """An A-ASSOCIATE-AC for every context, explicit VR little endian."""
    body = request[:68] + item(0x10, APPLICATION_CONTEXT.encode())
    at = 68
    while at < len(request):
        kind, _, length = struct.unpack_from(">BBH", request, at)
        if kind == 0x20:
            syntax = item(0x40, ExplicitVRLittleEndian.encode())
            body += item(0x21, bytes([request[at + 4], 0, 0, 0]) + syntax)
        at += 4 + length
    return pdu(2, body + item(0x50, item(0x51, struct.pack(">I", 1 << 17)) + item(0x52, b"1.2.3.98")))


class Sink:
    """One connection."""

    def __init__(self, connection: socket.socket, folder: str, ordinal: int) -> None:
        self.connection = connection
        self.prefix = f"{folder}/{ordinal}"
        self.buffer = memoryview(bytearray(BUFFER))
        self.begin = self.end = 0
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exactly(self, count: int) -> memoryview:
        """So many bytes from the buffer."""
        while self.end - self.begin < count:
            self.fill()
        piece = self.buffer[self.begin : self.begin + count]
        self.begin += count
        return piece

    def fill(self) -> None:
        """Receive what fits."""
        if self.begin:
            left = self.end - self.begin
            self.buffer[:left] = self.buffer[self.begin : self.end]
            self.begin, self.end = 0, left
        received = self.connection.recv_into(self.buffer[self.end :])
        if not received:
            raise ConnectionResetError
        self.end += received

    def run(self) -> None:
        try:
            self._run()
        except (OSError, struct.error):
            self.connection.close()

    def _run(self) -> None:
        _, _, length = struct.unpack(">BBI", self.exactly(6))
        self.connection.sendall(accept(bytes(self.exactly(length))))
        number, file, response = 0, -1, b""
        while True:
            kind, _, length = struct.unpack(">BBI", self.exactly(6))
            if kind != 4:
                self.connection.sendall(pdu(6, bytes(4)))
                self.connection.close()
                return
            size, _, control = struct.unpack(">IBB", self.exactly(6))
            left = size - 2
            if control & 1:
                response = respond(bytes(self.exactly(left)))
                number += 1
                file = os.open(f"{self.prefix}-{number}.part", os.O_CREAT | os.O_WRONLY)
                continue
            while left:
                if self.begin == self.end:
                    self.fill()
                piece = self.exactly(min(left, self.end - self.begin))
                left -= os.write(file, piece)
            if control & 2:
                os.close(file)
                os.rename(f"{self.prefix}-{number}.part", f"{self.prefix}-{number}")
                self.connection.sendall(response)


def respond(command: bytes) -> bytes:
    """Success."""
    values = {}
    at = 0
    while at < len(command):
        _, number, length = struct.unpack_from("<HHI", command, at)
        values[number] = command[at + 8 : at + 8 + length]
        at += 8 + length
    body = element(2, values[2]) + element(0x100, us(0x8001)) + element(0x120, values[0x110])
    body += element(0x800, us(0x101)) + element(0x900, us(0)) + element(0x1000, values[0x1000])
    return p_data(pdv(1, 3, element(0, struct.pack("<I", len(body))) + body))


def main() -> None:
    port, folder = int(sys.argv[1]), sys.argv[2]
    with socket.create_server(("127.0.0.1", port)) as server:
        ordinal = 0
        while True:
            connection, _ = server.accept()
            ordinal += 1
            threading.Thread(target=Sink(connection, folder, ordinal).run, daemon=True).start()


if __name__ == "__main__":
    main()
