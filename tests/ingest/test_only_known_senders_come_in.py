"""Who comes in: known AE titles from known addresses, as many as there are slots; all others learn why not."""

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
)
from pynetdicom.pdu_primitives import A_ASSOCIATE

from router.config import Listener
from router.db import associations, audit, callers
from router.db.engine import reading
from router.domain.audit import Act, Outcome, Row
from router.ingest.admission import read
from router.ingest.offers import is_lossless, transfer_syntaxes
from router.ingest.status import Rejection, StoreStatus
from tests.conftest import component, until
from tests.ingest.conftest import SENDER, Door, association, dataset_bytes, listening, send, slice_of
from tests.ingest.wire import (
    ABORT,
    ACCEPTED,
    CT,
    REJECTED,
    RELEASE_RP,
    Wire,
    associate,
    p_data,
    pdu,
    pdv,
    store_command,
)


def reasons(content: bytes) -> tuple[int, int, int]:
    return content[1], content[2], content[3]


def rejection_of(door: Door, **values: str) -> tuple[int, int, int]:
    with Wire(door.port) as wire:
        wire.send(associate(**values))  # type: ignore[arg-type]
        kind, content = wire.pdu()
        assert kind == REJECTED
        return reasons(content)


def why(rejection: Rejection) -> tuple[int, int, int]:
    return rejection.value.result, rejection.value.source, rejection.value.reason


@pytest.mark.parametrize("rejection", list(Rejection))
def test_a_rejection_means_what_its_name_says(rejection: Rejection) -> None:
    primitive = A_ASSOCIATE()
    primitive.result, primitive.result_source, primitive.diagnostic = why(rejection)
    said = primitive.reason_str.upper().replace("-", " ").replace("RECOGNISED", "RECOGNIZED")
    assert rejection.name.replace("_", " ") in said


def test_sources_that_cannot_be_read_let_nobody_in(door: Door) -> None:
    door.accept({"ae_title": SENDER, "addresses": ["of a newer release"]})
    assert rejection_of(door) == why(Rejection.TEMPORARY_CONGESTION)


def test_an_unknown_caller_is_rejected_and_remembered(door: Door) -> None:
    for _ in range(2):
        assert rejection_of(door, calling="STRANGER") == why(Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED)

    def seen() -> list[callers.Caller]:
        with reading(door.node.engine) as connection:
            return [one for one in callers.seen(connection) if one.attempts == 2]

    (stranger,) = until(seen)
    assert (stranger.calling_ae_title, stranger.address) == ("STRANGER", "127.0.0.1")
    assert "unknown" in stranger.reason


def test_who_is_turned_away_is_in_the_audit_and_cannot_fill_it(door: Door) -> None:
    for _ in range(20):
        assert rejection_of(door, calling="STRANGER") == why(Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED)

    def all_counted() -> bool:
        with reading(door.node.engine) as connection:
            return any(one.attempts == 20 for one in callers.seen(connection))

    until(all_counted)  # the answer goes out first, the note is made after it
    assert rejection_of(door, called="SOMEBODY") == why(Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED)

    def rows() -> list[Row]:
        with reading(door.node.engine) as connection:
            found = audit.list_(connection, act=Act.TURNED_AWAY)
        return found if len(found) == 2 else []

    first, second = until(rows)
    assert (first.who, first.outcome, first.detail["unwritten"]) == ("STRANGER@127.0.0.1", Outcome.REFUSED, 0)
    assert "unknown" in first.detail["reason"]
    assert (second.who, second.detail["unwritten"]) == ("SENDER@127.0.0.1", 19)
    assert "SOMEBODY" in second.detail["reason"]


def test_case_matters_and_outer_blanks_do_not(door: Door) -> None:
    assert rejection_of(door, calling="sender") == why(Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED)
    with Wire(door.port) as wire:
        assert wire.associate(calling="  SENDER", called=" ISOCENTER") == ACCEPTED


def test_another_called_ae_title_is_rejected(door: Door) -> None:
    assert rejection_of(door, called="SOMEBODY") == why(Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED)


def test_a_known_title_from_another_address_is_rejected(door: Door) -> None:
    door.accept({"ae_title": SENDER, "addresses": ["10.0.0.0/8"]})
    assert rejection_of(door) == why(Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED)


def test_a_new_revision_of_the_sources_is_in_force_at_once(door: Door) -> None:
    rejection_of(door, calling="NEWCT")
    door.accept({"ae_title": "NEWCT", "addresses": ["127.0.0.0/8"]})
    with Wire(door.port) as wire:
        assert wire.associate(calling="NEWCT") == ACCEPTED
    assert rejection_of(door) == why(Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED)


def test_who_may_only_echo_may_not_store(door: Door) -> None:
    door.accept({"ae_title": SENDER, "addresses": ["any"], "services": ["echo"]})
    assert send(door, slice_of()) == [StoreStatus.NOT_AUTHORIZED]
    assert not door.files()


