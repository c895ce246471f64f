"""Answers of several parts, written piece by piece: neither a study nor a large object is ever in memory as a whole.

Source:  PS3.18 8.6.1.2 (Multipart Payload), RFC 2387
"""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from fastapi.responses import StreamingResponse

PIECE = 1 << 19
"""Bytes that are read and sent at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: its content, piece by piece, its media type with parameters, and where it can be had alone."""

    content: Iterable[bytes]
    media_type: str
    location: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def answer(
    parts: Iterable[Part], content: str, *, headers: dict[str, str] | None = None, status: int = 200
) -> StreamingResponse:
    """A multipart answer whose parts are of the media type `content`."""
    boundary = f"isocenter-{secrets.token_hex(12)}"
    return StreamingResponse(
        _written(parts, boundary),
        status_code=status,
        media_type=f'multipart/related; type="{content}"; boundary={boundary}',
        headers=headers,
    )


def _written(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    first = True
    for part in parts:
        lines = [f"--{boundary}", f"Content-Type: {part.media_type}"]
        lines += [f"Content-Location: {part.location}"] if part.location else []
        yield ("" if first else "\r\n").encode() + "\r\n".join([*lines, "", ""]).encode()
        yield from part.content
        first = False
    yield f"\r\n--{boundary}--\r\n".encode()


def pieces(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    """So many bytes of an open file from there on.

    Raises:  OSError, when the file ends before them
    """
    file.seek(offset)
    while length > 0:
        piece = file.read(min(PIECE, length))
        if not piece:
            raise OSError("a file of the store ends too early")
        length -= len(piece)
        yield piece
