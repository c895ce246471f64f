"""`/metrics` says what happened, once, in names that the dashboard and the alerting rules use."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, event, insert, update

from router.db import alerts, beats, commands, durations, jobs, revisions, studies
from router.db.engine import now, reading, writing
from router.db.tables import job, result_set, study
from router.domain.access import Scope
from router.domain.job import Lane, Outcome
from router.node import Node
from router.web.metrics import OTHER
from tests.conftest import REPOSITORY
from tests.web.conftest import Window, opened
from tests.web.rows import arrive

SECOND = 1_000_000
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """A node that knows SCANNER and the destination pacs."""
    with opened(tmp_path_factory.mktemp("metrics")) as made:
        with writing(made.node.engine) as connection:
            sources = [{"ae_title": "SCANNER", "addresses": ["any"]}]
            revisions.add(connection, revisions.Kind.SOURCES, sources, author="test")
            pacs = [{"name": "pacs", "kind": "folder", "path": "/tmp"}]
            revisions.add(connection, revisions.Kind.DESTINATIONS, pacs, author="test")
        yield made


def scrape(window: Window) -> tuple[Samples, str]:
    """Every sample by name and labels, as Prometheus' own parser reads them; and the page."""
    answer = window.program(Scope.METRICS).get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    found = [(one.name, frozenset(one.labels.items()), one.value) for family in families for one in family.samples]
    assert len({one[:2] for one in found}) == len(found)
    return {(name, labels): value for name, labels, value in found}, answer.text


def of(samples: Samples, name: str, **labels: str) -> float:
    """One sample; 0 where there is none."""
    return samples.get((f"isocenter_{name}", frozenset(labels.items())), 0.0)


def live(node: Node, study_uid: str, *, source: str = "SCANNER", destination: str = "pacs", fails: bool = False) -> int:
    """A study's whole life: last instance, complete 20 s later, run begun 3 s after that and 40 s long, delivered."""
    number = arrive(node, study_uid)
    at = now()
    with writing(node.engine) as connection:
        connection.execute(
            update(study)
            .where(study.c.study_instance_uid == study_uid)
            .values(last_instance_at=at - 20 * SECOND, calling_ae_title=source)
        )
        studies.complete(connection, study_uid, now=at, witnesses={})
        held = jobs.claim(connection, Lane.INFER, "test", 60)
        assert held is not None
        assert held.id == number
        if fails:
            assert jobs.give_up(connection, held, reason="SECRET^PATIENT", problem="GapInSeries")
            return number
        assert jobs.finish(connection, held, Outcome.RESULT)
        connection.execute(
            update(job).where(job.c.id == number).values(created_at=at - 43 * SECOND, started_at=at - 40 * SECOND)
        )
        made = connection.execute(
            insert(result_set)
            .values(job_id=number, profile="{}", study_instance_uid=study_uid, generation=1, built_at=at)
            .returning(result_set.c.id)
        ).scalar_one()
        jobs.add_delivery(
            connection, study_instance_uid=study_uid, generation=1, result_set_id=made, destination=destination,
            priority=50, max_attempts=3,
        )  # fmt: skip
        sent = jobs.claim(connection, Lane.DELIVER, "test", 60)
        assert sent is not None
        assert jobs.finish(connection, sent, Outcome.DELIVERED)
    return number


def test_each_end_is_counted_once_and_counts_never_fall(window: Window) -> None:
    before, _ = scrape(window)
    live(window.node, "1.10")
    first, _ = scrape(window)
    again, _ = scrape(window)

    def more(name: str, **labels: str) -> float:
        return of(again, name, **labels) - of(before, name, **labels)

    run = {"source": "SCANNER", "pipeline": "ct_lung"}
    sent = run | {"destination": "pacs"}
    assert more("arrival_to_complete_seconds_sum", source="SCANNER") == pytest.approx(20, abs=1)
    assert more("complete_to_start_seconds_sum", **run) == pytest.approx(3, abs=1)
    assert more("run_seconds_bucket", **run, outcome="result", le="60.0") == 1
    assert more("run_seconds_bucket", **run, outcome="result", le="30.0") == 0
    assert more("result_to_delivered_seconds_count", **sent) == 1
    assert more("complete_to_delivered_seconds_bucket", **sent, le="60.0") == 1
    assert more("complete_to_delivered_seconds_bucket", **sent, le="30.0") == 0
    growing = {key for key in again if re.search("_(bucket|count|sum|total)$", key[0])}
    assert all(again[key] == first[key] for key in growing)
    with writing(window.node.engine) as connection:  # what retention may do
        connection.execute(delete(job).where(job.c.lane == Lane.DELIVER))
        connection.execute(update(study).where(study.c.study_instance_uid == "1.10").values(completed_at=None))
    after, _ = scrape(window)
    assert all(after[key] == again[key] for key in growing)


def test_what_was_committed_late_is_counted(window: Window) -> None:
    """Times are taken before the commit: a scrape between both must not lose the row."""
    before, _ = scrape(window)
    taken = now()
    number = live(window.node, "1.11")
    scrape(window)
    with writing(window.node.engine) as connection:
        commands.rerun(connection, number, who="test")
        held = jobs.claim(connection, Lane.INFER, "test", 60)
        assert held is not None
        jobs.finish(connection, held, Outcome.RESULT)
        connection.execute(update(job).where(job.c.id == held.id).values(finished_at=taken))
    after, _ = scrape(window)
    name, labels = "run_seconds_count", {"source": "SCANNER", "pipeline": "ct_lung", "outcome": "result"}
    assert of(after, name, **labels) - of(before, name, **labels) == 2


