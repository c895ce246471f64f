"""Who may send may not thereby read: rights are per AE title, address and service."""

from pathlib import Path

import pytest

from router.query.rights import Allowed, Caller, Denied, Service, decide
from router.query.status import FailureReason, FindStatus, RetrieveStatus, StepStatus
from router.rulebook import Source
from tests.query.node import RIGHTS, answering, ct, run

HERE = Caller(calling_ae_title="CT1", address="10.0.0.7")


def source(services: list[str] | None = None, addresses: list[str] | None = None) -> Source:
    given = {} if services is None else {"services": services}
    return Source.model_validate({"ae_title": "CT1", "addresses": addresses or ["10.0.0.0/8"]} | given)


def test_a_source_may_store_and_echo_and_nothing_else_unless_it_is_said() -> None:
    allowed = {service for service in Service if decide([source()], HERE, service) == Allowed()}
    assert allowed == {Service.STORE, Service.ECHO}


@pytest.mark.parametrize("service", list(Service))
def test_each_right_is_given_for_itself(service: Service) -> None:
    only = source([str(service)])
    assert [one for one in Service if decide([only], HERE, one) == Allowed()] == [service]


def test_a_stranger_may_nothing() -> None:
    assert isinstance(decide([], HERE, Service.QUERY), Denied)
    elsewhere = Caller(calling_ae_title="CT1", address="192.168.0.1")
    assert isinstance(decide([source(RIGHTS)], elsewhere, Service.QUERY), Denied)
    other = Caller(calling_ae_title="CT2", address="10.0.0.7")
    assert isinstance(decide([source(RIGHTS)], other, Service.QUERY), Denied)


def test_a_retrieval_wants_an_address_or_the_certificate_of_this_source() -> None:
    anywhere = source(RIGHTS, ["any"])
    assert decide([anywhere], HERE, Service.QUERY) == Allowed()
    assert isinstance(decide([anywhere], HERE, Service.RETRIEVE), Denied)
    anybody_certified = Caller(calling_ae_title="CT1", address="10.0.0.7", certificate_names=("mr2.example",))
    assert isinstance(decide([anywhere], anybody_certified, Service.RETRIEVE), Denied)
    assert decide([anywhere, source(RIGHTS)], HERE, Service.RETRIEVE) == Allowed()
    tied = anywhere.model_copy(update={"certificate_names": ["ct1.example"]})
    assert isinstance(decide([tied], anybody_certified, Service.QUERY), Denied)
    itself = Caller(calling_ae_title="CT1", address="10.0.0.7", certificate_names=("CT1.example", "ct1"))
    assert decide([tied], itself, Service.RETRIEVE) == Allowed()


@pytest.mark.parametrize(
    ("services", "tool", "seen"),
    [
        (["store", "echo"], "findscu", False),
        (["store", "echo", "query"], "findscu", True),
        (["store", "echo", "query"], "getscu", False),
        (["retrieve"], "getscu", True),
    ],
)
def test_without_the_right_nothing_is_told_and_it_is_written_down(
    tmp_path: Path, services: list[str], tool: str, seen: bool
) -> None:
    from tests.conftest import component

    component("DCMTK")
    out = tmp_path / "out"
    out.mkdir()
    with answering(tmp_path) as node:
        node.hold(ct())
        node.sources({"ae_title": "FRIEND", "addresses": ["127.0.0.1"], "services": services})
        said = run(
            tool, "-v", "-S", "-aet", "FRIEND", "-aec", "ISOCENTER", "-od", out, "-k", "QueryRetrieveLevel=STUDY",
            "-k", "StudyInstanceUID=1.2.1", "127.0.0.1", str(node.port), check=False,
        )  # fmt: skip
        service = "query" if tool == "findscu" else "retrieve"
        denied = node.audited(f"{service}.denied")
        acts = node.audited("study.queried" if tool == "findscu" else "study.retrieved")
    assert ("Find Response:" in said or bool(list(out.iterdir()))) is seen
    assert (len(denied), len(acts)) == ((0, 1) if seen else (1, 0))


def test_statuses_mean_what_their_names_say() -> None:
    from pynetdicom.status import (
        PROCEDURE_STEP_STATUS,
        QR_FIND_SERVICE_CLASS_STATUS,
        QR_GET_SERVICE_CLASS_STATUS,
        QR_MOVE_SERVICE_CLASS_STATUS,
    )

    known = {**QR_GET_SERVICE_CLASS_STATUS, **QR_MOVE_SERVICE_CLASS_STATUS}
    for table, statuses in ((QR_FIND_SERVICE_CLASS_STATUS, FindStatus), (known, RetrieveStatus)):
        for status in statuses:
            meaning = table[status][0] + " " + table[status][1]
            words = [word for word in status.name.split("_") if word not in ("SUB", "WITHOUT", "OPTIONAL", "KEYS")]
            said = meaning.upper().replace("AUTHORISED", "AUTHORIZED").replace("-", " ")
            assert any(word in said for word in words), f"{status:04X} is {meaning}, not {status.name}"
    assert FailureReason.NO_SUCH_OBJECT_INSTANCE == 0x0112
    for answer in StepStatus:
        said = (
            (PROCEDURE_STEP_STATUS[answer][1] or PROCEDURE_STEP_STATUS[answer][0])
            .upper()
            .replace("AUTHORISED", "AUTHORIZED")
        )
        assert any(word[:8] in said for word in answer.name.split("_") if word != "SOP"), f"{answer:04X} is {said}"
