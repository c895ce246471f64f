"""What the door answers, in one place: C-STORE statuses and the reasons of a rejected association."""

from dataclasses import dataclass
from enum import Enum, IntEnum


class StoreStatus(IntEnum):
    """Answers to C-STORE.

    Source:  PS3.4 B.2.3 (Statuses), PS3.7 9.1.1.1.9 and C.5.6
    """

    SUCCESS = 0x0000
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, slots=True)
class Reasons:
    """Result, source and reason of an A-ASSOCIATE-RJ."""

    result: int
    source: int
    reason: int


class Rejection(Enum):
    """Why an association is not accepted.

    Source:  PS3.8 Table 9-21 (result 1 permanent, 2 transient; source 1 service user, 2 ACSE, 3 presentation)
    """

    CALLING_AE_TITLE_NOT_RECOGNIZED = Reasons(1, 1, 3)
    CALLED_AE_TITLE_NOT_RECOGNIZED = Reasons(1, 1, 7)
    APPLICATION_CONTEXT_NAME_NOT_SUPPORTED = Reasons(1, 1, 2)
    TEMPORARY_CONGESTION = Reasons(2, 3, 1)
    LOCAL_LIMIT_EXCEEDED = Reasons(2, 3, 2)
