"""What one snapshot of the database says of a study's completeness and of each of its series that has something new."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from router.config import Completeness
from router.db import evidence, pauses
from router.domain import arrival, procedure_step, witnesses
from router.domain.completeness import SECOND, Complete, Evidence, Outcome, Policy, Stuck, Wait, decide
from router.domain.counting import ask_at, restore
from router.domain.pauses import quiet_period
from router.domain.study import Study
from router.rulebook import CountAt, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The source is to be asked how many instances there are; its answer, or `until`, is waited for."""

    until: int
    peer: CountAt


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Evidence on the study and on its series, and how long to wait for either."""

    study: Evidence
    policy: Policy
    series: Mapping[str, Evidence]
    series_policy: Policy

    def of_study(self, at: int, *, gaps: int = 0) -> Wait | Complete | Stuck:
        """Whether the study is complete."""
        return decide(replace(self.study, gaps=gaps), self.policy, at)

    def of_series(self, series_instance_uid: str, at: int, *, gaps: int = 0) -> Wait | Complete | Stuck:
        """Whether one series is complete."""
        return decide(replace(self.series[series_instance_uid], gaps=gaps), self.series_policy, at)


def take(connection: Connection, usual: Completeness, source: Source, study: Study) -> Snapshot:
    """What the database knows now."""
    arrived = evidence.arrived(connection, study)
    told = evidence.told(connection, study, source.witnesses)
    policy = policy_for(connection, usual, source)
    if study.held_reason is not None:  # a person has let it go on, and decides so what happens at the deadline
        policy = replace(policy, at_deadline=Outcome.DECIDE)
    return Snapshot(
        study=arrival.of_study(
            arrived,
            witnesses.of_study(told, source.witnesses),
            last_at=study.last_instance_at,
            going_on=procedure_step.going_on(told.steps),
        ),
        policy=policy,
        series={
            one.series_instance_uid: arrival.of_series(
                one,
                witnesses.of_series(told, one.series_instance_uid, source.witnesses),
                going_on=procedure_step.going_on(told.steps, one.series_instance_uid),
            )
            for one in arrived
            if one.fresh_at is not None
        },
        series_policy=policy_for(connection, usual, source, in_series=True),
    )


def policy_for(connection: Connection, usual: Completeness, source: Source, *, in_series: bool = False) -> Policy:
    """How long to wait for a study, or a series, of this sender: as a person has set, as it has taught us, as usual."""
    deadline = usual.deadline_s if source.deadline_s is None else source.deadline_s
    policy = Policy(
        quiet=round(usual.quiet_period_s * SECOND),
        deadline=round(deadline * SECOND),
        at_deadline=Outcome(source.at_deadline or usual.at_deadline),
    )
    told = source.quiet_period_s
    if in_series and source.series_quiet_period_s is not None:
        told = source.series_quiet_period_s
    if told is not None:
        return replace(policy, quiet=round(told * SECOND))
    lengths = pauses.of_sender(connection, source.ae_title, in_series=in_series)
    known = [pause for pause in lengths if pause < policy.deadline]
    learned = quiet_period(known)
    if learned is None:
        return policy
    return replace(policy, quiet=learned, learned=f", learned from {len(known)} studies of this sender")


def ask(study: Study, source: Source, seen: Evidence, verdict: Wait, at: int) -> Wait | Ask:
    """The wait; with the question to the source's archive where it is time for it, or ended by that time."""
    peer = source.count_at
    if peer is None or seen.open_associations or seen.undigested or seen.announced is not None:
        return verdict
    due = ask_at(restore(study.announced), study.last_instance_at)
    return Ask(until=verdict.until, peer=peer) if due <= at else replace(verdict, until=min(verdict.until, due))
