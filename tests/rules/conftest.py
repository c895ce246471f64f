"""A node with an empty database and a small catalogue of its own, and instances as the door would index them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from pipelines import catalog
from router.config import Settings, absolute
from router.db import associations, instances, revisions, studies
from router.db.engine import connect, now, reading, writing
from router.db.migrate import upgrade
from router.db.revisions import Kind
from router.db.tables import audit
from router.domain.job import Job
from router.domain.study import Study
from router.node import Node
from router.store import Store
from router.wake import Bell
from router.work.assemble import turn
from router.work.count import Counter
from router.work.plan import Book

STUDY = "1.2.3"
RULE: dict[str, Any] = {
    "name": "chest",
    "when": {"all": [{"Modality": "CT"}, {"StudyDescription": {"matches": "(?i)chest"}}]},
    "pipelines": ["always_one"],
    "destinations": ["pacs"],
}


@dataclass
class Site:
    """One node, driven by hand: `decide` is one turn of the role."""

    node: Node
    book: Book = field(default_factory=Book)

    def rules(self, *rules: dict[str, Any]) -> None:
        with writing(self.node.engine) as connection:
            revisions.add(connection, Kind.RULES, list(rules), author="test")

    def receive(
        self,
        count: int = 3,
        *,
        first: int = 1,
        study: str = STUDY,
        series: str = "1.2.3.1",
        pixels: str = "",
        at: int | None = None,
        association: str | None = None,
        digested: bool = True,
        ours: bool = False,
        **header: Any,
    ) -> list[instances.Arrival]:
        """Index `count` slices that arrived now."""
        at = now() if at is None else at
        arrivals = []
        for number in range(first, first + count):
            uid = f"{series}.{number}"
            facts = {
                "SOPInstanceUID": uid, "Modality": "CT", "StudyDescription": "Chest", "PatientID": "7",
                "PatientName": "SECRET^PATIENT", "InstanceNumber": number, "SliceThickness": 1.0,
                "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "ImagePositionPatient": [0.0, 0.0, float(number)],
                "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            } | header  # fmt: skip
            arrivals.append(
                instances.Arrival(
                    sop_instance_uid=uid,
                    sop_class_uid=str(facts["SOPClassUID"]),
                    study_instance_uid=study,
                    series_instance_uid=series,
                    transfer_syntax_uid="1.2.840.10008.1.2.1",
                    path=f"instances/{study}.{uid}.{pixels}.{at}",
                    size=1,
                    pixel_offset=None,
                    pixel_length=None,
                    header=facts,
                    identity_digest="identity",
                    ours=ours,
                    association_id=association,
                    calling_ae_title="SCANNER",
                    received_at=at,
                    dataset_digest=f"{uid}{pixels}" if digested else None,
                    pixel_digest=f"{uid}{pixels}" if digested else None,
                )
            )
        with writing(self.node.engine) as connection:
            instances.record_new(connection, arrivals)
        return arrivals

    def connect(self, name: str = "a") -> None:
        with writing(self.node.engine) as connection:
            associations.opened(
                connection,
                associations.Association(
                    id=name,
                    calling_ae_title="SCANNER",
                    called_ae_title="ISOCENTER",
                    address="127.0.0.1",
                    listener="1",
                    opened_at=now(),
                ),
            )

    def disconnect(self, name: str = "a", *, study: str = STUDY) -> None:
        with writing(self.node.engine) as connection:
            ending = associations.Ending.RELEASE
            associations.closed(connection, name, ending=ending, instances=1, studies={study: 1}, at=now())

    def decide(self) -> float:
        counter = Counter(self.node)
        try:
            return turn(self.node, self.book, counter)
        finally:
            counter.close()

    def study(self, uid: str = STUDY) -> Study:
        with reading(self.node.engine) as connection:
            found = studies.find(connection, uid)
        assert found is not None
        return found

    def jobs(self) -> list[Job]:
        from router.db import jobs

        with reading(self.node.engine) as connection:
            return jobs.list_(connection)[::-1]

    def acts(self) -> list[str]:
        with reading(self.node.engine) as connection:
            return list(connection.execute(select(audit.c.act).order_by(audit.c.id)).scalars())


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The catalogue also lists the folder beside these tests."""
    monkeypatch.setattr(catalog, "__path__", [*catalog.__path__, str(Path(__file__).parent / "catalog")])
    catalog.own.cache_clear()
    yield
    catalog.own.cache_clear()


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, shelf: None) -> Iterator[MakeSite]:
    """Makes a node whose studies are complete after this much silence."""
    made: list[Site] = []

    def make(*rules: dict[str, Any], quiet_period_s: float = 0.0, deadline_s: float = 3600.0) -> Site:
        written = Settings.model_validate(
            {"completeness": {"quiet_period_s": quiet_period_s, "deadline_s": deadline_s}}
        )
        settings = absolute(written, tmp_path)
        engine = connect(settings.database.url)
        upgrade(engine)
        node = Node(
            node_id="node",
            settings=settings,
            engine=engine,
            store=Store(settings.storage.path),
            bell=Bell(settings.run_path / "wake"),
        )
        site = Site(node)
        made.append(site)
        with writing(engine) as connection:
            revisions.add(connection, Kind.SOURCES, [], author="test")
        site.rules(*(rules or (RULE,)))
        return site

    yield make
    for site in made:
        site.node.engine.dispose()
