"""A phantom of known volume goes from door to door; a stage that is broken is named, and nothing of it stays."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation
from sqlalchemy import select, update

from pipelines import catalog, phantom_beat
from router.db import alerts, beats, durations, jobs, pauses, revisions, studies
from router.db.engine import now, reading, writing
from router.db.revisions import Kind
from router.db.tables import beat, decision, job
from router.domain import heartbeat as domain
from router.domain.heartbeat import AE_TITLE, DESTINATION, KIND, Seen, Stage
from router.domain.job import Lane, State
from router.ingest import listener
from router.work import assemble, deliver, heartbeat, infer
from tests.conftest import until
from tests.ingest.conftest import listening
from tests.servers import free_port
from tests.work.site import Site, close_site, open_site, running

EVERYTHING = {"name": "all", "when": {"Modality": "CT"}, "pipelines": ["ct_bone"], "destinations": ["pacs"]}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A node of which no role runs yet, whose own rule would send every CT to its PACS."""
    made = open_site(
        tmp_path,
        listener={"host": "127.0.0.1", "port": free_port()},
        heartbeat={"folder": tmp_path / "beats", "deadline_s": 3600},
    )
    with writing(made.node.engine) as connection:
        revisions.add(connection, Kind.SOURCES, [], author="test")
        revisions.add(connection, Kind.RULES, [EVERYTHING], author="test")
    made.destinations({"name": "pacs", "kind": "folder", "path": str(tmp_path / "pacs")})
    yield made
    close_site(made)


class Cycles:
    """Cycles on one node, driven by hand: the clock is the test's."""

    def __init__(self, site: Site) -> None:
        self.site, self.node = site, site.node
        self.uid = ""

    def begin(self) -> None:
        self.uid = heartbeat.ask(self.node, asked_by="test") or ""
        assert self.uid

    def jobs(self, lane: Lane) -> list[Any]:
        with reading(self.node.engine) as connection:
            return jobs.list_(connection, study_instance_uid=self.uid, lane=lane)

    def beat(self) -> beats.Beat:
        with reading(self.node.engine) as connection:
            return next(one for one in beats.list_(connection) if one.study_instance_uid == self.uid)

    def standing(self) -> list[str]:
        with reading(self.node.engine) as connection:
            return [one.subject for one in alerts.list_(connection) if one.kind == KIND]

    def breaks(self, reached: Callable[[], object], what: str) -> str | None:
        """A cycle that gets as far as this, and whose time is over then; the stage that is named."""
        self.begin()

        def step() -> object:
            heartbeat.step(self.node)
            return reached()

        until(step, what=what)
        assert self.beat().ended_at is None, "its time is not over yet"
        heartbeat.step(self.node, at=self.beat().deadline_at)
        ended = self.beat()
        assert self.standing() == [ended.stage]
        return ended.stage

    def sent(self) -> bool:
        return self.beat().sent_at is not None

    def done(self, lane: Lane) -> bool:
        return any(one.state is State.DONE for one in self.jobs(lane))


@pytest.mark.long
def test_a_broken_stage_is_named_and_a_whole_node_gives_the_number_back(site: Site, tmp_path: Path) -> None:
    node, cycles, beats_folder = site.node, Cycles(site), tmp_path / "beats"
    catalog.own.cache_clear()
    with ExitStack() as roles:

        def start(name: Any, serve: Any) -> None:
            roles.enter_context(running(site, name, serve))

        assert cycles.breaks(lambda: True, "a try") == Stage.LISTEN

        start("listen", listener.serve)
        assert cycles.breaks(cycles.sent, "the slices' arrival") == Stage.DECIDE

        start("decide", assemble.serve)
        assert cycles.breaks(lambda: cycles.jobs(Lane.INFER), "a job") == Stage.INFER

        start(Lane.INFER, infer.serve)
        cycles.begin()
        until(lambda: heartbeat.step(node) or cycles.jobs(Lane.DELIVER), deadline_s=180, what="a result")
        with reading(node.engine) as connection:
            told = connection.execute(select(decision).where(decision.c.study_instance_uid == cycles.uid)).all()
            assert [(one.rule, one.destinations) for one in told] == [("heartbeat", [DESTINATION])], "no rule in force"
            assert list(durations.ended(connection, 0)) == list(durations.completed(connection, 0)) == []
            assert list(studies.past(connection, 0, ["Modality"])) == []
            assert pauses.of_sender(connection, AE_TITLE) == []
            assert jobs.durations(connection) == {}
        heartbeat.step(node, at=cycles.beat().deadline_at)
        assert (cycles.beat().stage, cycles.standing()) == (Stage.DELIVER, [Stage.DELIVER])

        start(Lane.DELIVER, deliver.serve)
        until(lambda: heartbeat.step(node) or not beats_folder.exists() or not any(beats_folder.iterdir()), what="room")
        beats_folder.rmdir()
        beats_folder.write_text("no folder")
        failed = lambda: any(one.problem for one in cycles.jobs(Lane.DELIVER))  # noqa: E731
        assert cycles.breaks(failed, "a failed delivery") == Stage.DESTINATION
        beats_folder.unlink()

        cycles.begin()
        heartbeat.step(node)
        until(lambda: cycles.done(Lane.DELIVER), what="a delivery")
        falsify(beats_folder)
        heartbeat.step(node)
        assert (cycles.beat().stage, cycles.standing()) == (Stage.NUMBER, [Stage.NUMBER]), "at once"

        cycles.begin()
        until(lambda: heartbeat.step(node) or cycles.beat().ended_at, what="a whole cycle")
        good = cycles.beat()
        assert (good.stage, good.what) == (None, None)
        assert good.volume_ml == pytest.approx(phantom_beat.volume_ml())
        assert cycles.standing() == []
        with reading(node.engine) as connection:
            assert studies.find(connection, cycles.uid) is None
            assert cycles.jobs(Lane.INFER) == []
    with writing(node.engine) as connection:  # cancelled jobs wait until their workers must know it
        connection.execute(update(job).values(finished_at=now() - 3600 * 1_000_000))
    heartbeat.step(node)
    with reading(node.engine) as connection:
        assert beats.phantoms(connection) == []
        assert connection.execute(select(job.c.id)).all() == connection.execute(select(decision.c.id)).all() == []
    assert [path for path in node.store.root.rglob("*") if path.is_file()] == []
    assert list(beats_folder.iterdir()) == []
    assert not (tmp_path / "pacs").exists()


