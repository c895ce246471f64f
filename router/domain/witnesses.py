"""What was said of how many instances a study and each of its series should have, by whom it is believed of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.domain import procedure_step
from router.domain.completeness import Announced, announced_by_headers, announced_by_series_header
from router.domain.procedure_step import PerformedStep, named_by


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Everything that was said. `here` are SOPInstanceUIDs by series, `headers` one header of each series and how many
    instances it has; `to_commit` are all that the sender has asked us to commit to, `elsewhere` those of the named
    instances that came in another study."""

    counted: Announced | None = None
    steps: Sequence[PerformedStep] = ()
    to_commit: frozenset[str] = frozenset()
    here: Mapping[str, frozenset[str]] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()
    headers: Mapping[str, tuple[Mapping[str, Any], int]] = field(default_factory=dict)


def of_study(told: Told, trusted: Collection[str]) -> Announced | None:
    """What the first trusted witness announces of the study; it is known by what all its series have."""
    here = frozenset[str]().union(*told.here.values())
    if "count" in trusted and told.counted is not None:
        return told.counted
    if "mpps" in trusted:
        announced = procedure_step.announced(told.steps, here, told.elsewhere)
        if announced is not None:
            return announced
    if "commitment" in trusted:
        announced = named_by(told.to_commit, here, told.elsewhere, "storage commitment")
        if announced is not None:
            return announced
    if "announced" in trusted or "every_series" in trusted:
        return announced_by_headers([*told.headers.values()], each_series="every_series" in trusted)
    return None


def of_series(told: Told, series_instance_uid: str, trusted: Collection[str]) -> Announced | None:
    """What the first trusted witness announces of one series."""
    here = told.here.get(series_instance_uid, frozenset())
    if "mpps" in trusted:
        announced = procedure_step.announced_of_series(told.steps, series_instance_uid, here)
        if announced is not None:
            return announced
    if "commitment" in trusted:
        others = [uids for uid, uids in told.here.items() if uid != series_instance_uid]
        announced = named_by(told.to_commit, here, told.elsewhere.union(*others), "storage commitment")
        if announced is not None:
            return announced
    if {"series", "every_series"} & set(trusted) and series_instance_uid in told.headers:
        return announced_by_series_header(told.headers[series_instance_uid][0])
    return None
