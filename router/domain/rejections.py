"""Which associations that were turned away are worth a row of the audit: whoever knocks a thousand times has a few."""

from collections import OrderedDict
from dataclasses import dataclass, field

AGAIN_S = 3600.0
"""A caller that is turned away for the same reason has another row after this."""
MOST = 100
"""Rows in that time for all callers: one who tries every title, or every port scanner, cannot fill the audit."""


@dataclass(slots=True)
class Rejections:
    """What one process has noted of late; times are in seconds of any one clock."""

    noted: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)
    """When a caller with a reason had its last row, the longest ago first."""
    unwritten: int = 0
    """Rejections since the last row that have none."""

    def note(self, caller: str, reason: str, at: float) -> int | None:
        """How many rejections before this one had no row, if this one is to have one; None where it is not."""
        while self.noted and at - next(iter(self.noted.values())) >= AGAIN_S:
            self.noted.popitem(last=False)
        if (caller, reason) in self.noted or len(self.noted) >= MOST:
            self.unwritten += 1
            return None
        self.noted[caller, reason] = at
        before, self.unwritten = self.unwritten, 0
        return before

    def not_written(self, caller: str, reason: str, unwritten: int | None) -> None:
        """The row that `note` asked for could not be written: the next rejection is to have it, and counts this one."""
        if unwritten is not None:
            self.noted.pop((caller, reason), None)
            self.unwritten += unwritten + 1
