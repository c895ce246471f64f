"""TLS by the BCP 195 profile: what is spoken, who is believed to be whom, and certificates that change at run time."""

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet

from router.config import Settings, Tls, load
from router.db import callers
from router.db.engine import reading
from router.errors import WrongSettings
from router.ingest.status import StoreStatus
from router.tls import CIPHERS, UnusableCredentials, client_context, names_of, server_context
from tests import certificates
from tests.certificates import Credential, key_pem
from tests.conftest import component, until
from tests.ingest.conftest import SENDER, Door, dataset_bytes, is_open, listening, slice_of
from tests.ingest.wire import (
    ACCEPTED,
    CT,
    RELEASE_RP,
    Wire,
    associate,
    p_data,
    pdv,
    store_command,
    store_message,
)
from tests.servers import free_port


class Pki:
    """An authority, the door's certificate, one of a scanner, and one of a stranger."""

    def __init__(self, folder: Path) -> None:
        self.authority = certificates.authority(folder)
        self.door = certificates.issue(self.authority, folder, "door", "localhost", "127.0.0.1")
        self.scanner = certificates.issue(self.authority, folder, "ct1", "ct1.example")
        self.stranger = certificates.issue(certificates.authority(folder / "strange"), folder, "stranger")

    @property
    def tls(self) -> dict[str, Path]:
        """The door's section of the settings."""
        return {
            "certificate_file": self.door.certificate_file,
            "key_file": self.door.key_file,
            "ca_file": self.authority.certificate_file,
        }

    def client(self, of: Credential | None = None) -> ssl.SSLContext:
        """What a sender would use, with this certificate."""
        own = {} if of is None else {"certificate_file": of.certificate_file, "key_file": of.key_file}
        return client_context(Tls(ca_file=self.authority.certificate_file, **own))


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


@contextmanager
def secured(folder: Path, pki: Pki, **listener: Any) -> Iterator[tuple[Door, int]]:
    """A door that listens with and without TLS, and its TLS port."""
    port = free_port()
    with listening(folder, tls=pki.tls, tls_port=port, **listener) as door:
        until(lambda: is_open(port))
        yield door, port


class SecureWire(Wire):
    """The same peer under TLS."""

    def __init__(self, port: int, context: ssl.SSLContext, **values: Any) -> None:
        super().__init__(port, **values)
        try:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        except OSError:
            self.socket.close()
            raise


def dcmtk(
    tool: str, port: int, pki: Pki, of: Credential | None, *arguments: object
) -> subprocess.CompletedProcess[str]:
    secure = ["+tls", of.key_file, of.certificate_file] if of else ["+tla"]
    trust = ["+cf", pki.authority.certificate_file]
    command = [tool, "-aet", SENDER, "-aec", "ISOCENTER", *secure, *trust, "localhost", port, *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=60)


def test_dcmtk_sends_and_is_answered_under_tls(tmp_path: Path, pki: Pki, data: Path) -> None:
    component("DCMTK")
    files = sorted((data / "chest_ct_philips_brilliance16_5mm" / "dicom").glob("*"))[:8]
    with secured(tmp_path, pki) as (door, port):
        echoed = dcmtk("echoscu", port, pki, pki.scanner)
        assert echoed.returncode == 0, echoed.stderr
        sent = dcmtk("storescu", port, pki, pki.scanner, *files)
        assert sent.returncode == 0, sent.stderr
        rows = door.rows()
        assert len(rows) == len(files)
        stored = {door.content(row)[-65536:] for row in rows}
    assert stored == {file.read_bytes()[-65536:] for file in files}


@pytest.mark.parametrize("profile", ["--profile-bcp195-nd", "--profile-bcp195", "--profile-bcp195-ex"])
def test_each_of_dcmtk_s_bcp_195_profiles_finds_a_common_cipher(tmp_path: Path, pki: Pki, profile: str) -> None:
    component("DCMTK")
    with secured(tmp_path, pki) as (_, port):
        done = dcmtk("echoscu", port, pki, pki.scanner, profile)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("policy", "who", "comes_in"),
    [
        ("required", "scanner", True),
        ("required", None, False),
        ("required", "stranger", False),
        ("optional", "scanner", True),
        ("optional", None, True),
        ("optional", "stranger", False),
        ("none", None, True),
    ],
)
def test_who_must_show_a_certificate_and_who_may(
    tmp_path: Path, pki: Pki, policy: str, who: str | None, comes_in: bool
) -> None:
    with secured(tmp_path, pki, client_certificate=policy) as (door, port):
        assert is_let_in(port, pki.client(getattr(pki, who) if who else None)) is comes_in
        with Wire(door.port) as wire:  # and nobody else was disturbed
            assert wire.associate() == ACCEPTED


def is_let_in(port: int, context: ssl.SSLContext, **values: Any) -> bool:
    try:
        with SecureWire(port, context) as wire:
            return wire.associate(**values) == ACCEPTED
    except OSError:  # in TLS 1.3 the refusal comes after the client's side of the handshake
        return False