def falsify(folder: Path) -> None:
    """Another number in the report that was delivered."""
    (path,) = [path for path in folder.glob("*.dcm") if dcmread(path, specific_tags=["Modality"]).Modality == "SR"]
    report = dcmread(path)

    def walk(item: Dataset) -> None:
        for content in item.get("ContentSequence", ()):
            if content.ValueType == "NUM" and content.ConceptNameCodeSequence[0].CodeMeaning == "Volume":
                content.MeasuredValueSequence[0].NumericValue = 80
            walk(content)

    walk(report)
    report.save_as(path)


def test_the_timetable_begins_a_cycle_once(tmp_path: Path) -> None:
    site = open_site(
        tmp_path,
        listener={"host": "127.0.0.1", "port": free_port()},
        heartbeat={"folder": tmp_path / "beats", "every_min": 10, "deadline_s": 60},
    )
    minute = 60 * 1_000_000
    begun = now()
    for minutes in (0, 1, 5, 9, 12):  # nobody listens: each cycle ends at its deadline, and is told
        heartbeat.step(site.node, at=begun + minutes * minute)
    with reading(site.node.engine) as connection:
        found = beats.list_(connection)
        assert [one.asked_by for one in found] == ["timetable"] * 2
        (standing,) = alerts.list_(connection)
        assert (standing.subject, standing.times) == (Stage.LISTEN, 2), "one alert stands, however often it is raised"
    close_site(site)


def identity(passcode: str) -> UserIdentityNegotiation:
    made = UserIdentityNegotiation()
    made.user_identity_type = 2
    made.primary_field, made.secondary_field = AE_TITLE.encode(), passcode.encode()
    return made


def test_only_the_node_itself_may_send_the_phantom(tmp_path: Path) -> None:
    with listening(tmp_path) as door:
        door.accept({"ae_title": AE_TITLE, "addresses": ["any"], "services": ["store"]})

        def comes_in(*negotiation: UserIdentityNegotiation) -> bool:
            ae = AE(ae_title=AE_TITLE)
            ae.add_requested_context(CTImageStorage)
            association = ae.associate("127.0.0.1", door.port, ae_title="ISOCENTER", ext_neg=list(negotiation))
            if association.is_established:
                association.release()
                return True
            return False

        assert not comes_in(), "whatever the sources say"
        with writing(door.node.engine) as connection:
            beats.begin(connection, "1.2.3", asked_by="test", folder=tmp_path, deadline_s=60)
            beats.admit(connection, "1.2.3", "a secret of this cycle")
        assert not comes_in(identity("another"))
        assert comes_in(identity("a secret of this cycle"))
        with writing(door.node.engine) as connection:
            beats.end(connection, "1.2.3", stage=None, what=None, volume_ml=1.0)
        assert not comes_in(identity("a secret of this cycle")), "its cycle is over"


@pytest.mark.parametrize("came_back", [math.nan, 0.0, 90.0, 100.0 / 1.02])
def test_a_number_that_is_not_right_is_wrong(site: Site, came_back: float) -> None:
    run, sent = site.decide("x"), None
    with writing(site.node.engine) as connection:
        held = jobs.claim(connection, Lane.INFER, "test", 60)
        assert held is not None
        jobs.finish(connection, held, domain.Outcome.RESULT)
        jobs.add_delivery(
            connection, study_instance_uid=held.study_instance_uid, generation=1, result_set_id=1, destination="x",
            priority=1, max_attempts=1,
        )  # fmt: skip
        sent = jobs.claim(connection, Lane.DELIVER, "test", 60)
        assert sent is not None
        jobs.finish(connection, sent, domain.Outcome.DELIVERED)
    queue = [site.job(run), site.job(sent.id)]
    seen = Seen(sent=True, instances=3, held=None, jobs=queue, came_back=came_back)
    found = domain.stands(seen, slices=3, volume_ml=100.0)
    assert found is not None
    assert found.stage is Stage.NUMBER
    right = Seen(sent=True, instances=3, held=None, jobs=queue, came_back=100.01)
    assert domain.stands(right, slices=3, volume_ml=100.0) is None


def test_what_is_told_of_old_cycles_ends(site: Site) -> None:
    heartbeat.ask(site.node, asked_by="test")
    with writing(site.node.engine) as connection:
        long_ago = now() - heartbeat.KEEP - 1
        connection.execute(update(beat).values(began_at=long_ago, ended_at=long_ago))
    heartbeat.ask(site.node, asked_by="test")
    with reading(site.node.engine) as connection:
        assert len(beats.list_(connection)) == 1
