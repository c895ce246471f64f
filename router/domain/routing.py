"""What all rules together say to a study: every rule asked about every series, or about the study as a whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.domain.body_part import OnConflict, is_conflict, seen_by
from router.domain.facts import Facts, union
from router.domain.rules import Look, Mode, Rule, Scope, Verdict, choose, evaluate, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One rule's answer. `series_instance_uid` is empty where a study-level rule takes no series."""

    rule: Rule
    series_instance_uid: str
    verdict: Verdict
    hold: str = ""
    """Why its job is to wait for a person; empty where it need not."""

    @property
    def fires(self) -> bool:
        """Whether the rule's pipelines are to run: it holds, and it is not off."""
        return self.verdict.holds and self.rule.mode is not Mode.OFF


def judge_study(rules: Sequence[Rule], series: Mapping[str, Facts], *, look: Look = evaluate) -> tuple[Judged, ...]:
    """Every rule's answer, in the order of the rules. `look` is how conditions are asked.

    A rule that is on, holds and says `stop` keeps later rules from the series that it took; one about the study as a
    whole keeps them from all series.
    """
    stopped: dict[str, str] = {}
    answers: list[Judged] = []
    for rule in rules:
        if rule.scope is Scope.SERIES:
            made = [
                _of_series(rule, uid, _seen_by(rule, facts), stopped.get(uid), look) for uid, facts in series.items()
            ]
            taken = [one.series_instance_uid for one in made if one.verdict.holds]
        else:
            seen = {uid: _seen_by(rule, facts) for uid, facts in series.items() if uid not in stopped}
            made = _of_study(rule, seen, stopped, look)
            taken = list(series) if any(one.verdict.holds for one in made) else []
        answers += made
        if rule.stop and rule.mode is Mode.ON:
            stopped |= dict.fromkeys(taken, rule.name)
    return tuple(answers)


def about_series(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that may be asked about a series as soon as it is complete, while others of its study still come.

    Those about series, up to the first one about the study that stops: what it takes is known only with the study.
    """
    early: list[Rule] = []
    for rule in rules:
        if rule.scope is Scope.SERIES:
            early.append(rule)
        elif rule.stop and rule.mode is Mode.ON:
            break
    return tuple(early)


def _of_series(rule: Rule, uid: str, facts: Facts, stopped_by: str | None, look: Look) -> Judged:
    verdict = judge(rule, facts, look) if stopped_by is None else _stopped(stopped_by)
    return Judged(rule=rule, series_instance_uid=uid, verdict=verdict, hold=_hold(rule, verdict, facts))


def _of_study(rule: Rule, series: Mapping[str, Facts], stopped: Mapping[str, str], look: Look) -> list[Judged]:
    if not series:
        return [Judged(rule=rule, series_instance_uid="", verdict=_stopped(", ".join(sorted(set(stopped.values())))))]
    verdict = judge(rule, union(series.values(), only=rule.asked), look)
    if not verdict.holds or rule.take is None:
        return [Judged(rule=rule, series_instance_uid="", verdict=verdict)]
    chosen = choose(rule.take, series)
    if not chosen:
        nothing = Verdict(holds=False, asked="some series of the study fits `take`", seen=f"none of {len(series)}")
        return [Judged(rule=rule, series_instance_uid="", verdict=_both(verdict, nothing))]
    return [
        Judged(rule=rule, series_instance_uid=uid, verdict=verdict, hold=_hold(rule, verdict, series[uid]))
        for uid in chosen
    ]


def _seen_by(rule: Rule, facts: Facts) -> Facts:
    return seen_by(facts, rule.on_conflict) if rule.sees_body_part else facts


def _hold(rule: Rule, verdict: Verdict, facts: Facts) -> str:
    """Why a job of this rule on this series waits for a person; empty where it does not."""
    if not verdict.holds:
        return ""
    if rule.on_conflict is OnConflict.HOLD and is_conflict(facts.get("body_part_conflict")):
        tag, found = facts.get("BodyPartExamined"), facts.get("detected.body_part")
        if tag is not None and found is not None:
            shown = f"{tag.text}, but {found.text} was detected by {found.origin}"
            return f"rule {rule.name} holds what it cannot tell: BodyPartExamined says {shown}"
    return f"rule {rule.name} holds its jobs until a person releases them" if rule.hold else ""


def _stopped(by: str) -> Verdict:
    return Verdict(holds=False, asked="no earlier rule has stopped here", seen=f"rule {by} did")


def _both(first: Verdict, second: Verdict) -> Verdict:
    return Verdict(holds=first.holds and second.holds, asked="all", parts=(first, second))
