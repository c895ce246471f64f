"""A digest names a content, whoever computes it and however it is encoded."""

import hashlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_sr.pixels import pixel_digest
from router.db.instances import InstanceRow, Status
from router.ingest import headers, part10
from router.ingest.digest import digests, identity_digest
from tests.conftest import until
from tests.ingest.conftest import Door, send, slice_of

OTHERS = {"PatientID": "P2", "IssuerOfPatientID": "HOSPITAL", "StudyInstanceUID": "1.2.9", "AccessionNumber": "A2"}


def digested(door: Door) -> list[InstanceRow]:
    def all_of_them() -> list[InstanceRow]:
        rows = door.rows()
        return rows if all(row.dataset_digest for row in rows) else []

    return until(all_of_them)


def test_the_pixels_digest_is_that_of_the_reader_of_files(door: Door, data: Path) -> None:
    files = [
        *sorted((data / "chest_ct_philips_brilliance16_5mm" / "dicom").glob("*"))[:2],
        *sorted((data / "odd_series_dicom2nifti" / "generic_compressed_j2k_001").glob("*"))[:2],
        *sorted((data / "odd_series_dicom2nifti" / "generic_compressed_jpegls_001").glob("*"))[2:],
    ]
    assert send(door, *[dcmread(path) for path in files]) == [0] * len(files)
    rows = digested(door)
    assert len(rows) == len(files)
    for row in rows:
        assert row.pixel_digest == pixel_digest(door.node.store.path(row.path))


def test_twins_in_two_compressions_are_one_instance_with_one_pixel_digest(door: Door, data: Path) -> None:
    twins = [
        dcmread(min((data / "odd_series_dicom2nifti" / f"generic_compressed_{name}_001").glob("*")))
        for name in ("j2k", "jpegls")
    ]
    assert twins[0].SOPInstanceUID == twins[1].SOPInstanceUID
    assert send(door, *twins) == [0, 0]
    first, second = digested(door)
    assert (first.status, second.status) == (Status.REPLACED, Status.CURRENT)
    assert first.pixel_digest == second.pixel_digest


def test_a_deflated_twin_has_the_same_pixel_digest(door: Door) -> None:
    plain, deflated = slice_of(number=1), slice_of(number=2, pixels=bytes([1]) * 512)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert send(door, plain, deflated) == [0, 0]
    first, second = digested(door)
    assert second.transfer_syntax_uid == DeflatedExplicitVRLittleEndian
    assert first.pixel_digest == second.pixel_digest == pixel_digest(door.node.store.path(second.path))


def test_digests_are_plain_sha256(door: Door) -> None:
    made = slice_of()
    send(door, made)
    (row,) = digested(door)
    content = door.content(row)
    assert row.pixel_digest == hashlib.sha256(made.PixelData).hexdigest()
    start = content.index(b"\x08\x00\x16\x00UI")
    assert row.dataset_digest == hashlib.sha256(content[start:]).hexdigest()


@pytest.mark.parametrize("keyword", OTHERS)
def test_each_part_of_the_identity_counts(keyword: str) -> None:
    facts = {"PatientID": "P1", "IssuerOfPatientID": "", "StudyInstanceUID": "1.2.3", "AccessionNumber": "A1"}
    assert identity_digest(facts) != identity_digest(facts | {keyword: OTHERS[keyword]})  # type: ignore[arg-type]
    assert identity_digest(facts) == identity_digest(dict(reversed(facts.items())))  # type: ignore[arg-type]


def test_a_part_of_the_identity_cannot_pass_for_another() -> None:
    assert identity_digest({"PatientID": "AB", "AccessionNumber": ""}) != identity_digest(
        {"PatientID": "A", "AccessionNumber": "B"}
    )


def test_a_file_without_an_end_of_its_fragments_is_digested(tmp_path: Path, data: Path) -> None:
    source = min((data / "odd_series_dicom2nifti" / "generic_compressed_j2k_001").glob("*"))
    content = source.read_bytes()
    assert content.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0")
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(content[:-8])
    start = part10.dataset_offset(content)
    for path, whole in ((source, content), (cut, content[:-8])):
        header = headers.read(whole, str(dcmread(source).file_meta.TransferSyntaxUID), start=start)
        assert digests(path, 1, row_of(header)).pixel_digest == pixel_digest(source)


def row_of(header: headers.Header) -> InstanceRow:
    return InstanceRow(
        sop_instance_uid="1", version=1, status=Status.CURRENT, study_instance_uid="", series_instance_uid="",
        sop_class_uid="", transfer_syntax_uid="", instance_number="", path="", size=0,
        pixel_offset=header.pixel_offset, pixel_length=header.pixel_length, header={},
        dataset_digest=None, pixel_digest=None, identity_digest=None, ours=False, association_id=None, received_at=0,
    )  # fmt: skip
