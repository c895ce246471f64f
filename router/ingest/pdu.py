"""Bytes on the wire, as far as the door reads and writes them itself: P-DATA and the commands of C-STORE.

Source:  PS3.8 9.3.5 (P-DATA-TF), PS3.7 6.3.1 and E.1 (command elements, implicit VR little endian)
"""

import struct
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import tag_for_keyword

P_DATA_TF = 4
HEADER = struct.Struct(">BBI")
"""Type, reserved and length of a PDU."""
ITEM = struct.Struct(">IBB")
"""Length, presentation context and message control header of a presentation data value."""
ITEM_OVERHEAD = 2
"""Bytes of an item's length that are not its fragment: context and control header."""
COMMAND, LAST = 1, 2
"""Bits of the message control header (PS3.8 E.2)."""

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
NO_DATA_SET = 0x0101
COMMENT_LENGTH = 64
"""Characters of an ErrorComment (VR LO)."""

_ELEMENT = struct.Struct("<HHI")
_US = struct.Struct("<H")


def _number(keyword: str) -> int:
    """The element number of an attribute of group 0000."""
    return (tag_for_keyword(keyword) or 0) & 0xFFFF


FIELD = _number("CommandField")
DATA_SET_TYPE = _number("CommandDataSetType")
MESSAGE_ID = _number("MessageID")
SOP_CLASS = _number("AffectedSOPClassUID")
SOP_INSTANCE = _number("AffectedSOPInstanceUID")
GROUP_LENGTH = _number("CommandGroupLength")
RESPONDED_TO = _number("MessageIDBeingRespondedTo")
STATUS = _number("Status")
COMMENT = _number("ErrorComment")


class MalformedCommandError(ValueError):
    """Bytes that are no command set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """A C-STORE request; UIDs verbatim, their padding included."""

    message_id: int
    sop_class: bytes
    sop_instance: bytes
    has_data_set: bool


def parse(command: bytes) -> dict[int, bytes]:
    """Element number -> value of a command set.

    Raises:  MalformedCommandError
    """
    elements: dict[int, bytes] = {}
    at, end = 0, len(command)
    while at < end:
        if at + _ELEMENT.size > end:
            raise MalformedCommandError("an element is cut off")
        group, number, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if group or at + length > end:
            raise MalformedCommandError("an element does not belong to a command, or is longer than it")
        elements[number] = command[at : at + length]
        at += length
    if len(elements.get(FIELD, b"")) != _US.size:
        raise MalformedCommandError("a command without its field")
    return elements


def store_request(elements: dict[int, bytes]) -> StoreRequest | None:
    """The C-STORE request in a parsed command set; None when it is another command.

    Raises:  MalformedCommandError
    """
    if elements[FIELD] != _US.pack(C_STORE_RQ):
        return None
    try:
        (message_id,) = _US.unpack(elements[MESSAGE_ID])
        (data_set_type,) = _US.unpack(elements[DATA_SET_TYPE])
        return StoreRequest(
            message_id=message_id,
            sop_class=elements[SOP_CLASS],
            sop_instance=elements[SOP_INSTANCE],
            has_data_set=data_set_type != NO_DATA_SET,
        )
    except (KeyError, struct.error) as error:
        raise MalformedCommandError("a C-STORE request lacks an element") from error


def _element(number: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, number, len(value)) + value


def _padded(value: bytes, pad: bytes) -> bytes:
    return value + pad if len(value) % 2 else value


def store_response(request: StoreRequest, status: int, comment: str = "") -> bytes:
    """The command set of a C-STORE response.

    Source:  PS3.7 9.3.1.2
    """
    before, after = _constant(request.sop_class, status, comment)
    instance = _padded(request.sop_instance, b"\0")
    elements = before + _US.pack(request.message_id) + after + _ELEMENT.pack(0, SOP_INSTANCE, len(instance)) + instance
    return _element(GROUP_LENGTH, struct.pack("<I", len(elements))) + elements


@lru_cache(maxsize=256)
def _constant(sop_class: bytes, status: int, comment: str) -> tuple[bytes, bytes]:
    """A C-STORE response before and after its message ID, as far as it is the same for instance after instance."""
    before = _element(SOP_CLASS, _padded(sop_class, b"\0")) + _element(FIELD, _US.pack(C_STORE_RSP))
    after = _element(DATA_SET_TYPE, _US.pack(NO_DATA_SET)) + _element(STATUS, _US.pack(status))
    if comment:
        after += _element(COMMENT, _padded(comment[:COMMENT_LENGTH].encode("ascii", "replace"), b" "))
    return before + _ELEMENT.pack(0, RESPONDED_TO, _US.size), after


def command_pdus(context_id: int, command: bytes, max_length: int) -> bytes:
    """A command set in as many P-DATA-TF PDUs as the peer's maximum length asks for; 0 means any length."""
    room = max_length - ITEM.size if max_length > ITEM.size else len(command)
    if len(command) <= room:
        length = len(command) + ITEM.size
        return HEADER.pack(P_DATA_TF, 0, length) + ITEM.pack(length - 4, context_id, COMMAND | LAST) + command
    pieces = [command[at : at + room] for at in range(0, len(command), room)]
    flags = [COMMAND] * (len(pieces) - 1) + [COMMAND | LAST]
    return b"".join(
        HEADER.pack(P_DATA_TF, 0, len(piece) + ITEM.size)
        + ITEM.pack(len(piece) + ITEM_OVERHEAD, context_id, flag)
        + piece
        for piece, flag in zip(pieces, flags, strict=True)
    )


def has_data_set(elements: dict[int, bytes]) -> bool:
    """Whether a data set follows this command."""
    return elements.get(DATA_SET_TYPE, _US.pack(NO_DATA_SET)) != _US.pack(NO_DATA_SET)
