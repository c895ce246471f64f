"""Bad input gets a clear error that names the thing and the remedy, the right exit code, and loses nothing."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, _config
from pynetdicom.sop_class import CTImageStorage, MRImageStorage

from tests.corridor.conftest import Archive
from tests.servers import free_port, isocenter, node


def fails(*arguments: str | Path, code: int, says: list[str]) -> None:
    done = isocenter(*arguments, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    missing = [word for word in says if word not in " ".join(done.stderr.split())]
    assert not missing, f"{missing} not in: {done.stderr}"


@pytest.mark.long
def test_a_file_that_is_not_dicom_is_named(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear colleague")
    fails("send", letter, "--to", "ISOCENTER@127.0.0.1:1", code=1, says=["letter.txt", "not a DICOM file"])
    fails("run", "ct_lung", letter, "--out", tmp_path / "out", code=1, says=["letter.txt"])
    fails("run", "ct_lung", tmp_path / "nowhere", "--out", tmp_path / "out", code=1, says=["nowhere"])
    fails("run", "ct_spleen", tmp_path, "--out", tmp_path / "out", code=1, says=["ct_spleen", "ct_lung"])


@pytest.mark.long
def test_nobody_listening_is_said(chest_phantom: Path) -> None:
    port = free_port()
    fails("send", chest_phantom, "--to", f"ISOCENTER@127.0.0.1:{port}", code=1, says=[str(port)])
    fails("send", chest_phantom, "--to", "ISOCENTER:104", code=2, says=["ISOCENTER:104", "AE_TITLE@HOST:PORT"])


def test_an_unknown_rule_field_has_line_column_and_suggestion(tmp_path: Path, archive: Archive) -> None:
    isocenter("init", tmp_path / "node", "--pacs", archive.address)
    config = tmp_path / "node" / "isocenter.yaml"
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n  - name: chest\n    when:\n      BodyPartExamine: CHEST\n"
        "    pipelines: [ct_lung]\n    destinations: [pacs]\n"
    )
    fails(
        "rules", "import", rules, "--config", config,
        code=2, says=["rules.yaml:4:7", "BodyPartExamine", "BodyPartExamined"],
    )  # fmt: skip


@pytest.mark.long
def test_a_wrong_setting_has_line_and_column(tmp_path: Path, archive: Archive) -> None:
    isocenter("init", tmp_path / "node", "--pacs", archive.address)
    config = tmp_path / "node" / "isocenter.yaml"
    config.write_text("ae_title: ISOCENTER\nlistener:\n  port: 99999\n")
    fails("serve", "--config", config, code=2, says=["isocenter.yaml:3:9", "65535"])


@pytest.mark.long
def test_a_taken_port_is_named(tmp_path: Path, archive: Archive) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        isocenter("init", tmp_path / "node", "--pacs", archive.address, "--port", str(port))
        fails("serve", "--config", tmp_path / "node" / "isocenter.yaml", "--role", "listen", code=1, says=[str(port)])
        fails("serve", "--config", tmp_path / "node" / "isocenter.yaml", code=1, says=[str(port)])


@pytest.mark.long
def test_a_store_that_cannot_be_written_is_named(tmp_path: Path, archive: Archive) -> None:
    isocenter("init", tmp_path / "node", "--pacs", archive.address, "--port", str(free_port()))
    config = tmp_path / "node" / "isocenter.yaml"
    document = yaml.safe_load(config.read_text())
    document["storage"]["path"] = "/proc/isocenter-store"  # read-only for root too
    config.write_text(yaml.safe_dump(document))
    fails("serve", "--config", config, code=1, says=["/proc/isocenter-store"])


@pytest.mark.long
def test_a_wrong_class_or_a_truncated_data_set_is_refused_and_the_rest_is_kept(
    tmp_path: Path, archive: Archive, chest_phantom: Path
) -> None:
    first, second, *_ = sorted(chest_phantom.rglob("*.dcm"))
    with node(tmp_path / "node", archive.address, quiet_period_s=60) as ours:
        ours.send(first)
        contradicting, truncated = tmp_path / "contradicting.dcm", tmp_path / "truncated.dcm"
        dataset = dcmread(second)
        dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage  # the data set says CT
        dataset.save_as(contradicting)
        content = second.read_bytes()
        truncated.write_bytes(content[: len(content) // 2])
        assert 0xA900 <= status_of(contradicting, MRImageStorage, ours.port) <= 0xA9FF
        assert status_of(truncated, CTImageStorage, ours.port) & 0xF000 == 0xC000
        stored = [path for path in (ours.folder / "store").rglob("*") if path.is_file()]
        assert len([path for path in stored if path.suffix == ".dcm"]) == 1
        assert not [path for path in stored if path.suffix == ".part"]
        ours.send(second)


@contextmanager
def chunked() -> Iterator[None]:
    """Let pynetdicom send a file's bytes as they are."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        yield
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = False


def status_of(file: Path, sop_class: str, port: int) -> int:
    """What is answered to the bytes of this file, sent as they are under the class that its File Meta names."""
    ae = AE(ae_title="ISOCENTER_SEND")
    ae.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="ISOCENTER")
    assert association.is_established
    try:
        with chunked():
            return int(association.send_c_store(file).Status)
    finally:
        association.release()


@pytest.mark.long
def test_sigterm_drains_and_exits_cleanly(tmp_path: Path, archive: Archive, chest_phantom: Path) -> None:
    with node(tmp_path / "node", archive.address) as ours:
        ours.send(chest_phantom)
        assert ours.stop() == 0
        assert "Traceback" not in ours.log
        ours.start()
        assert {job["state"] for job in ours.settled()} == {"done"}


def test_help_is_there_for_every_command() -> None:
    done = subprocess.run([sys.executable, "-m", "router.cli", "--help"], capture_output=True, text=True, check=True)
    for word in ("serve", "send", "run", "studies", "jobs", "pipelines", "rules", "sources", "destinations", "why"):
        assert word in done.stdout
