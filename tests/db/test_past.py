"""What is read of past studies is what was written of them, on each engine."""

from sqlalchemy import Engine

from router.db import studies
from router.db.engine import writing
from router.db.migrate import upgrade
from tests.rules.past import fill


def test_either_database_gives_the_same_facts_of_the_past(engine: Engine) -> None:
    upgrade(engine)
    with writing(engine) as connection:
        past = fill(connection, 60)
        asked = {"Modality", "detected.body_part", "SliceThickness", "patient_age", "NoSuchThing", "ImageType"}
        found = {one.study_instance_uid: one.series for one in studies.past(connection, 0, asked)}
    assert found == {
        uid: {name: {key: facts[key] for key in asked if key in facts} for name, facts in series.items()}
        for uid, series in past.items()
    }
