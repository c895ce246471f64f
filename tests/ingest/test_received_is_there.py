"""What was answered with Success is there: as received, once, indexed; what was not is nowhere."""

from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS
from sqlalchemy import select
from structlog.testing import capture_logs

from router.db import associations
from router.db.engine import reading, writing
from router.db.tables import audit
from router.ingest.status import StoreStatus
from tests.conftest import until
from tests.ingest.conftest import SENDER, Door, association, send, slice_of


@pytest.mark.parametrize("status", set(StoreStatus) - {StoreStatus.SUCCESS})
def test_status_means_what_its_name_says(status: StoreStatus) -> None:
    assert status.name.replace("_", " ") in STORAGE_SERVICE_CLASS_STATUS[status][1].upper().replace(
        "AUTHORISED", "AUTHORIZED"
    )


def test_an_instance_is_stored_as_received_and_indexed(door: Door) -> None:
    sent = slice_of()
    assert send(door, sent) == [StoreStatus.SUCCESS]
    (row,) = door.rows()
    assert row.header["Modality"] == "CT"
    assert row.header["Rows"] == 16
    kept = dcmread(BytesIO(door.content(row)))
    assert kept == sent
    assert kept.file_meta.SourceApplicationEntityTitle == "SENDER"
    buffer = BytesIO()
    sent.save_as(buffer, enforce_file_format=True)
    dataset = buffer.getvalue()[-2000:]
    assert door.content(row).endswith(dataset[dataset.index(b"\x08\x00\x16\x00") :])
    assert row.pixel_offset is not None
    assert row.pixel_length == 512
    assert door.content(row)[row.pixel_offset : row.pixel_offset + 512] == sent.PixelData
    assert "1.2.3" not in row.path


def test_digests_follow(door: Door) -> None:
    send(door, slice_of())
    row = until(lambda: next((row for row in door.rows() if row.dataset_digest), None))
    assert row.pixel_digest
    assert row.identity_digest


def test_the_same_instance_again_is_one_copy(door: Door) -> None:
    assert send(door, slice_of(), slice_of()) == [0, 0]
    assert len(door.rows()) == 1
    assert len(door.files()) == 1


def test_a_caller_that_nobody_knows_is_turned_away(door: Door) -> None:
    with association(door, calling="STRANGER") as made:
        assert made.is_rejected
        assert made.acceptor.primitive.result == 1
        assert made.acceptor.primitive.diagnostic == 3


def test_what_came_over_an_association_is_an_act_a_study_written_at_its_end(door: Door) -> None:
    slices = [slice_of(study=study, series=f"{study}.1", number=n) for study in ("1.2.3", "1.2.4") for n in (1, 2, 3)]
    assert send(door, *slices, slices[0]) == [0] * 7
    rows = until(lambda: received(door), what="the acts")
    assert [(row["study_instance_uid"], row["detail"]["instances"]) for row in rows] == [("1.2.3", 4), ("1.2.4", 3)]
    assert {row["who"] for row in rows} == {f"{SENDER}@127.0.0.1"}
    assert {row["patient_key"] for row in rows} != {None}


def test_what_came_before_the_listener_died_is_an_act_at_its_next_start(door: Door) -> None:
    with association(door, slice_of()) as open_one:
        assert open_one.send_c_store(slice_of()).Status == 0
        assert received(door) == []
        with writing(door.node.engine) as connection:
            assert associations.close_all_of(connection, door.node.node_id, 1) == 1
        (row,) = received(door)
    assert (row["study_instance_uid"], row["detail"]["instances"], row["detail"]["ending"]) == ("1.2.3", 1, "lost")
    assert len(received(door)) == 1


def test_an_end_that_could_not_be_recorded_is_recorded_as_soon_as_it_can_be(door: Door) -> None:
    with capture_logs() as logged:
        with association(door, slice_of()) as made:
            assert made.send_c_store(slice_of()).Status == 0
            with writing(door.node.engine) as connection:
                connection.exec_driver_sql("ALTER TABLE audit RENAME TO gone")
        until(lambda: "association.not_recorded" in [line["event"] for line in logged], what="a failed attempt")
    with reading(door.node.engine) as connection:
        assert [one.ending for one in associations.open_now(connection)] == [None]
    with writing(door.node.engine) as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO audit")
    (row,) = until(lambda: received(door), what="the act")
    assert (row["detail"]["instances"], row["detail"]["ending"]) == (1, "release")
    with reading(door.node.engine) as connection:
        assert associations.open_now(connection) == []


def received(door: Door) -> list[dict[str, Any]]:
    """Acts of receiving."""
    with reading(door.node.engine) as connection:
        statement = select(audit).where(audit.c.act == "study.received").order_by(audit.c.id)
        return [dict(row) for row in connection.execute(statement).mappings()]
