"""Each scripted misconfiguration gets the diagnosis that names it: what, which thing, what to do."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage
from sqlalchemy import text

from router import rulebook, starter
from router.checkup import Diagnosis, Verdict, files, world, worst
from router.config import Tls, load
from router.db import revisions
from router.db.engine import connect, writing
from router.db.migrate import upgrade
from router.db.node import create
from router.db.revisions import Kind
from router.tls import server_context
from tests import certificates
from tests.conftest import component
from tests.delivery.scp import CLASSES, archive
from tests.servers import free_port, isocenter, orthanc

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom 3.0.4 forgets the socket whose connect was refused

BOOKS = starter.starter(ae_title="ARCHIVE", host="127.0.0.1", port=1)


@dataclass
class Made:
    """A node's files, as `init` makes them, without the command's two seconds."""

    folder: Path

    def write(self, **settings: Any) -> Path:
        """Its isocenter.yaml; sections are merged."""
        document = {
            "listener": {"host": "127.0.0.1", "port": free_port()},
            "inference": {"device": "cpu"},
            "delivery": {"timeout_s": 10},
            "storage": {"purge_free_gb": 0, "refuse_free_gb": 0, "reject_free_gb": 0},
        }
        for name, value in settings.items():
            document[name] = {**document.get(name, {}), **value} if isinstance(value, dict) else value
        path = self.folder / "isocenter.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    def put(self, kind: Kind, body: list[dict[str, Any]]) -> None:
        engine = connect(f"sqlite:///{self.folder}/isocenter.db")
        with writing(engine) as connection:
            revisions.add(connection, kind, body, author="test")
        engine.dispose()

    def pacs(self, port: int, **more: Any) -> None:
        """One destination at this port of loopback."""
        entry = {"name": "pacs", "kind": "dicom", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
        self.put(Kind.DESTINATIONS, [entry | more])

    def check(self, **settings: Any) -> list[Diagnosis]:
        return list(files.look(load(self.write(**settings))))

    def doctor(self, **settings: Any) -> list[Diagnosis]:
        return list(world.look(load(self.write(**settings))))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    (tmp_path / "store").mkdir()
    engine = connect(f"sqlite:///{tmp_path}/isocenter.db")
    upgrade(engine)
    create(engine)
    with writing(engine) as connection:
        for kind, body in BOOKS.items():
            revisions.add(connection, kind, body, author="test")
    engine.dispose()
    return Made(tmp_path)


def named(found: list[Diagnosis], about: str, *words: str, verdict: Verdict = Verdict.FAULT) -> None:
    """There is one diagnosis about this that says these words, and what to do."""
    said = [one for one in found if about in one.about and all(word in f"{one.what} {one.remedy}" for word in words)]
    assert said, "\n".join(map(str, found))
    assert {one.verdict for one in said} == {verdict}
    assert all(one.remedy for one in said)


def test_nothing_is_wrong_with_a_node_as_it_was_made(made: Made) -> None:
    assert worst(made.check()) is Verdict.OK, made.check()


def test_a_wrong_setting_is_named_with_its_line(made: Made) -> None:
    path = made.write(listener={"port": 99999})
    done = isocenter("check", "--config", path, "--json", check=False)
    (only,) = json.loads(done.stdout)
    assert done.returncode == 2
    assert only["verdict"] == "fault"
    assert "isocenter.yaml:" in only["what"]
    assert "65535" in only["what"]


def test_a_certificate_that_is_over_is_named(made: Made) -> None:
    ca = certificates.authority(made.folder)
    ours = certificates.issue(ca, made.folder, "us", "localhost", days=-1)
    tls = {"certificate_file": str(ours.certificate_file), "key_file": str(ours.key_file)}
    named(made.check(tls=tls), "us.pem", "over since", "Renew")


def test_a_revocation_list_that_is_over_is_named(made: Made) -> None:
    ca = certificates.authority(made.folder)
    crl = certificates.revocations(ca, made.folder / "crl.pem", days=-1)
    tls = {"ca_file": str(ca.certificate_file), "crl_file": str(crl)}
    named(made.check(tls=tls), "crl.pem", "over since", "Fetch it anew")


def test_a_key_of_another_certificate_is_named(made: Made) -> None:
    ca = certificates.authority(made.folder)
    ours, other = (certificates.issue(ca, made.folder, name, "localhost") for name in ("us", "other"))
    tls = {"certificate_file": str(ours.certificate_file), "key_file": str(other.key_file)}
    named(made.check(tls=tls), "tls", "us.pem", "key values mismatch")


def test_a_store_that_cannot_be_written_is_named(made: Made) -> None:
    named(made.doctor(storage={"path": "/proc/store"}), "store /proc/store", "cannot be written", "storage.path")


def test_a_disk_below_its_mark_is_named(made: Made) -> None:
    marks = {"purge_free_gb": 10**9, "refuse_free_gb": 10**9, "reject_free_gb": 0}
    named(made.check(storage=marks), "store", "A700", "Free space")


def test_sqlite_on_a_network_file_system_is_refused(made: Made) -> None:
    found = list(files.look(load(made.write()), kind_of=lambda path: "nfs4"))
    named(found, "isocenter.db", "nfs4", "PostgreSQL")
    named(found, "run_path", "nfs4", "local disk")


def test_a_database_that_is_not_there_or_is_of_a_newer_version_is_named(made: Made) -> None:
    named(made.check(database={"url": "sqlite:///nowhere.db"}), "nowhere.db", "no such file", "isocenter init")
    engine = connect(f"sqlite:///{made.folder}/isocenter.db")
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    named(made.check(), "isocenter.db", "newer Isocenter", "9999")


def test_a_rule_that_sends_to_nobody_is_named(made: Made) -> None:
    made.put(Kind.DESTINATIONS, [{"name": "other", "kind": "folder", "path": str(made.folder)}])
    named(made.check(), "rules", "pacs", "isocenter rules import")


def test_a_passcode_that_cannot_be_read_is_named(made: Made) -> None:
    source = {"ae_title": "CT1", "addresses": ["10.0.0.7"], "username": "ct", "passcode_file": "/nowhere/ct1"}
    made.put(Kind.SOURCES, [source])
    named(made.check(), "source CT1", "/nowhere/ct1", "Write the passcode")


FOLLOWED = {"ae_title": "ORTHANC", "addresses": ["10.1.0.9"], "services": ["store"]}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"ae_title": "OTHER"}, ("pull_as ORTHANC is not among the sources", "10.1.0.9")),
        ({"addresses": ["10.1.0.8"]}, ("does not come from 10.1.0.9", "--address 10.1.0.9")),
        ({"services": ["echo", "query"]}, ("may not store", "import")),
        ({"certificate_names": ["archive.example"]}, ("certificate", "of its own")),
        ({"username": "archive"}, ("user", "of its own")),
    ],
)
def test_an_orthanc_from_which_nothing_can_be_fetched_is_named(
    made: Made, source: dict[str, Any], words: tuple[str, ...]
) -> None:
    made.put(Kind.RULES, [])
    made.put(
        Kind.DESTINATIONS, [{"kind": "orthanc", "name": "archive", "url": "http://10.1.0.9:8042", "pull_as": "ORTHANC"}]
    )
    made.put(Kind.SOURCES, [FOLLOWED])
    assert worst(made.check()) is Verdict.OK, made.check()
    made.put(Kind.SOURCES, [FOLLOWED | source])
    named(made.check(), "destination archive", *words)


def test_a_name_of_an_orthanc_is_looked_up_by_the_doctor(made: Made) -> None:
    (one,) = rulebook.destinations(
        [{"kind": "orthanc", "name": "archive", "url": "http://localhost:8042", "pull_as": "ORTHANC"}]
    )
    assert files.literal(one) is None
    sources = rulebook.sources([FOLLOWED])
    assert list(files.followed(one, sources, None)) == []
    address = world.address_of("localhost")
    assert address in ("127.0.0.1", "::1")
    named(list(files.followed(one, sources, address)), "destination archive", "does not come from")


def test_nobody_at_a_destination_is_named(made: Made) -> None:
    port = free_port()
    made.pacs(port)
    found = made.doctor()
    named(found, "destination pacs", f"nobody listens on 127.0.0.1:{port}", "host and port")
    named(found, "listener", "the node does not run", verdict=Verdict.WARNING)


def test_a_name_without_an_address_is_named(made: Made) -> None:
    made.pacs(104, host="pacs.invalid")
    named(made.doctor(), "destination pacs", "pacs.invalid has no address", "Compare host")


def test_orthanc_is_well_and_a_wrong_title_of_it_is_named(made: Made, tmp_path: Path) -> None:
    component("Orthanc")
    with orthanc(tmp_path / "orthanc", {}, DicomCheckCalledAet=True) as far:
        made.put(Kind.SOURCES, [{"ae_title": far.title, "addresses": ["127.0.0.1"]}])
        made.pacs(far.dicom_port, ae_title=far.title)
        about = [one for one in made.doctor() if one.about == "destination pacs"]
        assert [one.verdict for one in about] == [Verdict.OK], about
        assert "Segmentation Storage" in about[0].what
        made.pacs(far.dicom_port, ae_title="ORTANC")
        named(made.doctor(), "destination pacs", "ae_title ORTANC")


def test_an_ae_title_of_ours_that_it_does_not_know_is_named(made: Made) -> None:
    with archive(require_calling=["SOMEBODY"]) as far:
        made.pacs(far.port)
        named(made.doctor(), "destination pacs", "Calling AE title not recognised", "ISOCENTER")


def test_a_refused_result_class_is_named(made: Made) -> None:
    with archive(classes=[CLASSES[0], CLASSES[2]]) as far:
        made.pacs(far.port)
        named(made.doctor(), "destination pacs", "refuses Segmentation Storage", '`profile: {"seg":"none"}`')
    with archive(classes=[SecondaryCaptureImageStorage, ComprehensiveSRStorage]) as far:
        made.pacs(far.port)
        instead = '`profile: {"overlay":"key","seg":"none","sr":"comprehensive"}`'
        named(made.doctor(), "destination pacs", "refuses Segmentation Storage", instead)


def test_a_certificate_of_another_name_is_named(made: Made) -> None:
    ca = certificates.authority(made.folder)
    with archive(tls=side(ca, made.folder, "pacs.example")) as far:
        made.pacs(far.port, tls=True)
        found = made.doctor(tls={"ca_file": str(ca.certificate_file)})
    named(found, "destination pacs", "certificate is not accepted", "another than 127.0.0.1")


def test_a_certificate_that_nobody_vouches_for_is_named(made: Made) -> None:
    ca, other = (certificates.authority(made.folder / name) for name in ("one", "two"))
    with archive(tls=side(ca, made.folder, "127.0.0.1")) as far:
        made.pacs(far.port, tls=True)
        found = made.doctor(tls={"ca_file": str(other.certificate_file)})
    named(found, "destination pacs", "certificate is not accepted", "tls.ca_file")


def test_tls_to_a_plain_port_is_named(made: Made) -> None:
    with archive() as far:
        made.pacs(far.port, tls=True)
        named(made.doctor(), "destination pacs", "no TLS on this port", "tls: false")


def test_a_commitment_report_that_would_be_turned_away_is_named(made: Made) -> None:
    made.put(Kind.SOURCES, [{"ae_title": "CT1", "addresses": ["10.0.0.7"]}])
    with archive() as far:
        made.pacs(far.port)
        named(made.doctor(), "destination pacs", "ARCHIVE is not among the sources", verdict=Verdict.WARNING)


def test_another_program_on_our_port_is_named(made: Made) -> None:
    with archive(title="OTHER", require_calling=["SOMEBODY"]) as far:
        made.pacs(far.port)
        named(made.doctor(listener={"port": far.port}), "listener", "Another program has this port")


def side(ca: certificates.Credential, folder: Path, name: str) -> ssl.SSLContext:
    """A server's TLS under this name."""
    own = certificates.issue(ca, folder / "far", "far", name)
    return server_context(Tls(certificate_file=own.certificate_file, key_file=own.key_file), "none")


@pytest.mark.long
def test_the_command_tells_and_exits_by_what_it_found(made: Made) -> None:
    port = free_port()
    made.pacs(port)
    done = isocenter("doctor", "--config", made.write(), check=False)
    assert done.returncode == 1, done.stderr
    assert f"FAULT   destination pacs: nobody listens on 127.0.0.1:{port}" in done.stdout
    assert isocenter("check", "--config", made.write()).returncode == 0
