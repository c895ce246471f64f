"""The same instance again: a repeat is one copy while its file is there, a correction a version, a conflict apart."""

import copy
import threading
from array import array
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, BasicTextSRStorage, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from sqlalchemy import select

from router.db import instances
from router.db.engine import reading, writing
from router.db.instances import InstanceRow, Status
from router.db.tables import job, result, result_set, study
from router.ingest.status import StoreStatus
from tests.conftest import until
from tests.ingest.conftest import Door, association, listening, send, slice_of


def states(door: Door) -> list[tuple[int, Status]]:
    return [(row.version, row.status) for row in door.rows()]


def study_row(door: Door, uid: str = "1.2.3") -> dict[str, object]:
    with reading(door.node.engine) as connection:
        return dict(connection.execute(select(study).where(study.c.study_instance_uid == uid)).one()._mapping)


def settled(door: Door) -> None:
    """As decide leaves a study: complete, nothing to look at."""
    with writing(door.node.engine) as connection:
        connection.execute(study.update().values(state="complete", decide_at=None))


def test_a_repeat_is_success_and_one_copy(door: Door) -> None:
    assert send(door, slice_of(), slice_of(), slice_of()) == [0, 0, 0]
    assert states(door) == [(1, Status.CURRENT)]
    assert len(door.files()) == 1


def test_a_repeat_leaves_a_complete_study_alone(door: Door) -> None:
    send(door, slice_of())
    settled(door)
    send(door, slice_of())
    assert study_row(door)["state"] == "complete"


def test_a_repeat_whose_file_is_gone_is_stored_again(door: Door) -> None:
    send(door, slice_of())
    (row,) = until(lambda: [row for row in door.rows() if row.dataset_digest])
    door.node.store.path(row.path).unlink()
    assert send(door, slice_of()) == [0]
    (again,) = door.rows()
    assert again.version == 1
    assert door.node.store.has(again.path, size=again.size)
    assert again.path != row.path


@pytest.mark.long
def test_a_repeat_whose_file_is_cut_short_is_stored_again(door: Door) -> None:
    send(door, slice_of())
    (row,) = until(lambda: [row for row in door.rows() if row.dataset_digest])
    door.node.store.path(row.path).write_bytes(door.content(row)[:300])
    assert send(door, slice_of()) == [0]
    (again,) = door.rows()
    assert door.node.store.has(again.path, size=again.size)


@pytest.mark.long
def test_a_repeat_after_a_purge_is_stored_again(door: Door) -> None:
    send(door, slice_of())
    (row,) = until(lambda: [row for row in door.rows() if row.dataset_digest])
    with writing(door.node.engine) as connection:
        instances.mark_lost(connection, [row.path])
    door.node.store.discard(row.path)
    assert send(door, slice_of()) == [0]
    assert states(door) == [(1, Status.CURRENT)]
    assert len(door.files()) == 1


def test_another_identity_is_the_next_version_and_the_study_s_name(door: Door) -> None:
    send(door, slice_of())
    settled(door)
    assert send(door, slice_of(PatientID="P2", PatientName="MERGED^NAME")) == [0]
    assert states(door) == [(1, Status.REPLACED), (2, Status.CURRENT)]
    old, new = door.rows()
    assert old.pixel_digest == new.pixel_digest
    assert old.identity_digest != new.identity_digest
    assert study_row(door)["patient_id"] == "P2"
    assert study_row(door)["state"] == "receiving"


def test_a_correction_of_a_correction_counts_on(door: Door) -> None:
    send(door, slice_of(), slice_of(PatientID="P2"), slice_of())
    assert states(door) == [(1, Status.REPLACED), (2, Status.REPLACED), (3, Status.CURRENT)]


def test_another_study_is_a_correction_and_what_is_left_of_the_first_is_looked_at(door: Door) -> None:
    send(door, slice_of(number=1), slice_of(number=2))
    settled(door)
    send(door, slice_of(number=1, StudyInstanceUID="1.2.9"))
    assert study_row(door, "1.2.9")["decide_at"] is not None
    assert study_row(door, "1.2.3")["state"] == "receiving"
    assert {(row.study_instance_uid, row.version, row.status) for row in door.rows()} == {
        ("1.2.3", 1, Status.CURRENT),
        ("1.2.3", 1, Status.REPLACED),
        ("1.2.9", 2, Status.CURRENT),
    }


def test_a_study_that_has_lost_all_its_instances_is_looked_at_after_the_last_one(door: Door) -> None:
    send(door, slice_of())
    settled(door)
    send(door, slice_of(StudyInstanceUID="1.2.9"))
    assert study_row(door, "1.2.3")["state"] == "receiving"
    assert study_row(door, "1.2.3")["last_instance_at"] == study_row(door, "1.2.9")["last_instance_at"]


def recoded(original: FileDataset, syntax: str) -> FileDataset:
    """The same object in another transfer syntax."""
    made = copy.deepcopy(original)
    if syntax == RLELossless:
        made.compress(syntax, generate_instance_uid=False)
        return made
    if syntax == ExplicitVRBigEndian:
        made.PixelData = swapped(made.PixelData)
    made.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = BytesIO()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    dcmwrite(buffer, made, implicit_vr=implicit, little_endian=little, force_encoding=True)
    buffer.seek(0)
    return dcmread(buffer)


