"""What cannot be stored gets the status that says why, and leaves nothing behind; what only looks odd is stored."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from router.db.engine import writing
from router.ingest.status import StoreStatus
from router.store import Store, StoreUnusable
from tests.ingest.conftest import Door, association, dataset_bytes, listening, send, slice_of
from tests.ingest.wire import CT, Wire, p_data, pdv, store_command, store_message


def nothing_left(door: Door) -> bool:
    return not door.rows() and not door.files()


def answer_to(door: Door, instance: str, dataset: bytes) -> int:
    with Wire(door.port) as wire:
        wire.associate()
        wire.send(store_message(instance, dataset))
        return wire.status()


@pytest.mark.parametrize("kept", [5, 60, 300, 700, -1, -520, -603])
def test_a_truncated_data_set_cannot_be_understood(door: Door, kept: int) -> None:
    assert answer_to(door, "1.2.3.4.1", dataset_bytes(slice_of())[:kept]) == StoreStatus.CANNOT_UNDERSTAND
    assert nothing_left(door)


@pytest.mark.parametrize("content", [b"", b"\0", b"no DICOM at all, just text " * 40, bytes(4000), b"\xff" * 4000])
def test_what_is_no_data_set_cannot_be_understood(door: Door, content: bytes) -> None:
    assert answer_to(door, "1.2.3.4.1", content) == StoreStatus.CANNOT_UNDERSTAND
    assert nothing_left(door)


def test_a_request_without_a_data_set_cannot_be_understood(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(CT, 3, store_command("1.2.3", data_set=0x0101))))
        assert wire.status() == StoreStatus.CANNOT_UNDERSTAND
    assert nothing_left(door)


def test_another_instance_than_the_command_s_does_not_match(door: Door) -> None:
    status = answer_to(door, "1.2.3.4.99", dataset_bytes(slice_of()))
    assert status == StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
    assert nothing_left(door)


def test_another_sop_class_than_the_command_s_does_not_match(door: Door) -> None:
    status = answer_to(door, "1.2.3.4.1", dataset_bytes(slice_of(SOPClassUID=MRImageStorage)))
    assert status == StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS
    assert nothing_left(door)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", ["", None])
def test_an_object_that_belongs_to_nothing_does_not_match(door: Door, keyword: str, value: str | None) -> None:
    assert send(door, slice_of(**{keyword: value})) == [StoreStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS]
    assert nothing_left(door)


def test_a_sop_class_other_than_the_context_s_is_not_supported(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.associate()
        command = store_command("1.2.3.4.1", sop_class=MRImageStorage)
        wire.send(p_data(pdv(CT, 3, command)), p_data(pdv(CT, 2, dataset_bytes(slice_of()))))
        assert wire.status() == StoreStatus.SOP_CLASS_NOT_SUPPORTED
    assert nothing_left(door)


def test_the_association_goes_on_after_a_refusal(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.associate()
        wire.send(store_message("1.2.3.4.1", b"nonsense"))
        assert wire.status() == StoreStatus.CANNOT_UNDERSTAND
        wire.send(store_message("1.2.3.4.1", dataset_bytes(slice_of())))
        assert wire.status() == StoreStatus.SUCCESS


def test_a_disk_below_its_mark_is_out_of_resources_but_answers_echo(tmp_path: Path) -> None:
    with listening(tmp_path, storage={"purge_free_gb": 1e6, "refuse_free_gb": 1e6}) as door:
        with association(door, slice_of()) as made:
            answer = made.send_c_store(slice_of())
            assert answer.Status == StoreStatus.OUT_OF_RESOURCES
            assert answer.ErrorComment
        with Wire(door.port) as wire:
            wire.associate()
        assert nothing_left(door)


@pytest.mark.parametrize("call", ["fsync", "rename", "writev", "open"])
def test_a_failing_disk_is_out_of_resources(door: Door, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real: Callable[..., object] = getattr(os, call)

    def fails(*arguments: object, **named: object) -> object:
        if call == "open" and not str(arguments[0]).endswith(".part"):
            return real(*arguments, **named)
        raise OSError(errno.EIO, "the disk says no")

    with association(door, slice_of()) as made:
        assert made.send_c_store(slice_of(number=1)).Status == StoreStatus.SUCCESS
        with monkeypatch.context() as broken:
            broken.setattr(os, call, fails)
            assert made.send_c_store(slice_of(number=2)).Status == StoreStatus.OUT_OF_RESOURCES
        assert len(door.rows()) == 1
        assert len(door.files()) == 1
        assert made.send_c_store(slice_of(number=2)).Status == StoreStatus.SUCCESS
    assert len(door.rows()) == 2


def test_an_index_that_cannot_be_written_is_out_of_resources(door: Door) -> None:
    with association(door, slice_of()) as made:
        assert made.send_c_store(slice_of(number=1)).Status == StoreStatus.SUCCESS
        with writing(door.node.engine) as connection:
            connection.exec_driver_sql("ALTER TABLE instance RENAME TO gone")
        assert made.send_c_store(slice_of(number=2)).Status == StoreStatus.OUT_OF_RESOURCES
        with writing(door.node.engine) as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO instance")
        assert len(door.files()) == 1
        assert made.send_c_store(slice_of(number=3)).Status == StoreStatus.SUCCESS


@contextmanager
def small_disk(folder: Path, size: str, options: str = "") -> Iterator[None]:
    """A file system of its own, where the machine lets us make one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_out_of_resources_and_what_was_stored_stays(tmp_path: Path) -> None:
    big = slice_of(number=9, pixels=bytes(512 * 2048), Rows=1024, Columns=512)
    with small_disk(tmp_path / "disk", "400k"), listening(tmp_path, storage={"path": tmp_path / "disk"}) as door:
        with association(door, slice_of()) as made:
            assert made.send_c_store(slice_of()).Status == StoreStatus.SUCCESS
            assert made.send_c_store(big).Status == StoreStatus.OUT_OF_RESOURCES
            assert made.send_c_store(slice_of(number=2)).Status == StoreStatus.SUCCESS
        assert len(door.files()) == 2


