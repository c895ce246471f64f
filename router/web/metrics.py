"""`/metrics`: the node's figures in Prometheus' text format, from the database; no patient attribute among them.

Counts and histograms are of this process: they begin at 0 when it starts and only grow, as Prometheus expects, whatever
retention deletes meanwhile. Each scrape reads the rows that have ended since the one before. Labels are names that a
person has configured, or `other`, so that no sender can make up a label.
"""

import threading
from collections.abc import Collection, Iterator

import pynvml
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from pipelines import catalog
from router import rulebook
from router.db import beats, circuits, durations, revisions
from router.db.durations import Completed, Ended
from router.db.engine import clock, reading
from router.db.revisions import Kind, Revision, UnknownRevision
from router.domain.job import Lane, State
from router.node import Node

SECOND = 1_000_000
OVERLAP = 120 * SECOND
"""A transaction takes its time from the clock before it commits: each scrape looks back so far for late ones."""

OTHER = "other"
BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 12 * 3600, 48 * 3600)


class Names:
    """What labels may say: names in force, read again with each revision."""

    def __init__(self) -> None:
        self.revisions: dict[Kind, int] = {}
        self.sources: frozenset[str] = frozenset()
        self.destinations: frozenset[str] = frozenset()
        self.pipelines: frozenset[str] = frozenset()

    def refresh(self, connection: Connection) -> None:
        """Take up what was imported or installed meanwhile."""
        self.pipelines = frozenset(catalog.names())
        found = self.changed(connection, Kind.SOURCES)
        if found is not None:
            self.sources = frozenset(one.ae_title for one in rulebook.sources(found.body))
        found = self.changed(connection, Kind.DESTINATIONS)
        if found is not None:
            self.destinations = frozenset(one.name for one in rulebook.destinations(found.body))

    def changed(self, connection: Connection, kind: Kind) -> Revision | None:
        """The revision in force where it is another one than before."""
        try:
            found = revisions.current(connection, kind)
        except UnknownRevision:
            return None
        if found.number == self.revisions.get(kind):
            return None
        self.revisions[kind] = found.number
        return found

    def source(self, name: str | None) -> str:
        """The label of a calling AE title."""
        return allowed(name, self.sources)

    def destination(self, name: str | None) -> str:
        """The label of a destination."""
        return allowed(name, self.destinations)

    def pipeline(self, name: str | None) -> str:
        """The label of a pipeline."""
        return allowed(name, self.pipelines)


def allowed(name: str | None, names: Collection[str]) -> str:
    """The name where it is one of these, else `other`."""
    return name if name is not None and name in names else OTHER


class Tally:
    """Histograms and counters of all that has ended since this process began."""

    def __init__(self, registry: CollectorRegistry, names: Names, began: int) -> None:
        self.names, self.began, self.until = names, began, began
        self.counted: dict[tuple[str, int | str, int], int] = {}
        everywhere = ("source", "pipeline", "destination")

        def histogram(name: str, text: str, labels: tuple[str, ...]) -> Histogram:
            return Histogram(f"isocenter_{name}_seconds", text, labels, buckets=BUCKETS, registry=registry)

        self.arrival = histogram(
            "arrival_to_complete", "From the last instance of a study to its completion", ("source",)
        )
        self.start = histogram(
            "complete_to_start", "From the order of a run to the start of its last attempt", ("source", "pipeline")
        )
        self.run = histogram("run", "The last attempt of a run", ("source", "pipeline", "outcome"))
        self.delivery = histogram(
            "result_to_delivered", "From the order of a delivery to its proof at the destination", everywhere
        )
        self.delivered = histogram(
            "complete_to_delivered", "From the order of a run to the proof of its results' delivery", everywhere
        )
        self.jobs = Counter(
            "isocenter_jobs_ended", "Jobs that have ended", ("lane", "state", "outcome"), registry=registry
        )
        self.failures = Counter(
            "isocenter_job_failures",
            "Jobs that have failed, by the kind of problem",
            ("lane", "problem"),
            registry=registry,
        )

    def advance(self, connection: Connection) -> None:
        """Count what has ended since the last call, each end once."""
        since, self.until = max(self.began, self.until - OVERLAP), clock(connection)
        for done in durations.completed(connection, since):
            if self.new(("study", done.study_instance_uid, done.generation), done.completed_at):
                self.completed(done)
        for job in durations.ended(connection, since):
            if self.new(("job", job.id, job.finished_at), job.finished_at):
                self.ended(job)
        late = self.until - OVERLAP
        self.counted = {key: at for key, at in self.counted.items() if at >= late}

    def new(self, key: tuple[str, int | str, int], at: int) -> bool:
        """Whether this end was not counted yet."""
        if key in self.counted:
            return False
        self.counted[key] = at
        return True

    def completed(self, study: Completed) -> None:
        """A study is complete."""
        self.arrival.labels(self.names.source(study.source)).observe(max(0, study.completed_after) / SECOND)

    def ended(self, job: Ended) -> None:
        """A job is over; what was cancelled or superseded took no time that says anything."""
        self.jobs.labels(job.lane, job.state, job.outcome or "none").inc()
        if job.state is State.FAILED:
            self.failures.labels(job.lane, job.problem or "none").inc()
        if job.state is not State.DONE:
            return
        source, pipeline = self.names.source(job.source), self.names.pipeline(job.pipeline)
        if job.lane is Lane.INFER and job.started_at is not None:
            self.start.labels(source, pipeline).observe(max(0, job.started_at - job.created_at) / SECOND)
            self.run.labels(source, pipeline, job.outcome or "none").observe(
                max(0, job.finished_at - job.started_at) / SECOND
            )
        elif job.lane is Lane.DELIVER and job.outcome == "delivered":
            where = source, pipeline, self.names.destination(job.destination)
            self.delivery.labels(*where).observe(max(0, job.finished_at - job.created_at) / SECOND)
            if job.ordered_at is not None:
                self.delivered.labels(*where).observe(max(0, job.finished_at - job.ordered_at) / SECOND)


