"""What was answered with Success is there: as received, once, indexed; what was not is nowhere."""

from io import BytesIO

import pytest
from pydicom import dcmread
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from router.ingest.status import StoreStatus
from tests.conftest import until
from tests.ingest.conftest import Door, association, send, slice_of


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
