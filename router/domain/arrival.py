"""What has arrived of each series of a study, and the evidence that it gives on the study and on each series."""

from collections.abc import Sequence
from dataclasses import dataclass

from router.domain.completeness import Announced, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """One series, counted over its current instances. Times in microseconds since 1970 UTC.

    `first_at` is the first instance since the study was last complete, `fresh_at` the first since the series itself
    was; None where none has come since. `open` and `released_at` are about the associations that have carried it.
    """

    series_instance_uid: str
    instances: int
    undigested: int
    last_at: int
    first_at: int | None = None
    fresh_at: int | None = None
    open: frozenset[str] = frozenset()
    released_at: int | None = None


def of_study(series: Sequence[Arrived], announced: Announced | None, *, last_at: int, going_on: bool) -> Evidence:
    """Evidence on what has arrived since the study was last complete; where nothing has, its times are `last_at`."""
    fresh = [one for one in series if one.first_at is not None]
    return Evidence(
        instances=sum(one.instances for one in series),
        undigested=sum(one.undigested for one in series),
        first_at=min((one.first_at for one in fresh if one.first_at is not None), default=last_at),
        last_at=max((one.last_at for one in fresh), default=last_at),
        open_associations=len(frozenset[str]().union(*(one.open for one in series))),
        released_at=max((one.released_at for one in series if one.released_at is not None), default=None),
        announced=announced,
        going_on=going_on,
    )


def of_series(one: Arrived, announced: Announced | None, *, going_on: bool) -> Evidence:
    """Evidence on one series that has something new."""
    return Evidence(
        instances=one.instances,
        undigested=one.undigested,
        first_at=one.last_at if one.fresh_at is None else one.fresh_at,
        last_at=one.last_at,
        open_associations=len(one.open),
        released_at=one.released_at,
        announced=announced,
        going_on=going_on,
    )
