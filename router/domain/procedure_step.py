"""A performed procedure step as a modality tells it: what it has made, and what that says of completeness."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from router.domain.completeness import Announced


class StepState(StrEnum):
    """Performed Procedure Step Status (PS3.3 C.4.14); the two last ones are final."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformedStep:
    """One step. `series` are the SOPInstanceUIDs that it has made, by SeriesInstanceUID; a step may serve several
    studies."""

    sop_instance_uid: str
    state: StepState
    study_instance_uids: tuple[str, ...]
    series: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether its list of instances is final."""
        return self.state is not StepState.IN_PROGRESS


def named_by(named: Collection[str], here: Collection[str], elsewhere: Collection[str], by: str) -> Announced | None:
    """How many instances a list of UIDs announces, once it names all that is `here`; before that it proves nothing.

    What it names and nobody has sent is missing here; `elsewhere` are those of its instances that came in another
    place, and so are not.
    """
    wanted, there = set(named), set(here)
    if not there or not there <= wanted:
        return None
    return Announced(instances=len(wanted - set(elsewhere)), by=by)


def announced(steps: Sequence[PerformedStep], here: Collection[str], elsewhere: Collection[str]) -> Announced | None:
    """What the steps of a study announce, when all of them are over."""
    if not steps or not all(step.is_over for step in steps):
        return None
    named = [uid for step in steps for made in step.series.values() for uid in made]
    return named_by(named, here, elsewhere, _by(steps))


def announced_of_series(
    steps: Sequence[PerformedStep], series_instance_uid: str, here: Collection[str]
) -> Announced | None:
    """What the steps that are over announce of one series; what others are at does not matter to it."""
    named = [step for step in steps if series_instance_uid in step.series]
    if not named or not all(step.is_over for step in named):
        return None
    return named_by([uid for step in named for uid in step.series[series_instance_uid]], here, (), _by(named))


def going_on(steps: Sequence[PerformedStep], series_instance_uid: str | None = None) -> bool:
    """Whether a modality is still at work for this study, or says so of this series."""
    return any(not step.is_over for step in steps if series_instance_uid is None or series_instance_uid in step.series)


def _by(steps: Sequence[PerformedStep]) -> str:
    states = {step.state for step in steps}
    return "MPPS, which was discontinued" if StepState.DISCONTINUED in states else "MPPS"
