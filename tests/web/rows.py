"""Rows as the other roles would write them: a study that arrived and its queued job."""

from typing import Any

from router.db import decisions, instances, jobs
from router.db.engine import now, writing
from router.node import Node


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
