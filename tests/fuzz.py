"""Mutated PDU streams and data sets against a running listener: `python -m tests.fuzz --streams 100000`.

After every batch: the listener lives, answers another association at once, has leaked no file, no thread and no
descriptor, and its memory is bounded. A stream that breaks a promise is written down, and is sent again alone by
`--replay FILE`. The same seed makes the same streams.
"""

import argparse
import contextlib
import os
import random
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from tests.conftest import until
from tests.ingest.conftest import slice_of
from tests.ingest.door_process import door_process
from tests.ingest.wire import (
    ABORT,
    ACCEPTED,
    ECHO_COMMAND,
    RELEASE_RQ,
    Wire,
    associate,
    element,
    p_data,
    pdu,
    pdv,
    store_command,
    us,
)
from tests.servers import free_port

CONTEXTS: dict[int, tuple[str, list[str]]] = {
    1: (CTImageStorage, [ExplicitVRLittleEndian]),
    3: (Verification, [ImplicitVRLittleEndian]),
    5: (CTImageStorage, [ImplicitVRLittleEndian]),
    7: (CTImageStorage, [ExplicitVRBigEndian]),
    9: (CTImageStorage, [DeflatedExplicitVRLittleEndian]),
    11: (CTImageStorage, [JPEG2000Lossless]),
}
STORING = (1, 5, 7, 9, 11)
UIDS = ["../../../../etc/passwd", "1\0.2", "1" * 10_000, "", "1.2.3.4.1", "a/b", "%s%n", "\u00fc", "1.2.\n3"]
LENGTHS = [0, 1, 2, 5, 0x7F, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF]
IDLE_S = 2
SETTINGS = ("pdu_timeout_s=1", f"idle_timeout_s={IDLE_S}", "association_timeout_s=1")
PATIENCE_S = 10
BATCH = 500
WORKERS = 8
GROWTH_MB = 150
"""How much the listener may grow over its first thousand streams, whatever they are."""


