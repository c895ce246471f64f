"""A back-test says what another rulebook would have changed, as slow and simple counting does."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from router import backtest, rulebook
from router.db import decisions, node, revisions
from router.db.engine import now, reading, writing
from router.db.revisions import Kind
from router.domain.routing import judge_study
from router.domain.rules import Mode, Rule, evaluate, glance
from router.starter import chest_ct
from router.work import retain
from tests.domain.test_rules import Condition, Fact, trees
from tests.rules.conftest import RULE, MakeSite, Site
from tests.rules.past import NEW, OLD, Series, fill
from tests.servers import isocenter


def brute_force(past: dict[str, Series], old: list[Any], new: list[Any]) -> tuple[set[str], int, int]:
    """Studies that differ, runs more and runs fewer: every study judged in full, whatever it costs."""

    def wanted(rules: Sequence[Rule], series: Series) -> dict[tuple[str, str], list[Any]]:
        found: dict[tuple[str, str], list[Any]] = {}
        for one in judge_study(rules, series):
            if not one.verdict.holds or one.rule.mode is Mode.OFF:
                continue
            to = set(one.rule.destinations) if one.rule.mode is Mode.ON else set()
            for pipeline in one.rule.pipelines:
                key = (one.series_instance_uid, f"{pipeline.pipeline} {sorted(pipeline.settings.items())}")
                way = found.setdefault(key, [False, set(), 99, False])
                way[0] |= one.rule.mode is Mode.ON
                way[1] |= to
                way[2] = min(way[2], one.rule.priority)
                way[3] |= bool(one.hold)
        return found

    different, more, fewer = set[str](), 0, 0
    rules_then, rules_now = rulebook.rules(old), rulebook.rules(new)
    for uid, series in past.items():
        before, after = wanted(rules_then, series), wanted(rules_now, series)
        if before != after:
            different.add(uid)
        more += len(after.keys() - before.keys())
        fewer += len(before.keys() - after.keys())
    return different, more, fewer


def compared(site: Site, **values: Any) -> backtest.Backtest:
    with reading(site.node.engine) as connection:
        return backtest.run(connection, rulebook.rules(NEW), rulebook.rules(OLD), **{"days": 30, **values})


@pytest.mark.parametrize("studies", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_it_counts_what_brute_force_counts(make_site: MakeSite, studies: int) -> None:
    site = make_site()
    with writing(site.node.engine) as connection:
        past = fill(connection, studies)
    found = compared(site, examples=studies)
    different, more, fewer = brute_force(past, OLD, NEW)
    assert studies / 8 < len(different) < studies
    assert {one.study_instance_uid for one in found.examples} == different
    assert (found.studies, found.different) == (studies, len(different))
    assert (sum(found.more.values()), sum(found.fewer.values())) == (more, fewer)
    assert more
    assert fewer


def test_a_study_without_files_counts_as_long_as_its_facts_are_kept(make_site: MakeSite) -> None:
    site = make_site()
    with writing(site.node.engine) as connection:
        fill(connection, 5, days=40)

    def still_there(keep_facts_days: float) -> int:
        kept = site.node.settings.retention.model_copy(update={"keep_facts_days": keep_facts_days})
        settings = site.node.settings.model_copy(update={"retention": kept})
        retain.run(replace(site.node, settings=settings))
        return compared(site, days=100).studies

    assert (still_there(50), still_there(30)) == (5, 0)


def test_only_studies_of_these_days_are_looked_at(make_site: MakeSite) -> None:
    site = make_site()
    with writing(site.node.engine) as connection:
        fill(connection, 5, days=40)
    assert (compared(site, days=30).studies, compared(site, days=50).studies) == (0, 5)


def test_minutes_are_those_of_past_runs_and_unknown_where_nothing_ran(make_site: MakeSite) -> None:
    site = make_site()
    with writing(site.node.engine) as connection:
        fill(connection, 50)
    found = compared(site)
    assert found.minutes(found.more) is None
    ran = found.__class__(**{**{name: getattr(found, name) for name in found.__slots__},
                             "seconds_a_run": {"always_one": 30.0}, "more": {"always_one": 7}})  # fmt: skip
    assert ran.minutes(ran.more) == 3.5
    assert any("7 more runs of always_one (about 3.5 minutes" in line for line in ran.lines("new", "old", "then"))


def test_what_no_rule_had_asked_for_is_said_to_be_unknown(make_site: MakeSite) -> None:
    site = make_site()
    with writing(site.node.engine) as connection:
        fill(connection, 1)
        decisions.add(
            connection,
            decisions.Decision(
                study_instance_uid="1.2.0", generation=1, series_instance_uid="", rule="chest", revision=1,
                fires=False, mode="on", reasons={}, pipeline="", destinations=[], job_id=None, decided_at=now(),
            ),
        )  # fmt: skip
        asks = rulebook.rules([{**RULE, "when": {"all": [{"KVP": {"above": 100}}, {"FilterType": "0"}]}}])
        found = backtest.run(connection, asks, asks, days=30)
    assert set(found.unknown) == backtest.keywords_of(asks) - backtest.AT_THE_DOOR
    assert set(found.unknown.values()) == {1}


@given(trees())
def test_a_glance_sees_what_a_full_look_sees(given: tuple[Condition, dict[str, Fact]]) -> None:
    asked, facts = given
    assert glance(asked, facts).holds == evaluate(asked, facts).holds


@pytest.mark.long
def test_the_command_compares_a_file_with_the_rules_in_force(make_site: MakeSite, tmp_path: Path) -> None:
    site = make_site(chest_ct())
    node.create(site.node.engine)
    with writing(site.node.engine) as connection:
        fill(connection, 20)
        folder = {"name": "pacs", "kind": "folder", "path": "/tmp"}
        revisions.add(connection, Kind.DESTINATIONS, [folder], author="test")
    (tmp_path / "isocenter.yaml").write_text(f"database: {{url: '{site.node.settings.database.url}'}}\n")
    (tmp_path / "new.yaml").write_text(rulebook.write(Kind.RULES, [{**chest_ct(), "when": {"Modality": "CT"}}]))
    asked = ["rules", "backtest", tmp_path / "new.yaml", "--config", tmp_path / "isocenter.yaml"]
    assert isocenter(*asked).stdout.startswith("20 studies were complete since")
    answer = json.loads(isocenter(*asked, "--json").stdout)
    assert answer["studies"] == 20
    assert 0 < answer["different"] <= 20
    with reading(site.node.engine) as connection:
        assert revisions.current(connection, Kind.RULES).number == 1
