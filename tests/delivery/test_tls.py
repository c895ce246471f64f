"""An encrypted destination: who it is is verified before anything is said, and our certificate goes along."""

import ssl
import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread

from router.config import Tls
from router.destinations import Context, Unreachable, dicom
from router.domain.delivery import Verdict
from router.tls import server_context
from tests import certificates
from tests.conftest import component, until
from tests.delivery.objects import image, result_set
from tests.delivery.scp import archive
from tests.servers import free_port, listens

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom 3.0.4 forgets the socket whose connect was refused


class Pki:
    """An authority, our certificate and the archive's."""

    def __init__(self, folder: Path) -> None:
        self.authority = certificates.authority(folder)
        self.us = certificates.issue(self.authority, folder, "us", "isocenter.example")
        self.far = certificates.issue(self.authority, folder, "far", "localhost", "127.0.0.1")

    def context(self) -> Context:
        tls = Tls(
            certificate_file=self.us.certificate_file,
            key_file=self.us.key_file,
            ca_file=self.authority.certificate_file,
        )
        return Context(calling_ae_title="ISOCENTER", timeout_s=10, tls=tls)

    def archive(self) -> ssl.SSLContext:
        """The archive's side, which asks for our certificate."""
        tls = Tls(
            certificate_file=self.far.certificate_file,
            key_file=self.far.key_file,
            ca_file=self.authority.certificate_file,
        )
        return server_context(tls, "required")


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def settings(port: int) -> dicom.Settings:
    return dicom.Settings(kind="dicom", name="pacs", ae_title="ARCHIVE", host="127.0.0.1", port=port, tls=True)


def test_everything_that_is_said_to_an_encrypted_archive_is_encrypted(tmp_path: Path, pki: Pki) -> None:
    outgoing = result_set(tmp_path)
    with archive(finds=True, commits=True, tls=pki.archive()) as far:
        there, context = settings(far.port), pki.context()
        dicom.echo(there, context)
        assert {one.verdict for one in dicom.send(there, outgoing, context)} == {Verdict.ACCEPTED}
        uids = frozenset(one.sop_instance_uid for one in outgoing)
        assert dicom.confirm(there, outgoing, context) == uids
        said = dicom.commit(there, outgoing, "2.25.7", context)
    assert getattr(said, "committed", None) == uids


def test_an_archive_whose_certificate_nobody_vouches_for_is_told_nothing(tmp_path: Path, pki: Pki) -> None:
    stranger = Pki(tmp_path / "strange")
    with (
        archive(tls=stranger.archive()) as far,
        pytest.raises(Unreachable, match=r"no encrypted connection \(certificate"),
    ):
        list(dicom.send(settings(far.port), [image(tmp_path)], pki.context()))
    assert far.asked == []


def test_a_plain_archive_is_not_spoken_to_in_the_clear(tmp_path: Path, pki: Pki) -> None:
    with archive() as far, pytest.raises(Unreachable):
        list(dicom.send(settings(far.port), [image(tmp_path)], pki.context()))
    assert far.asked == []


def test_dcmtk_takes_a_set_by_tls(tmp_path: Path, pki: Pki) -> None:
    component("DCMTK")
    port, taken = free_port(), tmp_path / "taken"
    taken.mkdir()
    keys = ["+tls", str(pki.far.key_file), str(pki.far.certificate_file), "+cf", str(pki.authority.certificate_file)]
    server = subprocess.Popen(["storescp", *keys, "--aetitle", "ARCHIVE", "-od", taken, str(port)])
    try:
        until(lambda: listens(port), what="storescp listens")
        outgoing = result_set(tmp_path)
        assert {one.verdict for one in dicom.send(settings(port), outgoing, pki.context())} == {Verdict.ACCEPTED}
    finally:
        server.terminate()
        server.wait(10)
    assert {dcmread(path).SOPInstanceUID for path in taken.iterdir()} == {one.sop_instance_uid for one in outgoing}
