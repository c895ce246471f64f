"""A rule in shadow runs and keeps what it finds; the far side's wire stays silent until the rule is promoted."""

import sys
from functools import partial
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from router import cli
from router.db import node, revisions
from router.db.engine import writing
from router.db.revisions import Kind
from router.domain.job import Job, Lane, Outcome
from router.work import deliver, infer
from router.work.assemble import turn
from router.work.count import Counter
from router.work.plan import Book
from tests.delivery.scp import archive
from tests.objects.conftest import ct_series
from tests.work import INSIDE
from tests.work.site import Site, close_site, open_site, running

RULE = {"name": "tried", "when": {"Modality": "CT"}, "pipelines": ["moody"], "destinations": ["pacs"], "mode": "shadow"}


def worked(site: Site) -> list[Job]:
    """Decide on what is complete, and let inference and delivery run until nothing is left to do."""
    counter = Counter(site.node)
    try:
        turn(site.node, Book(), counter)
    finally:
        counter.close()
    with running(site, Lane.INFER, partial(infer.serve, inside=INSIDE)), running(site, Lane.DELIVER, deliver.serve):
        return site.quiet(deadline_s=120)


def promoted(name: str, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`isocenter rules promote`, in this process: only its catalogue has the pipeline of these tests."""
    monkeypatch.setattr(sys, "argv", ["isocenter", "rules", "promote", name, "--config", str(config)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0


def other_study(slice_: Dataset, index: int) -> None:
    slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.SOPInstanceUID = "1.2.9", "1.2.9.1", f"1.2.9.1.{index}"
    slice_.PixelData = slice_.PixelData[:-2] + index.to_bytes(2, "little")


@pytest.mark.long
def test_nothing_of_a_shadow_rule_reaches_the_wire_until_it_is_promoted(
    tmp_path: Path, shelf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = open_site(tmp_path, completeness={"quiet_period_s": 0})
    node.create(site.node.engine)
    (tmp_path / "isocenter.yaml").write_text(f"database: {{url: '{site.node.settings.database.url}'}}\n")
    with archive() as far:
        site.destinations(
            {"kind": "dicom", "name": "pacs", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": far.port}
        )
        with writing(site.node.engine) as connection:
            revisions.add(connection, Kind.SOURCES, [], author="test")
            revisions.add(connection, Kind.RULES, [RULE], author="test")
        for path in ct_series(tmp_path / "first"):
            site.store(path)
        (ran,) = worked(site)
        assert (ran.lane, ran.outcome) == (Lane.INFER, Outcome.RESULT)
        assert ran.started_at is not None
        assert ran.finished_at is not None
        assert ran.finished_at > ran.started_at
        assert {one.kind for one in site.results(ran.id)} == {"segmentation", "measurement_report"}
        assert (far.opened, far.asked) == (0, [])

        promoted("tried", tmp_path / "isocenter.yaml", monkeypatch)
        for path in ct_series(tmp_path / "second", change=other_study):
            site.store(path)
        jobs = worked(site)
        (sent,) = [job for job in jobs if job.lane is Lane.INFER and job.id != ran.id]
        assert [job.outcome for job in jobs if job.lane is Lane.DELIVER] == [Outcome.DELIVERED]
        assert sorted(far.kept) == sorted(one.sop_instance_uid for one in site.results(sent.id))
        assert far.opened > 0
    close_site(site)
