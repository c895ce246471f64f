"""Performed procedure steps: a modality (pynetdicom as SCU) tells what it does; it is kept before it is answered."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from router.db import steps
from router.db.engine import reading
from router.domain.procedure_step import PerformedStep, StepState
from router.query.mpps import NO_LONGER, NO_LONGER_ID
from router.query.status import StepStatus
from router.wake import Ear
from tests.query.node import RIGHTS, Answering, answering

STEP, STUDY = "1.2.826.0.1.3680043.10.99999.7.1", "1.2.1"


def begin(state: str = "IN PROGRESS", *studies: str) -> Dataset:
    """The attribute list of an N-CREATE, with more in it than we read (PS3.4 Table F.7.2-1)."""
    told = Dataset()
    told.SpecificCharacterSet = "ISO_IR 192"
    told.PatientName, told.PatientID = "Müller^Jörg", "P1"
    told.PerformedProcedureStepID, told.PerformedStationAETitle = "STEP1", "FRIEND"
    told.PerformedProcedureStepStartDate, told.PerformedProcedureStepStartTime = "20240105", "101530"
    told.PerformedProcedureStepStatus, told.Modality = state, "CT"
    told.ScheduledStepAttributesSequence = []
    for uid in studies or (STUDY,):
        item = Dataset()
        item.StudyInstanceUID, item.AccessionNumber = uid, "A1"
        item.ReferencedStudySequence = []
        told.ScheduledStepAttributesSequence.append(item)
    told.PerformedSeriesSequence = []
    return told


def end(state: str, series: Mapping[str, tuple[list[str], list[str]]]) -> Dataset:
    """The modification list of an N-SET: images and other instances, by series."""
    told = Dataset()
    told.PerformedProcedureStepStatus = state
    told.PerformedSeriesSequence = []
    for uid, (images, others) in series.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ProtocolName = uid, "Thorax"
        item.ReferencedImageSequence = [reference(one) for one in images]
        item.ReferencedNonImageCompositeSOPInstanceSequence = [reference(one) for one in others]
        told.PerformedSeriesSequence.append(item)
    return told


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, uid
    return item


@contextmanager
def modality(node: Answering, syntax: str = ExplicitVRLittleEndian, ae_title: str = "FRIEND") -> Iterator[Any]:
    ae = AE(ae_title=ae_title)
    ae.add_requested_context(ModalityPerformedProcedureStep, syntax)
    association = ae.associate("127.0.0.1", node.port)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def create(association: Any, told: Dataset, uid: str | None = STEP) -> Dataset:
    status, _ = association.send_n_create(told, ModalityPerformedProcedureStep, uid)
    assert isinstance(status, Dataset)
    return status


def change(association: Any, told: Dataset, uid: str = STEP) -> Dataset:
    status, _ = association.send_n_set(told, ModalityPerformedProcedureStep, uid)
    assert isinstance(status, Dataset)
    return status


def kept(node: Answering, uid: str = STEP) -> PerformedStep | None:
    with reading(node.node.engine) as connection:
        return steps.find(connection, uid)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Answering]:
    with answering(tmp_path) as made:
        made.sources({"ae_title": "FRIEND", "addresses": ["127.0.0.1"], "services": [*RIGHTS, "mpps"]})
        yield made


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_step_is_kept_from_its_begin_to_its_end_and_decide_is_woken(node: Answering, syntax: str) -> None:
    with Ear(node.node.wake_folder, "decide") as ear, modality(node, syntax) as association:
        answered = create(association, begin())
        assert answered.Status == StepStatus.SUCCESS
        assert kept(node) == PerformedStep(
            sop_instance_uid=STEP, state=StepState.IN_PROGRESS, study_instance_uids=(STUDY,), series={}
        )
        assert ear.wait(1)
        partial = change(association, end("IN PROGRESS", {"1.2.1.1": (["1"], [])}))
        assert partial.Status == StepStatus.SUCCESS
        done = change(association, end("COMPLETED", {"1.2.1.1": (["1", "2"], ["3"]), "1.2.1.2": (["4"], [])}))
        assert done.Status == StepStatus.SUCCESS
    step = kept(node)
    assert step is not None
    assert step.state is StepState.COMPLETED
    assert step.series == {"1.2.1.1": ("1", "2", "3"), "1.2.1.2": ("4",)}
    assert [one["study"] for one in node.audited("step.completed")] == [STUDY]


def test_what_an_n_set_does_not_name_stays(node: Answering) -> None:
    with modality(node) as association:
        create(association, begin("IN PROGRESS", "1.2.2", "1.2.1"))
        change(association, end("IN PROGRESS", {"1.2.1.1": (["1"], [])}))
        only_state = Dataset()
        only_state.PerformedProcedureStepStatus = "DISCONTINUED"
        assert change(association, only_state).Status == StepStatus.SUCCESS
    step = kept(node)
    assert step is not None
    assert (step.state, step.study_instance_uids) == (StepState.DISCONTINUED, ("1.2.1", "1.2.2"))
    assert step.series == {"1.2.1.1": ("1",)}


@pytest.mark.parametrize("over", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_is_over_may_no_longer_be_updated(node: Answering, over: str) -> None:
    with modality(node) as association:
        create(association, begin())
        change(association, end(over, {"1.2.1.1": (["1"], [])}))
        again = change(association, end("COMPLETED", {"1.2.1.1": (["1", "2"], [])}))
    assert (again.Status, again.ErrorComment, again.ErrorID) == (
        StepStatus.PROCESSING_FAILURE,
        NO_LONGER,
        NO_LONGER_ID,
    )
    step = kept(node)
    assert step is not None
    assert step.series == {"1.2.1.1": ("1",)}


def test_what_is_wrong_is_refused_with_the_status_that_says_so_and_nothing_is_kept(node: Answering) -> None:
    nowhere = begin()
    del nowhere.ScheduledStepAttributesSequence
    with modality(node) as association:
        assert create(association, begin("COMPLETED")).Status == StepStatus.INVALID_ATTRIBUTE_VALUE
        assert create(association, begin("DONE")).Status == StepStatus.INVALID_ATTRIBUTE_VALUE
        assert create(association, nowhere).Status == StepStatus.MISSING_ATTRIBUTE
        assert create(association, begin(), uid=None).Status == StepStatus.MISSING_ATTRIBUTE
        assert change(association, end("COMPLETED", {})).Status == StepStatus.NO_SUCH_SOP_INSTANCE
        assert kept(node) is None
        assert create(association, begin()).Status == StepStatus.SUCCESS
        assert create(association, begin()).Status == StepStatus.DUPLICATE_SOP_INSTANCE


def test_who_may_store_may_not_thereby_report_steps(node: Answering) -> None:
    node.sources({"ae_title": "FRIEND", "addresses": ["127.0.0.1"], "services": RIGHTS})
    with modality(node) as association:
        assert create(association, begin()).Status == StepStatus.REFUSED_NOT_AUTHORIZED
    assert kept(node) is None
    assert len(node.audited("mpps.denied")) == 1
