"""A bare Python sink: a thread a connection, each PDU received whole and written; no checks, no index, no sync.

`python -m tests.bench.sink PORT FOLDER`. What one would write first with Python's socket module and nothing else.
"""

import contextlib
import os
import socket
import struct
import sys
import threading

from pydicom.uid import ExplicitVRLittleEndian

from tests.ingest.wire import APPLICATION_CONTEXT, P_DATA, RELEASE_RP, element, item, p_data, pdu, pdv, us


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


def exactly(connection: socket.socket, count: int) -> bytearray:
    """So many bytes, in a buffer of their own."""
    buffer = bytearray(count)
    view = memoryview(buffer)
    got = 0
    while got < count:
        more = connection.recv_into(view[got:])
        if not more:
            raise ConnectionResetError
        got += more
    return buffer


def read_pdu(connection: socket.socket) -> tuple[int, bytearray]:
    kind, _, length = struct.unpack(">BBI", exactly(connection, 6))
    return kind, exactly(connection, length)


def serve(connection: socket.socket, prefix: str) -> None:
    """One connection: each PDU is received whole, its fragments are written, the last one is answered."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        connection.sendall(accept(bytes(read_pdu(connection)[1])))
        number, file, response = 0, -1, b""
        while True:
            kind, content = read_pdu(connection)
            if kind != P_DATA:
                connection.sendall(pdu(RELEASE_RP, bytes(4)))
                return
            at = 0
            while at < len(content):
                length, _, control = struct.unpack_from(">IBB", content, at)
                fragment = memoryview(content)[at + 6 : at + 4 + length]
                at += 4 + length
                if control & 1:
                    response = respond(bytes(fragment))
                    number += 1
                    file = os.open(f"{prefix}-{number}.part", os.O_CREAT | os.O_WRONLY)
                    continue
                os.write(file, fragment)
                if control & 2:
                    os.close(file)
                    os.rename(f"{prefix}-{number}.part", f"{prefix}-{number}")
                    connection.sendall(response)


def run(connection: socket.socket, prefix: str) -> None:
    with contextlib.suppress(OSError, struct.error):
        serve(connection, prefix)


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
            threading.Thread(target=run, args=(connection, f"{folder}/{ordinal}"), daemon=True).start()


if __name__ == "__main__":
    main()