def test_slots_are_limited_in_all_and_per_ae_and_free_at_once(tmp_path: Path) -> None:
    with listening(tmp_path, max_associations=3, max_associations_per_ae=2) as door:
        wires = [Wire(door.port) for _ in range(2)]
        assert [wire.associate() for wire in wires] == [ACCEPTED, ACCEPTED]
        assert rejection_of(door) == why(Rejection.LOCAL_LIMIT_EXCEEDED)
        with Wire(door.port) as other:
            assert other.associate(calling="ISOCENTER_SEND") == ACCEPTED
            assert rejection_of(door, calling="ISOCENTER_SEND") == why(Rejection.LOCAL_LIMIT_EXCEEDED)
        assert wires[0].release() == RELEASE_RP
        with Wire(door.port) as again:
            assert again.associate() == ACCEPTED
        for wire in wires:
            wire.socket.close()


def test_a_full_disk_rejects_for_a_while(tmp_path: Path) -> None:
    with listening(tmp_path, storage={"purge_free_gb": 1e6, "refuse_free_gb": 1e6, "reject_free_gb": 1e6}) as door:
        assert rejection_of(door) == why(Rejection.TEMPORARY_CONGESTION)


@pytest.mark.long
@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ([ExplicitVRLittleEndian, JPEGLossless, ImplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([ImplicitVRLittleEndian, JPEGLossless, ExplicitVRLittleEndian], ExplicitVRLittleEndian),
        ([ImplicitVRLittleEndian, JPEG2000Lossless], JPEG2000Lossless),
        ([ExplicitVRBigEndian, ImplicitVRLittleEndian], ImplicitVRLittleEndian),
        ([JPEGBaseline8Bit, ImplicitVRLittleEndian], ImplicitVRLittleEndian),
        ([JPEGBaseline8Bit, DeflatedExplicitVRLittleEndian], DeflatedExplicitVRLittleEndian),
        ([JPEGBaseline8Bit], JPEGBaseline8Bit),
    ],
)
def test_the_transfer_syntax_is_chosen_in_our_order(door: Door, offered: list[str], taken: str) -> None:
    with association(door, syntaxes=offered) as made:
        assert [context.transfer_syntax for context in made.accepted_contexts] == [[taken]]


def test_pixels_that_lie_elsewhere_are_never_accepted() -> None:
    names = [syntax.name for syntax in transfer_syntaxes()]
    assert not any("JPIP" in name or "SMPTE" in name for name in names)
    assert len(names) == len(set(names)) > 30
    lossy = [not is_lossless(syntax) for syntax in transfer_syntaxes() if syntax.is_compressed]
    assert lossy == sorted(lossy)


def test_two_contexts_of_one_sop_class_may_have_two_transfer_syntaxes(door: Door) -> None:
    with Wire(door.port) as wire:
        contexts = {CT: (CTImageStorage, [ExplicitVRLittleEndian]), 5: (CTImageStorage, [JPEG2000Lossless])}
        assert wire.associate(contexts=contexts) == ACCEPTED


def test_an_asynchronous_window_is_granted_to_who_asks(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.send(associate(window=(0, 1)))
        kind, content = wire.pdu()
        assert kind == ACCEPTED
        at = content.index(b"\x53\x00\x00\x04")
        assert int.from_bytes(content[at + 4 : at + 6], "big") > 1


def test_associations_leave_a_trace(door: Door) -> None:
    send(door, slice_of())
    with Wire(door.port) as wire:
        wire.associate()

        def open_now() -> list[associations.Association]:
            with reading(door.node.engine) as connection:
                return associations.open_of(connection, SENDER)

        (mine,) = until(open_now)
        assert mine.address == "127.0.0.1"
        wire.send(b"\x07\0\0\0\0\x04\0\0\0\0")
    until(lambda: not open_now())
    with door.node.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT ending, instances FROM association ORDER BY opened_at").all()
    assert [tuple(row) for row in rows] == [("release", 1), ("abort", 0)]


def test_a_listener_that_died_closes_its_associations_at_the_next_start(tmp_path: Path) -> None:
    with listening(tmp_path) as door, reading(door.node.engine):
        pass
    with door.node.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO association (id, calling_ae_title, called_ae_title, address, listener, opened_at, instances)"
            " VALUES ('x', 'A', 'B', '::1', 'test', 1, 0)"
        )
    door.node.engine.dispose()
    with listening(tmp_path) as door, reading(door.node.engine) as connection:
        assert associations.open_now(connection) == []


