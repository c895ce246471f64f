"""The inference worker: what it costs beside the pipeline, and what a crash costs the others.

`python -m tests.bench.worker` prints a table and JSON. Three questions:

overhead  From the claim to the start of work in the resident process, and from the process's answer to the commit of
          the job's last row; for jobs whose pipeline declines, so that no objects are built between. Goal: 5 ms. The
          commits are durable, so the disk counts: the cost of a bare commit on it is measured in the same rounds.
volume    512 x 512 x 300 slices (157 MB) reach the resident process: bytes that cross the pipe, and seconds until the
          pipeline has weighed the volume, beside a peer that pickles the same array through a pipe.
crashes   50 studies alone, then 50 while one more study kills its process by SIGSEGV at each attempt and one by the
          kernel's out-of-memory killer. Every job ends, each of the 50 with its SEG and SR.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import structlog
from pydicom import Dataset
from sqlalchemy import text

from pipelines import catalog
from router.db.engine import writing
from router.domain.job import Job, Lane, Outcome, State
from router.work import loop
from router.work.infer import serve
from router.work.loop import InHand, Loop
from router.work.messages import Run
from router.work.resident import Resident, Unwatched
from tests.objects.conftest import ct_series
from tests.work import INSIDE, SHELF
from tests.work.site import STUDY, Site, close_site, open_site, running

WEIGHING = (sys.executable, "-m", "tests.bench.weighing")
PACS = {"kind": "folder", "name": "pacs", "path": "/nowhere"}
GOAL_MS = 5.0
STUDIES = 50
SMALL = (24, 128, 128)
FULL = (300, 512, 512)


@contextmanager
def at_a_site(root: Path) -> Iterator[Site]:
    """A node in a folder of its own, with the pipeline of the tests."""
    folder = Path(tempfile.mkdtemp(dir=root))
    site = open_site(folder)
    site.destinations(PACS)
    yield site
    close_site(site)


# ---------------------------------------------------------------- overhead


class Marks:
    """When the worker did what; the product's own methods, with a clock before and after them."""

    def __init__(self) -> None:
        self.claims: list[tuple[float, float]] = []
        self.started: dict[int, float] = {}
        self.answered: dict[int, float] = {}
        self.settled: dict[int, float] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        claim, progress, settle, run = Loop.claim, InHand.progress, Loop.settle, Resident.run
        marks = self

        def claimed(self: Loop, worker: str) -> Job | None:
            begun = time.perf_counter()
            held = claim(self, worker)
            if held is not None:
                marks.claims.append((begun, held.id))
            return held

        def told(self: InHand, phase: str, fraction: float) -> None:
            marks.started.setdefault(self.job.id, time.perf_counter())
            progress(self, phase, fraction)

        def ran(self: Resident, request: Any, watch: Any, *, limit_s: float) -> Any:
            answer = run(self, request, watch, limit_s=limit_s)
            marks.answered[watch.job.id] = time.perf_counter()
            return answer

        def settled(self: Loop, held: Job, ending: Any, took_s: float) -> None:
            settle(self, held, ending, took_s)
            marks.settled[held.id] = time.perf_counter()

        Loop.claim, InHand.progress, Loop.settle, Resident.run = claimed, told, settled, ran  # type: ignore
        try:
            yield
        finally:
            Loop.claim, InHand.progress, Loop.settle, Resident.run = claim, progress, settle, run  # type: ignore

    def overheads_ms(self, jobs: list[int]) -> tuple[list[float], list[float]]:
        """From the claim to the start, and from the answer to the last commit, of these jobs."""
        begun = {job_id: at for at, job_id in self.claims}
        starts = [1000 * (self.started[one] - begun[one]) for one in jobs]
        acks = [1000 * (self.settled[one] - self.answered[one]) for one in jobs]
        return starts, acks


def commit_ms(site: Site, times: int = 50) -> float:
    """A bare durable commit of one changed row on the same database."""
    took = []
    for number in range(times):
        begun = time.perf_counter()
        with writing(site.node.engine) as connection:
            connection.execute(text("UPDATE study SET generation = generation + :n - :n"), {"n": number})
        took.append(1000 * (time.perf_counter() - begun))
    return median(took)


def overhead(root: Path, jobs: int) -> dict[str, float]:
    """Medians over some jobs that come one after the other; the first two, which warm up, are left out."""
    marks = Marks()
    with at_a_site(root) as site:
        site.receive()
        with marks.watching(), running(site, Lane.INFER, partial(serve, inside=INSIDE)):
            done = []
            for number in range(jobs + 2):
                done.append(site.decide("pacs", rule=f"rule {number}", mood="declines", number=number))
                site.node.bell.ring(Lane.INFER)
                assert site.ended(done[-1]).outcome is Outcome.REFUSED
        bare = commit_ms(site)
    starts, acks = marks.overheads_ms(done[2:])
    return {
        "claim_to_start_ms": round(median(starts), 2),
        "answer_to_ack_ms": round(median(acks), 2),
        "overhead_ms": round(median(a + b for a, b in zip(starts, acks, strict=True)), 2),
        "bare_commit_ms": round(bare, 2),
    }


