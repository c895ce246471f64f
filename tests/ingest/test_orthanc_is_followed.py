"""What becomes stable in an Orthanc comes in by the way of C-STORE, once, whatever ends in between."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.dataset import FileDataset
from sqlalchemy import select

from router.db import alerts, feeds, revisions
from router.db.engine import reading, writing
from router.db.instances import Status
from router.db.tables import association, audit
from tests.conftest import component, until
from tests.ingest.conftest import Door, dataset_bytes, listening, slice_of
from tests.servers import Orthanc, orthanc

ARCHIVE = {"ae_title": "ORTHANC", "addresses": ["127.0.0.1"], "services": ["store"]}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    component("Orthanc")
    with orthanc(tmp_path_factory.mktemp("orthanc"), {}, StableAge=1) as running:
        yield running


def ask(archive: Orthanc, method: str, path: str, content: bytes | str | None = None) -> Any:
    """The answer to one request on a connection of its own: Orthanc closes idle ones whenever it likes."""
    answer = httpx.request(method, f"http://127.0.0.1:{archive.http_port}{path}", content=content, timeout=60)
    assert answer.status_code == 200
    return answer.json()


def upload(archive: Orthanc, *slices: FileDataset) -> None:
    for one in slices:
        content = BytesIO()
        one.save_as(content, enforce_file_format=True)
        ask(archive, "POST", "/instances", content.getvalue())


def stable(archive: Orthanc, study_instance_uid: str) -> None:
    """Wait until this study is stable there."""
    (found,) = ask(archive, "POST", "/tools/lookup", study_instance_uid)
    until(lambda: ask(archive, "GET", found["Path"])["IsStable"], what="a stable study")


def follow(door: Door, archive: Orthanc, **more: Any) -> None:
    url = f"http://127.0.0.1:{archive.http_port}"
    entry = {"kind": "orthanc", "name": "archive", "url": url, "pull_as": "ORTHANC", "pull_every_s": 0.2, **more}
    with writing(door.node.engine) as connection:
        revisions.add(connection, revisions.Kind.DESTINATIONS, [entry], author="test")


def begun(door: Door) -> None:
    """Wait until the follower has its place in the changes."""

    def place() -> bool:
        with reading(door.node.engine) as connection:
            return feeds.position(connection, "archive") is not None

    until(place, what="a place in the changes")


def fetched(door: Door, count: int) -> None:
    until(lambda: len(door.rows()) >= count, what=f"{count} instances")


def quiet(door: Door, archive: Orthanc) -> None:
    """Wait until everything that the archive has told was seen to."""

    def done() -> bool:
        last = ask(archive, "GET", "/changes?last")["Last"]
        with reading(door.node.engine) as connection:
            return feeds.position(connection, "archive") == last

    until(done, what="the end of the changes")


def received(door: Door) -> list[tuple[str, str, int, str]]:
    """Who has brought which study, how many instances, and how that ended."""
    query = select(audit).where(audit.c.act == "study.received").order_by(audit.c.id)
    with reading(door.node.engine) as connection:
        rows = connection.execute(query).all()
    return [(row.who, row.study_instance_uid, row.detail["instances"], row.detail["ending"]) for row in rows]


def test_a_stable_study_is_stored_byte_for_byte_digested_and_audited_and_only_what_is_new_comes_later(
    tmp_path: Path, archive: Orthanc
) -> None:
    slices = [slice_of("1.2.10", "1.2.10.1", number) for number in (1, 2, 3)]
    with listening(tmp_path) as door:
        door.accept(ARCHIVE)
        follow(door, archive)
        begun(door)
        upload(archive, *slices[:2])
        fetched(door, 2)
        quiet(door, archive)
        upload(archive, slices[2])
        fetched(door, 3)
        quiet(door, archive)
        until(lambda: all(row.dataset_digest and row.pixel_digest for row in door.rows()), what="the digests")
        rows = {row.sop_instance_uid: row for row in door.rows()}
        assert {uid: (row.version, row.status) for uid, row in rows.items()} == {
            one.SOPInstanceUID: (1, Status.CURRENT) for one in slices
        }
        for one in slices:
            assert door.content(rows[one.SOPInstanceUID]).endswith(dataset_bytes(one))
        until(lambda: len(received(door)) == 2, what="the audit")
        assert received(door) == [
            ("ORTHANC@127.0.0.1", "1.2.10", 2, "release"),
            ("ORTHANC@127.0.0.1", "1.2.10", 1, "release"),
        ]


@pytest.mark.long
def test_what_became_stable_while_we_were_away_is_there_after_the_start_and_what_was_there_before_us_is_not(
    tmp_path: Path, archive: Orthanc
) -> None:
    upload(archive, slice_of("1.2.20", "1.2.20.1", 1))
    stable(archive, "1.2.20")
    with listening(tmp_path) as door:
        door.accept(ARCHIVE)
        follow(door, archive)
        begun(door)
    upload(archive, slice_of("1.2.21", "1.2.21.1", 1))
    stable(archive, "1.2.21")
    with listening(tmp_path) as door:
        door.accept(ARCHIVE)
        fetched(door, 1)
        quiet(door, archive)
        assert [row.study_instance_uid for row in door.rows()] == ["1.2.21"]


@pytest.mark.long
def test_a_fetch_that_broke_off_is_finished_and_nothing_of_it_exists_twice(tmp_path: Path, archive: Orthanc) -> None:
    slices = [slice_of("1.2.30", "1.2.30.1", number) for number in (1, 2, 3)]
    with listening(tmp_path) as door:
        door.accept(ARCHIVE)
        follow(door, archive)
        begun(door)
        with reading(door.node.engine) as connection:
            place = feeds.position(connection, "archive")
        upload(archive, *slices)
        fetched(door, 3)
        quiet(door, archive)
    with writing(door.node.engine) as connection:  # as a kill before the end of the study leaves it
        feeds.move(connection, "archive", place or 0)
        connection.exec_driver_sql("DELETE FROM feed_file")
        connection.execute(association.update().values(closed_at=None, ending=None))
        connection.exec_driver_sql("DELETE FROM audit")
    door.node.engine.dispose()
    with listening(tmp_path) as door:
        door.accept(ARCHIVE)
        quiet(door, archive)
        assert sorted((row.sop_instance_uid, row.version) for row in door.rows()) == [
            (one.SOPInstanceUID, 1) for one in slices
        ]
        assert [path for path in door.files() if path.suffix == ".dcm"] == sorted(
            door.node.store.path(row.path) for row in door.rows()
        )
        until(lambda: len(received(door)) == 2, what="the audit")
        assert [ending for _, _, _, ending in received(door)] == ["lost", "release"]


@pytest.mark.long
def test_an_archive_that_may_not_store_here_is_an_alert_that_says_what_to_do_until_it_may(
    tmp_path: Path, archive: Orthanc
) -> None:
    with listening(tmp_path) as door:
        follow(door, archive)
        begun(door)
        upload(archive, slice_of("1.2.40", "1.2.40.1", 1))

        def standing() -> list[alerts.Alert]:
            with reading(door.node.engine) as connection:
                return alerts.list_(connection)

        (alert,) = until(standing, what="an alert")
        assert (alert.kind, alert.subject) == ("archive.not_followed", "archive")
        assert "source ORTHANC at 127.0.0.1: unknown AE title" in alert.what
        assert "in which ORTHANC may store" in alert.remedy
        assert door.rows() == []
        door.accept(ARCHIVE)
        fetched(door, 1)
        until(lambda: not standing(), what="the alert's end")


@pytest.mark.long
def test_a_disk_without_room_lets_the_study_wait(tmp_path: Path, archive: Orthanc) -> None:
    with listening(tmp_path, storage={"refuse_free_gb": 1e6, "purge_free_gb": 1e6}) as door:
        door.accept(ARCHIVE)
        follow(door, archive)
        begun(door)
        upload(archive, slice_of("1.2.50", "1.2.50.1", 1))

        def standing() -> list[alerts.Alert]:
            with reading(door.node.engine) as connection:
                return alerts.list_(connection)

        (alert,) = until(standing, what="an alert")
        assert "disk is full" in alert.what
        assert [path for path in door.files() if path.suffix in (".dcm", ".part")] == []
    with listening(tmp_path) as door:
        door.accept(ARCHIVE)
        fetched(door, 1)
