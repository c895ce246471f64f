"""How numbers are distributed, in the five that fit on a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How many there are, their median, and between which two nine of ten of them lie."""

    count: int
    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.4g} ({self.low:.4g} to {self.high:.4g})"


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of these; None of none. Of few, the ends are the least and the largest."""
    if not values:
        return None
    ends = quantiles(values, n=20, method="inclusive") if len(values) >= 20 else [min(values), max(values)]
    return Spread(count=len(values), low=ends[0], middle=median(values), high=ends[-1])