def test_dcmtk_is_served(door: Door, data: Path) -> None:
    component("DCMTK")
    files = sorted((data / "chest_ct_philips_brilliance16_5mm" / "dicom").glob("*"))[:8]
    sent = subprocess.run(
        ["storescu", "-aet", SENDER, "-aec", "ISOCENTER", "127.0.0.1", str(door.port), *map(str, files)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    assert len(door.rows()) == len(files)
    echoed = subprocess.run(
        ["echoscu", "-aet", SENDER, "-aec", "ISOCENTER", "127.0.0.1", str(door.port)], check=False, capture_output=True
    )
    assert echoed.returncode == 0


def test_an_abort_in_the_middle_of_an_object_leaves_nothing(door: Door) -> None:
    with Wire(door.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(CT, 3, store_command("1.2.3.4.1"))), p_data(pdv(CT, 0, dataset_bytes(slice_of()))))
        until(door.files)
        wire.send(pdu(ABORT, bytes(4)))
        assert wire.is_closed()
    until(lambda: not door.files())


@given(
    st.text(
        alphabet=st.characters(codec="ascii", exclude_characters="\\", exclude_categories=["Cc"]), max_size=16
    ).filter(str.strip)
)
def test_a_source_is_known_by_its_title_without_outer_blanks(title: str) -> None:
    (sources,) = read([{"ae_title": title, "addresses": ["any"]}]).values()
    assert sources[0].ae_title == title.strip(" ")


@pytest.mark.parametrize(
    ("address", "caller", "known"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.1.0.0/16", "10.1.255.1", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("any", "8.8.8.8", True),
        ("::1", "::1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("fe80::/10", "fe80::1", True),
    ],
)
def test_addresses_are_single_or_networks(address: str, caller: str, known: bool) -> None:
    (sources,) = read([{"ae_title": "A", "addresses": [address]}]).values()
    assert sources[0].calls_from(caller) is known


def user(kind: int, name: str, passcode: str = "", *, wants_answer: bool = False) -> bytes:
    fields = b"".join(struct.pack(">H", len(one)) + one for one in (name.encode(), passcode.encode()))
    return struct.pack(">BBH", 0x58, 0, len(fields) + 2) + bytes([kind, wants_answer]) + fields


@pytest.mark.parametrize(
    ("identity", "comes_in"),
    [
        (user(2, "tech", "secret"), True),
        (user(2, "tech", "wrong"), False),
        (user(2, "other", "secret"), False),
        (user(1, "tech"), False),
        (user(5, "tech", "secret"), False),
        (b"", False),
    ],
)
def test_a_source_with_a_user_must_name_it_with_its_passcode(
    door: Door, tmp_path: Path, identity: bytes, comes_in: bool
) -> None:
    (tmp_path / "passcode").write_text("secret\n")
    door.accept(
        {"ae_title": SENDER, "addresses": ["any"], "username": "tech", "passcode_file": str(tmp_path / "passcode")}
    )
    with Wire(door.port) as wire:
        assert (wire.associate(user=identity) == ACCEPTED) is comes_in


def test_a_verified_user_is_told_so_where_it_asks(door: Door) -> None:
    door.accept({"ae_title": SENDER, "addresses": ["any"], "username": "tech"})
    with Wire(door.port) as wire:
        wire.send(associate(user=user(1, "tech", wants_answer=True)))
        kind, content = wire.pdu()
        assert (kind, content.endswith(struct.pack(">BBHH", 0x59, 0, 2, 0))) == (ACCEPTED, True)


def test_a_passcode_that_cannot_be_read_lets_nobody_in(door: Door, tmp_path: Path) -> None:
    door.accept({"ae_title": SENDER, "addresses": ["any"], "username": "tech", "passcode_file": str(tmp_path / "none")})
    with Wire(door.port) as wire:
        wire.send(associate(user=user(2, "tech", "secret")))
        kind, content = wire.pdu()
        assert (kind, reasons(content)) == (REJECTED, why(Rejection.TEMPORARY_CONGESTION))


def test_dcmtk_names_its_user(door: Door, tmp_path: Path) -> None:
    component("DCMTK")
    (tmp_path / "passcode").write_text("secret")
    door.accept(
        {"ae_title": SENDER, "addresses": ["any"], "username": "tech", "passcode_file": str(tmp_path / "passcode")}
    )
    slice_of().save_as(tmp_path / "one.dcm", enforce_file_format=True)
    for passcode, code in (("secret", True), ("wrong", False)):
        sent = subprocess.run(
            ["storescu", "-aet", SENDER, "-aec", "ISOCENTER", "-usr", "tech", "-pwd", passcode, "-rsp", "127.0.0.1",
             str(door.port), str(tmp_path / "one.dcm")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (sent.returncode == 0) is code, sent.stderr
    assert len(door.rows()) == 1


def test_private_sop_classes_are_stored_where_it_is_said(tmp_path: Path) -> None:
    private = "1.3.12.2.1107.5.99.3.11"
    made = slice_of(SOPClassUID=private)
    made.file_meta.MediaStorageSOPClassUID = private
    with listening(tmp_path, private_sop_classes=[private]) as door:
        assert send(door, made) == [StoreStatus.SUCCESS]
        assert [row.sop_class_uid for row in door.rows()] == [private]
    with pytest.raises(ValueError, match="is not a UID"):
        Listener.model_validate({"private_sop_classes": ["1.2.x"]})
