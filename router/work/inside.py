"""Inside the resident process: the only place that imports pipelines' hands, and with them torch.

It reads volumes, runs pipelines and builds objects; it knows no database and no socket. Models stay resident between
requests. Whatever nobody foresaw ends the process (what it leaves behind, say a broken CUDA context, must not meet the
next job), and costs one attempt of one job; so does a crash in native code, or the kernel's out-of-memory killer.
"""

import ctypes
import faulthandler
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType

from pydantic import BaseModel

from dicom_sr import kept, kinds, pixels, result_set, source
from dicom_sr.check import GateClosed
from dicom_sr.nouns import Code, Findings
from dicom_sr.problem import Problem
from dicom_sr.source import SourceSeries
from pipelines import catalog, runtime
from router.domain.delivery import MeasurementRow
from router.work.messages import Build, Failure, Found, Objects, Progress, Ready, Recall, Reply, Request, Run

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that comes when whoever started this process is gone."""

UNFORESEEN = 70
"""Exit code after an error that nobody foresaw (EX_SOFTWARE)."""

Say = Callable[[Reply], None]


class Inside:
    """One process's state: the device, and what the last run read and found."""

    def __init__(self, device: str, threads: int, say: Say) -> None:
        self.device = runtime.device(device)
        self.threads = threads or runtime.cores()
        self.say = say
        self.last: tuple[SourceSeries, Findings] | None = None

    def answer(self, request: Request) -> Reply:
        """What comes of one request; Problems are told, not raised."""
        if isinstance(request, Run):
            try:
                return self.run(request)
            except Problem as problem:
                return failure(problem, refused=not problem.retryable)
        try:
            return self.recall(request) if isinstance(request, Recall) else self.build(request)
        except Problem as problem:
            return failure(problem)

    def run(self, request: Run) -> Found:
        """Read the volume, run the pipeline, hold its findings for `build`.

        Raises:  Problem
        """
        self.last = None
        pipeline = catalog.find(request.pipeline)
        settings: BaseModel = pipeline.spec.settings.model_validate(request.settings)
        self.progress("reading", 0.0)
        series = source.read(request.paths, policy=request.policy)
        volume = pixels.load(series, threads=self.threads)
        findings = remarked(pipeline.runner(volume, settings, device=self.device, progress=self.progress), series)
        self.last = series, findings
        return Found(measurements=tuple(rows(findings)), findings=kept.pack(findings, series))

    def recall(self, request: Recall) -> Found:
        """Read the series and its kept findings, and hold them for `build`.

        Raises:  Problem, OSError
        """
        self.last = None
        content = request.findings.read_bytes()
        series = source.read(request.paths, policy=request.policy)
        findings = kept.unpack(content, series)
        self.last = series, findings
        return Found(measurements=tuple(rows(findings)), findings=content)

    def build(self, request: Build) -> Objects:
        """The objects of one result set.

        Raises:  Problem (a gate that closed among them)
        """
        if self.last is None:
            raise ValueError("nothing has been run yet")
        series, findings = self.last
        return Objects(built=result_set.build(request.kinds, request.order(findings, series)))

    def progress(self, phase: str, fraction: float) -> None:
        """Told by the pipeline, passed on to the worker."""
        self.say(Progress(phase=phase, fraction=fraction))


def remarked(findings: Findings, series: SourceSeries) -> Findings:
    """The findings, with what is worth knowing of images that were accepted all the same."""
    said = tuple(f"Of the images: {warning}" for warning in series.warnings) if series.placed else ()
    return replace(findings, remarks=(*findings.remarks, *said))


def rows(findings: Findings) -> Iterator[MeasurementRow]:
    """The numbers of all groups, for lists."""
    number = 0
    for group in findings.groups:
        for one in group.measurements:
            number += 1
            yield MeasurementRow(
                ordinal=number,
                label=group.label,
                name=one.name.meaning,
                value=one.value,
                unit=unit(one.unit),
                remark=one.withheld or one.remark,
            )


def unit(code: Code) -> str:
    """A unit as people write it: UCUM's own symbol, or its meaning where UCUM has only a bracketed one."""
    return code.meaning if set(code.value) & set("[{") else code.value


def failure(problem: Problem, *, refused: bool = False) -> Failure:
    """A Problem as the worker is told it."""
    return Failure(
        name=type(problem).__name__,
        what=problem.what,
        remedy=problem.remedy,
        retryable=problem.retryable,
        refused=refused,
        objects=problem.objects if isinstance(problem, GateClosed) else (),
    )


def main(wire: Connection, device: str, threads: int) -> None:
    """Answer requests, one at a time, until the worker hangs up."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # while it stands still it cannot hear that we hang up
    quiet(wire)
    requests: SimpleQueue[Request] = SimpleQueue()
    threading.Thread(target=listen, args=(wire, requests), daemon=True).start()
    if threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        inside = Inside(device, threads, wire.send)
    except Problem as problem:
        wire.send(replace(failure(problem), fatal=True))
        return
    for kind in kinds.names():
        importlib.import_module(f"{kinds.__name__}.{kind}")
    wire.send(Ready(device=inside.device))
    while True:
        wire.send(inside.answer(requests.get()))


def quiet(wire: Connection) -> None:
    """Live until the worker hangs up, name no patient, and tell of the unforeseen before the end."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # both may reach the whole group; the worker drains, then hangs up
        signal.signal(ignored, signal.SIG_IGN)
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)

    def unforeseen(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        frame = traceback.extract_tb(trace)[-1]
        what = f"{kind.__name__} at {frame.filename}:{frame.lineno} {frame.name}"
        wire.send(
            Failure(
                name=kind.__name__,
                what=what,
                remedy="Another attempt gets a fresh process",
                retryable=True,
                fatal=True,
            )
        )
        os._exit(UNFORESEEN)

    sys.excepthook = unforeseen


def listen(wire: Connection, requests: SimpleQueue[Request]) -> None:
    """Take requests as they come; the worker's end is ours."""
    try:
        while True:
            requests.put(wire.recv())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
