"""Results and findings go when they were kept for long enough after their delivery, and nothing that is needed goes."""

from dataclasses import replace
from pathlib import Path

import pytest

from router.db import commands, findings, holdings, jobs
from router.db.engine import reading, writing
from router.domain.job import Lane, Outcome, State
from router.node import Node
from router.work import rehash, retain
from tests.delivery.conftest import delivering, pacs, produce
from tests.delivery.scp import archive
from tests.delivery.test_deliver import uids
from tests.work.site import SERIES, STUDY, Site


def hasty(site: Site, *, keep_results_days: float = 0) -> Node:
    """The node with this rule of keeping."""
    kept = {"keep_days": 0, "keep_results_days": keep_results_days}
    retention = site.node.settings.retention.model_copy(update=kept)
    return replace(site.node, settings=site.node.settings.model_copy(update={"retention": retention}))


def files(site: Site) -> list[Path]:
    return sorted(path for path in (site.node.store.root / "results").rglob("*") if path.is_file())


def keep_findings(site: Site, job_id: int, content: bytes) -> None:
    path = site.node.store.keep(content, suffix=".findings")
    kept = findings.Kept(job_id=job_id, path=path, digest="d", title="t", research=True, completeness="c")
    with writing(site.node.engine) as connection:
        findings.keep(connection, kept)


@pytest.fixture
def delivery(site: Site) -> int:
    """A delivery that is done, of a study that is here, with two results and the findings behind them."""
    site.receive()
    with archive() as far:
        site.destinations(pacs(far))
        (made,) = produce(site, "pacs", study=STUDY, series=SERIES)
        with delivering(site):
            assert site.ended(made).outcome is Outcome.DELIVERED
    with reading(site.node.engine) as connection:
        (run,) = jobs.list_(connection, lane=Lane.INFER)
    keep_findings(site, run.id, b"of this study alone")
    return made


def test_results_and_findings_go_and_what_was_made_stays_known(site: Site, delivery: int) -> None:
    sent = uids(site, delivery)
    with reading(site.node.engine) as connection:
        assert set(holdings.of(connection, sent)) == set(sent)
    assert len(files(site)) == 3
    retain.run(hasty(site, keep_results_days=1))
    assert len(files(site)) == 3, "kept for longer than the pixels"
    assert site.acts()[-1] == "study.purged"
    going = [one for one in retain.planned(hasty(site)) if one.results]
    assert [(one.held.study_instance_uid, one.held.size) for one in going] == [
        (STUDY, sum(path.stat().st_size for path in files(site)))
    ]
    retain.run(hasty(site))
    assert files(site) == []
    assert site.acts()[-1] == "results.purged"
    assert retain.planned(hasty(site)) == []
    assert list(rehash.look(site.node)) == [], "nothing is missed"
    assert rehash.count(site.node) == 0
    with reading(site.node.engine) as connection:
        assert holdings.of(connection, sent) == {}
    assert uids(site, delivery) == sent


def test_a_delivery_of_results_that_are_gone_says_so(site: Site, delivery: int) -> None:
    retain.run(hasty(site))
    with archive() as far:
        site.destinations(pacs(far))
        with writing(site.node.engine) as connection:
            again = commands.rerun(connection, delivery, who="anna")
        with delivering(site):
            job = site.ended(again)
        assert far.asked == []
    assert (job.state, job.problem) == (State.FAILED, "NothingToSend")
    assert "retention.keep_results_days" in (job.reason or "")


@pytest.mark.parametrize("state", ["queued", "failed", "held"])
def test_results_that_may_still_be_sent_stay(site: Site, delivery: int, state: str) -> None:
    with writing(site.node.engine) as connection:
        connection.exec_driver_sql(f"UPDATE job SET state = '{state}' WHERE id = {delivery}")
    retain.run(hasty(site))
    assert len(files(site)) == 3


def test_findings_that_another_study_shares_stay(site: Site, delivery: int) -> None:
    produce(site, number=1, study="1.2.9", series="1.2.9.1")
    with reading(site.node.engine) as connection:
        mine, other = sorted(one.id for one in jobs.list_(connection, lane=Lane.INFER))
    keep_findings(site, mine, b"of both")
    keep_findings(site, other, b"of both")
    retain.run(hasty(site))
    with reading(site.node.engine) as connection:
        assert findings.find(connection, mine) is None
        kept = findings.find(connection, other)
    assert kept is not None
    assert site.node.store.path(kept.path).exists()
