"""When off-peak jobs may run: hours of the day by the clock on the wall, which jumps twice a year."""

from dataclasses import dataclass
from datetime import datetime, time
from zoneinfo import ZoneInfo

SECOND = 1_000_000
MINUTE = 60 * SECOND
LONGEST = 8 * 24 * 60
"""Minutes within which hours that open every day have opened, whatever the clock does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """From `begins` until `ends`, over midnight where that is earlier; with `weekends` also all Saturday and Sunday.

    The same time twice means the whole day.
    """

    begins: time
    ends: time
    weekends: bool
    zone: ZoneInfo

    def are_open(self, at: int) -> bool:
        """Whether the wall clock shows one of these hours at this moment (microseconds since 1970 UTC)."""
        here = datetime.fromtimestamp(at // SECOND, self.zone)
        if self.weekends and here.weekday() >= 5:
            return True
        clock = here.time()
        if self.begins < self.ends:
            return self.begins <= clock < self.ends
        return clock >= self.begins or clock < self.ends

    def open_at(self, at: int) -> int:
        """The first moment from `at` on at which they are open, to the minute.

        It is looked for minute by minute, so that an hour that the clock leaves out or shows twice needs no rule.
        """
        if self.are_open(at):
            return at
        minute = at - at % MINUTE
        return next(
            (minute + count * MINUTE for count in range(1, LONGEST) if self.are_open(minute + count * MINUTE)),
            at + LONGEST * MINUTE,
        )
