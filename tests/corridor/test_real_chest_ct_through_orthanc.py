"""The main job: a real chest CT goes from Orthanc through the whole node and comes back as SEG and SR, once."""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pyorthanc import Orthanc as OrthancApi
from pyorthanc import RemoteModality

from tests.conftest import component, until
from tests.servers import Orthanc, RunningNode, isocenter, node, orthanc

QUIET_S = 2.0


@pytest.fixture(scope="module")
def pacs_and_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Orthanc, RunningNode]]:
    component("Orthanc")
    folder = tmp_path_factory.mktemp("corridor")
    with (
        orthanc(folder / "orthanc", {}) as pacs,
        node(folder / "node", f"ORTHANC@127.0.0.1:{pacs.dicom_port}", quiet_period_s=QUIET_S) as ours,
    ):
        pacs.http.put("/modalities/isocenter", json=["ISOCENTER", "127.0.0.1", ours.port]).raise_for_status()
        yield pacs, ours


@pytest.fixture(scope="module")
def chest(data: Path, pacs_and_node: tuple[Orthanc, RunningNode]) -> str:
    """Orthanc's id of the real study, which it holds before anything else happens."""
    pacs, _ = pacs_and_node
    for file in sorted((data / "chest_ct_philips_brilliance16_5mm" / "dicom").rglob("*.dcm")):
        pacs.http.post("/instances", content=file.read_bytes()).raise_for_status()
    (study,) = pacs.http.get("/studies").json()
    return str(study)


def forward(pacs: Orthanc, study: str) -> None:
    """Let Orthanc send the study, as its users do."""
    with OrthancApi(f"http://127.0.0.1:{pacs.http_port}", timeout=120) as api:
        RemoteModality(api, "isocenter").store({"Resources": [study], "Synchronous": True, "Timeout": 60})


@pytest.fixture(scope="module")
def returned(pacs_and_node: tuple[Orthanc, RunningNode], chest: str) -> tuple[float, float]:
    """Seconds from the last slice's Success until SR and SEG were in Orthanc."""
    pacs, ours = pacs_and_node
    forward(pacs, chest)
    sent = time.monotonic()
    until(lambda: pacs.of_modality("SR"), deadline_s=60, what=f"the SR in Orthanc ({ours.log[-3000:]})")
    return time.monotonic() - sent, QUIET_S


def test_results_come_back_and_not_before_the_quiet_time(returned: tuple[float, float]) -> None:
    """How soon is a figure of `python -m tests.bench.corridor`; other tests run beside this one."""
    took, quiet = returned
    print(f"last slice -> SR in Orthanc: {took:.1f} s, of which {quiet:.1f} s quiet time")
    assert took >= quiet


def test_seg_and_sr_are_in_the_same_study(
    pacs_and_node: tuple[Orthanc, RunningNode], returned: tuple[float, float], chest: str
) -> None:
    pacs, _ = pacs_and_node
    assert returned
    assert pacs.http.get("/studies").json() == [chest]
    assert len(pacs.of_modality("SEG")) == len(pacs.of_modality("SR")) == 1


def test_volume_is_right_and_emphysema_withheld_with_the_reason(
    pacs_and_node: tuple[Orthanc, RunningNode], returned: tuple[float, float]
) -> None:
    _, ours = pacs_and_node
    assert returned
    (job,) = [job for job in ours.settled() if job["lane"] == "infer"]
    measured = ours.ask("jobs", "show", str(job["id"]))["measurements"]
    volumes = [m["value"] for m in measured if m["name"] == "Volume"]
    assert len(volumes) == 2
    assert sum(volumes) == pytest.approx(5450, rel=0.05)
    withheld = [m for m in measured if m["value"] is None]
    assert len(withheld) == 4
    assert all("5" in m["remark"] and "mm" in m["remark"] for m in withheld)


def test_ten_times_the_same_study_makes_no_new_job_and_nothing_twice(
    pacs_and_node: tuple[Orthanc, RunningNode], returned: tuple[float, float], chest: str
) -> None:
    pacs, ours = pacs_and_node
    assert returned
    before = ours.settled()
    for _ in range(10):
        forward(pacs, chest)  # the whole study, SEG and SR included
    after = ours.settled()
    assert [job["id"] for job in after] == [job["id"] for job in before]
    assert len(pacs.of_modality("SEG")) == len(pacs.of_modality("SR")) == 1


def test_objects_are_those_that_were_kept(
    pacs_and_node: tuple[Orthanc, RunningNode], returned: tuple[float, float]
) -> None:
    pacs, ours = pacs_and_node
    assert returned
    (job,) = [job for job in ours.settled() if job["lane"] == "infer"]
    kept = {o["sop_instance_uid"]: o["path"] for o in ours.ask("jobs", "show", str(job["id"]))["objects"]}
    for modality in ("SEG", "SR"):
        (orthanc_id,) = pacs.of_modality(modality)
        there = dcmread(io.BytesIO(pacs.file(orthanc_id)))
        here = dcmread(ours.folder / "store" / kept[there.SOPInstanceUID])
        assert there == here


def test_why_and_the_listings_answer_for_people_too(
    pacs_and_node: tuple[Orthanc, RunningNode], returned: tuple[float, float]
) -> None:
    _, ours = pacs_and_node
    assert returned
    (study,) = ours.ask("studies", "list")
    text = isocenter("why", study["study_instance_uid"], "--config", ours.config).stdout
    assert "ct_lung" in text
    assert "chest" in text.lower()
