"""One C-STORE's data set on its way from the receive buffer to its file, and the answer to it."""

import os
from collections.abc import Callable, Sequence

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from router.ingest.headers import Header
from router.ingest.layout import Series
from router.ingest.receive import Answer, Command, Receiver, Refused, out_of_resources
from router.store import Part, write_all

MOST_PIECES = 512
"""Pieces that are written at once; the system takes 1024."""
NOT_WALKED = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


class Storing:
    """Pieces of a data set, gathered and written in one system call each time the buffer is used up.

    What cannot be stored is still received to its end, since its sender must be answered; nothing of it is kept.
    """

    def __init__(
        self,
        receiver: Receiver,
        command: Command,
        answer: Callable[[Answer], None],
        *,
        series: Series,
        refused: Answer | None = None,
    ) -> None:
        self.receiver = receiver
        self.series = series
        self.command = command
        self.answer = answer
        self.pieces: list[memoryview | bytes] = []
        self.size = 0
        """Bytes of the file so far, those that are yet to be written included."""
        self.header: Header | None = None
        self.looked = command.transfer_syntax_uid in NOT_WALKED
        self.target: Part | Answer
        if refused is not None:
            self.target = refused
            return
        try:
            self.target, beginning = receiver.open(command)
        except Refused as error:
            self.target = error.answer()
            return
        self.pieces.append(beginning)
        self.size = len(beginning)

    def write(self, piece: memoryview) -> None:
        """Take a piece; its bytes must stay as they are until the next flush."""
        if isinstance(self.target, Answer):
            return
        if not self.looked:
            self.looked = True
            self.header = self.series.begins(piece, at=self.size)
        self.pieces.append(piece)
        self.size += len(piece)
        if len(self.pieces) >= MOST_PIECES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if not self.pieces or isinstance(self.target, Answer):
            return
        try:
            with out_of_resources():
                _write(self.target.fd, self.pieces)
        except Refused as error:
            self.target.drop()
            self.target = error.answer()
        self.pieces.clear()

    def finish(self) -> None:
        """The data set is complete: store it and answer."""
        self.flush()
        if isinstance(self.target, Part):
            self.target = self.receiver.finish(self.target, self.command, header=self.header, size=self.size)
        self.answer(self.target)

    def drop(self) -> None:
        """It will never be complete."""
        self.pieces.clear()
        if isinstance(self.target, Part):
            self.target.drop()


def _write(fd: int, pieces: Sequence[memoryview | bytes]) -> None:
    """All pieces, also where the disk takes only some of them at once.

    Raises:  OSError
    """
    written = os.writev(fd, pieces)
    if written < sum(map(len, pieces)):
        write_all(fd, memoryview(b"".join(pieces))[written:])
