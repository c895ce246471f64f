"""What the node answers to queries, retrievals and commitment requests, in one place."""

from enum import IntEnum


class FindStatus(IntEnum):
    """Answers to C-FIND.

    Source:  PS3.4 C.4.1.1.4, PS3.7 C.5.15 (not authorised)
    """

    SUCCESS = 0x0000
    REFUSED_NOT_AUTHORIZED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    UNABLE_TO_PROCESS = 0xC000
    CANCEL = 0xFE00
    PENDING = 0xFF00
    PENDING_WITHOUT_OPTIONAL_KEYS = 0xFF01


class RetrieveStatus(IntEnum):
    """Answers to C-MOVE and C-GET.

    Source:  PS3.4 C.4.2.1.5, C.4.3.1.4, PS3.7 C.5.15 (not authorised)
    """

    SUCCESS = 0x0000
    REFUSED_NOT_AUTHORIZED = 0x0124
    UNABLE_TO_CALCULATE_NUMBER_OF_MATCHES = 0xA701
    UNABLE_TO_PERFORM_SUB_OPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    SUB_OPERATIONS_COMPLETE_WITH_FAILURES = 0xB000
    UNABLE_TO_PROCESS = 0xC000
    CANCEL = 0xFE00
    PENDING = 0xFF00


class CommitmentStatus(IntEnum):
    """Answers to the N-ACTION that asks for commitment, and to the N-EVENT-REPORT that tells of it.

    Source:  PS3.4 J.3.2.1.3, PS3.7 10.1.4.1.10, 10.1.1.1.8
    """

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_ACTION = 0x0123
    REFUSED_NOT_AUTHORIZED = 0x0124
    DUPLICATE_TRANSACTION_UID = 0x0131


class StepStatus(IntEnum):
    """Answers to the N-CREATE and N-SET of a Modality Performed Procedure Step.

    Source:  PS3.4 F.7.2.1.4, F.7.2.2.4, PS3.7 10.1.3.1.9, 10.1.5.1.6
    """

    SUCCESS = 0x0000
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    MISSING_ATTRIBUTE = 0x0120
    REFUSED_NOT_AUTHORIZED = 0x0124
    RESOURCE_LIMITATION = 0x0213


class FailureReason(IntEnum):
    """Why an instance is not committed.

    Source:  PS3.3 C.14.1.1
    """

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    DUPLICATE_TRANSACTION_UID = 0x0131
    REFERENCED_SOP_CLASS_NOT_SUPPORTED = 0x0122
    RESOURCE_LIMITATION = 0x0213
