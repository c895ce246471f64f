"""C-STORE as real archives answer it: busy, refusing, aborting, old."""

import os
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom.sop_class import CTImageStorage, SegmentationStorage  # type: ignore[attr-defined]

from router.destinations import Context, Rejected, Unreachable
from router.destinations.dicom import Settings, batches, parcel, send
from router.domain.delivery import Outgoing, Verdict
from tests.conftest import component
from tests.delivery.objects import big_endian, image, result_set
from tests.delivery.scp import Archive, aborts, archive

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom 3.0.4 forgets the socket whose connect was refused

CONTEXT = Context(calling_ae_title="ISOCENTER", timeout_s=5)


def settings(far: Archive, **more: object) -> Settings:
    return Settings.model_validate(
        {"kind": "dicom", "name": "pacs", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": far.port, **more}
    )


def data_set(item: Outgoing) -> bytes:
    return item.path.read_bytes()[parcel(item).offset :]


def test_the_data_set_leaves_as_the_very_bytes_that_lie_in_the_store(tmp_path: Path) -> None:
    item = image(tmp_path)
    with archive() as far:
        list(send(settings(far), [item], CONTEXT))
    assert far.kept[item.sop_instance_uid] == data_set(item)
    assert far.syntaxes[item.sop_instance_uid] == ExplicitVRLittleEndian


def sized(folder: Path, length: int) -> Outgoing:
    """An instance with so many bytes of pixels, no two alike."""
    item = image(folder)
    dataset = dcmread(item.path)
    dataset.PixelData = os.urandom(length)
    dataset.save_as(item.path)
    return item


def test_instances_of_all_sizes_arrive_whole_though_each_is_begun_to_be_read_before_its_turn(tmp_path: Path) -> None:
    items = [sized(tmp_path, length) for length in (512, 1 << 20, 2_500_000, 512, 512, 1_100_000)]
    with archive() as far:
        list(send(settings(far), items, CONTEXT))
    assert far.kept == {item.sop_instance_uid: data_set(item) for item in items}


def test_a_file_that_is_gone_before_its_turn_takes_nothing_from_the_one_before_it(tmp_path: Path) -> None:
    first, second = image(tmp_path), image(tmp_path)
    with archive() as far:
        sending = send(settings(far), [first, second], CONTEXT)
        far.answers = [lambda event: second.path.unlink() or 0]
        assert next(sending).verdict is Verdict.ACCEPTED
        with pytest.raises(FileNotFoundError):
            next(sending)
    assert set(far.kept) == {first.sop_instance_uid}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_a_peer_that_takes_only_implicit_little_endian_gets_the_same_values(tmp_path: Path, syntax: str) -> None:
    item = image(tmp_path, syntax=ExplicitVRLittleEndian)
    before = dcmread(item.path)
    if syntax == ExplicitVRBigEndian:
        component("DCMTK")
        item.path.write_bytes(big_endian(before))
    if syntax == RLELossless:
        before.compress(RLELossless, generate_instance_uid=False)
        before.save_as(item.path)
        before.decompress(generate_instance_uid=False)
    with archive(syntaxes=[ImplicitVRLittleEndian]) as far:
        (receipt,) = send(settings(far), [item], CONTEXT)
    assert receipt.verdict is Verdict.ACCEPTED
    assert far.syntaxes[item.sop_instance_uid] == ImplicitVRLittleEndian
    after = far.dataset(item.sop_instance_uid)
    assert after.SOPInstanceUID == item.sop_instance_uid
    assert after.PixelData == before.PixelData
    assert after["ReferencedImageSequence"].value == before["ReferencedImageSequence"].value
    assert after.get_item("SliceThickness").value == b"0.50000 "
    assert len(after) == len(before)


def test_a_peer_that_does_not_know_segmentations_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    segmentation, other = result_set(tmp_path)
    with archive(classes=[str(CTImageStorage)]) as far:
        first, second = send(settings(far), [segmentation, other], CONTEXT)
    assert first.verdict is Verdict.NEVER
    assert (first.detail, first.refused) == ("ARCHIVE does not take Segmentation Storage", (SegmentationStorage,))
    assert second.verdict is Verdict.ACCEPTED
    assert far.asked == [other.sop_instance_uid]


def test_a_peer_that_takes_segmentations_otherwise_encoded_is_not_said_to_refuse_them(tmp_path: Path) -> None:
    segmentation, other = result_set(tmp_path)
    with archive(syntaxes=[RLELossless]) as far:
        first, second = send(settings(far), [segmentation, other], CONTEXT)
    assert (first.verdict, first.refused, second.verdict, second.refused) == (Verdict.NEVER, (), Verdict.NEVER, ())
    assert "takes Segmentation Storage and " in first.detail
    assert "in no transfer syntax in which we have it" in first.detail


def test_a_peer_that_knows_none_of_it_says_so_for_each(tmp_path: Path) -> None:
    with archive(classes=[]) as far:
        receipts = list(send(settings(far), result_set(tmp_path), CONTEXT))
    assert [receipt.verdict for receipt in receipts] == [Verdict.NEVER] * 2


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(0xA700, "later"), (0x0110, "later"), (0xC123, "later"), (0x0122, "never"), (0x0124, "never"), (0xA900, "never"),
     (0xB000, "accepted"), (0xB007, "accepted"), (0x0000, "accepted")],
)  # fmt: skip
def test_each_answer_is_kept_with_what_it_means(tmp_path: Path, status: int, verdict: str) -> None:
    with archive(state=Archive(answers=[status])) as far:
        (receipt,) = send(settings(far), [image(tmp_path)], CONTEXT)
    assert (receipt.status, receipt.verdict) == (status, verdict)
    assert receipt.detail.startswith(f"{status:04X} (")


