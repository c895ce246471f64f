"""Past studies, generated: rows as decide leaves them, with facts as they are made of headers."""

from random import Random
from typing import Any

from sqlalchemy import Connection, insert

from router.db.engine import now
from router.db.tables import series, study
from router.domain.classify import describe
from router.domain.facts import Fact

Series = dict[str, dict[str, Fact]]

DESCRIPTIONS = ("CT Chest", "CT Thorax/Abdomen", "CT Abdomen", "MR Brain", "Knie links", "CT Head", "", "Follow-up")


def headers(random: Random) -> list[dict[str, Any]]:
    """Headers of a series that some scanner might have made."""
    modality = random.choice(["CT", "CT", "CT", "MR", "DX", "SR"])
    count = random.choice([1, 3, 12])
    shared = {
        "Modality": modality,
        "StudyDescription": random.choice(DESCRIPTIONS),
        "SeriesDescription": random.choice(["Thorax 1.0", "Lunge", "Topogram", "Abdomen 5.0", "t1 mprage", ""]),
        "BodyPartExamined": random.choice(["", "CHEST", "ABDOMEN", "HEAD"]),
        "ConvolutionKernel": random.choice(["B30f", "B70f", ""]),
        "SliceThickness": random.choice([0.6, 1.0, 3.0, 5.0]),
        "ImageType": random.choice([["ORIGINAL", "PRIMARY", "AXIAL"], ["ORIGINAL", "PRIMARY", "LOCALIZER"]]),
        "PatientAge": f"{random.randrange(1, 99):03d}Y",
        "Manufacturer": random.choice(["SIEMENS", "GE MEDICAL SYSTEMS"]),
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    }
    return [
        shared | {"ImagePositionPatient": [0.0, 0.0, 1.0 * place], "InstanceNumber": place} for place in range(count)
    ]


def fill(connection: Connection, count: int, *, seed: int = 0, days: float = 10) -> dict[str, Series]:
    """So many complete studies, the last ones `days` ago; their facts as they were before they were written."""
    random, made = Random(seed), dict[str, Series]()
    kinds = [describe(headers(random)) for _ in range(min(2000, 3 * count))]
    at = now() - round(days * 24 * 3600 * 1_000_000)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        uid = f"1.2.{number}"
        made[uid] = {f"{uid}.{index}": random.choice(kinds) for index in range(random.randrange(1, 6))}
        rows += [
            {
                "series_instance_uid": series_uid, "study_instance_uid": uid, "modality": "", "series_number": "",
                "series_description": "", "body_part_examined": "", "facts_generation": 1,
                "facts": {keyword: fact.as_json() for keyword, fact in facts.items()},
            }
            for series_uid, facts in made[uid].items()
        ]  # fmt: skip
    texts = (
        "patient_id", "issuer_of_patient_id", "patient_name", "patient_birth_date", "patient_sex", "accession_number",
        "study_id", "study_date", "study_time", "study_description", "referring_physician_name", "calling_ae_title",
    )  # fmt: skip
    whole = {
        **dict.fromkeys(texts, ""), "state": "complete", "generation": 1, "first_instance_at": at,
        "last_instance_at": at, "completed_at": at,
    }  # fmt: skip
    connection.execute(insert(study), [{**whole, "study_instance_uid": uid} for uid in made])
    connection.execute(insert(series), rows)
    return made


OLD: list[dict[str, Any]] = [
    {
        "name": "chest", "when": {"all": [{"Modality": "CT"}, {"body_part": {"contains": "chest"}},
                                          {"not": {"kind": "localizer"}}]},
        "pipelines": ["always_one"], "destinations": ["pacs"],
    },
    {
        "name": "best of the study", "scope": "study", "when": {"Modality": {"contains": "MR"}},
        "take": {"when": {"Modality": "MR"}, "prefer": [{"SliceThickness": "lowest"}]},
        "pipelines": [{"name": "always_one", "settings": {"level": 3}}], "destinations": ["pacs"],
    },
    {"name": "off", "when": {"Modality": "CT"}, "pipelines": ["always_one"], "destinations": ["pacs"], "mode": "off"},
]  # fmt: skip
NEW: list[dict[str, Any]] = [
    {"name": "never the old", "when": {"patient_age": {"above": 90}}, "stop": True},
    {
        "name": "chest", "when": {"all": [{"Modality": "CT"}, {"body_part": {"contains": "chest"}},
                                          {"SliceThickness": {"at_most": 3}}]},
        "pipelines": ["always_one"], "destinations": ["archive", "pacs"], "priority": "stat",
        "on_conflict": "hold",
    },
    {
        "name": "tagged", "when": {"all": [{"Modality": "CT"}, {"body_part": {"contains": "abdomen"}}]},
        "pipelines": ["always_one"], "destinations": ["pacs"], "mode": "shadow", "on_conflict": "trust_tag",
    },
    {
        "name": "soft first", "scope": "study", "when": {"not": {"StudyDescription": {"matches": "(?i)head"}}},
        "take": {"when": {"Modality": ["CT", "MR"]},
                 "prefer": [{"kernel": ["soft", "sharp"]}, {"SliceThickness": "lowest"}], "most": 2},
        "pipelines": [{"name": "always_one", "settings": {"level": 3}}], "destinations": ["pacs"],
    },
]  # fmt: skip
