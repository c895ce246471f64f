"""STOW-RS into the node: on the way of C-STORE, each instance told of, by tokens of the scope store alone."""

import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from sqlalchemy import select

from router.config import Tls
from router.db import associations
from router.db.engine import reading, writing
from router.db.tables import association, instance
from router.destinations import Context, stow
from router.domain.access import Scope
from router.domain.delivery import Outgoing, Verdict
from router.ingest.receive import Receiver
from router.ingest.reconcile import reconcile
from router.web import doors
from tests.conftest import until
from tests.query.node import ct
from tests.web.conftest import Window, opened

STUDIES = f"{doors.DICOMWEB}/studies"
BOUNDARY = "between-the-parts"
TYPE = {"content-type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}


def file_of(one: FileDataset) -> bytes:
    buffer = BytesIO()
    one.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def body(*parts: bytes) -> bytes:
    lines = [b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (BOUNDARY.encode(), part) for part in parts]
    return b"".join(lines) + b"--%s--\r\n" % BOUNDARY.encode()


def told(answer: httpx.Response) -> Dataset:
    assert answer.headers["content-type"] == "application/dicom+json", answer.text
    return Dataset.from_json(answer.text)


def stored(window: Window) -> dict[str, Path]:
    """SOPInstanceUID and file of all that is indexed."""
    with reading(window.node.engine) as connection:
        rows = connection.execute(select(instance.c.sop_instance_uid, instance.c.path)).all()
    return {uid: window.node.store.path(path) for uid, path in rows}


def litter(window: Window) -> list[str]:
    return os.listdir(window.node.store.incoming)


def files(window: Window) -> int:
    return sum(len(found) for _, found in window.node.store.received())


def visits(window: Window) -> list[Any]:
    with reading(window.node.engine) as connection:
        return list(connection.execute(select(association)))


def test_what_comes_is_durable_indexed_found_and_told(window: Window) -> None:
    program = window.program(Scope.STORE, Scope.READ)
    objects = [ct(number=1), ct(number=2)]
    answer = program.post(STUDIES, content=body(*map(file_of, objects)), headers=TYPE)
    assert answer.status_code == 200, answer.text
    said = told(answer)
    assert said.RetrieveURL.endswith("/dicom-web/studies/1.2.1")
    assert [one.ReferencedSOPInstanceUID for one in said.ReferencedSOPSequence] == [o.SOPInstanceUID for o in objects]
    assert "FailedSOPSequence" not in said
    kept = stored(window)
    for one in objects:
        assert dcmread(kept[one.SOPInstanceUID]) == one
    got = program.get(said.ReferencedSOPSequence[1].RetrieveURL, headers={"accept": "application/dicom"})
    assert dcmread(BytesIO(got.content)) == objects[1]
    (visit,) = visits(window)
    assert (visit.calling_ae_title[:5], visit.instances, visit.ending) == ("STOW ", 2, "release")
    assert [act for _, act in window.acts()].count("study.received") == 1
    again = program.post(STUDIES, content=body(file_of(objects[0])), headers=TYPE)
    assert again.status_code == 200, "a repeat is here, too"
    assert files(window) == 2


def test_each_instance_gets_its_own_answer(window: Window) -> None:
    good, other, strange, odd, cut, mixed = (ct(number=n) for n in range(6))
    other.StudyInstanceUID = "1.2.2"
    strange.SOPClassUID = strange.file_meta.MediaStorageSOPClassUID = "1.2.3.4"
    odd.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.94"
    content = file_of(mixed)
    lying = content.replace(mixed.SOPInstanceUID.encode(), good.SOPInstanceUID.encode(), 1)
    assert lying != content
    parts = [file_of(other), file_of(strange), b"no DICOM at all", file_of(cut)[:-40], lying, file_of(good)]
    answer = window.program(Scope.STORE).post(f"{STUDIES}/1.2.1", content=body(*parts), headers=TYPE)
    assert answer.status_code == 202, answer.text
    said = told(answer)
    assert [one.ReferencedSOPInstanceUID for one in said.ReferencedSOPSequence] == [good.SOPInstanceUID]
    reasons = {one.ReferencedSOPInstanceUID: one.FailureReason for one in said.FailedSOPSequence}
    assert reasons[other.SOPInstanceUID] == 0xA900
    assert reasons[strange.SOPInstanceUID] == 0x0122
    assert reasons[cut.SOPInstanceUID] == 0xC000
    assert [one.FailureReason for one in said.OtherFailuresSequence] == [0xC000]
    assert len(said.FailedSOPSequence) == 4
    assert list(stored(window)) == [good.SOPInstanceUID]
    assert files(window) == 1
    assert litter(window) == []


def test_nothing_of_a_request_that_ends_in_the_middle_remains(window: Window) -> None:
    first, second = file_of(ct(number=1)), file_of(ct(number=2))

    def pieces() -> Iterable[bytes]:
        whole = body(first, second)
        yield whole[: len(first) + 500]

    answer = window.program(Scope.STORE).post(STUDIES, content=pieces(), headers=TYPE)
    assert answer.status_code == 202
    assert len(told(answer).ReferencedSOPSequence) == 1
    assert len(told(answer).OtherFailuresSequence) == 1
    assert litter(window) == []
    assert [one.ending for one in visits(window)] == ["lost"]


def test_a_sender_that_goes_away_leaves_nothing_half(window: Window) -> None:
    def pieces() -> Iterator[bytes]:
        yield body(file_of(ct()))[:-300]
        until(lambda: litter(window), what="the file that is written")
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        window.program(Scope.STORE).post(STUDIES, content=pieces(), headers=TYPE)
    until(lambda: [one.ending for one in visits(window)] == ["lost"], what="the end of the visit")
    assert litter(window) == []
    assert stored(window) == {}


def test_large_ones_and_other_bodies_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path, web={"largest_instance_mb": 0.002}) as window:
        program = window.program(Scope.STORE)
        small, large = ct(number=1), ct(number=2, PatientComments="x" * 3000)
        said = told(program.post(STUDIES, content=body(file_of(large), file_of(small)), headers=TYPE))
        assert [one.FailureReason for one in said.FailedSOPSequence] == [0xA700]
        assert list(stored(window)) == [small.SOPInstanceUID]
        for headers, content, status in (
            ({"content-type": "application/json"}, b"{}", 415),
            ({"content-type": "multipart/related; type=application/dicom+json; boundary=x"}, b"--x--", 415),
            (TYPE, b"no multipart", 400),
            (TYPE, b"--between-the-parts--\r\n", 400),
        ):
            answer = program.post(STUDIES, content=content, headers=headers)
            assert answer.status_code == status, answer.text
            assert answer.json()["remedy"]
        assert litter(window) == []


