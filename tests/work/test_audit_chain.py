"""The audit's chain: rows altered, removed, added, cut off at the end, or the whole chain made anew, are found."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sqlalchemy import Engine, delete, select, text, update

from router import audit_message, syslog
from router.cli.audit import walk
from router.config import Audit
from router.db import audit, migrate
from router.db.engine import connect, reading, writing
from router.db.tables import audit as trail
from router.db.tables import audit_patient, audit_seal, study
from router.domain.audit import Verifier
from router.work import seal

WHO = "CT_1@10.0.0.7"


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/isocenter.db"
    else:
        url = request.getfixturevalue("postgres").database()
    made = connect(url)
    migrate.upgrade(made)
    yield made
    made.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> Audit:
    return Audit(key_file=tmp_path / "audit.key")


def three_seals(engine: Engine, settings: Audit) -> dict[int, str]:
    """Nine rows in three seals; the heads that would have left the machine."""
    for number in range(3):
        with writing(engine) as connection:
            for ordinal in range(3):
                audit.write(connection, WHO, "study.received", f"1.2.{number}.{ordinal}", instances=ordinal, ratio=0.1)
        assert seal.seal_all(engine, settings) == 1
    with reading(engine) as connection:
        return {one.number: one.mac for one in audit.unsent(connection)}


def faults(engine: Engine, settings: Audit, heads: dict[int, str]) -> list[str]:
    found, _, _ = walk(engine, Verifier(key=seal.key_of(settings), heads=heads))
    return [one.said for one in found]


def test_a_chain_that_nobody_touched_is_whole(engine: Engine, settings: Audit) -> None:
    heads = three_seals(engine, settings)
    assert sorted(heads) == [1, 2, 3]
    assert faults(engine, settings, heads) == []
    assert settings.key_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "column",
    [{"who": "nobody"}, {"act": "study.viewed"}, {"outcome": "failed"}, {"at": 1}, {"detail": {}}, {"job_id": 3},
     {"study_instance_uid": "9"}, {"patient_key": "x"}],
)  # fmt: skip
def test_an_altered_row_is_named(engine: Engine, settings: Audit, column: dict[str, object]) -> None:
    heads = three_seals(engine, settings)
    with writing(engine) as connection:
        connection.execute(update(trail).where(trail.c.id == 5).values(column))
    assert faults(engine, settings, heads) == ["row 5 was altered"]


def test_a_removed_row_is_found(engine: Engine, settings: Audit) -> None:
    heads = three_seals(engine, settings)
    with writing(engine) as connection:
        connection.execute(delete(trail).where(trail.c.id == 5))
    assert faults(engine, settings, heads) == ["1 of 3 rows were removed"]


def test_a_row_that_is_put_into_a_seal_is_found(engine: Engine, settings: Audit) -> None:
    heads = three_seals(engine, settings)
    with writing(engine) as connection:
        audit.write(connection, WHO, "study.received", "1.2.9")
        connection.execute(update(trail).where(trail.c.id == 10).values(seal=2))
    assert faults(engine, settings, heads)


def test_a_seal_that_was_taken_out_of_the_middle_is_found(engine: Engine, settings: Audit) -> None:
    heads = three_seals(engine, settings)
    with writing(engine) as connection:
        connection.execute(delete(trail).where(trail.c.seal == 2))
        connection.execute(delete(audit_seal).where(audit_seal.c.number == 2))
    assert "seal 2 is missing" in faults(engine, settings, heads)


def test_an_end_that_was_cut_off_is_found_by_the_heads_that_left_the_machine(engine: Engine, settings: Audit) -> None:
    heads = three_seals(engine, settings)
    with writing(engine) as connection:
        connection.execute(delete(trail).where(trail.c.seal == 3))
        connection.execute(delete(audit_seal).where(audit_seal.c.number == 3))
    assert faults(engine, settings, {}) == []
    (said,) = faults(engine, settings, heads)
    assert said == "the end was cut off: seal 3 has left the machine, the last one here is 2"


def test_a_chain_made_anew_is_found_with_another_key_and_even_with_the_same(
    engine: Engine, settings: Audit, tmp_path: Path
) -> None:
    heads = three_seals(engine, settings)
    for key_file, said in (("other.key", "was not made with this key"), ("audit.key", "is not the one that left")):
        with writing(engine) as connection:
            connection.execute(update(trail).values(seal=None, mac=None, who="nobody"))
            connection.execute(delete(audit_seal))
        seal.seal_all(engine, Audit(key_file=tmp_path / key_file))
        assert any(said in one for one in faults(engine, settings, heads)), key_file


def test_a_key_that_is_lost_is_not_replaced(engine: Engine, settings: Audit) -> None:
    three_seals(engine, settings)
    settings.key_file.unlink()
    with writing(engine) as connection:
        audit.write(connection, WHO, "study.received", "1.2.9")
    with pytest.raises(seal.NoAuditKey):
        seal.seal_all(engine, settings)
    assert not settings.key_file.exists()


def test_a_patient_is_a_random_key_that_can_be_forgotten_while_the_chain_stays_whole(
    engine: Engine, settings: Audit
) -> None:
    empty = {column.name: "" for column in study.c if str(column.type) == "TEXT" and not column.nullable}
    with writing(engine) as connection:
        for uid in ("1.2.3", "1.2.4"):
            whose = {"patient_id": "4711", "patient_name": "SECRET^PATIENT"}
            times = {"first_instance_at": 1, "last_instance_at": 1}
            row = {**empty, "study_instance_uid": uid, "state": "complete", **whose, **times}
            connection.execute(study.insert().values(row))
            audit.write(connection, WHO, "study.received", uid)
    seal.seal_all(engine, settings)
    with reading(engine) as connection:
        (key,) = audit.keys_of(connection, "4711")
        rows = audit.list_(connection, keys=[key])
        assert [row.study_instance_uid for row in rows] == ["1.2.3", "1.2.4"]
        assert audit.patients(connection, [key])[key].patient_id == "4711"
        everything = connection.execute(select(trail)).all()
    assert "SECRET" not in str(everything)
    assert "4711" not in str(everything)
    with writing(engine) as connection:
        assert audit.erase(connection, [key]) == 1
    with reading(engine) as connection:
        assert connection.execute(select(audit_patient)).all() == []
    assert faults(engine, settings, {}) == []


def test_twice_sealed_at_once_is_one_chain(engine: Engine, settings: Audit) -> None:
    seal.make_key(settings.key_file)
    with writing(engine) as connection:
        for number in range(300):
            audit.write(connection, WHO, "study.received", f"1.{number}")
    threads = [threading.Thread(target=seal.seal_all, args=(engine, settings)) for _ in range(4)]
    [one.start() for one in threads]
    [one.join() for one in threads]
    assert faults(engine, settings, {}) == []
    with reading(engine) as connection:
        assert connection.scalar(text("SELECT sum(rows) FROM audit_seal")) == 300


def test_messages_arrive_by_syslog_and_are_what_the_standard_says(engine: Engine, settings: Audit) -> None:
    three_seals(engine, settings)
    with reading(engine) as connection:
        row = audit.list_(connection, limit=1)[0]
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            line, _ = server.accept()
            with line:
                while block := line.recv(65536):
                    got.append(block)

        reader = threading.Thread(target=take)
        reader.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        sent = audit_message.xml(row, node_id="node-1", ae_title="ISOCENTER")
        assert syslog.send(address, [sent, sent], kind=audit_message.KIND) == 2
        reader.join(10)
    whole = b"".join(got)
    length, _, rest = whole.partition(b" ")
    first = rest[: int(length)].decode()
    assert first.startswith("<85>1 ")
    assert " isocenter " in first
    assert " DICOM+RFC3881 - \ufeff<AuditMessage>" in first
    root = ElementTree.fromstring(first.partition("\ufeff")[2])
    event = root.find("EventIdentification")
    assert event is not None
    assert (event.get("EventActionCode"), event.get("EventOutcomeIndicator")) == ("C", "0")
    assert event.find("EventID").get("csd-code") == "110104"  # type: ignore[union-attr]
    assert [one.get("UserID") for one in root.findall("ActiveParticipant")] == ["CT_1", "isocenter"]
    assert root.find("ParticipantObjectIdentification").get("ParticipantObjectID") == "1.2.2.2"  # type: ignore[union-attr]


def test_heads_leave_the_machine_and_are_read_back(tmp_path: Path) -> None:
    from tests.work.site import close_site, open_site

    site = open_site(tmp_path, audit={"key_file": tmp_path / "audit.key", "heads_file": tmp_path / "far" / "heads"})
    with writing(site.node.engine) as connection:
        audit.write(connection, WHO, "study.received", "1.2.3")
    with pytest.raises(seal.HeadNotSent):
        seal.seal_due(site.node)
    (tmp_path / "far").mkdir()
    seal.seal_due(site.node)
    seal.seal_due(site.node)
    (line,) = (tmp_path / "far" / "heads").read_text().splitlines()
    heads = seal.heads_in(tmp_path / "far" / "heads", "node-1")
    assert heads == {1: json.loads(line)["mac"]}
    assert faults(site.node.engine, site.node.settings.audit, heads) == []
    close_site(site)
