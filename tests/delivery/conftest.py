"""A node whose store holds a result set, and the role deliver in a thread."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from router.db import jobs, results
from router.db.engine import writing
from router.domain.delivery import Result
from router.domain.job import Lane, Outcome
from router.work.deliver import serve
from tests.delivery.objects import result_set
from tests.delivery.scp import Archive
from tests.work.site import Site, close_site, open_site, running


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A node without studies."""
    made = open_site(tmp_path)
    yield made
    close_site(made)


def produce(
    site: Site,
    *destinations: str,
    number: int = 0,
    max_attempts: int = 20,
    study: str = "1.2.3",
    series: str = "1.2.3.4",
) -> list[int]:
    """Put a finished result set of two objects into the store and order its deliveries; their jobs."""
    work: dict[str, Any] = {"study_instance_uid": study, "generation": 1, "priority": 50}
    with writing(site.node.engine) as connection:
        made, _ = jobs.add_inference(
            connection, series_instance_uid=series, pixels_digest=f"aa{number}", pipeline="ct_lung",
            pipeline_version="1.0", weights_digest=None, settings={}, settings_digest="bb", max_attempts=3, **work,
        )  # fmt: skip
        held = jobs.claim(connection, Lane.INFER, "test", 60)
        assert held is not None
        assert held.id == made
        jobs.finish(connection, held, Outcome.RESULT)
        set_id = results.add_set(connection, job_id=made, profile="{}", study_instance_uid=study, generation=1)
        for ordinal, item in enumerate(result_set(site.folder, study=study)):
            content = item.path.read_bytes()
            results.add(
                connection,
                Result(
                    sop_instance_uid=item.sop_instance_uid,
                    result_set_id=set_id,
                    ordinal=ordinal,
                    kind=("segmentation", "measurement_report")[ordinal],
                    sop_class_uid=item.sop_class_uid,
                    series_instance_uid=item.series_instance_uid,
                    path=site.node.store.keep(content),
                    digest=hashlib.sha256(content).hexdigest(),
                ),
            )
        return [
            jobs.add_delivery(
                connection, result_set_id=set_id, destination=name, max_attempts=max_attempts, **work
            )[0]
            for name in destinations
        ]  # fmt: skip


def pacs(far: Archive, name: str = "pacs", **more: Any) -> dict[str, Any]:
    """The archive as a destination."""
    return {"kind": "dicom", "name": name, "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": far.port, **more}


@contextmanager
def delivering(site: Site) -> Iterator[None]:
    with running(site, Lane.DELIVER, serve):
        yield