def test_one_exact_answer_can_be_told_to_mean_something_else_there(tmp_path: Path) -> None:
    with archive(state=Archive(answers=[0xC001, 0xC002])) as far:
        receipts = list(send(settings(far, answers={"C001": "never"}), result_set(tmp_path), CONTEXT))
    assert [receipt.verdict for receipt in receipts] == ["never", "later"]


def test_an_abort_in_the_middle_is_worth_another_try(tmp_path: Path) -> None:
    first, second = result_set(tmp_path)
    with archive(state=Archive(answers=[0x0000, aborts])) as far:
        sending = send(settings(far), [first, second], CONTEXT)
        assert next(sending).verdict is Verdict.ACCEPTED
        with pytest.raises(Unreachable, match="ended the association"):
            next(sending)
    assert set(far.kept) == {first.sop_instance_uid}


def test_a_caller_that_is_not_known_there_is_not_tried_again(tmp_path: Path) -> None:
    with archive(require_calling=["SOMEONE"]) as far, pytest.raises(Rejected, match="rejected the association") as why:
        list(send(settings(far), [image(tmp_path)], CONTEXT))
    assert not why.value.retryable


def test_a_destination_may_know_us_by_another_title(tmp_path: Path) -> None:
    with archive(require_calling=["SOMEONE"]) as far:
        (receipt,) = send(settings(far, calling_ae_title="SOMEONE"), [image(tmp_path)], CONTEXT)
    assert receipt.verdict is Verdict.ACCEPTED


def test_no_association_needs_more_contexts_than_there_are(tmp_path: Path) -> None:
    one = parcel(image(tmp_path, sop_class_uid=SegmentationStorage))
    many = [
        type(one)(
            item=Outgoing(sop_class_uid=f"1.2.{number}", sop_instance_uid="1.2", path=one.item.path),
            transfer_syntax_uid=one.transfer_syntax_uid,
            offset=one.offset,
        )
        for number in range(130)
    ]
    cut = list(batches(many))
    assert [len(batch) for batch in cut] == [64, 64, 2]
    assert [parcel for batch in cut for parcel in batch] == many