class Maker:
    """Makes the n-th stream of a seed."""

    def __init__(self, seed: int, number: int) -> None:
        self.random = random.Random(seed * 1_000_003 + number)

    def stream(self) -> tuple[bytes, bytes]:
        """What is sent before the answer to the association request, and what after it; some of it wrong."""
        request = bytearray(associate(contexts=CONTEXTS, window=self.random.choice([None, (0, 0), (5, 1)])))
        parts: list[bytes] = []
        for _ in range(self.random.choice([1, 1, 1, 2, 4])):
            parts += self.message()
        parts += self.random.choice([[pdu(RELEASE_RQ, bytes(4))], [pdu(ABORT, bytes(4))], []])
        kind = self.random.random()
        if kind < 0.25:
            parts = self.shuffled(parts)
        rest = bytearray(b"".join(parts))
        if kind < 0.1:
            self.damage(request)
        elif kind < 0.7:
            self.damage(rest)
        if self.random.random() < 0.2:
            del rest[self.random.randrange(len(rest) + 1) :]
        return bytes(request), bytes(rest)

    def message(self) -> list[bytes]:
        """A C-STORE, an echo, or something that is neither."""
        kind = self.random.random()
        if kind < 0.1:
            return [p_data(pdv(3, 3, ECHO_COMMAND))]
        if kind < 0.15:
            return [pdu(self.random.randrange(10), self.random.randbytes(self.random.randrange(40)))]
        context = self.random.choice(STORING)
        uid = self.random.choice(UIDS) if self.random.random() < 0.1 else f"1.2.3.{self.random.randrange(30)}"
        command = self.command(uid)
        content = self.dataset(CONTEXTS[context][1][0], uid)
        return self.fragments(context, command, content)

    def command(self, uid: str) -> bytes:
        if self.random.random() < 0.9:
            plain = uid.encode("latin_1").decode("latin_1")
            return store_command(plain if plain.isascii() else "1.2", self.random.randrange(65536))
        fields = [2, 0x100, 0x110, 0x700, 0x800, 0x900, 0x1000, 0x1030, 0xFFFF]
        elements = [
            element(self.random.choice(fields), self.random.choice([us(1), us(0x30), us(0x20), b"", self.noise()]))
            for _ in range(self.random.randrange(12))
        ]
        return b"".join(elements)

    def noise(self) -> bytes:
        return self.random.randbytes(self.random.choice([1, 2, 3, 60, 700]))

    def dataset(self, syntax: str, uid: str) -> bytes:
        """A data set, often damaged in its own way, in the encoding of its context."""
        made = slice_of(number=self.random.randrange(30))
        made.SOPInstanceUID = uid if uid.isascii() and uid else "1.2"
        try:
            content = encode(made, syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian) or b""
        except (ValueError, AttributeError, struct.error):
            content = b""
        kind = self.random.random()
        if kind < 0.15:
            content = self.nested(self.random.choice([3, 40, 3000])) + content
        elif kind < 0.3:
            at = self.random.randrange(len(content) + 1)
            content = content[:at] + self.element() + content[at:]
        elif kind < 0.4:
            content = self.noise() * self.random.randrange(30)
        if syntax == DeflatedExplicitVRLittleEndian and self.random.random() < 0.9:
            if self.random.random() < 0.1:
                content += bytes(1 << 22)
            deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            content = deflate.compress(content) + deflate.flush()
        return content

    def element(self) -> bytes:
        vr = self.random.choice([b"SQ", b"OB", b"UN", b"UI", b"PN", b"LO", b"IS", b"??", b"\0\0", b"UT"])
        length = self.random.choice(LENGTHS)
        group, number = self.random.choice([(8, 0x1140), (0x10, 0x10), (0x7FE0, 0x10), (0xFFFE, 0xE000), (0, 0)])
        long = vr in (b"SQ", b"OB", b"UN", b"UT")
        head = struct.pack("<HH2s", group, number, vr)
        return head + (struct.pack("<HI", 0, length) if long else struct.pack("<H", length & 0xFFFF)) + self.noise()

    def nested(self, depth: int) -> bytes:
        head = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        tail = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        return head * depth + tail * self.random.choice([depth, depth - 1, 0])

    def fragments(self, context: int, command: bytes, content: bytes) -> list[bytes]:
        """The message cut in one way or another."""
        room = self.random.choice([16378, 16378, 200, 3000, len(content) + 1])
        parts = [pdv(context, 3, command)]
        for at in range(0, max(1, len(content)), room):
            last = 2 if at + room >= len(content) else 0
            parts.append(pdv(context, last, content[at : at + room]))
        if self.random.random() < 0.2:
            place = self.random.randrange(len(parts))
            wrong = self.random.choice(
                [pdv(77, 0, b"x"), pdv(context, 0, b""), pdv(context, 1, b"ab"), pdv(context, 2, b""), parts[-1]]
            )
            parts.insert(place, wrong)
        if self.random.random() < 0.3:
            return [p_data(*parts)]
        return [p_data(part) for part in parts]

    def shuffled(self, parts: list[bytes]) -> list[bytes]:
        """Parts in another order, once too often, or missing."""
        action = self.random.randrange(4)
        if action == 0:
            self.random.shuffle(parts)
        elif action == 1:
            parts.insert(self.random.randrange(len(parts)), self.random.choice(parts))
        elif action == 2:
            del parts[self.random.randrange(len(parts))]
        else:
            parts = parts * 2
        return parts

    def damage(self, stream: bytearray) -> None:
        """A few bytes become others; lengths and the beginning by preference."""
        for _ in range(self.random.choice([1, 1, 2, 8])):
            if len(stream) < 8:
                return
            at = self.random.randrange(len(stream) - 6)
            if self.random.random() < 0.4:
                stream[at : at + 4] = struct.pack(">I", self.random.choice(LENGTHS))
            elif self.random.random() < 0.5:
                stream[self.random.randrange(min(40, len(stream)))] = self.random.randrange(256)
            else:
                stream[at : at + 2] = self.random.randbytes(2)


def throw(port: int, stream: tuple[bytes, bytes]) -> bytes:
    """Send a stream, the rest once the request is answered; gives all that came back until the other side closed."""
    request, rest = stream
    received = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        received = connection.recv(65536)
        connection.sendall(rest)
        connection.shutdown(socket.SHUT_WR)
        while more := connection.recv(65536):
            received += more
    return received


def linger(port: int, stream: tuple[bytes, bytes]) -> bytes:
    """Send a stream and say no more, without closing: the other side has to end it."""
    request, rest = stream
    received = b""
    begun = time.monotonic()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        connection.sendall(request)
        received = connection.recv(65536)
        connection.sendall(rest)
        while more := connection.recv(65536):
            received += more
    if time.monotonic() - begun > PATIENCE_S:
        raise AssertionError(f"a silent peer was listened to for more than {PATIENCE_S} s")
    return received