class Standing(Collector):
    """What stands open at the moment of the scrape."""

    def __init__(self, node: Node, names: Names) -> None:
        self.node, self.names = node, names

    def collect(self) -> Iterator[Metric]:
        """Gauges, from one snapshot of the database, the disk and the devices."""
        with reading(self.node.engine) as connection:
            yield gauge("jobs", "Jobs that are not over, or failed", ("lane", "state"), durations.open_jobs(connection))
            yield gauge("studies", "Studies that are not complete", ("state",), durations.open_studies(connection))
            yield gauge(
                "jobs_retrying", "Jobs that wait for another attempt, by the kind of problem", ("lane", "problem"),
                durations.retrying(connection),
            )  # fmt: skip
            yield gauge(
                "oldest_queued_job_seconds", "How long the oldest queued job of a lane has been due", ("lane",),
                durations.longest_due(connection),
            )  # fmt: skip
            yield gauge("alerts", "Alerts that stand", ("kind",), durations.standing_alerts(connection))
            silent = set(circuits.unreachable(connection))
            good = beats.last_good(connection)
            age = [] if good is None else [(max(0, clock(connection) - good) / SECOND,)]
            yield gauge("heartbeat_age_seconds", "Since the phantom last came back right", (), age)
        yield gauge(
            "destination_answers", "0 while a destination does not answer and deliveries wait for it", ("destination",),
            [(name, float(name not in silent)) for name in sorted(self.names.destinations)],
        )  # fmt: skip
        marks = self.node.settings.storage.marks
        yield gauge("store_free_bytes", "Free space where objects are stored", (), [(self.node.store.free_bytes(),)])
        yield gauge(
            "store_mark_bytes", "Free space below which the node acts", ("mark",),
            [("purge", marks.purge_at), ("refuse", marks.refuse_at), ("reject", marks.reject_at)],
        )  # fmt: skip
        memory = devices()
        for number, kind in enumerate(("used", "total"), 1):
            yield gauge(
                f"device_memory_{kind}_bytes", f"Memory of a device, {kind}", ("device",),
                [(one[0], one[number]) for one in memory],
            )  # fmt: skip


def gauge(
    name: str, text: str, labels: tuple[str, ...], rows: Collection[tuple[str | float, ...]]
) -> GaugeMetricFamily:
    """A gauge with one sample a row: its labels' values, then its own."""
    made = GaugeMetricFamily(f"isocenter_{name}", text, labels=labels)
    for row in rows:
        made.add_metric([str(value) for value in row[:-1]], float(row[-1]))
    return made


def devices() -> list[tuple[str, float, float]]:
    """Number, used and total bytes of each NVIDIA device; none where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = []
        for number in range(pynvml.nvmlDeviceGetCount()):
            memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(number))
            found.append((str(number), float(memory.used), float(memory.total)))
        return found
    finally:
        pynvml.nvmlShutdown()


class Pane:
    """What is scraped."""

    def __init__(self, node: Node) -> None:
        self.node, self.lock = node, threading.Lock()
        self.registry, self.names = CollectorRegistry(), Names()
        with reading(node.engine) as connection:
            began = clock(connection)
        self.tally = Tally(self.registry, self.names, began)
        self.standing = Standing(node, self.names)
        self.registry.register(self.standing)

    def text(self) -> bytes:
        """The page; one scrape at a time."""
        with self.lock:
            with reading(self.node.engine) as connection:
                self.names.refresh(connection)
                self.tally.advance(connection)
            return generate_latest(self.registry)
