"""OHIF pointed at Isocenter's own DICOMweb, no archive between: it lists the study, shows the images and the SEG."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicom_sr.kinds import Built
from router import passwords
from router.db import holdings, jobs, results, tokens
from router.db.engine import writing
from router.domain.access import Scope
from router.domain.delivery import Result
from router.domain.job import Lane
from router.domain.job import Outcome as JobOutcome
from router.ingest import part10
from router.ingest.receive import Command, Receiver
from router.ingest.status import StoreStatus
from router.node import Node
from router.query.made import header_of
from router.store import write_all
from tests.conftest import component
from tests.viewer import ohif
from tests.viewer.cases import SCREENS, Case, case_of, images_of, report_is_read, segmentation_is_seen
from tests.web.conftest import new_node, served

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def receive(node: Node, path: Path) -> None:
    """Take a file in as the door does, to its Success."""
    content = path.read_bytes()
    meta = pydicom.filereader.read_file_meta_info(path)
    receiver = Receiver(node.settings, node.store, node.engine)
    command = Command(
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        calling_ae_title="SCANNER",
    )
    part = receiver.begin(command)
    write_all(part.fd, content[part10.dataset_offset(content) :])
    assert receiver.finish(part, command).status is StoreStatus.SUCCESS


def release(node: Node, case: Case, written: list[Built]) -> None:
    """Results of a job on this study, their delivery asked for."""
    study, series = case.study, str(case.order.source.header.SeriesInstanceUID)
    common = {"study_instance_uid": study, "generation": 1, "priority": 1, "max_attempts": 3}
    with writing(node.engine) as connection:
        job_id, _ = jobs.add_inference(
            connection, series_instance_uid=series, pixels_digest=study, pipeline="ct_lung", pipeline_version="1.0",
            weights_digest=None, settings={}, settings_digest="", **common,
        )  # fmt: skip
        held = jobs.claim(connection, Lane.INFER, "test", 60)
        assert held is not None
        jobs.finish(connection, held, JobOutcome.RESULT)
        set_id = results.add_set(connection, job_id=job_id, profile="{}", study_instance_uid=study, generation=1)
        for ordinal, built in enumerate(written):
            results.add(
                connection,
                Result(
                    sop_instance_uid=built.sop_instance_uid, result_set_id=set_id, ordinal=ordinal, kind=built.kind,
                    sop_class_uid=built.sop_class_uid, series_instance_uid=built.series_instance_uid,
                    path=node.store.keep(built.part10), digest=hashlib.sha256(built.part10).hexdigest(),
                ),
            )  # fmt: skip
            holdings.describe(connection, built.sop_instance_uid, header_of(built.part10))
        jobs.add_delivery(connection, result_set_id=set_id, destination="pacs", **common)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ohif.Reader, Case, Node]]:
    """OHIF before a node that has received a chest CT and released what was found on it."""
    for name in ("Chromium", "Chromedriver", "OHIF"):
        component(name)
    folder = tmp_path_factory.mktemp("node")
    paths = images_of("ct_lung", "phantom", tmp_path_factory.mktemp("phantom"))
    case, written = case_of("ct_lung", "phantom", paths)
    node = new_node(folder)
    for path in paths:
        receive(node, path)
    release(node, case, written)
    secret = passwords.secret()
    with writing(node.engine) as connection:
        tokens.add(connection, "ohif", passwords.digest(secret), [Scope.READ], who="test")
    with (
        served(node) as window,
        ohif.served(int(window.url.rpartition(":")[2]), Authorization=f"Bearer {secret}") as address,
        ohif.reader(address) as reader,
    ):
        yield reader, case, node
    node.engine.dispose()


def test_the_study_is_listed(shown: tuple[ohif.Reader, Case, Node]) -> None:
    reader, case, _ = shown
    reader.find(str(case.order.source.header.PatientName).partition("^")[0])
    reader.picture(SCREENS / "ohif-isocenter-list.png")
    assert reader.complaints() == []


def test_the_segmentation_is_seen_where_it_was_found(shown: Any) -> None:
    reader, case, _ = shown
    segmentation_is_seen(reader, case, "ohif-isocenter-seg")


def test_the_report_is_read(shown: Any) -> None:
    reader, case, _ = shown
    report_is_read(reader, case)
    reader.picture(SCREENS / "ohif-isocenter-sr.png")
    assert reader.complaints() == []
