"""Counting at the source: what its archive answered, and when to ask again. Two equal counts are a witness."""

from dataclasses import dataclass
from typing import Any

from router.domain.completeness import SECOND, Announced

AFTER = SECOND
"""Silence before the source is asked; while instances still come there is no need to."""

APART = 2 * SECOND
"""Time between two counts that are to be equal."""

FAILED_APART = 30 * SECOND
"""Time before a source that did not answer is asked again."""

ENOUGH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The last answer: `times` it has been the same since `since`; `instances` is None where none came."""

    by: str
    instances: int | None
    times: int
    since: int
    asked_at: int

    def as_json(self) -> dict[str, Any]:
        """The count as the database keeps it."""
        return {name: getattr(self, name) for name in Counted.__slots__}

    def witness(self, last_at: int) -> Announced | None:
        """What it announces, if it was counted often enough since the last instance."""
        if self.instances is None or self.times < ENOUGH or self.since <= last_at:
            return None
        return Announced(instances=self.instances, by=f"{self.by}, counted {self.times} times")


def restore(kept: dict[str, Any] | None) -> Counted | None:
    """A count from the JSON that the database kept of it."""
    return Counted(**kept) if kept else None


def counted(before: Counted | None, *, by: str, instances: int | None, at: int, last_at: int) -> Counted:
    """What is known after another answer; counts from before the last instance no longer matter."""
    same = before is not None and instances is not None and before.instances == instances and before.since > last_at
    if before is None or not same:
        return Counted(by=by, instances=instances, times=0 if instances is None else 1, since=at, asked_at=at)
    return Counted(by=by, instances=instances, times=before.times + 1, since=before.since, asked_at=at)


def ask_at(before: Counted | None, last_at: int) -> int:
    """When to ask next."""
    silent = last_at + AFTER
    if before is None:
        return silent
    return max(silent, before.asked_at + (FAILED_APART if before.instances is None else APART))
