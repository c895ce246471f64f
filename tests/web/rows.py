"""Rows as the other roles would write them: a study that arrived and its queued job, and one with a result."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from dicom_sr import kinds
from router.db import decisions, instances, jobs, results
from router.db.engine import now, writing
from router.domain.delivery import MeasurementRow, Result
from router.domain.job import Lane, Outcome
from router.node import Node
from tests.objects.conftest import ct_series, findings_of, order_of


def arrive(node: Node, study: str = "1.2.3", *, slices: int = 3, description: str = "Chest", **header: Any) -> int:
    """One series of this study, a decision on it, and its inference job; the job's number."""
    series = f"{study}.1"
    arrivals = []
    for number in range(1, slices + 1):
        facts = {
            "SOPInstanceUID": f"{series}.{number}", "Modality": "CT", "StudyDescription": description,
            "SeriesDescription": "axial", "PatientID": "7", "PatientName": "SECRET^PATIENT", "InstanceNumber": number,
        } | header  # fmt: skip
        arrivals.append(
            instances.Arrival(
                sop_instance_uid=f"{series}.{number}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                study_instance_uid=study,
                series_instance_uid=series,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                path=f"instances/{series}.{number}",
                size=1,
                pixel_offset=None,
                pixel_length=None,
                header=facts,
                identity_digest="identity",
                ours=False,
                association_id=None,
                calling_ae_title="SCANNER",
                received_at=now(),
                dataset_digest=f"{series}{number}",
                pixel_digest=f"{series}{number}",
            )
        )
    with writing(node.engine) as connection:
        assert instances.record_new(connection, arrivals) == []
        job_id, _ = jobs.add_inference(
            connection, study_instance_uid=study, series_instance_uid=series, generation=1, pixels_digest=study,
            pipeline="ct_lung", pipeline_version="1.0", weights_digest=None, settings={}, settings_digest="",
            priority=50, max_attempts=3,
        )  # fmt: skip
        decisions.add(
            connection,
            decisions.Decision(
                study_instance_uid=study, generation=1, series_instance_uid=series, rule="chest ct lungs", revision=1,
                fires=True, mode="on", reasons={"holds": True, "asked": "all"}, pipeline="ct_lung",
                destinations=["pacs"], job_id=job_id, decided_at=now(),
            ),
        )  # fmt: skip
    return job_id


LABELS = np.zeros((6, 24, 36), np.uint8)
LABELS[1:5, 3:20, 22:25] = 1
LABELS[1:5, 17:20, 22:33] = 1
LABELS[2:6, 3:7, 3:15] = 2
"""An L on the patient's left and a bar on the right, in other slices: no flip of any axis maps it on itself."""


def scanned(node: Node, folder: Path) -> int:
    """A small chiral CT series in the store with a Segmentation that a job made of it; the job's number."""
    paths = ct_series(folder / "scan", shape=(6, 24, 36))
    order = order_of(paths, findings_of(LABELS))
    built = kinds.find("segmentation")(order)
    assert built is not None
    for path in paths:
        store(node, path)
    study, series = str(order.source.header.StudyInstanceUID), str(order.source.header.SeriesInstanceUID)
    with writing(node.engine) as connection:
        job_id, _ = jobs.add_inference(
            connection, study_instance_uid=study, series_instance_uid=series, generation=1, pixels_digest=study,
            pipeline="ct_lung", pipeline_version="1.0", weights_digest=None, settings={}, settings_digest="",
            priority=1, max_attempts=3,
        )  # fmt: skip
        held = jobs.claim(connection, Lane.INFER, "test", 60)
        assert held is not None
        assert held.id == job_id
        jobs.finish(connection, held, Outcome.RESULT)
        results.add_measurements(
            connection,
            job_id,
            [MeasurementRow(ordinal=1, label="Left lung", name="Volume", value=3.1, unit="ml", remark=None)],
        )
        set_id = results.add_set(connection, job_id=job_id, profile="{}", study_instance_uid=study, generation=1)
        results.add(
            connection,
            Result(
                sop_instance_uid=built.sop_instance_uid, result_set_id=set_id, ordinal=0, kind="segmentation",
                sop_class_uid=built.sop_class_uid, series_instance_uid=built.series_instance_uid,
                path=node.store.keep(built.part10), digest=hashlib.sha256(built.part10).hexdigest(),
            ),
        )  # fmt: skip
    return job_id


def store(node: Node, path: Path) -> None:
    """Keep a file as the door does, and its row."""
    dataset, content = pydicom.dcmread(path), path.read_bytes()
    part = node.store.open_part()
    with open(part.fd, "wb", closefd=False) as file:
        file.write(content)
    arrival = instances.Arrival(
        sop_instance_uid=dataset.SOPInstanceUID,
        sop_class_uid=dataset.SOPClassUID,
        study_instance_uid=dataset.StudyInstanceUID,
        series_instance_uid=dataset.SeriesInstanceUID,
        transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
        path=part.keep(dataset.SOPInstanceUID),
        size=len(content),
        pixel_offset=None,
        pixel_length=None,
        header={"Modality": "CT", "StudyDescription": "CT thorax", "SeriesDescription": "axial", "PatientID": "7"},
        identity_digest="identity",
        ours=False,
        association_id=None,
        calling_ae_title="SCANNER",
        received_at=now(),
        dataset_digest=hashlib.sha256(content).hexdigest(),
        pixel_digest=hashlib.sha256(dataset.PixelData).hexdigest(),
    )
    with writing(node.engine) as connection:
        assert instances.record_new(connection, [arrival]) == []
