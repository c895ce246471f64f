"""A node on SQLite with a received CT series, rules' decisions, destinations, and roles that run in threads."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from sqlalchemy import select

from dicom_sr.uids import pixels_digest
from router.config import Settings
from router.db import alerts, decisions, instances, jobs, receipts, results, revisions, studies
from router.db.engine import connect, now, reading, writing
from router.db.revisions import Kind
from router.db.tables import audit, metadata
from router.domain.delivery import Result
from router.domain.job import Job, Lane, State
from router.node import Node
from router.store import Store
from router.wake import Bell
from tests.conftest import until
from tests.objects.conftest import ct_series

STUDY = "1.2.826.0.1.3680043.10.99999.1.1"
SERIES = "1.2.826.0.1.3680043.10.99999.1.2"
SEEN = ("SeriesNumber", "Modality", "PatientID", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID")
"""What the door would read of a header, as far as tests need it."""
ENDED = {State.DONE, State.FAILED, State.CANCELLED, State.SUPERSEDED}


@dataclass
class Site:
    """One node and what a test does to it."""

    node: Node
    folder: Path

    def receive(self, **shape: Any) -> None:
        """Store and index one CT series, and make its study complete."""
        for path in ct_series(self.folder / "scan", **shape):
            self.store(path)
        with writing(self.node.engine) as connection:
            studies.complete(connection, STUDY, now=now(), witnesses={"sentence": "All slices were announced."})

    def store(self, path: Path) -> None:
        with writing(self.node.engine) as connection:
            assert instances.record_new(connection, [self.arrival(path)]) == []

    def move(self, *, study: str, series: str, of: tuple[str, str] = (STUDY, SERIES)) -> None:
        """An archive sends all images of a series again, the same pixels, in another series or study."""
        with reading(self.node.engine) as connection:
            rows = instances.of_series(connection, *of)
        for row in rows:
            dataset = pydicom.dcmread(self.node.store.path(row.path))
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
            path = self.folder / "moved.dcm"
            dataset.save_as(path)
            with writing(self.node.engine) as connection:
                instances.record_correction(connection, self.arrival(path))

    def arrival(self, path: Path) -> instances.Arrival:
        """A file as the door would index it, kept in the store."""
        dataset = pydicom.dcmread(path)
        content = path.read_bytes()
        part = self.node.store.open_part()
        with open(part.fd, "wb", closefd=False) as file:
            file.write(content)
        return instances.Arrival(
            sop_instance_uid=dataset.SOPInstanceUID,
            sop_class_uid=dataset.SOPClassUID,
            study_instance_uid=dataset.StudyInstanceUID,
            series_instance_uid=dataset.SeriesInstanceUID,
            transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
            path=part.keep(dataset.SOPInstanceUID),
            size=len(content),
            pixel_offset=None,
            pixel_length=None,
            header={keyword: str(dataset.get(keyword, "")) for keyword in SEEN},
            identity_digest="identity",
            ours=False,
            association_id=None,
            calling_ae_title="SCANNER",
            received_at=now(),
            dataset_digest=hashlib.sha256(content).hexdigest(),
            pixel_digest=hashlib.sha256(dataset.PixelData).hexdigest(),
        )

    def destinations(self, *several: dict[str, Any]) -> None:
        """Make these the destinations in force."""
        with writing(self.node.engine) as connection:
            revisions.add(connection, Kind.DESTINATIONS, list(several), author="test")

    def decide(
        self,
        *destinations: str,
        rule: str = "chest",
        mode: str = "on",
        max_attempts: int = 3,
        series: str = SERIES,
        identity: str = "",
        study: str = STUDY,
        priority: int = 50,
        **settings: Any,
    ) -> int:
        """Write a decision that wants the pipeline run on the series, and its job; the job's number."""
        with writing(self.node.engine) as connection:
            rows = instances.of_series(connection, study, series)
            job_id, _ = jobs.add_inference(
                connection,
                study_instance_uid=study,
                series_instance_uid=series,
                generation=1,
                pixels_digest=pixels_digest((row.sop_instance_uid, row.pixel_digest or "") for row in rows),
                identity_digest=identity,
                pipeline="moody",
                pipeline_version="1.0",
                weights_digest=None,
                settings=settings,
                settings_digest=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
                priority=priority,
                max_attempts=max_attempts,
            )
            decisions.add(
                connection,
                decisions.Decision(
                    study_instance_uid=study,
                    generation=1,
                    series_instance_uid=series,
                    rule=rule,
                    revision=1,
                    fires=True,
                    mode=mode,
                    reasons={},
                    pipeline="moody",
                    destinations=list(destinations),
                    job_id=job_id,
                    decided_at=now(),
                ),
            )
        return job_id

    def job(self, job_id: int) -> Job:
        with reading(self.node.engine) as connection:
            found = jobs.find(connection, job_id)
        assert found is not None
        return found

    def deliveries(self) -> list[Job]:
        with reading(self.node.engine) as connection:
            return jobs.list_(connection, lane=Lane.DELIVER)[::-1]

    def results(self, job_id: int) -> list[Result]:
        with reading(self.node.engine) as connection:
            sets = results.sets_of_job(connection, job_id)
            return [one for each in sets for one in results.of_set(connection, each.id)]

    def content(self, result: Result) -> bytes:
        return self.node.store.path(result.path).read_bytes()

    def receipts(self, job_id: int) -> list[dict[str, Any]]:
        with reading(self.node.engine) as connection:
            return receipts.of_job(connection, job_id)

    def acts(self) -> list[str]:
        """What was done, in its order; what was read, once a try, has a row before that."""
        with reading(self.node.engine) as connection:
            acts = list(connection.execute(select(audit.c.act).order_by(audit.c.id)).scalars())
        return [act for act in acts if act != "series.read"]

    def alerts(self) -> list[tuple[str, str, str, int]]:
        """Kind, subject, words and number of times of the alerts that stand, the newest first."""
        with reading(self.node.engine) as connection:
            return [(one.kind, one.subject, one.what, one.times) for one in alerts.list_(connection)]

    def ended(self, job_id: int, *, deadline_s: float = 60) -> Job:
        """The job, once it has ended."""

        def job() -> Job | None:
            found = self.job(job_id)
            return found if found.state in ENDED else None

        found = until(job, deadline_s=deadline_s, what=f"the end of job {job_id}")
        assert found is not None
        return found

    def quiet(self, *, deadline_s: float = 60) -> list[Job]:
        """All jobs, once every one has ended."""

        def all_jobs() -> list[Job] | None:
            with reading(self.node.engine) as connection:
                found = jobs.list_(connection)
            return found[::-1] if all(job.state in ENDED for job in found) else None

        found = until(all_jobs, deadline_s=deadline_s, what="the end of all jobs")
        assert found is not None
        return found