def swapped(value: bytes) -> bytes:
    """16 bit words in the other byte order."""
    words = array("H", value)
    words.byteswap()
    return words.tobytes()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_another_encoding_of_the_same_pixels_is_a_correction_with_the_same_pixel_digest(
    door: Door, syntax: str
) -> None:
    original = slice_of(pixels=bytes(range(256)) * 2)
    encoded = recoded(original, syntax)
    assert send(door, original) == [0]
    assert send(door, encoded) == [0]
    old, new = door.rows()
    assert (old.status, new.status) == (Status.REPLACED, Status.CURRENT)
    assert new.transfer_syntax_uid == syntax
    assert new.pixel_digest == old.pixel_digest


def test_other_pixels_are_a_conflict_kept_apart(door: Door) -> None:
    send(door, slice_of())
    settled(door)
    assert send(door, slice_of(pixels=b"\7" * 512)) == [StoreStatus.SUCCESS]
    assert states(door) == [(1, Status.CURRENT), (2, Status.CONFLICT)]
    assert study_row(door)["state"] == "complete"
    assert len(door.files()) == 2


@pytest.mark.parametrize(
    "change",
    [{"ImagePositionPatient": [0, 0, 77]}, {"RescaleSlope": "2"}, {"PhotometricInterpretation": "MONOCHROME1"}],
)
def test_another_geometry_is_a_conflict(door: Door, change: dict[str, object]) -> None:
    send(door, slice_of(), slice_of(**change))
    assert states(door) == [(1, Status.CURRENT), (2, Status.CONFLICT)]


def test_a_conflict_again_is_kept_once(door: Door) -> None:
    other = slice_of(pixels=b"\7" * 512)
    send(door, slice_of(), other, other)
    assert states(door) == [(1, Status.CURRENT), (2, Status.CONFLICT)]
    assert len(door.files()) == 2


def test_a_conflict_is_refused_where_the_settings_say_so(tmp_path: Path) -> None:
    with listening(tmp_path, on_conflict="refuse") as door, association(door, slice_of()) as made:
        made.send_c_store(slice_of())
        answer = made.send_c_store(slice_of(pixels=b"\7" * 512))
        assert answer.Status == StoreStatus.CANNOT_UNDERSTAND
        assert "pixels" in answer.ErrorComment
        assert states(door) == [(1, Status.CURRENT), (2, Status.CONFLICT)]


def report(**values: object) -> Dataset:
    made = slice_of(SOPClassUID=BasicTextSRStorage, Modality="SR", **values)
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated"):
        del made[keyword]
    made.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    return made


def test_an_object_without_pixels_is_judged_by_all_but_its_identity(door: Door) -> None:
    send(door, report(ContentDate="20250101"), report(ContentDate="20250101", PatientID="P2"))
    assert states(door) == [(1, Status.REPLACED), (2, Status.CURRENT)]
    send(door, report(ContentDate="20250303", PatientID="P2"))
    assert states(door)[-1] == (3, Status.CONFLICT)


def test_the_real_conflict_in_the_chest_radiographs(door: Door, data: Path) -> None:
    pair = [dcmread(path) for path in sorted((data / "cxr").glob("*.dcm")) if dcmread(path).get("Modality") == "CR"]
    by_uid: dict[str, list[Dataset]] = {}
    for one in pair:
        by_uid.setdefault(one.SOPInstanceUID, []).append(one)
    twins = next(group for group in by_uid.values() if len(group) == 2)
    assert send(door, *twins) == [0, 0]
    assert states(door) == [(1, Status.CURRENT), (2, Status.CONFLICT)]


def test_two_associations_with_the_same_instance_at_once_leave_one_copy(door: Door) -> None:
    start = threading.Barrier(8)
    answers: list[int] = []

    def sender() -> None:
        with association(door, slice_of()) as made:
            start.wait()
            answers.extend(made.send_c_store(slice_of(number=number)).Status for number in range(1, 6))

    threads = [threading.Thread(target=sender) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [0] * 40
    rows: list[InstanceRow] = door.rows()
    assert [(row.version, row.status) for row in rows] == [(1, Status.CURRENT)] * 5
    assert len(door.files()) == 5


def test_our_own_results_are_known_and_never_reopen_a_study(door: Door) -> None:
    send(door, slice_of())
    settled(door)
    send(door, slice_of(number=2, Manufacturer="Isocenter"))
    assert [row.ours for row in door.rows()] == [False, True]
    assert study_row(door)["state"] == "complete"


def test_a_result_known_by_its_uid_is_ours_whatever_a_pacs_made_of_it(door: Door) -> None:
    uid = "2.25.12345"
    with writing(door.node.engine) as connection:
        job_id = connection.execute(
            job.insert().values(
                lane="infer", state="done", study_instance_uid="1.2.3", generation=1, not_before=0, created_at=0
            )
        ).inserted_primary_key[0]
        set_id = connection.execute(
            result_set.insert().values(
                job_id=job_id, profile="{}", study_instance_uid="1.2.3", generation=1, built_at=0
            )
        ).inserted_primary_key[0]
        connection.execute(
            result.insert().values(
                sop_instance_uid=uid, result_set_id=set_id, ordinal=0, kind="segmentation", sop_class_uid="1.2",
                series_instance_uid="1.2.3.9", path="results/00/x.dcm", digest="0",
            )
        )  # fmt: skip
    made = slice_of(SOPInstanceUID=uid, Manufacturer="SOME PACS")
    made.file_meta.MediaStorageSOPInstanceUID = uid
    assert send(door, made) == [0]
    assert [row.ours for row in door.rows()] == [True]
    assert study_row(door)["decide_at"] is None
