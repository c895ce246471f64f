"""Which studies' pixels go, and why: a pure decision over what is held, the rules of keeping, and the room that lacks.
Results, which are small, go by their age alone.

What has not been delivered never goes, whatever the disk says. What was kept long enough goes by its age. Where room
lacks, what is longest delivered goes before its time; what was delivered nowhere is the only copy, and stays.
"""

from collections.abc import Iterable
from dataclasses import dataclass

DAY = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One study of which files are here. Times in microseconds since 1970 UTC; `size` of the files in bytes."""

    study_instance_uid: str
    size: int
    last_instance_at: int
    arriving: bool
    """It is not decided yet, or a person is to look at it."""
    unfinished: int
    """Jobs that are still to be done, or have failed and may be asked for again."""
    delivered_at: int | None
    """When the last of its deliveries was committed; None where nothing of it was delivered."""

    @property
    def settled(self) -> bool:
        """Whether nothing that is still to come needs its pixels."""
        return not self.arriving and self.unfinished == 0

    @property
    def since(self) -> int:
        """From when on its days count."""
        return max(self.last_instance_at, self.delivered_at or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purge:
    """The pixels of one study, or what was made of them, are to go, for this reason."""

    held: Held
    why: str
    results: bool = False


def plan(held: Iterable[Held], *, keep_days: float, lacking: int, now: int) -> list[Purge]:
    """What goes, in the order of going; `lacking` are the bytes that must become free."""
    settled = sorted((one for one in held if one.settled), key=lambda one: (one.since, one.study_instance_uid))
    old = [one for one in settled if now - one.since > keep_days * DAY]
    going = [Purge(held=one, why=f"kept for more than {keep_days:g} days") for one in old]
    freed = sum(one.size for one in old)
    for one in settled:
        if freed >= lacking:
            break
        if one not in old and one.delivered_at is not None:
            going.append(Purge(held=one, why="the disk is full, and it is the longest delivered"))
            freed += one.size
    return going


def plan_results(made: Iterable[Held], *, keep_results_days: float, now: int) -> list[Purge]:
    """Of which studies results and findings go, in the order of going."""
    settled = sorted((one for one in made if one.settled), key=lambda one: (one.since, one.study_instance_uid))
    why = f"results are kept for {keep_results_days:g} days"
    return [Purge(held=one, why=why, results=True) for one in settled if now - one.since > keep_results_days * DAY]
