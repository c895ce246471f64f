"""A modality reports its procedure step (MPPS) to a whole node: work starts when it says that it has finished."""

from pathlib import Path
from statistics import median

import pytest
import yaml
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, ModalityPerformedProcedureStep

from tests.conftest import until
from tests.corridor.conftest import Archive
from tests.query.test_mpps import begin, end
from tests.servers import RunningNode, isocenter, node

STUDIES = 5


def examine(ours: RunningNode, slices: list[Dataset], number: int) -> str:
    """One examination: a step begins, its images are sent, it ends; the study's UID."""
    study, series = f"1.2.826.0.1.3680043.10.99999.8.{number}", f"1.2.826.0.1.3680043.10.99999.8.{number}.1"
    ae = AE(ae_title="CT1")
    ae.add_requested_context(ModalityPerformedProcedureStep)
    ae.add_requested_context(CTImageStorage)
    told = ae.associate("127.0.0.1", ours.port, ae_title=ours.title)
    sending = ae.associate("127.0.0.1", ours.port, ae_title=ours.title)
    assert told.is_established
    assert sending.is_established
    step = f"{study}.9"
    status, _ = told.send_n_create(begin("IN PROGRESS", study), ModalityPerformedProcedureStep, step)
    assert status.Status == 0
    uids = []
    for index, slice_ in enumerate(slices):
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, series
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = f"{series}.{index}"
        uids.append(slice_.SOPInstanceUID)
        assert sending.send_c_store(slice_).Status == 0
    sending.release()
    status, _ = told.send_n_set(end("COMPLETED", {series: (uids, [])}), ModalityPerformedProcedureStep, step)
    assert status.Status == 0
    told.release()
    return study


@pytest.mark.long
def test_work_starts_when_the_step_has_ended(chest_phantom: Path, tmp_path: Path, archive: Archive) -> None:
    slices = [dcmread(path) for path in sorted(chest_phantom.rglob("*.dcm"))]
    with node(tmp_path / "node", archive.address, quiet_period_s=1000.0) as ours:
        config = ("--config", ours.config)
        sources = yaml.safe_load(isocenter("sources", "export", *config).stdout)
        sources["sources"].append({"ae_title": "CT1", "addresses": ["127.0.0.1"], "services": ["store", "mpps"]})
        (tmp_path / "sources.yaml").write_text(yaml.safe_dump(sources))
        isocenter("sources", "import", tmp_path / "sources.yaml", *config)
        waits = []
        for number in range(STUDIES):
            study = examine(ours, slices, number)
            until(lambda study=study: ours.ask("jobs", "list", "--study", study), deadline_s=60, what="a job")
            (page,) = ours.ask("why", study)
            assert page["witnesses"]["sentence"] == f"{len(slices)} of {len(slices)} instances announced by MPPS"
            (run,) = [job for job in page["jobs"] if job["lane"] == "infer"]
            waits.append((run["created_at"] - page["last_instance_at"]) / 1e6)
    print(f"last slice -> work ordered: median {median(waits):.2f} s, {', '.join(f'{one:.2f}' for one in waits)}")
    assert median(waits) < 60, "it did not wait for silence"