def open_site(folder: Path, **sections: Any) -> Site:
    """The node in this folder, made if it is not there."""
    settings = Settings.model_validate(
        {
            "storage": {"path": folder / "store"},
            "run_path": folder / "run",
            "timezone": "Europe/Zurich",
            "inference": {"device": "cpu", "lease_s": 30},
            "delivery": {"retry_first_s": 0.05, "retry_cap_s": 0.2, "timeout_s": 5},
            **sections,
        }
    )
    engine = connect(f"sqlite:///{folder}/isocenter.db")
    metadata.create_all(engine)
    node = Node(
        node_id="node-1",
        settings=settings,
        engine=engine,
        store=Store(settings.storage.path),
        bell=Bell(settings.run_path / "wake"),
    )
    return Site(node=node, folder=folder)


def close_site(site: Site) -> None:
    site.node.engine.dispose()


@contextmanager
def running(site: Site, lane: Lane, serve: Callable[[Node, threading.Event], None]) -> Iterator[threading.Event]:
    """A role in a thread; drained at the end."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def role() -> None:
        try:
            serve(site.node, stop)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=role, name=f"{lane} under test")
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        site.node.bell.ring(lane)
        thread.join(60)
        assert not thread.is_alive(), f"{lane} did not stop"
        assert not failed
