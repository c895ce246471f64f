"""How full the store's disk may become: three marks, each with what it stops. C-ECHO, C-FIND and deliveries go on at
every one of them."""

from dataclasses import dataclass
from enum import IntEnum

GIGABYTE = 10**9


class Mark(IntEnum):
    """How far it has come; each mark includes what those before it mean."""

    ROOMY = 0
    PURGE = 1
    """The oldest pixels that are delivered and committed go."""
    REFUSE = 2
    """C-STORE is answered out of resources."""
    REJECT = 3
    """Associations are rejected for now: temporary congestion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Free bytes below which each mark is reached; the earlier mark never lies lower."""

    purge_at: int
    refuse_at: int
    reject_at: int

    def __post_init__(self) -> None:
        if not self.purge_at >= self.refuse_at >= self.reject_at >= 0:
            raise ValueError("the marks must be in order: purge before refuse before reject")

    def reached(self, free_bytes: int) -> Mark:
        """The last mark that so little free space has passed."""
        if free_bytes < self.reject_at:
            return Mark.REJECT
        if free_bytes < self.refuse_at:
            return Mark.REFUSE
        return Mark.PURGE if free_bytes < self.purge_at else Mark.ROOMY

    def to_purge(self, free_bytes: int) -> int:
        """Bytes that have to go until no mark is passed any more; 0 when none is."""
        return max(0, self.purge_at - free_bytes)