def test_an_expired_certificate_is_no_certificate(tmp_path: Path, pki: Pki) -> None:
    old = certificates.issue(pki.authority, tmp_path / "pki", "old", days=-1)
    with secured(tmp_path, pki) as (_, port):
        assert not is_let_in(port, pki.client(old))


def test_a_revoked_certificate_is_turned_away_from_the_next_connection_on(tmp_path: Path, pki: Pki) -> None:
    other = certificates.issue(pki.authority, tmp_path / "pki", "mr2")
    crl = certificates.revocations(pki.authority, tmp_path / "crl.pem")
    port = free_port()
    with listening(tmp_path, tls={**pki.tls, "crl_file": crl}, tls_port=port, client_certificate="required"):
        until(lambda: is_open(port))
        assert is_let_in(port, pki.client(pki.scanner))
        certificates.revocations(pki.authority, crl, pki.scanner)
        assert not is_let_in(port, pki.client(pki.scanner))
        assert is_let_in(port, pki.client(other))
        certificates.revocations(pki.authority, crl, days=-1)
        assert not is_let_in(port, pki.client(other))  # who is revoked since then, nobody knows


def test_a_title_tied_to_a_certificate_is_nobody_else_s(tmp_path: Path, pki: Pki) -> None:
    other = certificates.issue(pki.authority, tmp_path / "pki", "mr2", "mr2.example")
    with secured(tmp_path, pki) as (door, port):
        door.accept({"ae_title": "CT1", "addresses": ["any"], "certificate_names": ["ct1.example"]})
        assert is_let_in(port, pki.client(pki.scanner), calling="CT1")
        assert not is_let_in(port, pki.client(other), calling="CT1")
        with Wire(door.port) as wire:
            assert wire.associate(calling="CT1") != ACCEPTED

        def told() -> set[str]:
            with reading(door.node.engine) as connection:
                return {one.reason for one in callers.seen(connection)}

        until(lambda: any("unknown certificate (" in reason for reason in told()))


def test_a_connection_without_tls_has_no_names() -> None:
    with socket.socket() as plain:
        assert names_of(plain) == names_of(None) == ()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_carry_whole_objects(tmp_path: Path, pki: Pki, version: ssl.TLSVersion) -> None:
    context = pki.client(pki.scanner)
    context.minimum_version = context.maximum_version = version
    pixels = bytes(range(256)) * 4096
    with secured(tmp_path, pki) as (door, port), SecureWire(port, context) as wire:
        assert wire.associate() == ACCEPTED
        for number in (1, 2):
            sent = dataset_bytes(slice_of(number=number, pixels=pixels, Rows=1024, Columns=512))
            wire.send(store_message(f"1.2.3.4.{number}", sent))
            assert wire.status() == StoreStatus.SUCCESS
        assert wire.release() == RELEASE_RP
        assert [door.content(row).endswith(pixels) for row in door.rows()] == [True, True]


