"""A C-FIND SCU of bare bytes: for peers that misbehave, and for measuring without decoding."""

import struct

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from router.query.exchange import command_set

ABORT = struct.pack(">BBIHBB", 7, 0, 4, 0, 0, 0)
RELEASE = struct.pack(">BBII", 5, 0, 4, 0)
PENDING = (struct.pack("<HHIH", 0, 0x0900, 2, 0xFF00), struct.pack("<HHIH", 0, 0x0900, 2, 0xFF01))
"""The Status element of a response with a match."""


def association(*, calling: str = "FRIEND", longest: int = 65536) -> bytes:
    """An A-ASSOCIATE-RQ for Study Root queries on presentation context 1."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = calling, "ISOCENTER"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = longest
    implementation.implementation_class_uid = "1.2.3"
    request.user_information = [length, implementation]
    context = build_context(StudyRootQueryRetrieveInformationModelFind, ExplicitVRLittleEndian)
    context.context_id = 1
    request.presentation_context_definition_list = [context]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return bytes(pdu.encode())


def c_find(keys: dict[str, str]) -> bytes:
    """A C-FIND request at study level, message 1."""
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    data = encode(identifier, is_implicit_vr=False, is_little_endian=True) or b""
    command = Dataset()
    command.AffectedSOPClassUID = StudyRootQueryRetrieveInformationModelFind
    command.CommandField, command.MessageID, command.Priority, command.CommandDataSetType = 0x0020, 1, 0, 1
    return message(command_set(command), data)


def cancel() -> bytes:
    """A C-CANCEL of message 1."""
    command = Dataset()
    command.CommandField, command.MessageIDBeingRespondedTo, command.CommandDataSetType = 0x0FFF, 1, 0x0101
    return message(command_set(command))


def message(command: bytes, data: bytes = b"") -> bytes:
    """One P-DATA-TF with a whole message."""
    values = struct.pack(">IBB", len(command) + 2, 1, 3) + command
    if data:
        values += struct.pack(">IBB", len(data) + 2, 1, 2) + data
    return struct.pack(">BBI", 4, 0, len(values)) + values