def test_only_a_token_of_this_scope_and_an_admin_may_store(window: Window) -> None:
    content = body(file_of(ct()))
    for client in (window.client(), window.program(Scope.READ), window.log_in("operator")):
        assert client.post(STUDIES, content=content, headers=TYPE).status_code in (401, 403)
    assert stored(window) == {}
    assert window.log_in("admin").post(STUDIES, content=content, headers=TYPE).status_code == 200


def test_nothing_comes_in_while_the_listener_looks_through_the_store(window: Window) -> None:
    program, content = window.program(Scope.STORE), body(file_of(ct()))
    with window.node.store.alone():
        said = told(program.post(STUDIES, content=content, headers=TYPE))
    assert [one.FailureReason for one in said.FailedSOPSequence] == [0xA700]
    assert stored(window) == {}
    assert program.post(STUDIES, content=content, headers=TYPE).status_code == 200
    receiver = Receiver(window.node.settings, window.node.store, window.node.engine)
    done = reconcile(receiver)
    receiver.new.close()
    assert (done.files, done.adopted, done.lost) == (1, 0, 0)


def test_what_a_window_that_died_left_open_is_closed(window: Window) -> None:
    name = f"{window.node.node_id}/web"
    row = associations.Association(
        id="left", calling_ae_title="STOW x", called_ae_title="US", address="", listener=name, opened_at=1
    )
    with writing(window.node.engine) as connection:
        associations.opened(connection, row)
    with opened_again(window):
        assert [one.ending for one in visits(window)] == ["lost"]


def opened_again(window: Window) -> Any:
    from tests.web.conftest import served

    return served(window.node)


def test_our_own_stow_destination_delivers_to_it(window: Window, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(file_of(one := ct()))
    secret = window.program(Scope.STORE, Scope.READ).headers["authorization"].removeprefix("Bearer ")
    (tmp_path / "token").write_text(secret)
    settings = stow.Settings.model_validate(
        {"name": "us", "kind": "stow", "url": f"{window.url}{doors.DICOMWEB}", "token_file": str(tmp_path / "token")}
    )
    outgoing = Outgoing(
        sop_instance_uid=one.SOPInstanceUID, sop_class_uid=one.SOPClassUID, study_instance_uid=one.StudyInstanceUID,
        path=tmp_path / "a.dcm",
    )  # type: ignore[call-arg]  # fmt: skip
    context = Context(calling_ae_title="US", timeout_s=30, tls=Tls())
    (receipt,) = stow.send(settings, [outgoing], context)
    assert receipt.verdict is Verdict.ACCEPTED
    assert list(stored(window)) == [one.SOPInstanceUID]