def test_a_store_that_turns_read_only_is_out_of_resources(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "4m"), listening(tmp_path, storage={"path": disk}) as door:
        assert send(door, slice_of()) == [0]
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert send(door, slice_of(number=2)) == [StoreStatus.OUT_OF_RESOURCES]
        assert len(door.files()) == 1


def test_a_store_that_cannot_be_made_names_the_folder_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreUnusable, match=r"taken.*storage\.path"):
        Store(tmp_path / "taken")


def late(**values: object) -> Callable[[], FileDataset]:
    return lambda: slice_of(**values)


def raw(keyword_bytes: dict[bytes, bytes]) -> Callable[[], bytes]:
    """A slice in which some value's bytes are replaced by others of the same length."""

    def build() -> bytes:
        content = dataset_bytes(slice_of(SliceThickness="1.00", SeriesNumber="1 ", PatientAge="045Y"))
        for old, new in keyword_bytes.items():
            assert old in content
            content = content.replace(old, new)
        return content

    return build


def without(*keywords: str) -> Callable[[], bytes]:
    def build() -> bytes:
        made = slice_of()
        for keyword in keywords:
            delattr(made, keyword)
        return dataset_bytes(made)

    return build


CLINICAL_DEFECTS: dict[str, Callable[[], bytes]] = {
    "study UID with a leading zero in a component": raw({b"1.2.3\0": b"1.02.3"[:6]}),
    "IS written as 1.0": raw({b"IS\x02\x001 ": b"IS\x02\x001."}),
    "IS that is a word": raw({b"IS\x02\x001 ": b"IS\x02\x00no"}),
    "DS that is no number": raw({b"1.00": b"thin"}),
    "DS with a comma": raw({b"1.00": b"1,00"}),
    "DS longer than 16 characters": lambda: dataset_bytes(slice_of()).replace(
        b"\x18\x00\x50\x00DS\x04\x001.0 ", b"\x18\x00\x50\x00DS\x16\x001.00000000000000000000"
    ),
    "age without its unit": raw({b"045Y": b"45  "}),
    "date with dots": raw({b"20250102": b"02.01.25"}),
    "date of the ACR-NEMA form": raw({b"20250102": b"2025.1.2"}),
    "time with colons": raw({b"101112": b"10:11 "}),
    "lower case code string": raw({b"CHEST": b"chest"}),
    "code string with a forbidden character": raw({b"CHEST": b"CH+EST"[:5]}),
    "Latin-1 name without SpecificCharacterSet": raw({b"PHANTOM^CHEST": b"M\xfcller^J\xf6rg  "[:13]}),
    "name padded with NUL": raw({b"PHANTOM^CHEST": b"PHANTOM^CHES\0"}),
    "patient ID with control characters": raw({b"P1": b"P\x07"}),
    "missing Type 2 attributes": without("PatientID", "AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
    "missing patient name": without("PatientName"),
    "missing modality": without("Modality"),
    "missing instance and series number": without("InstanceNumber", "SeriesNumber"),
    "missing position and orientation": without("ImagePositionPatient", "ImageOrientationPatient"),
    "unknown private attributes without a creator": lambda: b"".join(
        [dataset_bytes(slice_of())[:-524], b"\x21\x00\x10\x10LO\x04\x00what", dataset_bytes(slice_of())[-524:]]
    ),
    "padding after the pixel data": lambda: dataset_bytes(slice_of()) + bytes(6),
    "odd length": lambda: dataset_bytes(slice_of()).replace(
        b"\x10\x00\x20\x00LO\x02\x00P1", b"\x10\x00\x20\x00LO\x03\x00P12"
    ),
    "pixel data longer than its rows and columns": lambda: dataset_bytes(slice_of(pixels=bytes(600))),
    "an enumerated value nobody knows": lambda: dataset_bytes(slice_of(PatientSex="X", Modality="ZZ")),
    "SpecificCharacterSet misspelt": lambda: dataset_bytes(slice_of(SpecificCharacterSet="ISO_IR 100")).replace(
        b"ISO_IR 100", b"ISO-IR-100"
    ),
}


@pytest.mark.parametrize("defect", CLINICAL_DEFECTS)
def test_a_clinical_defect_is_stored_as_it_is(defect: str) -> None:
    """Covered together below; here each has its name and its bytes parse."""
    assert len(CLINICAL_DEFECTS[defect]()) > 700


def test_every_clinical_defect_is_accepted_and_kept_verbatim(door: Door) -> None:
    assert len(CLINICAL_DEFECTS) >= 20
    with Wire(door.port) as wire:
        wire.associate()
        for number, (defect, build) in enumerate(CLINICAL_DEFECTS.items()):
            name = f"1.2.3.4.{number + 100}"
            content = build().replace(b"\x08\x00\x18\x00UI\x0a\x001.2.3.4.1\0", with_uid(name))
            wire.send(store_message(name, content, message_id=number + 1))
            assert wire.status() == StoreStatus.SUCCESS, defect
            assert door.content(door.rows()[-1]).endswith(content), defect


def with_uid(name: str) -> bytes:
    value = name.encode() + b"\0" * (len(name) % 2)
    return b"\x08\x00\x18\x00UI" + len(value).to_bytes(2, "little") + value


@pytest.mark.parametrize(
    "uid", ["1.2.03.4", "1.2.3.4." + "9" * 80, "1.2.840.10008.1.0001", "1..2", "1.2.3.", "ANON.1.2"]
)
def test_an_odd_uid_is_kept_verbatim(door: Door, uid: str) -> None:
    content = dataset_bytes(slice_of()).replace(b"\x08\x00\x18\x00UI\x0a\x001.2.3.4.1\0", with_uid(uid))
    assert answer_to(door, uid, content) == StoreStatus.SUCCESS
    assert door.rows()[0].sop_instance_uid == uid


@pytest.mark.parametrize("uid", ["", "../../../etc/passwd", "a\0b.1", "1.2\n3", "1" * 10000, "1.2\\3", "\xff\xfe"])
def test_a_uid_that_is_none_cannot_be_understood(door: Door, uid: str) -> None:
    value = uid.encode("latin_1") + b"\0" * (len(uid) % 2)
    element = b"\x08\x00\x18\x00UI" + len(value).to_bytes(2, "little") + value
    content = dataset_bytes(slice_of()).replace(b"\x08\x00\x18\x00UI\x0a\x001.2.3.4.1\0", element)
    with Wire(door.port) as wire:
        wire.associate()
        wire.send(store_message(uid, content)) if uid.isascii() else wire.send(store_message("x/y", content))
        assert wire.status() == StoreStatus.CANNOT_UNDERSTAND
    assert nothing_left(door)


def test_transfer_syntax_of_a_slice_is_explicit() -> None:
    assert slice_of().file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