def test_old_versions_and_weak_ciphers_are_not_spoken(pki: Pki) -> None:
    for context in (server_context(Tls(**pki.tls), "required"), pki.client(pki.scanner)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        old = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
        assert old
        assert all(name.startswith("ECDHE-") for name in old)
        assert all("GCM" in name or "CHACHA20" in name for name in old)


def test_tls_1_1_is_turned_away_on_the_wire(tmp_path: Path, pki: Pki) -> None:
    with secured(tmp_path, pki, client_certificate="none") as (_, port):
        said = {}
        for version in ("-tls1_1", "-tls1_2"):
            cipher = ["-cipher", f"{'ALL' if version == '-tls1_1' else CIPHERS.split(':@')[0]}:@SECLEVEL=0"]
            done = subprocess.run(
                ["openssl", "s_client", version, *cipher, "-connect", f"127.0.0.1:{port}"],
                input="", capture_output=True, text=True, check=False, timeout=30,
            )  # fmt: skip
            said[version] = done.stdout
        assert "Cipher is (NONE)" in said["-tls1_1"]
        assert "Cipher is ECDHE" in said["-tls1_2"]


def test_bytes_in_crumbs_are_understood(tmp_path: Path, pki: Pki) -> None:
    dataset = dataset_bytes(slice_of())
    with secured(tmp_path, pki) as (door, port), SecureWire(port, pki.client(pki.scanner)) as wire:
        message = associate()
        for at in range(0, len(message), 7):
            wire.send(message[at : at + 7])
        assert wire.pdu()[0] == ACCEPTED
        message = store_message("1.2.3.4.1", dataset, room=333)
        for at in range(0, len(message), 11):
            wire.send(message[at : at + 11])
        assert wire.status() == StoreStatus.SUCCESS
        assert len(door.rows()) == 1


def test_silence_in_the_handshake_and_in_a_record_ends_the_connection(tmp_path: Path, pki: Pki) -> None:
    with secured(tmp_path, pki, association_timeout_s=1, pdu_timeout_s=1) as (door, port):
        with Wire(port) as silent, Wire(port) as half:
            half.send(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a ClientHello
            began = time.monotonic()
            assert silent.is_closed()
            assert half.is_closed()
            assert time.monotonic() - began < 40
        with Wire(port) as plain:  # no TLS at all
            plain.send(associate())
            assert plain.is_closed()
        with SecureWire(port, pki.client(pki.scanner)) as wire:
            wire.associate()
            wire.send(p_data(pdv(CT, 3, store_command("1.2.3.4.1"))))
            raw = p_data(pdv(CT, 0, bytes(1000)))
            wire.send(raw[:500])
            until(door.files)
            until(lambda: not door.files())


def test_changed_certificates_are_in_force_with_the_next_connection(tmp_path: Path, pki: Pki) -> None:
    def serial(port: int) -> int:
        with SecureWire(port, pki.client(pki.scanner)) as wire:
            shown = wire.socket.getpeercert()  # type: ignore[attr-defined]
            assert wire.associate() == ACCEPTED
            return int(shown["serialNumber"], 16)

    with secured(tmp_path, pki) as (_, port):
        first = serial(port)
        assert first == pki.door.certificate.serial_number
        with SecureWire(port, pki.client(pki.scanner)) as open_all_the_time:
            assert open_all_the_time.associate() == ACCEPTED
            new = certificates.issue(pki.authority, tmp_path / "new", "door", "localhost")
            pki.door.certificate_file.write_bytes(new.certificate_file.read_bytes())
            assert serial(port) == first  # its key is not there yet
            pki.door.key_file.write_bytes(new.key_file.read_bytes())
            assert serial(port) == new.certificate.serial_number
            assert open_all_the_time.release() == RELEASE_RP


def test_objects_are_sent_back_under_tls(tmp_path: Path, pki: Pki) -> None:
    """Many of them: what is written waits for the peer, and goes through the same connection as what is read."""
    with secured(tmp_path, pki) as (door, port):
        door.accept(
            {"ae_title": SENDER, "addresses": ["any"], "certificate_names": ["ct1"], "services": ["store", "retrieve"]}
        )
        big = [slice_of(number=number, pixels=bytes(1 << 20), Rows=1024, Columns=512) for number in range(1, 5)]
        from pynetdicom import build_role, evt

        got = []

        def keep(event: Any) -> int:
            got.append(len(event.request.DataSet.getvalue()))
            return 0

        ae = AE(ae_title=SENDER)
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        ae.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
        made = ae.associate(
            "localhost", port, ae_title="ISOCENTER", tls_args=(pki.client(pki.scanner), "localhost"),
            ext_neg=[build_role(CTImageStorage, scu_role=True, scp_role=True)], evt_handlers=[(evt.EVT_C_STORE, keep)],
        )  # fmt: skip
        assert made.is_established
        assert [made.send_c_store(one).Status for one in big] == [0, 0, 0, 0]
        wanted = slice_of()
        for element in list(wanted):
            if element.keyword != "StudyInstanceUID":
                del wanted[element.tag]
        wanted.QueryRetrieveLevel = "STUDY"
        *_, (last, _) = made.send_c_get(wanted, StudyRootQueryRetrieveInformationModelGet)
        assert last.Status == 0
        made.release()
    assert got == [len(dataset_bytes(one)) for one in big]


def test_credentials_that_cannot_be_used_say_why(tmp_path: Path, pki: Pki) -> None:
    good = pki.tls
    locked = tmp_path / "locked.pem"
    locked.write_bytes(key_pem(pki.door.key, b"secret"))
    empty = tmp_path / "empty.pem"
    empty.touch()
    for wrong, says in (
        ({"certificate_file": tmp_path / "none.pem"}, "No such file"),
        ({"key_file": pki.scanner.key_file}, "key values mismatch"),
        ({"key_file": locked}, "password"),
        ({"ca_file": empty}, "empty.pem"),
        ({"ca_file": tmp_path / "none.pem"}, "No such file"),
        ({"crl_file": tmp_path / "none.pem"}, "No such file"),
        ({"crl_file": pki.door.certificate_file}, "no revocation list"),
    ):
        with pytest.raises(UnusableCredentials, match=says):
            server_context(Tls(**(good | wrong)), "required")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"listener": {"tls_port": 2762}}, "needs tls.certificate_file"),
        ({"listener": {"plain": False}}, "nobody could come in"),
        ({"tls": {"key_file": "a"}}, "go together"),
        ({"tls": {"crl_file": "a"}}, "crl_file needs ca_file"),
        ({"listener": {"tls_port": 1}, "tls": {"key_file": "a", "certificate_file": "b"}}, "needs tls.ca_file"),
    ],
)
def test_half_of_a_tls_configuration_is_refused(document: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings.model_validate(document)


def test_files_are_relative_to_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "isocenter.yaml"
    file.write_text("tls: {certificate_file: a.pem, key_file: /b.pem}\n")
    assert load(file).tls == Tls(certificate_file=tmp_path / "a.pem", key_file=Path("/b.pem"))
    file.write_text("tls: {certificate_file: a.pem}\n")
    with pytest.raises(WrongSettings, match=r"tls: .*go together"):
        load(file)