class Watch:
    """What must hold of the listener after every batch."""

    def __init__(self, pid: int, port: int, folder: Path) -> None:
        self.process = psutil.Process(pid)
        self.port = port
        self.folder = folder
        self.settled_mb = 0.0

    def check(self, streams: int) -> None:
        """Raises AssertionError, naming what does not hold."""
        assert self.process.is_running(), "the listener has died"
        assert self.process.status() != psutil.STATUS_ZOMBIE, "the listener has died"
        with Wire(self.port, timeout_s=5) as wire:
            assert wire.associate(contexts={3: CONTEXTS[3]}) == ACCEPTED, "the listener lets nobody in"
            wire.send(p_data(pdv(3, 3, ECHO_COMMAND)))
            assert wire.status() == 0, "the listener does not answer"
        until(lambda: self.process.num_threads() < 12, deadline_s=60, what=f"threads end (stream {streams})")
        until(lambda: not list(self.folder.glob("store/incoming/*")), deadline_s=60, what="parts are gone")
        assert self.process.num_fds() < 60, f"{self.process.num_fds()} descriptors are open"
        memory = self.process.memory_info().rss / 1e6
        if streams <= 2 * BATCH:
            self.settled_mb = memory
        assert memory < self.settled_mb + GROWTH_MB, f"memory grew from {self.settled_mb:.0f} to {memory:.0f} MB"


def good_sender(port: int, stop: threading.Event, problems: list[str]) -> None:
    """An association that nothing may disturb."""
    while not stop.is_set():
        heard = sent = time.monotonic()
        try:
            with Wire(port, timeout_s=20) as wire:
                assert wire.associate() == ACCEPTED
                for _ in range(20):
                    heard = time.monotonic()
                    wire.send(p_data(pdv(3, 3, ECHO_COMMAND)))
                    sent = time.monotonic()
                    assert wire.status() == 0
                heard = time.monotonic()
                wire.release()
                sent = time.monotonic()
        except (OSError, AssertionError) as error:
            if sent - heard < IDLE_S / 2:  # else it was itself kept from speaking, and the listener is right
                problems.append(f"an innocent association was disturbed: {error!r}")
                return
        stop.wait(0.05)


@contextlib.contextmanager
def target() -> Iterator[Watch]:
    """A listener with little patience, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="isocenter-fuzz-") as folder:
        port = free_port()
        with door_process(Path(folder), port, *SETTINGS) as process:
            yield Watch(process.pid, port, Path(folder))


def fuzz(streams: int, seed: int, *, tell: Callable[[str], None]) -> None:
    """So many streams; raises AssertionError when a promise is broken, with the stream's number."""
    with target() as watch:
        stop = threading.Event()
        problems: list[str] = []
        innocent = threading.Thread(target=good_sender, args=(watch.port, stop, problems))
        innocent.start()
        try:
            for first in range(0, streams, BATCH):
                numbers = range(first, min(first + BATCH, streams))
                _in_parallel(watch.port, seed, numbers, problems)
                assert not problems, problems[0]
                watch.check(numbers.stop)
                tell(f"{numbers.stop} streams, {watch.process.memory_info().rss / 1e6:.0f} MB")
        finally:
            stop.set()
            innocent.join()
        assert not problems, problems[0]


def _in_parallel(port: int, seed: int, numbers: range, problems: list[str]) -> None:
    """Throw these streams; most of them must come through the door, or nothing is tried."""
    answers: list[bytes] = []

    def work(worker: int) -> None:
        for number in numbers[worker::WORKERS]:
            how = linger if number % 250 == 249 else throw
            try:
                answers.append(how(port, Maker(seed, number).stream())[:1])
            except AssertionError as error:
                problems.append(f"stream {number}: {error}")

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    accepted = sum(answer == bytes([ACCEPTED]) for answer in answers)
    if accepted < 0.8 * len(answers):
        problems.append(f"only {accepted} of {len(answers)} streams were let in: this tries nothing")


def main() -> int:
    """Fuzz, and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="only this stream of the seed, slowly")
    options = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    print(f"seed {options.seed}")
    if options.replay is not None:
        with target() as watch:
            throw(watch.port, Maker(options.seed, options.replay).stream())
            watch.check(1)
        return 0
    begun = time.monotonic()
    try:
        fuzz(options.streams, options.seed, tell=lambda words: print(words, flush=True))
    except AssertionError as error:
        print(f"BROKEN with --seed {options.seed}: {error}", file=sys.stderr)
        return 1
    print(f"{options.streams} streams in {time.monotonic() - begun:.0f} s, every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
