"""What a node holds in these tests: rows of the index, made without a file where none is read."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage
from sqlalchemy import Connection, delete, insert

from router.db.tables import instance, job, metadata, result, result_header, result_set, series, study

EMPTY_STUDY = {
    "state": "complete",
    "patient_id": "",
    "issuer_of_patient_id": "",
    "patient_name": "",
    "patient_birth_date": "",
    "patient_sex": "",
    "accession_number": "",
    "study_id": "",
    "study_date": "",
    "study_time": "",
    "study_description": "",
    "referring_physician_name": "",
    "calling_ae_title": "MODALITY",
    "first_instance_at": 1,
    "last_instance_at": 1,
}
EMPTY_SERIES = {"modality": "CT", "series_number": "1", "series_description": "", "body_part_examined": ""}
EMPTY_INSTANCE = {
    "version": 1,
    "status": "current",
    "sop_class_uid": str(CTImageStorage),
    "transfer_syntax_uid": str(ExplicitVRLittleEndian),
    "instance_number": "1",
    "size": 1,
    "header": {},
    "received_at": 1,
}


def hold(connection: Connection, study_uid: str, series_of: Mapping[str, Any] | None = None, **attributes: Any) -> None:
    """A study of one series with one instance, or of these: series UID -> attributes, `instances` among them."""
    connection.execute(insert(study).values(EMPTY_STUDY | {"study_instance_uid": study_uid} | attributes))
    for series_uid, given in (series_of or {f"{study_uid}.1": {}}).items():
        own = dict(given)
        instances = own.pop("instances", {f"{series_uid}.1": {}})
        keys = {"series_instance_uid": series_uid, "study_instance_uid": study_uid}
        connection.execute(insert(series).values(EMPTY_SERIES | keys | own))
        for uid, values in instances.items():
            row = EMPTY_INSTANCE | keys | {"sop_instance_uid": uid, "path": f"{study_uid}/{uid}"} | values
            connection.execute(insert(instance).values(row))


def make(
    connection: Connection, study_uid: str, kinds: Iterable[str], *, state: str | None, number: int = 1
) -> list[str]:
    """Results of a study, one object a kind; `state` is that of their delivery, None where none was asked for."""
    common = {"study_instance_uid": study_uid, "generation": 1, "not_before": 0, "created_at": 0}
    inference = insert(job).values(
        common | {"lane": "infer", "state": "done", "run": number, "pixels_digest": study_uid}
    )
    job_id = connection.execute(inference.returning(job.c.id)).scalar_one()
    made = insert(result_set).values(
        job_id=job_id, profile="{}", study_instance_uid=study_uid, generation=1, built_at=0
    )
    set_id = connection.execute(made.returning(result_set.c.id)).scalar_one()
    if state is not None:
        lease = {"lease_until": 1} if state == "running" else {}
        delivery = common | lease | {"lane": "deliver", "state": state, "result_set_id": set_id, "destination": "PACS"}
        connection.execute(insert(job).values(delivery))
    uids = []
    for ordinal, kind in enumerate(kinds):
        uid = f"{study_uid}.9{number}{ordinal}"
        sop_class = {"segmentation": SegmentationStorage, "measurement_report": ComprehensiveSRStorage}[kind]
        connection.execute(
            insert(result).values(
                sop_instance_uid=uid,
                result_set_id=set_id,
                ordinal=ordinal,
                kind=kind,
                sop_class_uid=str(sop_class),
                series_instance_uid=f"{uid}.0",
                path=f"results/{uid}",
                digest=uid,
            )
        )
        uids.append(uid)
    return uids


def forget_all(connection: Connection) -> None:
    """An empty index."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(delete(table))


__all__ = ["forget_all", "hold", "make", "result_header"]