def test_senders_make_up_no_labels_and_nobody_is_named(window: Window) -> None:
    live(window.node, "1.12", source="MADE_UP", destination="gone")
    live(window.node, "1.13", fails=True)
    with writing(window.node.engine) as connection:
        alerts.raise_(connection, "pipeline.paused", "ct_lung", what="SECRET^PATIENT", remedy="none")
    samples, page = scrape(window)
    assert "MADE_UP" not in page
    assert "SECRET" not in page
    assert "1.13" not in page, "a UID is no label"
    assert of(samples, "arrival_to_complete_seconds_count", source=OTHER) == 1
    assert of(samples, "result_to_delivered_seconds_count", source=OTHER, pipeline="ct_lung", destination=OTHER) == 1
    assert of(samples, "job_failures_total", lane="infer", problem="GapInSeries") == 1
    assert of(samples, "jobs", lane="infer", state="failed") == 1
    assert of(samples, "alerts", kind="pipeline.paused") == 1
    assert of(samples, "destination_answers", destination="pacs") == 1
    assert of(samples, "store_mark_bytes", mark="purge") == 5e9


@pytest.mark.parametrize(
    ("statement", "index"), [("ended", "ix_job_finished_at"), ("completed", "ix_study_completed_at")]
)
def test_a_scrape_reads_only_what_has_ended_since_the_last(window: Window, statement: str, index: str) -> None:
    said: list[str] = []

    with reading(window.node.engine) as connection:

        def note(speaker: Any, _: Any, sql: str, *__: Any) -> None:
            if speaker is connection:  # the window's own threads speak on the same engine
                said.append(sql)

        event.listen(window.node.engine, "before_cursor_execute", note)
        try:
            list(getattr(durations, statement)(connection, 0))
        finally:
            event.remove(window.node.engine, "before_cursor_execute", note)
        plan = connection.exec_driver_sql(
            f"EXPLAIN QUERY PLAN {said[-1]}", tuple(0 for _ in range(said[-1].count("?")))
        )
        assert any(f"USING INDEX {index}" in row[-1] for row in plan), list(plan)


def queries() -> list[tuple[str, str, str]]:
    """Where, query and legend of everything that is asked of these metrics."""
    dashboard = json.loads((REPOSITORY / "deploy/grafana.json").read_text())
    rules = yaml.safe_load((REPOSITORY / "deploy/prometheus.rules.yaml").read_text())
    shown = [
        (panel["title"], target["expr"].replace("$__rate_interval", "5m"), target["legendFormat"])
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]
    warned = [
        (rule["alert"], rule["expr"], rule["annotations"]["summary"])
        for group in rules["groups"]
        for rule in group["rules"]
    ]
    return shown + warned


def asked(query: Any, found: list[tuple[str, set[str]]], grouped: frozenset[str] = frozenset()) -> None:
    """Every metric that a query names, with the labels by which it is matched and grouped."""
    if isinstance(query, promql.VectorSelector):
        found.append((query.name, {one.name for one in query.matchers.matchers} | grouped))
    elif isinstance(query, promql.MatrixSelector):
        asked(query.vector_selector, found, grouped)
    elif isinstance(query, promql.AggregateExpr):
        assert query.modifier is None or query.modifier.type == promql.AggModifierType.By
        asked(query.expr, found, grouped | frozenset(query.modifier.labels if query.modifier else ()))
    elif isinstance(query, promql.BinaryExpr):
        asked(query.lhs, found, grouped)
        asked(query.rhs, found, grouped)
    elif isinstance(query, promql.Call):
        for one in query.args:
            asked(one, found, grouped)
    elif isinstance(query, promql.ParenExpr):
        asked(query.expr, found, grouped)
    else:
        assert isinstance(query, promql.NumberLiteral), type(query)


@pytest.fixture(scope="module")
def lived(window: Window) -> tuple[Samples, str]:
    """A page after one study that came through and one that failed."""
    live(window.node, "2.1")
    live(window.node, "2.2", fails=True)
    retried = live(window.node, "2.3", fails=True)
    with writing(window.node.engine) as connection:
        alerts.raise_(connection, "pipeline.paused", "ct_lung", what="it died", remedy="none")
        connection.execute(update(study).where(study.c.study_instance_uid == "2.2").values(state="held"))
        beats.begin(connection, "2.9", asked_by="test", folder=Path("/tmp"), deadline_s=60)
        beats.end(connection, "2.9", stage=None, what=None, volume_ml=1.0)
        commands.revive(connection, retried, who="test")
        connection.execute(update(job).where(job.c.study_instance_uid == "2.3").values(problem="GapInSeries"))
    return scrape(window)


@pytest.mark.parametrize(("where", "query", "legend"), queries(), ids=lambda value: None)
def test_every_query_names_metrics_and_labels_that_exist(
    lived: tuple[Samples, str], where: str, query: str, legend: str
) -> None:
    samples, page = lived
    known: dict[str, set[str]] = {"up": {"job"}}
    for name, labels in samples:
        known.setdefault(name, set()).update(label for label, _ in labels)
    found: list[tuple[str, set[str]]] = []
    asked(promql.parse(query), found)
    assert found
    for name, labels in found:
        if "device" in labels:  # this machine may have none; the page tells the metric all the same
            assert f"# TYPE {name} gauge" in page, where
            continue
        assert name in known, f"{where}: no metric {name}"
        assert labels <= known[name], f"{where}: {name} has no {labels - known[name]}"
    named = set(re.findall(r"{{\s*(?:\$labels\.)?(\w+)\s*}}", legend))
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", query))))
    assert named <= grouped, f"{where}: {named - grouped} in the legend, and not in the answer"