# ---------------------------------------------------------------- volume


def peer(wire: Connection) -> None:
    """Takes an array by pickle and sends its weight back."""
    array = wire.recv()
    wire.send(f"{array.nbytes} bytes, sum {int(array.sum(dtype=np.int64))}")


def volume(root: Path) -> dict[str, float]:
    """The volume in the resident process by our way, and by pickle through a pipe from a process that has read it."""
    from dicom_sr import pixels, source

    paths = tuple(ct_series(root / "full", shape=FULL))
    request = Run(paths=paths, pipeline="weigher", settings={})
    with Resident(device="cpu", threads=0, command=WEIGHING) as resident:
        resident.start()
        took = []
        for _ in range(3):
            begun = time.perf_counter()
            ours = resident.run(request, Unwatched(), limit_s=300)
            took.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    array = pixels.load(source.read(paths)).array
    read_s = time.perf_counter() - begun
    near, far = Pipe()
    process = Process(target=peer, args=(far,))
    process.start()
    begun = time.perf_counter()
    near.send(array)
    theirs = near.recv()
    pickled_s = time.perf_counter() - begun
    process.join()
    assert getattr(ours, "what", None) == theirs, (ours, theirs)
    return {
        "volume_mb": round(array.nbytes / 1e6, 1),
        "pipe_bytes": len(ForkingPickler.dumps(request)),
        "pickled_bytes": len(ForkingPickler.dumps(array)),
        "to_the_pipeline_s": round(median(took), 3),
        "read_then_pickled_s": round(read_s + pickled_s, 3),
    }


# ---------------------------------------------------------------- crashes


def of_study(number: int) -> Any:
    def change(slice_: Dataset, index: int) -> None:
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = f"{STUDY}.{number}", f"1.2.3.{number}"
        slice_.SOPInstanceUID = f"1.2.3.{number}.{index}"

    return change


def round_of(root: Path, bad: tuple[str, ...]) -> dict[str, Any]:
    """50 studies, with as many bad ones in their middle as named: when each ended, and how."""
    with at_a_site(root) as site:
        site.receive()
        usual, broken = [], []
        for number in range(STUDIES + len(bad)):
            site.receive(change=of_study(number), shape=SMALL)
            where = {"study": f"{STUDY}.{number}", "series": f"1.2.3.{number}"}
            place = number - STUDIES // 2
            if 0 <= place < len(bad):
                broken.append(site.decide("pacs", mood=bad[place], **where))
            else:
                usual.append(site.decide("pacs", **where))
        ended: dict[int, float] = {}
        settle = Loop.settle

        def settled(self: Loop, held: Job, ending: Any, took_s: float) -> None:
            settle(self, held, ending, took_s)
            ended[held.id] = time.perf_counter()

        Loop.settle = settled  # type: ignore[method-assign]
        try:
            begun = time.perf_counter()
            with running(site, Lane.INFER, partial(serve, inside=INSIDE)):
                for job_id in (*usual, *broken):
                    site.ended(job_id, deadline_s=300)
        finally:
            Loop.settle = settle  # type: ignore[method-assign]
        for job_id in usual:
            assert site.job(job_id).outcome is Outcome.RESULT
            assert [one.kind for one in site.results(job_id)] == ["segmentation", "measurement_report"]
        for job_id in broken:
            job = site.job(job_id)
            assert (job.state, job.attempt, job.problem) == (State.FAILED, 3, "ProcessDied"), job
        times = sorted(ended[job_id] for job_id in usual)
    gaps = np.diff([begun, *times])
    return {"all_s": times[-1] - begun, "usual_s": float(np.median(gaps)), "ended": len(usual) + len(broken)}


def crashes(root: Path) -> dict[str, float]:
    """Both rounds, and how they compare."""
    alone = round_of(root, ())
    beside = round_of(root, ("segfaults", "out_of_memory"))
    return {
        "studies_alone_s": round(alone["all_s"], 2),
        "studies_beside_crashes_s": round(beside["all_s"], 2),
        "ratio": round(beside["all_s"] / alone["all_s"], 2),
        "one_study_alone_ms": round(1000 * alone["usual_s"], 1),
        "one_study_beside_ms": round(1000 * beside["usual_s"], 1),
        "jobs": STUDIES + 2,
        "jobs_lost": STUDIES + 2 - beside["ended"],
    }


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    asked.add_argument("--jobs", type=int, default=60, help="jobs of which the overhead is measured")
    asked.add_argument("--only", choices=("overhead", "volume", "crashes"), help="one question")
    asked.add_argument("--folder", type=Path, help="where database and files lie; by default a temporary folder")
    given = asked.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    catalog.__path__ = [*catalog.__path__, SHELF]
    loop.SAFETY_NET_S = 1.0
    questions = {"overhead": lambda r: overhead(r, given.jobs), "volume": volume, "crashes": crashes}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = {name: ask(Path(folder)) for name, ask in questions.items() if given.only in (None, name)}
    for name, figures in found.items():
        for key, value in figures.items():
            goal = f"   goal: {GOAL_MS:g}" if key == "overhead_ms" else ""
            print(f"{name:10} {key:28} {value:>14g}{goal}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
