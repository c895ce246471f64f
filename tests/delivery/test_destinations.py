"""One contract for all destination kinds: whatever the way out, these hold."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from router import destinations
from router.destinations import Context, Destination, Unreachable
from router.domain.delivery import Subject, Verdict
from tests.conftest import component
from tests.delivery.objects import result_set
from tests.delivery.scp import archive
from tests.servers import Orthanc, free_port, orthanc

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)  # pynetdicom 3.0.4 forgets the socket whose connect was refused

CONTEXT = Context(calling_ae_title="ISOCENTER", timeout_s=5)
Kept = Callable[[], dict[str, str]]
"""SOPInstanceUID -> PatientID of all that the far side has."""
Far = tuple[Destination, Kept]


@contextmanager
def folder(tmp_path: Path) -> Iterator[tuple[Destination, Kept]]:
    place = tmp_path / "out"
    place.mkdir()

    def kept() -> dict[str, str]:
        return {d.SOPInstanceUID: d.PatientID for d in map(dcmread, sorted(place.iterdir()))}

    yield destinations.find("folder").settings(kind="folder", name="out", path=place), kept


@contextmanager
def dicom(tmp_path: Path) -> Iterator[tuple[Destination, Kept]]:
    with archive(finds=True) as far:
        settings = destinations.find("dicom").settings(
            kind="dicom", name="pacs", ae_title="ARCHIVE", host="127.0.0.1", port=far.port
        )
        yield settings, lambda: {uid: "4711" if b"4711" in data else "" for uid, data in far.kept.items()}


@contextmanager
def running_orthanc(running: Orthanc, kind: str, url: str) -> Iterator[tuple[Destination, Kept]]:
    for one in running.instances():
        running.http.delete(f"/instances/{one['ID']}")

    def kept() -> dict[str, str]:
        return {one["SOPInstanceUID"]: running.tags(one["ID"])["PatientID"] for one in running.instances()}

    yield destinations.find(kind).settings(kind=kind, name="web", url=url), kept


AWAY = {
    "folder": {"path": "/nowhere/at/all"},
    "dicom": {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": free_port()},
    "stow": {"url": f"http://127.0.0.1:{free_port()}/dicom-web"},
    "orthanc": {"url": f"http://127.0.0.1:{free_port()}"},
}


@pytest.fixture(scope="session")
def far_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    component("Orthanc")
    component("Orthanc DICOMweb")
    with orthanc(tmp_path_factory.mktemp("orthanc"), {}) as running:
        yield running


@pytest.fixture
def there(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Destination, Kept]]:
    """A far side of this kind, and what it has."""
    if kind in ("stow", "orthanc"):
        running: Orthanc = request.getfixturevalue("far_orthanc")
        path = "/dicom-web" if kind == "stow" else ""
        opened = running_orthanc(running, kind, f"http://127.0.0.1:{running.http_port}{path}")
    else:
        opened = {"folder": folder, "dicom": dicom}[kind](tmp_path)
    with opened as far:
        yield far


def test_every_kind_is_held_to_this_contract() -> None:
    assert set(AWAY) == set(destinations.names())


@pytest.fixture(params=destinations.names())
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_set_arrives_whole_in_its_order_with_a_receipt_for_each(kind: str, there: Far, tmp_path: Path) -> None:
    outgoing = result_set(tmp_path)
    settings, kept = there
    receipts = list(destinations.find(kind).send(settings, outgoing, CONTEXT))
    assert [receipt.sop_instance_uid for receipt in receipts] == [item.sop_instance_uid for item in outgoing]
    assert {receipt.verdict for receipt in receipts} == {Verdict.ACCEPTED}
    assert kept() == {item.sop_instance_uid: "4711" for item in outgoing}


def test_sending_twice_leaves_one_of_each(kind: str, there: Far, tmp_path: Path) -> None:
    outgoing = result_set(tmp_path)
    settings, kept = there
    for _ in range(2):
        assert len(list(destinations.find(kind).send(settings, outgoing, CONTEXT))) == 2
    assert len(kept()) == 2


def test_an_empty_set_is_sent_without_a_word(kind: str, there: Far) -> None:
    settings, _ = there
    assert list(destinations.find(kind).send(settings, [], CONTEXT)) == []


def test_stopping_in_the_middle_leaves_what_was_sent(kind: str, there: Far, tmp_path: Path) -> None:
    outgoing = result_set(tmp_path)
    settings, kept = there
    sending = destinations.find(kind).send(settings, outgoing, CONTEXT)
    first = next(sending)
    sending.close()  # type: ignore[attr-defined]
    assert set(kept()) == {first.sop_instance_uid}


def test_what_was_sent_is_seen_there_and_nothing_else(kind: str, there: Far, tmp_path: Path) -> None:
    sent, other = result_set(tmp_path)
    settings, _ = there
    list(destinations.find(kind).send(settings, [sent], CONTEXT))
    assert destinations.find(kind).confirm(settings, [sent, other], CONTEXT) == {sent.sop_instance_uid}


def test_whose_study_it_has_is_said_by_whoever_can_be_asked(kind: str, there: Far, tmp_path: Path) -> None:
    settings, _ = there
    sent, other = result_set(tmp_path)
    list(destinations.find(kind).send(settings, [sent], CONTEXT))
    for item in (sent, other):
        asked = Subject(
            study_instance_uid="1.2.3",
            series_instance_uid=item.series_instance_uid,
            sop_instance_uid=item.sop_instance_uid,
            patient_id="",
            accession_number="",
        )
        seen = destinations.find(kind).look(settings, asked, CONTEXT)
        uid = item.sop_instance_uid if item is sent else None
        assert seen == (None if kind == "folder" else replace(asked, sop_instance_uid=uid, patient_id="4711"))


def test_a_far_side_that_is_there_answers_its_echo(kind: str, there: Far) -> None:
    settings, _ = there
    destinations.find(kind).echo(settings, CONTEXT)


def test_a_far_side_that_is_away_is_worth_another_try_and_named(kind: str, tmp_path: Path) -> None:
    entry = destinations.find(kind)
    settings = entry.settings(kind=kind, name="lost", **AWAY[kind])
    with pytest.raises(Unreachable, match="destination lost") as sending:
        list(entry.send(settings, result_set(tmp_path), CONTEXT))
    assert sending.value.retryable
    with pytest.raises(Unreachable, match="destination lost"):
        entry.echo(settings, CONTEXT)


def test_no_form_takes_an_unknown_field(kind: str) -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        destinations.find(kind).settings(kind=kind, name="x", retries=3, **AWAY[kind])
