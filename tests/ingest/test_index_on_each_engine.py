"""The index keeps its promises on SQLite and on PostgreSQL alike."""

import threading
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import DataError

from router.db import associations, callers, instances
from router.db.associations import Association, Ending
from router.db.engine import reading, writing
from router.db.instances import Arrival, Digests, Status
from router.db.tables import metadata, study
from router.ingest.index import Index
from tests.conftest import until
from tests.db.conftest import engine

__all__ = ["engine"]


@pytest.fixture(autouse=True)
def schema(engine: Engine) -> None:
    metadata.create_all(engine)


def arrival(number: int = 1, **values: Any) -> Arrival:
    header = {"PatientID": "P1", "Modality": "CT", "InstanceNumber": number, "ImageType": ["ORIGINAL", "PRIMARY"]}
    given: dict[str, Any] = {
        "sop_instance_uid": f"1.2.3.4.{number}",
        "sop_class_uid": "1.2.840",
        "study_instance_uid": "1.2.3",
        "series_instance_uid": "1.2.3.4",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": f"instances/00/{number}",
        "size": 10,
        "pixel_offset": None,
        "pixel_length": None,
        "header": header,
        "identity_digest": "i",
        "ours": False,
        "association_id": None,
        "calling_ae_title": "CT1",
        "received_at": 1000 + number,
    }
    return Arrival(**{**given, **values})


def the_study(engine: Engine) -> Any:
    with reading(engine) as connection:
        return connection.execute(select(study)).one()


def test_new_instances_make_their_series_and_study(engine: Engine) -> None:
    with writing(engine) as connection:
        assert instances.record_new(connection, [arrival(1), arrival(2)]) == []
    with reading(engine) as connection:
        rows = instances.of_series(connection, "1.2.3", "1.2.3.4")
    assert [row.header["ImageType"] for row in rows] == [["ORIGINAL", "PRIMARY"]] * 2
    assert (the_study(engine).state, the_study(engine).decide_at) == ("receiving", 1002)


def test_of_two_with_one_uid_in_a_batch_the_second_is_late(engine: Engine) -> None:
    twin = arrival(1, path="instances/00/twin")
    with writing(engine) as connection:
        assert instances.record_new(connection, [arrival(1), twin, arrival(2)]) == [twin]
        assert instances.record(connection, arrival(1, path="instances/00/third")) is False


def test_a_held_study_stays_held_and_empty_identity_is_filled(engine: Engine) -> None:
    with writing(engine) as connection:
        instances.record(connection, arrival(1, header={}))
        connection.execute(study.update().values(state="held", decide_at=None))
        instances.record(connection, arrival(2))
    assert the_study(engine).state == "held"
    assert the_study(engine).decide_at is None
    assert the_study(engine).patient_id == "P1"


def test_a_correction_replaces_and_a_conflict_does_not(engine: Engine) -> None:
    with writing(engine) as connection:
        instances.record(connection, arrival(1))
        corrected = arrival(1, path="b", header={"PatientID": "P2"})
        assert instances.record_correction(connection, corrected) == 2
        assert instances.record_conflict(connection, arrival(1, path="c")) == 3
        found = [(row.version, row.status) for row in instances.versions(connection, "1.2.3.4.1")]
    assert found == [(3, Status.CONFLICT), (2, Status.CURRENT), (1, Status.REPLACED)]
    assert the_study(engine).patient_id == "P2"


def test_restoring_keeps_the_version_and_its_header(engine: Engine) -> None:
    with writing(engine) as connection:
        instances.record(connection, arrival(1))
        instances.mark_lost(connection, ["instances/00/1"])
        instances.restore(connection, 1, arrival(1, path="again"), Status.CURRENT)
        (row,) = instances.versions(connection, "1.2.3.4.1")
    assert (row.path, row.status, row.header["Modality"]) == ("again", Status.CURRENT, "CT")


def test_digests_are_written_once_and_never_over_a_pixel_digest(engine: Engine) -> None:
    with writing(engine) as connection:
        instances.record(connection, arrival(1))
        instances.record(connection, arrival(2, pixel_digest="of its origin"))
        assert len(instances.undigested(connection)) == 2
        for number in (1, 2):
            given = Digests(sop_instance_uid=f"1.2.3.4.{number}", version=1, dataset_digest="d", pixel_digest="p")
            instances.set_digests(connection, [given])
        assert instances.undigested(connection) == []
        rows = instances.of_study(connection, "1.2.3")
    assert [row.pixel_digest for row in rows] == ["p", "of its origin"]


def test_the_index_says_what_went_wrong_and_goes_on(engine: Engine) -> None:
    index = Index(engine)
    assert index.add(arrival(1)) is True
    assert index.add(arrival(1, path="other")) is False
    with pytest.raises(Exception, match=r"(?i)null"):
        index.add(arrival(2, sop_class_uid=None))
    assert index.add(arrival(3)) is True
    index.close()


def test_a_row_that_cannot_be_held_does_not_spoil_those_beside_it(engine: Engine) -> None:
    index = Index(engine)
    given = {1: arrival(1), 2: arrival(2, sop_class_uid=None), 3: arrival(3)}
    said: dict[int, object] = {}

    def add(number: int) -> None:
        try:
            said[number] = index.add(given[number])
        except DataError as error:
            said[number] = type(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in given]
    with index.turn:  # until all wait, so that they are one batch
        for thread in threads:
            thread.start()
        until(lambda: len(index.waiting) == len(given))
    for thread in threads:
        thread.join()
    index.close()
    assert said == {1: True, 2: DataError, 3: True}


def test_files_of_a_folder_are_those_that_should_be_there(engine: Engine) -> None:
    with writing(engine) as connection:
        instances.record_new(connection, [arrival(1), arrival(2, path="instances/01/2"), arrival(3)])
        instances.mark_lost(connection, ["instances/00/3"])
        assert instances.in_folder(connection, "instances/00") == {"instances/00/1": 10}


def test_associations_open_and_close(engine: Engine) -> None:
    one = Association(
        id="a", calling_ae_title="CT1", called_ae_title="US", address="10.0.0.1", listener="L", opened_at=5
    )
    with writing(engine) as connection:
        associations.opened(connection, one)
        associations.opened(connection, Association(**{**vars_of(one), "id": "b"}))
        instances.record(connection, arrival(1))
        connection.execute(study.update().values(decide_at=99_999))
        associations.closed(connection, "a", ending=Ending.RELEASE, instances=3, studies={"1.2.3": 3}, at=7)
        assert [open_one.id for open_one in associations.open_of(connection, "CT1")] == ["b"]
        assert associations.close_all_of(connection, "L", 9) == 1
        assert associations.open_now(connection) == []
    assert the_study(engine).decide_at == 7


def vars_of(one: Association) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Association.__slots__}


def test_callers_are_counted_and_the_oldest_forgotten(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "KEPT", 3)
    with writing(engine) as connection:
        for at, title in enumerate(["A", "B", "A", "C", "D"]):
            callers.turned_away(connection, title, "10.0.0.1", "unknown", at)
        found = {one.calling_ae_title: one.attempts for one in callers.seen(connection)}
        assert found == {"D": 1, "C": 1, "A": 2}
        callers.forget(connection, "A", "10.0.0.1")
        assert [one.calling_ae_title for one in callers.seen(connection)] == ["D", "C"]
