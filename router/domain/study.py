"""A study as the node knows it: identity hidden from logs, state, and what completeness is decided from."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class StudyState(StrEnum):
    """`receiving` waits to be complete, `complete` has been decided, `held` waits for a person."""

    RECEIVING = "receiving"
    COMPLETE = "complete"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Who it is about. Its repr says nothing, so that no log line and no error text can."""

    patient_id: str
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    accession_number: str = ""

    def __repr__(self) -> str:
        return "Patient(hidden)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study. Times are whole microseconds since 1970 UTC."""

    study_instance_uid: str
    state: StudyState
    generation: int
    patient: Patient
    study_date: str
    study_time: str
    study_description: str
    study_id: str
    referring_physician_name: str = field(repr=False)
    calling_ae_title: str
    first_instance_at: int
    last_instance_at: int
    decide_at: int | None
    completed_at: int | None
    witnesses: dict[str, Any] | None
    held_reason: str | None
    attention: str | None
    announced: dict[str, Any] | None

    @property
    def held_because(self) -> str | None:
        """Why it waits for a person; the reason alone is kept a little longer, until decide has settled it."""
        return self.held_reason if self.state is StudyState.HELD else None

    @property
    def completeness(self) -> str:
        """How it was known that the study was complete, in a sentence; empty before its first completion."""
        return str((self.witnesses or {}).get("sentence", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of a study. `facts` are those of its last completion, `witnesses` how that was known."""

    series_instance_uid: str
    study_instance_uid: str
    modality: str
    series_number: str
    series_description: str
    body_part_examined: str
    facts: dict[str, Any] | None
    facts_generation: int | None
    completed_at: int | None
    witnesses: dict[str, Any] | None


IDENTITY = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "SeriesInstanceUID",
)  # fmt: skip
"""What results copy from their source, or refer to, and a correction may change."""


def identity_digest(headers: Iterable[Mapping[str, Any]]) -> str:
    """Digest of whose series this is, as its instances say: another identity makes another result of the same."""
    said = {json.dumps([header.get(keyword, "") for keyword in IDENTITY]) for header in headers}
    return hashlib.sha256("\n".join(sorted(said)).encode()).hexdigest()


def mixed_patients(identities: Iterable[tuple[str, str, str]]) -> str | None:
    """Why instances (PatientID, IssuerOfPatientID, SeriesInstanceUID) cannot be one patient's, or None when they can.

    An issuer that only some of them name is no contradiction. The reason names series, never a patient.
    """
    series: dict[str, set[str]] = {}
    counted: Counter[str] = Counter()
    issuers: dict[str, set[str]] = {}
    for patient_id, issuer, series_instance_uid in identities:
        series.setdefault(patient_id, set()).add(series_instance_uid)
        counted[patient_id] += 1
        issuers.setdefault(patient_id, set()).add(issuer)
    if len(counted) > 1:
        groups = "; ".join(
            f"{count} instances in series {', '.join(sorted(series[patient_id])[:3])}"
            for patient_id, count in counted.most_common()
        )
        return f"one StudyInstanceUID with {len(counted)} PatientIDs: {groups}"
    if any(len(named - {""}) > 1 for named in issuers.values()):
        return "one PatientID from different issuers (IssuerOfPatientID) in one study"
    return None
